"""A teacher behind an OpenAI-compatible API: several prompts in parallel, each answered at temperature 0."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hone_api.plan import TrainingPlan
from hone_trainer.encoding.prompts import checked_record
from hone_trainer.endpoints.addresses import network_of
from hone_trainer.endpoints.client import Access, Endpoint, ModelReply, PromptRefusedError, in_parallel
from hone_trainer.store.hub import secret_key
from hone_trainer.teachers import skipped
from hone_trainer.teachers.skipped import LeftOut
from hone_trainer.teachers.teacher import answered_row, longest_answer, options_of, tools_in

PARALLEL = 8


@dataclass(frozen=True)
class EndpointTeacher:
    """A `Teacher`.

    Args:
        model: its name on the server.
        longest: maximum tokens of an answer, in the server's count.
    """

    endpoint: Endpoint
    model: str
    longest: int

    def rows(self, records: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any] | LeftOut]:
        """See `Teacher`.

        Raises:
            SourceError: EndpointUnreachable or EndpointRefused.
        """
        yield from in_parallel(self._row, records, PARALLEL)

    def _row(self, record: dict[str, Any]) -> dict[str, Any] | LeftOut:
        checked = checked_record(record)
        if left := tools_in(record, checked["prompt"]) or _no_question(checked["prompt"]):
            return left
        try:
            answer = self._ask(checked["prompt"])
        except PromptRefusedError as error:
            return skipped.refused_prompt(error.message)
        if not answer.whole:
            return LeftOut("its answer is longer than maxCompletionLength")
        if not answer.text.strip():
            return LeftOut("its answer is empty")
        return answered_row(checked, answer.text)

    def _ask(self, prompt: Any) -> ModelReply:
        turns = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
        return self.endpoint.chat(self.model, turns, temperature=0, max_tokens=self.longest, seed=0)


def _no_question(prompt: Any) -> LeftOut | None:
    """Why the prompt cannot be sent to the teacher, or None."""
    if isinstance(prompt, list) and (not prompt or prompt[-1]["role"] != "user"):
        return LeftOut("it ends in no question")
    return None


def connect(plan: TrainingPlan) -> EndpointTeacher:
    """Connect to the plan's teacher.

    Raises:
        SourceError: SecretNotFound, SecretKeyNotFound, SourceRefused, EndpointUnreachable, EndpointRefused.
        ConfigError: the URL is not valid.
    """
    options = options_of(plan).teacher_endpoint
    assert options is not None
    key = secret_key(plan.teacher_secret_path, "API_KEY") if plan.teacher_secret_path else None
    endpoint = Endpoint(options.endpoint, Access(network_of(plan), key, PARALLEL))
    return EndpointTeacher(endpoint, options.model or endpoint.first_model(), longest_answer(plan))
