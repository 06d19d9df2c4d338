"""Math: the final answer is mathematically equal to the row's: 1/2 for 0.5, x+1 for 1+x, {1,2} for {2,1}."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hone_api.blocks.rewards import AnswerReward
from hone_trainer.rewards import answers
from hone_trainer.rewards.base import Context, Masked, Sample, Scored
from hone_trainer.sandbox import WorkerRequest

MAX_CHARACTERS = 500
"""Longer texts do not count as answers."""


class MathScorer:
    """1 or 0, by math-verify in a worker of the sandbox. An answer on which sympy takes too long is masked."""

    def __init__(self, context: Context) -> None:
        self._options = context.spec.final or AnswerReward()
        self._workers = context.workers

    def __call__(self, samples: Sequence[Sample]) -> list[Scored]:
        pairs = [(self._gold(sample), self._answer(sample.completion)) for sample in samples]
        to_compare = {pair for pair in pairs if _worth_asking(*pair)}
        requests = [
            WorkerRequest("mathematics", {"gold": gold, "answer": answer}) for gold, answer in sorted(to_compare)
        ]
        replies = dict(zip(sorted(to_compare), self._workers.run(requests), strict=True))
        scores: list[Scored] = []
        for gold, answer in pairs:
            reply = replies.get((gold, answer))
            if reply is None:
                scores.append(float(gold == answer != ""))
            elif reply.outcome == "Broken":
                scores.append(Masked(reply.message, broken=True))
            else:
                scores.append(float(reply.outcome == "Done" and reply.value))
        return scores

    def gold(self, record: Mapping[str, Any]) -> str | None:
        """The row's answer, with the marker if the options require it."""
        answer = str(record.get("answer", ""))
        return answer if answers.marked(answer) else f"\\boxed{{{_final(answer)}}}"

    def _gold(self, sample: Sample) -> str:
        return _final(str(sample.record.get("answer", "")))

    def _answer(self, completion: str) -> str:
        if self._options.marked:
            return answers.marked(completion) or ""
        return _final(completion)


def _final(text: str) -> str:
    """The final answer without delimiters."""
    return (answers.marked(text) or answers.last_formula(text)).strip().strip("$").strip()


def _worth_asking(gold: str, answer: str) -> bool:
    return bool(gold and answer and gold != answer and max(len(gold), len(answer)) <= MAX_CHARACTERS)
