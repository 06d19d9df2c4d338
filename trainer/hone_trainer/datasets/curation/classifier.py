"""A sequence classifier of the store as a scorer of rows: a reward model of Hone's, or any that transformers loads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from hone_api.plan import ModelInput
from hone_trainer.datasets.readers.rows import Record
from hone_trainer.datasets.texts.texts import joined
from hone_trainer.errors import ConfigError, TrainerError
from hone_trainer.models import merge_base, safe_config, weights
from hone_trainer.store import signature

_BATCH = 16
_LONGEST = 1024
"""Tokens that are read; of a longer row its end, where the answer is."""
_DAY = date(2024, 7, 26)
"""What chat templates print as the date of today, so that a row has the same score on every day. Llama 3's template has
this date where there is no clock."""


class Classifier:
    """The probability of one label, or the sigmoid of a single output (a reward model).

    Args:
        room: where an adapter is merged with its base.
        label: default: the last one.

    Raises:
        StoreError: ManifestMismatch, when the ModelVersion is not what was pinned.
        ConfigError: it is not a sequence classifier, or does not have the label.
    """

    def __init__(self, model: ModelInput, label: str | None, room: Path) -> None:
        from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

        signature.compare(model)
        path = merge_base.without_adapter(model, room / "merged", first=True).path
        safe_config.refuse_code(Path(path))
        with weights.naming_foreign_errors(Path(path)):
            config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
            self._tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        kinds = config.architectures or ["of an unknown kind"]
        if not any(kind.endswith("ForSequenceClassification") for kind in kinds):
            raise ConfigError(f"curation.scores: the model is {', '.join(kinds)}, which classifies no sequences")
        labels = {str(name): int(index) for index, name in config.id2label.items()}
        if label is not None and label not in labels:
            raise ConfigError(f"curation.scores: the model's labels are {', '.join(sorted(labels))}, not {label}")
        self._label = labels[label] if label is not None else len(labels) - 1
        self._longest = min(_LONGEST, self._tokenizer.model_max_length)
        self._model = weights.load(AutoModelForSequenceClassification, Path(path)).eval()

    def scores(self, records: Sequence[Record]) -> list[float]:
        """From 0 to 1 for each record."""
        return [score for at in range(0, len(records), _BATCH) for score in self._scores(records[at : at + _BATCH])]

    def _scores(self, records: Sequence[Record]) -> list[float]:
        import torch

        ids = [self._ids(record)[-self._longest :] for record in records]
        batch = self._tokenizer.pad({"input_ids": ids}, padding_side="right", return_tensors="pt")
        with torch.inference_mode():
            logits = self._model(**batch).logits.float()
        chances = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
        return [float(chance) for chance in chances[:, self._label]]

    def _ids(self, record: Record) -> list[int]:
        """The conversation by the model's own chat template, as reward models are trained; plain text without one."""
        from hone_trainer.encoding import rendering
        from hone_trainer.encoding.conversation import Encoder

        if self._tokenizer.chat_template and "text" not in record:
            try:
                with rendering.of_run(_DAY, "Auto"):
                    return list(Encoder(self._tokenizer, "LastAssistant").encode(record)[-1].input_ids)
            except (TrainerError, ValueError):
                pass  # a format without conversations
        return list(self._tokenizer(joined(record))["input_ids"])
