"""What an attempt of a FineTuneJob is made from: its inputs, its image, its ranks, its labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hone_api.estimate import job_needs
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.kinds.modelversion import Ancestor
from hone_api.kinds.resolved import Resolved
from hone_operator.desired.core import names
from hone_operator.desired.core.platform import Platform


@dataclass(frozen=True)
class AttemptInputs:
    """The inputs of an attempt, in addition to the owner's spec."""

    owner: Mapping[str, Any]
    spec: FineTuneJobSpec
    number: int
    resolved: Resolved
    ancestors: list[Ancestor] = field(default_factory=list)
    """Earlier stages of the chain."""
    failure_interval: int | None = None
    """Seconds between failures without notice, as far as earlier attempts show it."""
    micro_batch_limit: int | None = None
    """Most rows of a forward pass, where an earlier attempt ran out of memory."""
    learning_rate_halvings: int | None = None
    """How often the rate was halved after a loss that diverged; None: such a loss ends the run."""
    avoided_nodes: Sequence[str] = ()
    """Names of nodes that the scheduler uses only if no other node fits."""
    pods: int | None = None
    """How many, where a run can have fewer than the spec asks for; None: that many."""

    @property
    def nodes(self) -> int:
        """Number of pods."""
        return self.pods or self.spec.resources.nodes

    @property
    def name(self) -> str:
        return names.attempt(self.owner["metadata"]["name"], self.number)


WHERE_IT_RUNS = {
    "resources",
    "pod",
    "scheduling",
    "restarts",
    "deadline",
    "budget",
    "cleanup",
    "suspend",
    "submitted_by",
}
"""Fields of a spec that say where and how long a run may run, and not what it makes: a restore may adapt them."""


def spec_digest(spec: FineTuneJobSpec) -> str:
    """SHA-256 of what the user's spec says about the result; a changed default does not change it."""
    fields = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=WHERE_IT_RUNS)
    return f"sha256:{names.digest(fields, length=64)}"


def spec_digest_before(spec: FineTuneJobSpec) -> str:
    """The digest that earlier versions recorded, of all fields that cannot be changed."""
    fields = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"suspend", "cleanup"})
    scheduling = {k: v for k, v in fields.pop("scheduling", {}).items() if k != "priorityClassName"}
    for toleration in scheduling.get("tolerations") or ():
        if toleration.get("operator") == "Equal":  # was a default
            del toleration["operator"]
    fields |= {"scheduling": scheduling} if scheduling else {}
    return f"sha256:{names.digest(fields, length=64)}"


def image(spec: FineTuneJobSpec, platform: Platform) -> str:
    """Image of the pods that train; empty if this installation has none that can."""
    return platform.trainer.vllm_image if spec.grpo and spec.grpo.generation.is_colocated else platform.trainer.image


def world_size(spec: FineTuneJobSpec, nodes: int | None = None) -> int:
    """Ranks of an attempt with this number of nodes; default: all that the spec asks for."""
    return (nodes or spec.resources.nodes) * job_needs.processes_per_node(spec)


def attempt_labels(owner: Mapping[str, Any], number: int) -> dict[str, str]:
    """Labels of everything that belongs to an attempt."""
    return names.labels("training", owner, **{names.ATTEMPT: str(number), names.RUN: owner["metadata"]["uid"]})
