"""Generation: requests to the endpoint until enough rows have passed the filters; what is on disk is not asked again.

Request i depends on seed, i and source alone, so that a killed Job continues where it was.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

from hone_api.base.wording import counted
from hone_api.dataset.review import Candidate, Filtered, Provenance, row_id
from hone_api.dataset.synthesis import Synthesis
from hone_api.plan import MaterializePlan
from hone_api.words.failures import FailureCode
from hone_trainer.datasets.synthesis.batch import GeneratedBatch
from hone_trainer.datasets.synthesis.filters import RowJudge, Similar
from hone_trainer.datasets.synthesis.material import Material, Seed
from hone_trainer.datasets.synthesis.templates import TEMPLATES, AnswerError, Ask, RowTemplate
from hone_trainer.endpoints.addresses import network_of
from hone_trainer.endpoints.client import Access, Endpoint, PromptRefusedError, too_many
from hone_trainer.endpoints.usage import Usage
from hone_trainer.errors import DataError, SourceError
from hone_trainer.reporting.task import TaskProgress
from hone_trainer.store import hub

_REQUESTS_PER_ROW = 10
"""If filters keep less than a tenth of a model's rows, the user gets an error instead of endless requests."""
_LOG_EVERY = 15.0
REFUSED = "Refused"
"""Reason of a filter: the server of the model, or that of the judge, refuses what it is sent."""


def run(
    plan: MaterializePlan, material: Material, batch: GeneratedBatch, revision: str, progress: TaskProgress
) -> None:
    """Ask until the batch has `synthesis.rows` rows.

    Raises:
        SourceError: EndpointUnreachable, EndpointRefused, SourceRefused, SecretNotFound, SecretKeyNotFound.
        DataError: NothingGenerated.
    """
    synthesis = plan.synthesis
    assert synthesis is not None
    last_index = synthesis.rows * _REQUESTS_PER_ROW
    usage = Usage()
    if len(batch.candidates) < synthesis.rows:
        worker = _Asker.of(plan, material, batch, revision, usage)
        logged = time.monotonic()
        with ThreadPoolExecutor(synthesis.parallel, "ask") as threads:
            try:
                for answer in _in_order(worker, batch, synthesis, last_index, threads):
                    _settle(answer, worker, batch)
                    if time.monotonic() - logged > _LOG_EVERY:
                        progress.log(summary(batch, synthesis, usage))
                        logged = time.monotonic()
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise
    progress.log(summary(batch, synthesis, usage))
    if not batch.candidates:
        raise DataError(
            FailureCode.NOTHING_GENERATED, f"no answer of {batch.generated} became a row: {_reasons(batch)}"
        )


def summary(batch: GeneratedBatch, synthesis: Synthesis, usage: Usage) -> str:
    """For the log.

    Args:
        usage: of this run; what an earlier one asked is not in it.
    """
    removed = f", {_reasons(batch)}" if batch.filtered else ""
    tokens = f"; in this run {usage}" if str(usage) else ""
    wanted, answers = counted(synthesis.rows, "row"), counted(batch.generated, "answer")
    return f"{len(batch.candidates)} of {wanted} from {answers}{removed}{tokens}"


def _reasons(batch: GeneratedBatch) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in batch.filtered.most_common()) or "none was asked for"


@dataclass(frozen=True)
class _RequestResult:
    """What came of one request."""

    index: int
    ask: Ask
    text: str
    provenance: Provenance
    row: dict[str, Any] | None = None
    refused: AnswerError | None = None


def _in_order(
    worker: _Asker, batch: GeneratedBatch, synthesis: Synthesis, last_index: int, threads: ThreadPoolExecutor
) -> Iterator[_RequestResult]:
    """Answers in the order of their requests, so that which of two similar rows stays does not depend on the time.

    No more requests are under way than rows are missing.
    """
    todo = iter(index for index in range(last_index) if index not in batch.done)
    under_way: deque[Future[_RequestResult]] = deque()
    while True:
        while len(under_way) < min(synthesis.parallel, synthesis.rows - len(batch.candidates)):
            index = next(todo, None)
            if index is None:
                break
            under_way.append(threads.submit(worker.answer, index))
        if not under_way:
            return
        yield under_way.popleft().result()


def _settle(answer: _RequestResult, worker: _Asker, batch: GeneratedBatch) -> None:
    """Keep the row, or record why not. Duplicates are checked here again: another request may have been faster.

    Raises:
        SourceError: EndpointRefused, where the server refuses too many prompts; this one is asked again another time.
    """
    refused = answer.refused or worker.duplicate(answer.row or {})
    if refused and refused.reason == REFUSED:
        count, requests = batch.filtered[REFUSED] + 1, batch.generated + 1
        if too_many(count, requests, worker.synthesis.rows):
            raise SourceError(
                FailureCode.ENDPOINT_REFUSED, f"{count} of {requests} prompts are refused, the last one: {refused}"
            )
    if refused:
        batch.drop(
            Filtered(
                index=answer.index,
                reason=refused.reason,
                message=str(refused),
                text=answer.text[:4000],
                provenance=answer.provenance,
            )
        )
        return
    assert answer.row is not None
    id = row_id(answer.row)
    first = answer.ask.shown[0]
    batch.keep(
        Candidate(
            index=answer.index,
            id=id,
            row=answer.row,
            group=id if worker.template.own_group else first.group,
            context=answer.ask.context,
            provenance=answer.provenance,
        )
    )
    worker.see(answer.row)


@dataclass
class _Asker:
    """Asks, in several threads."""

    plan: MaterializePlan
    synthesis: Synthesis
    template: RowTemplate
    material: Material
    endpoint: Endpoint
    model: str
    scorer: RowJudge | None
    similar: Similar
    revision: str

    @classmethod
    def of(
        cls, plan: MaterializePlan, material: Material, batch: GeneratedBatch, revision: str, usage: Usage
    ) -> _Asker:
        synthesis = plan.synthesis
        assert synthesis is not None
        endpoint = Endpoint(synthesis.endpoint, _access(plan, plan.synthesis_secret_path), usage)
        template = TEMPLATES[synthesis.template]
        limit = float(synthesis.filters.max_similarity.removesuffix("%")) / 100
        worker = cls(
            plan,
            synthesis,
            template,
            material,
            endpoint,
            synthesis.model or endpoint.first_model(),
            _scorer(plan, endpoint),
            Similar(limit),
            revision,
        )
        worker.similar.see(_seed_text(seed, template) for seed in material.seeds)
        for candidate in batch.candidates:
            worker.see(candidate.row)
        return worker

    def see(self, row: dict[str, Any]) -> None:
        """Remember a row that was kept."""
        self.similar.see([self._compared(row)])

    def duplicate(self, row: dict[str, Any]) -> AnswerError | None:
        """Why the row counts as a duplicate of an earlier one; None: it does not."""
        similar_row = self.similar.nearest(self._compared(row))
        if similar_row is None:
            return None
        return AnswerError("Duplicate", f"ROUGE-L {similar_row:.2f} with a seed or an earlier row")

    def _compared(self, row: dict[str, Any]) -> str:
        return " ".join(str(row[name]) for name in self.template.compared)

    def answer(self, index: int) -> _RequestResult:
        """One request, and the fate of its answer as far as it depends on nothing else."""
        synthesis = self.synthesis
        ask = self.template.ask(self.material, Random(f"{synthesis.seed}:{index}"), self.plan)
        try:
            answer = self.endpoint.chat(
                self.model,
                ask.messages,
                temperature=float(synthesis.temperature),
                max_tokens=synthesis.max_tokens,
                seed=synthesis.seed + index,
            )
        except PromptRefusedError as error:
            return _RequestResult(index, ask, "", self._provenance(ask), refused=AnswerError(REFUSED, error.message))
        provenance = self._provenance(ask)
        try:
            if not answer.whole:
                raise AnswerError("Truncated", f"the answer is longer than {synthesis.max_tokens} tokens")
            row = self.template.row(answer.text, ask)
            if synthesis.filters.verify and (wrong := self.template.verify(answer.text, row, ask)):
                raise AnswerError("NotVerified", wrong)
            if duplicate := self.duplicate(row):
                raise duplicate
            if self.scorer:
                provenance = provenance.model_copy(update={"score": self._score(row, index)})
        except AnswerError as refused:
            return _RequestResult(index, ask, answer.text, provenance, refused=refused)
        return _RequestResult(index, ask, answer.text, provenance, row)

    def _provenance(self, ask: Ask) -> Provenance:
        return Provenance(
            template=self.synthesis.template,
            model=self.model,
            endpoint=self.endpoint.host,
            seeds=[item.id for item in ask.shown],
            revision=self.revision,
            prompt=hashlib.sha256(json.dumps(list(ask.messages)).encode()).hexdigest(),
            time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )

    def _score(self, row: dict[str, Any], index: int) -> int:
        assert self.scorer is not None
        text = "\n\n".join(f"{name}: {value}" for name, value in row.items())
        try:
            score = self.scorer.score(text, self.synthesis.seed + index)
        except PromptRefusedError as error:
            raise AnswerError(REFUSED, error.message) from None
        least = self.scorer.settings.min_score
        if score is None or score < least:
            raise AnswerError("LowScore", f"the judge gives {score or 'no score'}, {least} is needed")
        return score


def _seed_text(seed: Seed, template: RowTemplate) -> str:
    """What of a seed a generated row is compared with."""
    fields = {"prompt": seed.prompt, "completion": seed.completion, "rejected": seed.completion}
    return " ".join(fields[name] for name in template.compared if name in fields)


def _access(plan: MaterializePlan, secret_path: str | None) -> Access:
    assert plan.synthesis is not None
    key = hub.secret_key(secret_path, "API_KEY") if secret_path else None
    return Access(network_of(plan), key, plan.synthesis.parallel)


def _scorer(plan: MaterializePlan, endpoint: Endpoint) -> RowJudge | None:
    assert plan.synthesis is not None
    judge = plan.synthesis.filters.judge
    if judge is None:
        return None
    if judge.endpoint or judge.secret_name:
        path = plan.judge_secret_path or (None if judge.endpoint else plan.synthesis_secret_path)
        endpoint = Endpoint(judge.endpoint or plan.synthesis.endpoint, _access(plan, path), endpoint.usage)
    return RowJudge(endpoint, judge.model or endpoint.first_model(), judge)
