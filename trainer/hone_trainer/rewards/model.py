"""RewardModel: the raw score of a trained reward model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hone_trainer.errors import TrainerError
from hone_trainer.rewards.base import Context, Sample, Scored, WithoutGold

BATCH = 8


class RewardModel(WithoutGold):
    """A sequence classifier with one output, over the conversation by its own chat template."""

    def __init__(self, context: Context) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        if context.path is None or not (context.path / "config.json").is_file():
            raise TrainerError("RewardFailed", f"reward {context.spec.title}: {context.path} holds no model")
        self._tokenizer = AutoTokenizer.from_pretrained(context.path, local_files_only=True, trust_remote_code=False)
        self._model = AutoModelForSequenceClassification.from_pretrained(
            context.path, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
        self._model.eval().requires_grad_(False)
        if torch.cuda.is_available():
            self._model.cuda()

    def __call__(self, samples: Sequence[Sample]) -> list[Scored]:
        found: list[Scored] = []
        for start in range(0, len(samples), BATCH):
            found += self._scores(samples[start : start + BATCH])
        return found

    def _scores(self, samples: Sequence[Sample]) -> list[float]:
        import torch

        texts = [self._ids(sample.record, sample.completion) for sample in samples]
        batch = self._tokenizer.pad({"input_ids": texts}, padding_side="right", return_tensors="pt")
        with torch.inference_mode():
            logits = self._model(**batch.to(self._model.device)).logits
        return [float(value) for value in logits[:, 0].float()]

    def _ids(self, record: Mapping[str, Any], completion: str) -> list[int]:
        """Token ids of the conversation as the reward model was trained: up to the end mark of the answer."""
        from hone_trainer.encoder import Encoder

        prompt = record["prompt"]
        turns = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
        row = Encoder(self._tokenizer, "LastAssistant").encode(
            {"messages": [*turns, {"role": "assistant", "content": completion}]}
        )[-1]
        return row.input_ids
