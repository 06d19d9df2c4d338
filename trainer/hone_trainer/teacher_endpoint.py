"""A teacher behind an OpenAI-compatible API: several prompts under way at a time, each answered at temperature 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from hone_api.plan import TrainingPlan
from hone_trainer import teacher
from hone_trainer.datasets.synthesis.endpoint import Access, Answer, Endpoint
from hone_trainer.encode_prompts import checked_record
from hone_trainer.hub import secret_key

PARALLEL = 8


@dataclass(frozen=True)
class Served:
    """A `Teacher`.

    Args:
        model: its name there.
        longest: tokens of an answer, in the server's count.
    """

    endpoint: Endpoint
    model: str
    longest: int
    left_out: Counter[str] = field(default_factory=Counter)

    def rows(self, records: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """In the records' order.

        Raises:
            SourceError: EndpointUnreachable or EndpointRefused.
        """
        asked = [checked for record in records if (checked := self._checked(record))]
        with ThreadPoolExecutor(PARALLEL, "teacher") as threads:
            try:
                answers = list(threads.map(self._ask, asked))
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise
        for checked, answer in zip(asked, answers, strict=True):
            if not answer.whole:
                self.left_out["its answer is longer than maxCompletionLength"] += 1
            elif not answer.text.strip():
                self.left_out["its answer is empty"] += 1
            else:
                yield teacher.row(checked, answer.text)

    def _checked(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """See `checked_record`; None where tools would have to be sent along, or nobody asks."""
        checked = checked_record(record)
        prompt = checked["prompt"]
        if isinstance(prompt, list):
            if record.get("tools") or any(set(turn) != {"role", "content"} for turn in prompt):
                self.left_out["it has tools, which the teacher is not told of"] += 1
                return None
            if not prompt or prompt[-1]["role"] != "user":
                self.left_out["it ends in no question"] += 1
                return None
        return checked

    def _ask(self, checked: dict[str, Any]) -> Answer:
        prompt = checked["prompt"]
        turns = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
        return self.endpoint.chat(self.model, turns, temperature=0, max_tokens=self.longest, seed=0)


def connect(plan: TrainingPlan) -> Served:
    """The plan's teacher.

    Raises:
        SourceError: SecretNotFound, SecretKeyNotFound, SourceRefused, EndpointUnreachable, EndpointRefused.
        ConfigError: a URL that cannot be.
    """
    options = teacher.options_of(plan).teacher_endpoint
    assert options is not None
    key = secret_key(plan.teacher_secret_path, "API_KEY") if plan.teacher_secret_path else None
    endpoint = Endpoint(options.endpoint, Access(plan.allow_private_addresses, plan.cluster_domain, key, PARALLEL))
    return Served(endpoint, options.model or endpoint.first_model(), teacher.longest_answer(plan))
