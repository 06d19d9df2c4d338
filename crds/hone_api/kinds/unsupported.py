"""Fields that the API describes but this version does not run: one table for API server, docs and operator.

Each entry becomes a CEL rule that refuses new objects, the words "Not supported yet:" in front of the field's
description, and the operator's check. The rules are asked of new objects only: these fields never change, so an object
that has one was stored under a definition without the rule, and its status and its other fields can still be written.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from hone_api.base.cel import evaluate
from hone_api.base.rule import UNQUOTED, Rule
from hone_api.base.schemes import Use, in_words, pattern_for

if TYPE_CHECKING:
    from hone_api.kinds.finetunejob import FineTuneJobSpec


@dataclass(frozen=True)
class Unsupported:
    """One field, or one use of a field, that is refused until it is built."""

    path: str
    """The field, below spec, as it is written in a manifest."""
    what: str
    """What is refused, for people."""
    instead: str
    """What to do until it is supported."""
    cel: str
    """A CEL expression over spec, true where it is asked for."""
    whole: bool = True
    """Whether every use of the field is refused."""

    @property
    def message(self) -> str:
        """What is not supported, and the way out."""
        return f"{self.what} is not supported yet: {self.instead}"

    def rule(self) -> Rule:
        """A rule on spec that refuses a new object."""
        path = f".{self.path}"
        return Rule(f"!({self.cel})", self.message, field_path=path, reason=UNQUOTED).at_creation()


def _field(path: str, instead: str) -> Unsupported:
    """A field that nothing reads."""
    cel = " && ".join(f"has(self.{step})" for step in accumulate(path.split("."), "{}.{}".format))
    return Unsupported(path, f"spec.{path}", instead, cel)


UNSUPPORTED: tuple[Unsupported, ...] = (
    _field("output.version", "remove it; a model gets the next version number"),
    Unsupported(
        "deepspeed.offload",
        "spec.deepspeed.offload NVMe",
        "use OptimizerAndParameters with zeroStage 3, or more nodes; DeepSpeed does not restore an optimizer on NVMe "
        "from a checkpoint",
        "has(self.deepspeed) && self.deepspeed.offload == 'NVMe'",
        whole=False,
    ),
    Unsupported(
        "model.uri",
        f"spec.model.uri with {in_words(Use.LATER)}",
        "name a model of the hub (hf://owner/name), a version of a model (models://name@alias), or copy it to a volume "
        "(pvc://claim/path)",
        f"has(self.model.uri) && self.model.uri.matches(r'{pattern_for(Use.LATER)}')",
        whole=False,
    ),
)


def asked_for(spec: FineTuneJobSpec) -> list[Unsupported]:
    """The unsupported parts of this spec."""
    as_json = spec.to_json()
    return [each for each in UNSUPPORTED if evaluate(each.cel, as_json)]
