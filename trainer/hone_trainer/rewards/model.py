"""RewardModel: the raw score of a trained reward model."""

from __future__ import annotations

from collections.abc import Sequence

from hone_api.words.failures import FailureCode
from hone_trainer.encoding.conversation import Encoder
from hone_trainer.encoding.row import RowRefusedError
from hone_trainer.errors import TrainerError
from hone_trainer.models import safe_config, weights
from hone_trainer.models.whole import whole_models
from hone_trainer.rewards.base import Context, Masked, Sample, Scored, WithoutGold

BATCH = 8


class RewardModelScorer(WithoutGold):
    """A sequence classifier with one output. It reads the conversation by its own chat template. An answer that the
    template cannot render, or that is longer than the model's context, is masked."""

    def __init__(self, context: Context) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        if context.path is None or not (context.path / "config.json").is_file():
            raise TrainerError(FailureCode.REWARD_FAILED, f"reward {context.spec.title}: {context.path} has no model")
        safe_config.refuse_code(context.path)
        with weights.naming_foreign_errors(context.path):
            self._tokenizer = AutoTokenizer.from_pretrained(
                context.path, local_files_only=True, trust_remote_code=False
            )
        with whole_models():  # the ranks score different numbers of answers
            self._model = weights.load(AutoModelForSequenceClassification, context.path)
        self._model.eval().requires_grad_(False)
        self._encoder = Encoder(self._tokenizer, "LastAssistant")
        if torch.cuda.is_available():
            self._model.cuda()

    def __call__(self, samples: Sequence[Sample]) -> list[Scored]:
        scores: list[Scored] = []
        for start in range(0, len(samples), BATCH):
            scores += self._batch(samples[start : start + BATCH])
        return scores

    def _batch(self, samples: Sequence[Sample]) -> list[Scored]:
        sequences = [self._read(sample) for sample in samples]
        rewards = iter(self._rewards([ids for ids in sequences if not isinstance(ids, Masked)]))
        return [ids if isinstance(ids, Masked) else next(rewards) for ids in sequences]

    def _rewards(self, sequences: Sequence[list[int]]) -> list[float]:
        import torch

        if not sequences:
            return []
        batch = self._tokenizer.pad({"input_ids": sequences}, padding_side="right", return_tensors="pt")
        with torch.inference_mode():
            logits = self._model(**batch.to(self._model.device)).logits
        return [float(value) for value in logits[:, 0].float()]

    def _read(self, sample: Sample) -> list[int] | Masked:
        """Token ids of the conversation as the reward model was trained: up to the end-of-turn token of the answer."""
        prompt = sample.record["prompt"]
        turns = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
        try:
            row = self._encoder.encode({"messages": [*turns, {"role": "assistant", "content": sample.completion}]})[-1]
        except RowRefusedError as error:
            return Masked(f"the reward model cannot read it: {error}")
        context = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        if context and len(row.input_ids) > context:
            return Masked(f"{len(row.input_ids)} tokens are more than the reward model's context of {context}")
        return row.input_ids
