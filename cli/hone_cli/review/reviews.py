"""What a reviewer sees and does, wherever the batch is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from hone_api.dataset.review import Candidate, Decision, Row, Standing, Verdict
from hone_api.dataset.synthesis import SyntheticRows
from hone_cli.errors import CommandError

PAGE = 50
"""Rows on one page of a list."""
EXCERPT = 120
"""Characters of a row in a list."""


class BatchState(BaseModel):
    """A batch as one reviewer sees it."""

    model_config = ConfigDict(extra="ignore")
    dataset: str
    template: str
    reviewer: str
    counts: SyntheticRows
    decided: int = 0
    """Rows with a decision; together with the waiting rows they are the review."""
    mark: str = ""
    """Changes with every decision; empty: there is none."""
    candidate: Candidate | None
    """The row to decide on; None: all remaining rows were skipped, or none is left."""
    others: Sequence[Decision] = ()
    """Earlier decisions on it."""
    disputed: Sequence[str] = ()
    """Ids of the rows on which reviewers disagree."""


class Status(StrEnum):
    """The state of a row so far."""

    UNDECIDED = "Undecided"
    ACCEPTED = "Accepted"
    EDITED = "Edited"
    REJECTED = "Rejected"


_STATUS = {
    None: Status.UNDECIDED,
    Verdict.ACCEPT: Status.ACCEPTED,
    Verdict.EDIT: Status.EDITED,
    Verdict.REJECT: Status.REJECTED,
}


class ListedRow(BaseModel):
    """A row in a list."""

    model_config = ConfigDict(extra="ignore")
    id: str
    status: Status
    conflict: bool
    """Whether reviewers disagree."""
    text: str
    """The beginning of its first text, on one line."""


class ListPage(BaseModel):
    """One page of the rows with a status, in the order in which they were generated."""

    model_config = ConfigDict(extra="ignore")
    entries: Sequence[ListedRow]
    offset: int
    """Rows of this status before the page."""
    total: int
    """Rows of this status."""
    counts: Mapping[Status, int]
    """Rows of each status."""


class Reviews(Protocol):
    """A batch under review by one person.

    All raise CommandError.
    """

    def state(self, skipped: Collection[str] = (), row: str | None = None) -> BatchState:
        """The next row that is neither decided nor skipped, or the named one."""

    def listing(self, status: Status | None = None, offset: int = 0) -> ListPage:
        """At most PAGE rows of a status, or of all, from row number `offset` on."""

    def decide(self, id: str, verdict: Verdict, row: Row | None = None) -> None:
        """Save a decision; it is on disk when this returns."""

    def undo(self) -> str | None:
        """Withdraw this reviewer's last decision; returns the id of its row."""


def page_of(
    candidates: Sequence[Candidate], standings: Mapping[str, Standing], status: Status | None, offset: int
) -> ListPage:
    """At most PAGE rows of a status, or of all for None, from row number `offset` on."""
    statuses = {c.id: _STATUS[standings.get(c.id, Standing()).verdict] for c in candidates}
    rows = [c for c in candidates if status in (None, statuses[c.id])]
    return ListPage(
        entries=[_entry(c, standings.get(c.id, Standing()), statuses[c.id]) for c in rows[offset : offset + PAGE]],
        offset=offset,
        total=len(rows),
        counts={each: sum(status == each for status in statuses.values()) for each in Status},
    )


def _entry(candidate: Candidate, standing: Standing, status: Status) -> ListedRow:
    """The entry with its text as edited, if it was."""
    row = (standing.deciding and standing.deciding.row) or candidate.row
    text = " ".join(next(iter(texts(row).values()), "").split())
    shown = text if len(text) <= EXCERPT else text[: EXCERPT - 1] + "…"
    return ListedRow(id=candidate.id, status=status, conflict=standing.conflict, text=shown)


def words(counts: SyntheticRows) -> str:
    """The progress of the review on one line."""
    wanted = f" of {counts.wanted} wanted" if counts.wanted else ""
    parts = [f"{counts.accepted}{wanted} accepted", f"{counts.rejected} rejected", f"{counts.pending} wait"]
    if counts.conflicts:
        parts.append(f"{counts.conflicts} in conflict")
    return " · ".join(parts) + (f" · {counts.sample}" if counts.sample else "")


def after(ids: Sequence[str], id: str | None) -> str:
    """The id that follows, in a circle; the first id if `id` is not among them."""
    return ids[(ids.index(id) + 1) % len(ids)] if id in ids else ids[0]


def texts(row: Row) -> dict[str, str]:
    """The fields that a reviewer may edit."""
    return {name: value for name, value in row.items() if isinstance(value, str)}


def edited(row: Row, changes: dict[str, str]) -> Row:
    """The row with some texts changed.

    Raises:
        CommandError: the row has no such text field, or the new text is empty.
    """
    allowed = texts(row)
    for name, value in changes.items():
        if name not in allowed:
            raise CommandError(f"{name} is not a text of this row")
        if not isinstance(value, str) or not value.strip():
            raise CommandError(f"{name} is empty: reject the row instead")
    return {**row, **changes}
