"""What must be there before the first attempt of a FineTuneJob: Datasets, models, tasks, encoded rows."""

from dataclasses import dataclass, replace

from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.kinds.resolved import Resolved
from hone_api.words.states import ConditionType, Reason
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.run.attempt import AttemptInputs, image, world_size
from hone_operator.reconcile.core.conditions import condition
from hone_operator.reconcile.core.failures import Cause
from hone_operator.reconcile.core.outcome_builder import JobBuilder
from hone_operator.reconcile.gates import attempt_inputs, forecast
from hone_operator.reconcile.gates.basemodel import BaseModel, Sources, base_model
from hone_operator.reconcile.gates.tasks import EvaluationTasks, evaluation_tasks
from hone_operator.reconcile.staging import encoding, inputs
from hone_operator.reconcile.staging.observed import Observed, of_component
from hone_operator.reconcile.staging.staging import StoreState

UNKNOWN = Reason.NOT_KNOWN_YET


@dataclass(frozen=True)
class Gates:
    """What each gate has come to."""

    datasets: bool
    model: BaseModel
    tasks: EvaluationTasks
    rows: encoding.Rows

    @property
    def failure(self) -> Cause | None:
        """Final: another try cannot help."""
        return self.model.failure or self.tasks.failure or self.rows.failure

    @property
    def closed(self) -> ConditionType | None:
        """The condition of the first gate that is closed; None: the run can start."""
        if not self.datasets:
            return ConditionType.DATASET_READY
        if not self.model.ready:
            return ConditionType.MODEL_READY
        if not self.tasks.ready:
            return ConditionType.TASKS_READY
        return None if self.rows.ready else ConditionType.ROWS_ENCODED


class GateKeeper:
    """Sets the conditions of the gates in one decision. Once an attempt exists, what it pinned counts alone."""

    def __init__(
        self, builder: JobBuilder, spec: FineTuneJobSpec, seen: Observed, platform: Platform, *, begun: bool
    ) -> None:
        """
        Args:
            begun: whether an attempt exists.
        """
        self.builder, self.spec, self.seen, self.platform, self.begun = builder, spec, seen, platform, begun
        self.conditions = builder.conditions
        self.training = of_component(seen.jobs, "training")
        self.pinned = attempt_inputs.resolved_inputs(spec, self.training, builder.old)
        """What the newest attempt was resolved to, if a record can be used."""

    def check(self) -> Gates:
        """Set the conditions, and ask for the Jobs that are due."""
        pinned = self.pinned if self.begun else None
        store = self._held(self.seen.store)
        datasets = self._datasets(pinned)
        sources = Sources(store, self.seen.claim_exists, self.seen.upstream, pinned, self._first(datasets))
        model = base_model(self.builder, self.spec, sources, self.platform)
        tasks = evaluation_tasks(self.builder, self.spec, store, pinned, self.platform)
        gates = Gates(datasets, model, tasks, encoding.Rows())
        return replace(gates, rows=self._rows(gates, pinned))

    def _first(self, datasets: bool) -> AttemptInputs | None:
        """The first attempt as far as its rows are known; None: they are not."""
        if self.begun or not datasets:
            return None
        digests, held_out = (
            inputs.digests(self.spec, self.seen.datasets),
            inputs.held_out(self.spec, self.seen.datasets),
        )
        resolved = Resolved(dataset_digests=digests, evaluation_datasets=held_out)
        return AttemptInputs(self.builder.body, self.spec, 1, resolved)

    def resolved(self, gates: Gates) -> Resolved:
        """The resolved inputs of the newest attempt; for the first attempt, the objects that are Ready now."""
        if self.pinned:
            return self.pinned
        spec, model = self.spec, gates.model
        return Resolved(
            model_commit=model.commit,
            model_uri=model.uri,
            model_digest=model.digest,
            model_shape=model.shape,
            model_license=model.license,
            model_version=model.version,
            model_versions=list(model.others) or None,
            compared_with=model.compared_with,
            dataset_digests=inputs.digests(spec, self.seen.datasets),
            dataset_licenses=inputs.licences(spec, self.seen.datasets) or None,
            evaluation_datasets=inputs.held_out(spec, self.seen.datasets),
            evaluation_tasks=gates.tasks.staged,
            encoded_rows=gates.rows.encoded,
            world_size=world_size(spec),
            image=image(spec, self.platform),
        )

    def attempt(self, number: int, resolved: Resolved, gates: Gates) -> AttemptInputs:
        """The attempt with this number, and the chain that its base came from."""
        ancestors = attempt_inputs.ancestors(self.training) or gates.model.ancestors
        return AttemptInputs(self.builder.body, self.spec, number, resolved, ancestors)

    def look_ahead(self, gates: Gates) -> Cause | None:
        """Set conditions Advised and Accepted: once data and model are known, so are the needs of the run."""
        advised = condition(self.builder.body, ConditionType.ADVISED).get("reason", UNKNOWN)
        if (self.begun and advised != UNKNOWN) or not (gates.datasets and gates.model.ready):
            self.conditions.keep(ConditionType.ADVISED, UNKNOWN)
            return None
        misfit = forecast.look_ahead(self.builder, self.spec, gates.model, self.seen.datasets)
        if self.begun:  # the Job of attempt 1 was created, and the operator ended before it recorded this
            return None
        if misfit:
            self.conditions.set(ConditionType.ACCEPTED, False, misfit.code, misfit.message)
        return misfit

    def _datasets(self, pinned: Resolved | None) -> bool:
        """Set condition DatasetReady: every Dataset is Ready, or was when an attempt pinned its digest."""
        problem = None if pinned else inputs.find_problem(self.spec, self.seen.datasets, self.seen.similar)
        if problem:
            self.conditions.set(ConditionType.DATASET_READY, False, *problem)
            return False
        self.conditions.set(ConditionType.DATASET_READY, True, Reason.READY, "")
        return True

    def _rows(self, gates: Gates, pinned: Resolved | None) -> encoding.Rows:
        """Set condition RowsEncoded if a Job encodes the rows."""
        if pinned:
            return encoding.pinned_rows(self.builder, pinned)
        if not (gates.datasets and gates.model.ready):
            return encoding.Rows()
        encoder = self.seen.encoder and replace(self.seen.encoder, stage=self._held(self.seen.encoder.stage))
        first = self.attempt(1, self.resolved(gates), gates)
        return encoding.prepare_rows(self.builder, first, self.seen.datasets, encoder, self.platform)

    def _held(self, store: StoreState) -> StoreState:
        seen = self.seen
        return replace(store, refusals=seen.refusals, hold=inputs.hold(self.spec, seen.datasets, seen.similar))
