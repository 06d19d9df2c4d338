"""The observed surroundings of a FineTuneJob."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hone_operator.desired.core import names
from hone_operator.progress.numbers import Latest
from hone_operator.reconcile.core.line import Line
from hone_operator.reconcile.core.outcome import Refusal
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.core.upstream import Upstream
from hone_operator.reconcile.staging.encoding import ObservedEncoding
from hone_operator.reconcile.staging.staging import StoreState


@dataclass(frozen=True)
class Observed:
    """Everything that the decision depends on in addition to the FineTuneJob itself."""

    datasets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Datasets by name; missing ones are absent."""
    similar: Mapping[str, str] = field(default_factory=dict)
    """The name of an existing Dataset for that of a missing one, where two names are alike."""
    jobs: Sequence[ObservedJob] = ()
    """Child Jobs, owned by exactly this object."""
    report: Latest | None = None
    """The newest report of the job's pods."""
    store: StoreState = field(default_factory=StoreState)
    """Where the base model and the data sets of evaluation.harness are staged."""
    encoder: ObservedEncoding | None = None
    """The shared Job that encodes the rows; None: not observed, see `Outcome.look`."""
    claim_exists: bool | None = None
    """Whether the claim of a pvc:// model exists; None: not checked, because it is not needed now."""
    upstream: Upstream = field(default_factory=Upstream)
    ledger: Mapping[str, Any] | None = None
    versions: Sequence[Mapping[str, Any]] = ()
    """ModelVersions of the namespace; read, with the ledger, only if a run has just succeeded."""
    last_version: int = 0
    """The last number of the Model, by its status."""
    model_missing: bool = False
    """Whether no Model has the name that the job gives its model."""
    made: Mapping[str, Any] | None = None
    """The ModelVersion that this run has already made."""
    differs: str | None = None
    """Why a restored object does not start; None: it may."""
    refusals: Sequence[Refusal] = ()
    """What the API server refused when this decision was carried out a moment ago."""
    stopping: int | None = None
    """Running pods of the last attempt if somebody deleted its Job; None: the Job exists."""
    stranded: Sequence[str] = ()
    """Names of its other pods, which can never start because their plan is also gone."""
    orphaned: Sequence[str] = ()
    """Names of the running pods that no controller ends."""
    line: Line | None = None
    """Place in the line of the namespace; None: the job trains, or none has to wait."""
    network_lost: bool = False
    """Whether the Service or the NetworkPolicy of the running attempt's ranks was deleted."""
    network_left: Sequence[Mapping[str, Any]] = ()
    """Service and NetworkPolicy of attempts that have ended."""


def of_component(jobs: Sequence[ObservedJob], component: str) -> list[ObservedJob]:
    """The Jobs of one component."""
    return [j for j in jobs if j.body["metadata"].get("labels", {}).get(names.COMPONENT) == component]
