"""A batch in a folder: read while it grows; decisions are in a file of each reviewer."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from hone_api.base.meta import ApiModel
from hone_api.dataset.review import (
    CANDIDATES,
    DECISIONS,
    FILTERED,
    REQUEST,
    Candidate,
    Decision,
    Filtered,
    ReviewRequest,
    Row,
    Standing,
    Verdict,
    Verified,
    standings,
    verify,
)
from hone_cli.errors import CommandError
from hone_cli.review.reviews import BatchState, ListPage, Status, edited, page_of, texts

AnyModel = TypeVar("AnyModel", bound=ApiModel)


def find(path: Path, dataset: str) -> Path:
    """The batch in a folder: the folder itself, or the newest batch of this Dataset in a store.

    Raises:
        CommandError: there is none.
    """
    if (path / REQUEST).is_file():
        return path
    batches = sorted(path.glob(f"synthesis/{dataset}/*/{REQUEST}"), key=lambda file: file.stat().st_mtime)
    if not batches:
        raise CommandError(f"{path} is neither a batch (with {REQUEST}) nor a store with synthesis/{dataset}/")
    return batches[-1].parent


@dataclass
class _GrowingFile:
    """A growing file of JSON lines: only new lines are read, and a half-written line later."""

    file: Path
    offset: int = 0

    def new(self) -> Iterator[bytes]:
        if not self.file.is_file():
            return
        with open(self.file, "rb") as stream:
            stream.seek(self.offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    return
                self.offset += len(line)
                yield line


@dataclass
class Folder:
    """Implements `Reviews`."""

    path: Path
    reviewer: str
    candidates: dict[str, Candidate] = field(default_factory=dict)
    _decisions: dict[Path, list[Decision]] = field(default_factory=dict)
    _filtered: dict[str, int] = field(default_factory=dict)
    _tails: dict[Path, _GrowingFile] = field(default_factory=dict)

    def __post_init__(self) -> None:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self.reviewer)[:40].strip(".-") or "reviewer"
        # Different reviewers never share a file, even if their names are equal after cleaning.
        unique = hashlib.sha256(self.reviewer.encode()).hexdigest()[:8]
        self._own = self.path / DECISIONS / f"{name}-{unique}.jsonl"

    def state(self, skipped: Collection[str] = (), row: str | None = None) -> BatchState:
        """See `Reviews.state`."""
        verified = self._verified()
        request = self._request
        if row is not None and row not in self.candidates:
            raise CommandError(f"there is no row {row}")
        chosen = self.candidates[row] if row else self._next(verified, skipped)
        standing = self._standings()
        chosen_standing = standing.get(chosen.id, Standing()) if chosen else Standing()
        generated = sum(self._filtered.values()) + len(self.candidates)
        return BatchState(
            dataset=request.dataset,
            template=request.synthesis.template,
            reviewer=self.reviewer,
            counts=verified.counts(generated, self._filtered, request.synthesis.review),
            decided=sum(id in self.candidates for id in standing),
            mark=self._mark(),
            candidate=chosen,
            others=chosen_standing.decisions,
            disputed=[c.id for c in self.candidates.values() if c.id in standing and standing[c.id].conflict],
        )

    def listing(self, status: Status | None = None, offset: int = 0) -> ListPage:
        """See `Reviews.listing`."""
        self._read()
        return page_of(list(self.candidates.values()), self._standings(), status, offset)

    def decide(self, id: str, verdict: Verdict, row: Row | None = None) -> None:
        """See `Reviews.decide`; an edit contains the whole row."""
        self._read()
        candidate = self.candidates.get(id)
        if candidate is None:
            raise CommandError(f"there is no row {id}")
        if verdict == Verdict.EDIT:
            row = edited(candidate.row, {k: v for k, v in texts(row or {}).items() if v != candidate.row.get(k)})
            verdict = Verdict.EDIT if row != candidate.row else Verdict.ACCEPT
        self._append(Decision(id=id, verdict=verdict, row=row if verdict == Verdict.EDIT else None, **self._signed()))

    def undo(self) -> str | None:
        """See `Reviews.undo`."""
        self._read()
        standing: dict[str, Decision] = {}
        for decision in self._decisions.get(self._own, []):
            standing.pop(decision.id, None)
            if decision.verdict != Verdict.UNDO:
                standing[decision.id] = decision
        if not standing:
            return None
        last = next(reversed(standing))
        self._append(Decision(id=last, verdict=Verdict.UNDO, **self._signed()))
        return last

    # -- files -----------------------------------------------------------------------------------

    @property
    def _request(self) -> ReviewRequest:
        try:
            return ReviewRequest.model_validate_json((self.path / REQUEST).read_bytes())
        except (OSError, ValidationError) as error:
            raise CommandError(f"{self.path} is not a batch: {error}") from None

    def _read(self) -> None:
        for line in self._tail(self.path / CANDIDATES).new():
            if candidate := _parsed(line, Candidate):
                self.candidates[candidate.id] = candidate
        for line in self._tail(self.path / FILTERED).new():
            if dropped := _parsed(line, Filtered):
                self._filtered[dropped.reason] = self._filtered.get(dropped.reason, 0) + 1
        for file in (self.path / DECISIONS).glob("*.jsonl"):
            decisions = (_parsed(line, Decision) for line in self._tail(file).new())
            self._decisions.setdefault(file, []).extend(decision for decision in decisions if decision)

    def _tail(self, file: Path) -> _GrowingFile:
        return self._tails.setdefault(file, _GrowingFile(file))

    def _verified(self) -> Verified:
        self._read()
        return verify(list(self.candidates.values()), self._all_decisions(), self._request.synthesis)

    def _all_decisions(self) -> list[Decision]:
        return [decision for file in sorted(self._decisions) for decision in self._decisions[file]]

    def _standings(self) -> dict[str, Standing]:
        return standings(self._all_decisions())

    def _mark(self) -> str:
        """Number of rows with a decision, and a digest of the decisions in force."""
        standings = self._standings()
        if not self._all_decisions():
            return ""
        last = sorted((id, d.verdict, d.reviewer, d.time) for id, s in standings.items() for d in s.decisions)
        return f"{len(standings)}-{hashlib.sha256(json.dumps(last).encode()).hexdigest()[:12]}"

    def _next(self, verified: Verified, skipped: Collection[str]) -> Candidate | None:
        """The next candidate, in a different order for each reviewer, so that two rarely see the same row."""
        remaining = (c for c in verified.asked if c.id not in skipped)
        return min(remaining, key=lambda c: hashlib.sha256(f"{self.reviewer}:{c.id}".encode()).digest(), default=None)

    def _signed(self) -> dict[str, str]:
        return {"reviewer": self.reviewer, "time": datetime.now(UTC).isoformat(timespec="microseconds")}

    def _append(self, decision: Decision) -> None:
        try:
            self._own.parent.mkdir(exist_ok=True)
            with open(self._own, "ab") as file:
                file.write(self._line_break() + json.dumps(decision.to_json(), ensure_ascii=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CommandError(f"the decision was not saved: {error}") from None

    def _line_break(self) -> bytes:
        """The bytes that complete a line which a killed process left half-written."""
        if not self._own.is_file() or not (size := self._own.stat().st_size):
            return b""
        with open(self._own, "rb") as file:
            file.seek(size - 1)
            return b"" if file.read(1) == b"\n" else b"\n"


def _parsed(line: bytes, kind: type[AnyModel]) -> AnyModel | None:
    """Parse a line; None if it is not JSON: the end of a killed process."""
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        if error.errors()[0]["type"] != "json_invalid":
            raise CommandError(f"a line of the batch does not have the expected fields: {error}") from None
        return None
