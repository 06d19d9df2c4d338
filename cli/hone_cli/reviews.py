"""What a reviewer sees and does, wherever the batch lies."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from hone_api.review import Candidate, Decision, Row, Verdict
from hone_api.synthesis import SyntheticRows


class ReviewError(Exception):
    """What the reviewer must be told; nothing was decided."""


class State(BaseModel):
    """A batch as one reviewer sees it."""

    model_config = ConfigDict(extra="ignore")
    dataset: str
    template: str
    reviewer: str
    counts: SyntheticRows
    mark: str = ""
    """Changes whenever the decisions do; empty: there is none."""
    candidate: Candidate | None
    """The row to decide on; None: there is none left that was not skipped."""
    others: Sequence[Decision] = ()
    """What has been decided on it before."""
    disputed: Sequence[str] = ()
    """Ids of the rows on which reviewers disagree."""


class Reviews(Protocol):
    """A batch under review by one person.

    All raise ReviewError.
    """

    def state(self, skipped: Collection[str] = (), row: str | None = None) -> State:
        """The next row that is neither decided on nor skipped, or the one that is named."""

    def decide(self, id: str, verdict: Verdict, row: Row | None = None) -> None:
        """Keep a decision; it is on disk when this returns."""

    def undo(self) -> str | None:
        """Take this reviewer's last decision back; gives the id of its row."""


def words(counts: SyntheticRows) -> str:
    """One line on how far the review is."""
    wanted = f" of {counts.wanted} wanted" if counts.wanted else ""
    parts = [f"{counts.accepted}{wanted} accepted", f"{counts.rejected} rejected", f"{counts.pending} wait"]
    if counts.conflicts:
        parts.append(f"{counts.conflicts} in conflict")
    return " · ".join(parts) + (f" · {counts.sample}" if counts.sample else "")


def after(ids: Sequence[str], id: str | None) -> str:
    """The id that follows, round and round; the first one for an id that is none of them."""
    return ids[(ids.index(id) + 1) % len(ids)] if id in ids else ids[0]


def texts(row: Row) -> dict[str, str]:
    """The fields that a reviewer may edit."""
    return {name: value for name, value in row.items() if isinstance(value, str)}


def edited(row: Row, changes: dict[str, str]) -> Row:
    """The row with some texts changed.

    Raises:
        ReviewError: a field that the row does not have as text, or a text that says nothing.
    """
    allowed = texts(row)
    for name, value in changes.items():
        if name not in allowed:
            raise ReviewError(f"{name} is no text of this row")
        if not isinstance(value, str) or not value.strip():
            raise ReviewError(f"{name} is empty: reject the row instead")
    return {**row, **changes}
