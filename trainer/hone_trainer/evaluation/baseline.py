"""The base model's scores and answers, measured just before the first step and kept across attempts.

A new adapter changes nothing, so at that moment the model in training equals the base; and under ZeRO only the wrapped
model can run a forward pass. The scores are kept in the work folder, since a resumed attempt no longer has the base's
weights.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hone_api.kinds.modelversion import AnsweredPrompt
from hone_trainer import ranks
from hone_trainer.encoding import split_file
from hone_trainer.encoding.plain_text import as_text
from hone_trainer.encoding.split_file import Example
from hone_trainer.evaluation import reward_scores
from hone_trainer.harness import measuring
from hone_trainer.scoring import endings, heldout, probe_suite
from hone_trainer.scoring.endings import Answer
from hone_trainer.scoring.heldout import HeldOut
from hone_trainer.scoring.scores import Score
from hone_trainer.signals import interrupted
from hone_trainer.store.manifest import write_atomically
from hone_trainer.training.loop import Loop, Run, StopRequested

MEASURED = ("scores", "probes", "graded", "recorded", "harness")
"""Attributes of `Baseline` that are kept as lists of scores."""


class Baseline(TrainerCallback):
    """Measures the base when training begins, unless an earlier attempt did."""

    trainer: Loop

    def __init__(self, run: Run) -> None:
        self._run = run
        self._file = Path(run.plan.work_path) / "base.json"
        self._questions = questions(run.held_out, run.plan.evaluation.samples if run.method.samples else 0)
        self.scores: list[Score] | None = None
        self.probes: list[Score] | None = None
        """Scores of `run.probes`, in their order."""
        self.graded: list[Score] | None = None
        """Scores of the answers to `run.prompts`, in their order."""
        self.recorded: list[Score] | None = None
        """Scores of recorded answers to them; before training, so that a reward that accepts none fails at once."""
        self.harness: list[Score] | None = None
        """Scores of `run.benchmarks`, in their order."""
        self._answers: list[Answer] | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not self._run.is_measured:
            return
        if self._file.is_file():
            self._load()
        elif state.global_step == 0:  # a resumed full fine-tuning without the file has lost them
            self._measure()

    def samples(self, trainer: Loop) -> tuple[list[AnsweredPrompt], list[str]]:
        """Each question with both models' answers, and warnings about how the answers end. A collective."""
        if not self._questions:
            return [], []
        tuned, base = self._answer(trainer), self._answers
        pairs = [
            AnsweredPrompt(
                prompt=prompt[:4096],
                reference=reference[:4096] if reference else None,
                base=base[i].text[:4096] if base else None,
                tuned=tuned[i].text[:4096],
                base_ending=base[i].ending if base else None,
                tuned_ending=tuned[i].ending,
            )
            for i, (_, prompt, reference) in enumerate(self._questions)
        ]
        own = [len(row.sequences[0]) - len(row.prompt_ids) for row, _, _ in self._questions]
        return pairs, endings.sentences(tuned, base, own, heldout.SAMPLE_TOKENS)

    def curve(self) -> list[dict[str, Any]]:
        """The base's held-out metrics as an entry of transformers' `state.log_history` at step 0; empty if unknown."""
        if not self.scores:
            return []
        total = sum(self.scores[1:], self.scores[0])
        return [{"step": 0, **{f"eval_{name}": total.value(name) for name in self._run.method.metrics}}]

    def _measure(self) -> None:
        self._run.begin_evaluation("EvaluatingBase")
        try:
            self.scores = self.trainer.scores()
            self.probes = probe_suite.measure(self.trainer, self._run.probes, self.trainer.poll)
            self.graded = reward_scores.measure(self.trainer, self.trainer.poll, check=True)
            self.recorded = reward_scores.recorded(self.trainer, self.trainer.poll)
            self._answers = self._answer(self.trainer)
            self.harness = measuring.measure(self.trainer, self.trainer.poll, "BenchmarkingBase")
        except StopRequested:
            raise interrupted("while evaluating the base model") from None
        if ranks.is_first():
            body: dict[str, Any] = {name: [asdict(score) for score in getattr(self, name) or ()] for name in MEASURED}
            body["answers"] = [asdict(answer) for answer in self._answers]
            write_atomically(self._file, json.dumps(body).encode())

    def _load(self) -> None:
        body = json.loads(self._file.read_text())
        for name in MEASURED:  # an attempt before an upgrade may have saved fewer
            setattr(self, name, [Score.from_json(score) for score in body.get(name, ())])
        self._answers = [Answer.from_json(answer) for answer in body["answers"] or ()]

    def _answer(self, trainer: Loop) -> list[Answer]:
        trainer.poll.count(0, begun=len(self._questions))
        answers = heldout.answers(
            trainer.model,
            [row.prompt_ids for row, _, _ in self._questions],
            tokenizer=self._run.base.tokenizer,
            stop_ids=self._run.stop_ids,
            sharded=self._run.plan.shards_weights,
        )
        trainer.poll.count(len(answers))
        return answers


def questions(held_out: list[HeldOut], count: int) -> list[tuple[Example, str, str | None]]:
    """The first `count` held-out rows that have a prompt, with prompt and reference answer as text."""
    selected: list[tuple[Example, str, str | None]] = []
    for split in held_out:
        records = [record for _, record in split_file.records(split.path)]
        for row in split.rows:
            if len(selected) == count:
                return selected
            if len(row.prompt_ids) > 1 and all(row.number != other.number for other, _, _ in selected):
                selected.append((row, *as_text(records[row.number - 1])))
    return selected
