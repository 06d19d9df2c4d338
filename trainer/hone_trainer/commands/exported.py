"""An exported model, loaded again as its run had it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from hone_api.plan import TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer.encoding import rendering
from hone_trainer.encoding.conversation import Encoder
from hone_trainer.encoding.row import RowRefusedError
from hone_trainer.encoding.tool_calls import Message
from hone_trainer.errors import TrainerError
from hone_trainer.evaluation import scoring_model
from hone_trainer.methods import METHODS
from hone_trainer.models import adapters, base_model
from hone_trainer.models.network import Generating
from hone_trainer.store.contents import UNKNOWN


@dataclass(frozen=True)
class Exported:
    """An exported adapter, merged or full model."""

    folder: Path
    plan: TrainingPlan
    bf16: bool
    is_adapter: bool
    base: Path
    """Folder of the base model; only an adapter needs it."""
    opened: base_model.Base
    """Configuration and tokenizer of the model in `folder`, or for an adapter of its base."""

    @classmethod
    def read(cls, folder: Path, base: Path | None = None) -> Self:
        """Read the report of an artifact.

        Args:
            base: folder of the base model; default: where the run had it.

        Raises:
            TrainerError: FileNotFound when `folder` is not an artifact, or an adapter's base is not there.
        """
        file = folder / "report.json"
        if not file.is_file():
            raise TrainerError(FailureCode.FILE_NOT_FOUND, f"{folder} holds no report.json: name an exported artifact")
        report = json.loads(file.read_text())
        plan = TrainingPlan.model_validate(_stand_in(report) if "imported" in report else report["plan"])
        base, is_adapter = base or Path(plan.model_path), report["form"] == "Adapter"
        if is_adapter and not (base / "config.json").is_file():
            raise TrainerError(
                FailureCode.FILE_NOT_FOUND, f"the base model is not in {base}: name its folder with --base"
            )
        bf16 = report["resolved"]["precision"] == "BFloat16"
        head = METHODS[plan.method].head
        opened = base_model.open_base(base) if is_adapter else base_model.open_base(folder, head)
        return cls(folder, plan, bf16, is_adapter, base, opened)

    @property
    def head(self) -> base_model.Head:
        """What the model ends in."""
        return METHODS[self.plan.method].head

    @property
    def has_start(self) -> bool:
        """Whether the model that the run started from is there."""
        return (self.base / "config.json").is_file()

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids that ended an answer in the run: those of the base, and the end-of-turn tokens that its rows trained."""
        return self.opened.stop_ids | replace(self.opened, path=self.folder).stop_ids

    def prompt(self, encoder: Encoder, asked: str | Sequence[Message]) -> list[int]:
        """Token ids that a server gives the model for a question or turns.

        Raises:
            TrainerError: InvalidRow, the chat template or the tokenizer cannot take it.
        """
        try:
            with rendering.of_run(self.plan.template_date, self.plan.training.thinking):
                return encoder.prompt(asked)
        except RowRefusedError as error:
            raise TrainerError(FailureCode.INVALID_ROW, f"{error.code}: {error}") from error

    def room(self, prompt: Sequence[int], most: int, what: str = "question") -> int:
        """Tokens that an answer to these prompt tokens may have: at most `most`, and what the model's context leaves.

        Raises:
            TrainerError: RowTooLong, there is none left.
        """
        room = self.opened.context - len(prompt)
        if room < 1:
            words = f"the {what} has {len(prompt)} tokens, and the model takes {self.opened.context} with the answer"
            raise TrainerError(FailureCode.ROW_TOO_LONG, words)
        return min(room, most)

    def load_alone(self) -> Generating:
        """The merged or full model, or an adapter's base."""
        return self._load(self.opened, quantize=self.is_adapter)

    def load_base(self) -> Generating:
        """The base of a merged or full model."""
        return self._load(base_model.open_base(self.base, training=self.plan.training), quantize=True)

    def load_start(self) -> Generating:
        """The model that the run started from."""
        return self.load_alone() if self.is_adapter else self.load_base()

    def with_adapter(self, network: Generating) -> Generating:
        """An adapter on its loaded base."""
        return scoring_model.with_adapter(network, self.folder)

    def load(self) -> Generating:
        """The trained model."""
        network = self.load_alone()
        return self.with_adapter(network) if self.is_adapter else network

    def _load(self, opened: base_model.Base, *, quantize: bool) -> Generating:
        adapter = self.plan.adapter
        quantize = quantize and adapters.is_quantized(adapter)
        return scoring_model.load(
            opened,
            bf16=self.bf16,
            frozen=adapters.is_adapter(adapter),
            quantize=quantize,
            head=self.head,
            seed=self.plan.training.seed,
        )


def _stand_in(report: Mapping[str, Any]) -> dict[str, Any]:
    """A plan for an imported model, which no run of ours made: SFT on its base, with rows and folders that are nowhere.

    What scoring and answering ask of it is how the adapter was made, and that is known.
    """
    rows, nowhere = {"name": "none", "path": "none", "digest": UNKNOWN}, "none"
    places = {"modelPath": nowhere, "workPath": nowhere, "outputPath": nowhere}
    made_of = {"modelUri": report["source"], "datasets": [rows], "adapter": report["plan"]["adapter"]}
    return {"run": "import", "method": "SFT", "output": {"modelName": "imported"}, **places, **made_of}
