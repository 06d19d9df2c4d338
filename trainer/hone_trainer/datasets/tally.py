"""What is counted while rows pass, and when it means that the Dataset is not fit."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from hone_api.curation import CurationStep
from hone_api.dataset import RowError as RowErrorCount
from hone_api.dataset import SplitRows, TokenStatistics
from hone_api.plan import MaterializePlan
from hone_api.report import DatasetResult
from hone_trainer.datasets import sources, splits
from hone_trainer.datasets.rows import RawRow, Record, RowError
from hone_trainer.datasets.statistics import Duplicates, Lengths
from hone_trainer.errors import DataError

_ROWS_NAMED = 10


@dataclass
class Tally:
    """What is known of the rows so far."""

    plan: MaterializePlan
    revision: str
    format: str | None = None
    valid: int = 0
    """Rows that were not rejected."""
    rows: int = 0
    """Those that the curation left."""
    rejected: int = 0
    errors: dict[str, RowErrorCount] = field(default_factory=dict)
    lengths: Lengths = field(default_factory=Lengths)
    duplicates: Duplicates = field(default_factory=Duplicates)
    curation: list[CurationStep] = field(default_factory=list)
    splits: dict[str, int] = field(default_factory=dict)
    digest: str | None = None

    def __post_init__(self) -> None:
        self.division = splits.Division.of(self.plan.splits)

    def accept(self, record: Record, line: str, group: str) -> int:
        """Count a row that is kept; gives the hash that decides its split."""
        value = splits.hash_of(group.encode(), self.plan.splits.seed)
        self.division.see(value)
        self.duplicates.see(splits.hash_of(line.encode(), 0))
        self.lengths.see(record)
        self.rows += 1
        return value

    def reject(self, row: RawRow, error: RowError) -> None:
        """Count a refused row."""
        self.rejected += 1
        message = f"{row.place}: {error}"
        entry = self.errors.setdefault(error.code, RowErrorCount(code=error.code, count=1, example=message[:600]))
        entry.count = entry.count + 1 if entry.rows else 1
        if len(entry.rows) < _ROWS_NAMED:
            entry.rows.append(row.number)

    def result(self) -> DatasetResult:
        """What is known by now."""
        tokens: TokenStatistics | None = self.lengths.statistics()
        return DatasetResult(
            digest=self.digest,
            path=f"datasets/{self.digest.removeprefix('sha256:')}" if self.digest else None,
            revision=self.revision,
            format_detected=self.format,
            rows=self.rows,
            splits=[SplitRows(name=name, rows=count) for name, count in self.splits.items()],
            rejected=self.rejected,
            errors=sorted(self.errors.values(), key=lambda error: -error.count),
            duplicates=self.duplicates.count(),
            curation=self.curation,
            tokens=tokens,
        )

    def check_rows(self) -> None:
        """Raises DataError: EmptySource, TooManyBadRows or TooFewRows."""
        checks, total = self.plan.checks, self.valid + self.rejected
        if total == 0:
            raise DataError("EmptySource", f"{sources.shown(self.plan.source.uri)} holds no row", self.result())
        if self.rejected > percent(checks.max_rejected) * total or not self.valid:
            text = f"{self.rejected} of {total} rows are rejected (checks.maxRejected {checks.max_rejected})"
            raise DataError("TooManyBadRows", f"{text}: {self._worst()}", self.result())
        if self.rows < checks.min_rows:
            message = f"{self._left()}, checks.minRows is {checks.min_rows}"
            raise DataError("TooFewRows", message, self.result())

    def _left(self) -> str:
        removed = ", ".join(f"{s.step} {s.removed}" for s in self.curation if s.removed)
        return (
            f"{self.rows} of {self.valid} valid rows are left (removed: {removed})"
            if removed
            else f"{self.rows} valid rows"
        )

    def check_splits(self) -> None:
        """Raises DataError: EmptySplit."""
        empty = [name for name in splits.wanted(self.plan.splits) if not self.splits.get(name)]
        if empty:
            message = (
                f"split {' and '.join(empty)} is empty: {self.rows} rows are too few different ones for"
                f" splits.validation {self.plan.splits.validation} and splits.test {self.plan.splits.test}"
                ' ("0%" asks for none)'
            )
            raise DataError("EmptySplit", message, self.result())

    def _worst(self) -> str:
        worst = sorted(self.errors.values(), key=lambda error: -error.count)[:3]
        return "; ".join(f"{e.count} {e.code} (rows {_numbers(e)}), e.g. {e.example}" for e in worst)[:1500]


def percent(text: str) -> Decimal:
    """'5%' as 0.05."""
    return Decimal(text.removesuffix("%")) / 100


def _numbers(error: RowErrorCount) -> str:
    more = ", …" if error.count > len(error.rows) else ""
    return ", ".join(map(str, error.rows)) + more
