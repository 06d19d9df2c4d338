"""Review: the files with generated rows and decisions, and the result of the decisions.

One folder of the store holds a batch: `candidates.jsonl` (a `Candidate` a line), `filtered.jsonl` (a `Filtered` a
line), `review.json` (a `ReviewRequest`) and `decisions/`, a file of `Decision`s for each reviewer, so that several
never write to the same file. Files only grow; a half-written last line is the end of a killed process.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import exp, lgamma
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from hone_api.base.meta import ApiModel
from hone_api.dataset.synthesis import FilteredRows, Review, Synthesis, SyntheticRows, Template

CANDIDATES, FILTERED, REQUEST, DECISIONS = "candidates.jsonl", "filtered.jsonl", "review.json", "decisions"

MAX_REVIEWER = 253
"""Longest name of a reviewer, in characters."""
RowId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
Row = dict[str, Any]


def batch_folder(dataset: str, synthesis: Synthesis) -> PurePosixPath:
    """Folder in the store: rows with the same Dataset and prompts share it, so that more rows can be requested.

    Endpoint and source are not part of it: decisions stay valid if the model moves or the source grows.
    """
    settings = synthesis.model_dump(
        mode="json", include={"template", "model", "instructions", "seed", "temperature", "max_tokens"}
    )
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    return PurePosixPath("synthesis") / (re.sub(r"[^-a-z0-9]+", "-", dataset.lower())[:63] or "dataset") / key


class Provenance(ApiModel):
    """Where a generated row comes from."""

    template: Template
    model: str
    endpoint: str = Field(description="Host of the endpoint.")
    seeds: list[str] = Field(description="Ids of the seed rows or documents that the model was shown.")
    revision: str = Field(description="Revision of their source.")
    prompt: str = Field(description="SHA-256 of the messages that were sent, hexadecimal.")
    time: str = Field(description="When it was generated, RFC 3339 in UTC.")
    score: int | None = Field(default=None, description="The judge's score, 1 to 5.")


class Candidate(ApiModel):
    """A generated row that passed the filters."""

    index: int = Field(ge=0, description="Number of the request that it answers.")
    id: RowId
    row: Row = Field(description="By the roles of the template's format.")
    group: str = Field(description="Rows of one group never cross splits.")
    context: str = Field(default="", description="What the model was shown, for the reviewer.")
    synthetic: bool = True
    provenance: Provenance


class Filtered(ApiModel):
    """An answer that a filter removed."""

    index: int = Field(ge=0)
    reason: str
    message: str
    text: str
    provenance: Provenance


class ReviewRequest(ApiModel):
    """What people are asked for."""

    dataset: str
    synthesis: Synthesis


class Verdict(StrEnum):
    """What a reviewer decided."""

    ACCEPT = "Accept"
    EDIT = "Edit"
    REJECT = "Reject"
    UNDO = "Undo"
    """Withdraws the reviewer's earlier decision."""


class Decision(ApiModel):
    """One decision of a reviewer."""

    id: RowId
    verdict: Verdict
    row: Row | None = Field(default=None, description="The whole row after an edit.")
    reviewer: Annotated[str, StringConstraints(min_length=1, max_length=MAX_REVIEWER)]
    time: str = Field(description="RFC 3339 in UTC.")


def row_id(row: Row) -> str:
    """Id of a row: equal content has the same id."""
    text = json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class Standing:
    """The result of all decisions on one row."""

    decisions: tuple[Decision, ...] = ()
    """The last decision of each reviewer, without withdrawn ones."""

    @property
    def conflict(self) -> bool:
        """Whether one reviewer rejects what another accepts."""
        return len({d.verdict == Verdict.REJECT for d in self.decisions}) > 1

    @property
    def deciding(self) -> Decision | None:
        """The decision that counts: a rejection before all others, an edit before an acceptance, later before
        earlier."""
        order = (Verdict.ACCEPT, Verdict.EDIT, Verdict.REJECT)
        return max(self.decisions, key=lambda d: (order.index(Verdict(d.verdict)), d.time), default=None)

    @property
    def verdict(self) -> Verdict | None:
        """The verdict; None without a decision."""
        return Verdict(self.deciding.verdict) if self.deciding else None


def standings(decisions: Iterable[Decision]) -> dict[str, Standing]:
    """The result of the decisions for each row; each reviewer's decisions are in the order in which they were made."""
    last: dict[str, dict[str, Decision]] = {}
    for decision in decisions:
        of_row = last.setdefault(decision.id, {})
        of_row.pop(decision.reviewer, None)
        if decision.verdict != Verdict.UNDO:
            of_row[decision.reviewer] = decision
    return {id: Standing(tuple(by_reviewer.values())) for id, by_reviewer in last.items() if by_reviewer}


@dataclass(frozen=True)
class Verified:
    """A batch with the decisions so far."""

    complete: bool
    """Whether the review is complete and left something to train on."""
    accepted: list[tuple[Candidate, Decision | None]]
    """Rows to train on once the review is complete; without a decision where a sample or the spec accepts them."""
    asked: list[Candidate]
    """Rows that wait for a decision."""
    rejected: int
    conflicts: int
    sample: str | None = None

    def counts(self, generated: int, filtered: Mapping[str, int], review: Review) -> SyntheticRows:
        """Counts for report and status."""
        return SyntheticRows(
            generated=generated,
            filtered=[FilteredRows(reason=reason, count=count) for reason, count in sorted(filtered.items())],
            pending=len(self.asked),
            accepted=len(self.accepted),
            edited=sum(1 for _, decision in self.accepted if decision and decision.verdict == Verdict.EDIT),
            rejected=self.rejected,
            conflicts=self.conflicts,
            wanted=review.accepted,
            complete=self.complete,
            sample=self.sample,
        )


def verify(candidates: Sequence[Candidate], decisions: Iterable[Decision], request: Synthesis) -> Verified:
    """The state of the batch after these decisions."""
    ids = {c.id for c in candidates}
    standing_by_id = {id: standing for id, standing in standings(decisions).items() if id in ids}
    review = request.review
    undecided = [c for c in candidates if c.id not in standing_by_id]
    accepted = [
        (c, standing_by_id[c.id].deciding)
        for c in candidates
        if c.id in standing_by_id and standing_by_id[c.id].verdict != Verdict.REJECT
    ]
    rejected = sum(1 for s in standing_by_id.values() if s.verdict == Verdict.REJECT)
    conflicts = sum(1 for s in standing_by_id.values() if s.conflict)
    everything = accepted + [(c, None) for c in undecided]
    if not review.required:
        return Verified(True, everything, [], rejected, conflicts)
    if review.sampling:
        sampled = sample(candidates, review.sampling.size, request.seed)
        to_review = [c for c in sampled if c.id not in standing_by_id]
        defects = sum(1 for c in sampled if c.id in standing_by_id and standing_by_id[c.id].verdict != Verdict.ACCEPT)
        words = _sample_words(len(candidates), len(sampled), len(to_review), defects, review)
        if defects <= review.sampling.max_defects:
            complete = bool(everything) and not to_review
            return Verified(complete, everything if complete else accepted, to_review, rejected, conflicts, words)
        return Verified(bool(accepted) and not undecided, accepted, undecided, rejected, conflicts, words)
    if review.accepted:
        return Verified(len(accepted) >= review.accepted, accepted, undecided, rejected, conflicts)
    return Verified(bool(accepted) and not undecided, accepted, undecided, rejected, conflicts)


def sample(candidates: Sequence[Candidate], size: int, seed: int) -> list[Candidate]:
    """A random sample of at most `size` rows; only the seed and the rows' content decide which."""
    return sorted(candidates, key=lambda c: hashlib.sha256(f"{seed}:{c.id}".encode()).digest())[:size]


def _sample_words(rows: int, size: int, open_: int, defects: int, review: Review) -> str:
    sampling = review.sampling
    assert sampling is not None
    if defects > sampling.max_defects:
        return f"{defects} of {size - open_} sampled rows are bad, more than {sampling.max_defects}: review every row."
    if open_:
        return f"{open_} of {size} sampled rows wait; {defects} bad so far, at most {sampling.max_defects} pass."
    confidence = float(sampling.confidence.removesuffix("%")) / 100
    bound = most_defective(rows, size, defects, confidence)
    return (
        f"{defects} of {size} sampled rows are bad: with {sampling.confidence} confidence at most "
        f"{bound} of all {rows} rows ({100 * bound / rows:.1f}%) were."
    )


_ROUNDING = 1e-6
"""More than the relative error of logarithms of factorials, so that rounding never makes the bound too low."""


def most_defective(rows: int, size: int, defects: int, confidence: float) -> int:
    """Upper confidence bound on the bad rows in a batch, if a sample without replacement had `defects` bad rows.

    The exact one-sided bound for a finite batch (Wright 1991, Exact Confidence Bounds when Sampling from Small Finite
    Universes): the largest D with P(at most `defects` in the sample | D in the batch) >= 1 - confidence, by the
    hypergeometric distribution. It decreases in D, so bisection finds it. For a large batch it is the binomial bound of
    Clopper and Pearson (1934).
    """
    low, high = defects, rows - (size - defects)
    least = (1 - confidence) * (1 - _ROUNDING)
    while low < high:
        middle = (low + high + 1) // 2
        if _at_most(defects, rows, middle, size) >= least:
            low = middle
        else:
            high = middle - 1
    return low


def _at_most(defects: int, rows: int, bad: int, size: int) -> float:
    """P(X <= defects) of the hypergeometric distribution, by logarithms of factorials."""

    def log_choose(n: int, k: int) -> float:
        return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)

    least = max(0, size - (rows - bad))
    samples = log_choose(rows, size)
    return sum(
        exp(log_choose(bad, k) + log_choose(rows - bad, size - k) - samples)
        for k in range(least, min(defects, bad, size) + 1)
    )
