"""What is counted while rows pass, and when it means that the Dataset is not fit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from hone_api.base.wording import are, counted
from hone_api.contract.report import DatasetResult
from hone_api.dataset.curation import CurationStep
from hone_api.dataset.dataset_status import NotReadFiles, RowErrorCount, SharedRows, SplitRows
from hone_api.plan import DatasetInput, MaterializePlan
from hone_api.words.failures import FailureCode
from hone_trainer.datasets.engine import keys
from hone_trainer.datasets.engine.counts import RowCounts
from hone_trainer.datasets.engine.relation import Relation
from hone_trainer.datasets.readers.rows import RawRow, RowError
from hone_trainer.datasets.sources import sources
from hone_trainer.datasets.splits import remembered, splits
from hone_trainer.datasets.texts import language
from hone_trainer.datasets.texts.advice import advice
from hone_trainer.datasets.texts.profile import Profile
from hone_trainer.datasets.texts.statistics import LengthHistogram
from hone_trainer.errors import DataError
from hone_trainer.workers.parallel import Workers

_ROWS_NAMED = 10
_EXAMPLES, _EXAMPLE_CHARACTERS = 3, 600
_TEXTS = 500
"""Whose languages a worker identifies at a time."""
_HIDES_ROWS = ("BrokenFile", "NotRows")
"""Codes of files whose further rows are not known."""


@dataclass
class Tally:
    """What is known of the rows so far."""

    plan: MaterializePlan
    revision: str
    format: str | None = None
    notes: tuple[str, ...] = ()
    """What of the rows is not read, as sentences."""
    valid: int = 0
    """Rows that were not rejected."""
    rows: int = 0
    """Those that the curation left."""
    rejected: int = 0
    errors: dict[str, RowErrorCount] = field(default_factory=dict)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """The first rejected rows by code, for the report."""
    lengths: LengthHistogram = field(default_factory=LengthHistogram)
    profile: Profile = field(default_factory=Profile)
    duplicates: int = 0
    """Rows that repeat an earlier one exactly."""
    curation: list[CurationStep] = field(default_factory=list)
    curated_examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Of rows that a step of the curation removed or changed, for the report."""
    splits: dict[str, int] = field(default_factory=dict)
    digest: str | None = None
    not_read: Sequence[NotReadFiles] = ()
    """Files of the source."""
    crossing: dict[str, int] = field(default_factory=dict)
    """Rows of held-out splits whose question is in train."""
    shared_rows: Sequence[SharedRows] = ()
    languages: Counter[str] = field(default_factory=Counter)
    """Rows of the sample by language."""
    _identified: Iterable[tuple[Sequence[str], Sequence[str]]] = ()
    """Texts of the sample, with the languages that workers find meanwhile."""

    def count(self, counts: RowCounts, workers: Workers) -> None:
        """Count the rows that are left; workers have `beginnings` and `language.languages_of`."""
        self.lengths, self.profile, self.duplicates = counts.lengths(), counts.profile(), counts.duplicates()
        most = language.SAMPLE_ROWS if self.plan.checks.languages else language.ADVISED_ROWS
        texts = counts.texts(most, language.SAMPLED_CHARACTERS, workers)
        parts = [texts[start : start + _TEXTS] for start in range(0, len(texts), _TEXTS)]
        self._identified = workers.map(language.languages_of, parts)

    def see_languages(self) -> None:
        """Note the languages of the sample; they are waited for."""
        for _, names in self._identified:
            self.languages.update(names)
        self._identified = ()

    def reject(self, row: RawRow, error: RowError) -> None:
        """Count a refused row."""
        self.rejected += 1
        message = f"{row.place}: {error}"
        entry = self.errors.setdefault(error.code, RowErrorCount(code=error.code, count=1, example=message[:600]))
        entry.count = entry.count + 1 if entry.rows else 1
        if len(entry.rows) < _ROWS_NAMED:
            entry.rows.append(row.number)
        examples = self.examples.setdefault(error.code, [])
        if len(examples) < _EXAMPLES:
            value = "" if row.value is None else json.dumps(row.value, ensure_ascii=False, default=str)
            shown = value[:_EXAMPLE_CHARACTERS] + ("…" if len(value) > _EXAMPLE_CHARACTERS else "")
            examples.append({"row": row.number, "place": row.place, "message": str(error), "value": shown})

    def see_splits(self, counts: dict[str, int], crossing: dict[str, int]) -> None:
        """Note the rows of each split, and how many of a held-out one have their question in train."""
        self.splits, self.crossing = counts, crossing
        if self.plan.splits.group_by:
            self.notes += tuple(self._uneven())

    def see_shared(self, rows: Relation, others: Sequence[DatasetInput]) -> None:
        """Note which other Datasets have the rows that were divided; the rows do not depend on it."""
        try:
            self.shared_rows = keys.shared(rows, others)
        except keys.UnreadKeysError:
            self.notes += ("Other Datasets could not be read, so rows that they share are not counted: see the log.",)

    def _uneven(self) -> Iterator[str]:
        """Held-out splits that few groups make much larger or smaller than asked for."""
        total = sum(self.splits.values())
        for name in ("validation", "test"):
            asked, rows = percent(getattr(self.plan.splits, name)), self.splits.get(name, 0)
            if asked and abs(rows - asked * total) * 2 > asked * total:
                share = f"{100 * rows / total:.1f} % of the rows instead of {(100 * asked).normalize():f} %"
                yield (
                    f"{name.capitalize()} has {share}: a group of splits.groupBy is never divided, and there are few or"
                    " large ones. Another splits.seed, or stratifyBy, may come closer."
                )

    def result(self) -> DatasetResult:
        """What is known by now."""
        self.see_languages()
        result = DatasetResult(
            digest=self.digest,
            split_settings=remembered.settings_of(self.plan.splits),
            path=f"datasets/{self.digest.removeprefix('sha256:')}" if self.digest else None,
            revision=self.revision,
            format_detected=self.format,
            rows=self.rows,
            splits=[SplitRows(name=name, rows=count) for name, count in self.splits.items()],
            rejected=self.rejected,
            errors=self._errors(),
            not_read=list(self.not_read),
            duplicates=self.duplicates,
            curation=self.curation,
            shared_rows=list(self.shared_rows),
            tokens=self.lengths.statistics(),
            languages=language.shares(self.languages),
            summary=self._summary(),
        )
        format = (self.format or "").partition(" ")[0]
        result.advice = advice(result, self.profile, format, self.crossing, self.notes)
        return result

    def _summary(self) -> str:
        total = self.valid + self.rejected
        if not self.rejected:
            text = "The row is good." if total == 1 else f"All {total:,} rows are good."
        else:
            kinds = ", ".join(f"{e.count:,} {e.code} ({_numbers(e)})" for e in self._errors())
            good = f"{self.valid:,} of {counted(total, 'row')} {are(self.valid)} good"
            text = f"{good}. {self.rejected:,} rejected: {kinds}."
        left = f" {self._left()}." if self.rows < self.valid and self.curation else ""
        return (text + left)[:2000]

    def _errors(self) -> list[RowErrorCount]:
        """The most frequent first."""
        return sorted(self.errors.values(), key=lambda error: -error.count)

    def check_rows(self) -> None:
        """Raises DataError: EmptySource, DamagedFile, TooManyBadRows, TooFewRows or WrongLanguage."""
        checks, total = self.plan.checks, self.valid + self.rejected
        if total == 0:
            raise DataError(
                FailureCode.EMPTY_SOURCE, f"{sources.shown(self.plan.source.uri)} holds no row", self.result()
            )
        if hidden := [self.errors[code] for code in _HIDES_ROWS if code in self.errors]:
            text = "; ".join(f"{error.example}" for error in hidden)
            raise DataError(
                FailureCode.DAMAGED_FILE, f"{text}. {counted(self.valid, 'row was', 'rows were')} read.", self.result()
            )
        if limit := self._too_many(total):
            text = f"{self.rejected} of {counted(total, 'row')} {are(self.rejected)} rejected ({limit})"
            raise DataError(FailureCode.TOO_MANY_BAD_ROWS, f"{text}: {self._worst()}", self.result())
        if self.rows < checks.min_rows:
            message = f"{self._left()}, checks.minRows is {checks.min_rows}"
            raise DataError(FailureCode.TOO_FEW_ROWS, message, self.result())
        self._check_languages()

    def _too_many(self, total: int) -> str | None:
        """The check that the rejected rows are over."""
        checks = self.plan.checks
        if self.rejected > percent(checks.max_rejected) * total or not self.valid:
            return f"checks.maxRejected {checks.max_rejected}"
        if checks.max_rejected_rows is not None and self.rejected > checks.max_rejected_rows:
            return f"checks.maxRejectedRows {checks.max_rejected_rows}"
        return None

    def _check_languages(self) -> None:
        checks = self.plan.checks
        if not checks.languages:
            return
        self.see_languages()
        share = language.share_in(self.languages, checks.languages)
        if share is None or Decimal(share) < percent(checks.min_language_share):
            seen = ", ".join(f"{entry.language} {entry.share}" for entry in language.shares(self.languages))
            message = (
                f"{'none' if share is None else f'{100 * share:.1f}%'} of the rows with a known language are"
                f" {' or '.join(checks.languages)}, checks.minLanguageShare is {checks.min_language_share}: {seen}"
            )
            raise DataError(FailureCode.WRONG_LANGUAGE, message, self.result())

    def _left(self) -> str:
        removed = ", ".join(f"{s.step} {s.removed}" for s in self.curation if s.removed)
        return (
            f"{self.rows} of {counted(self.valid, 'valid row')} left (removed: {removed})"
            if removed
            else counted(self.rows, "valid row")
        )

    def check_splits(self) -> None:
        """Raises DataError: EmptySplit."""
        empty = [name for name in splits.wanted(self.plan.splits) if not self.splits.get(name)]
        if empty:
            message = (
                f"split {' and '.join(empty)} is empty: {counted(self.rows, 'row is', 'rows are')} too few for"
                f" splits.validation {self.plan.splits.validation} and splits.test {self.plan.splits.test}"
                ' ("0%" asks for none)'
            )
            raise DataError(FailureCode.EMPTY_SPLIT, message, self.result())

    def _worst(self) -> str:
        worst = self._errors()[:3]
        return "; ".join(f"{e.count} {e.code} ({_numbers(e)}), e.g. {e.example}" for e in worst)[:1500]


def percent(text: str) -> Decimal:
    """'5%' as 0.05."""
    return Decimal(text.removesuffix("%")) / 100


def _numbers(error: RowErrorCount) -> str:
    more = ", …" if error.count > len(error.rows) else ""
    return ("row " if error.count == 1 else "rows ") + ", ".join(map(str, error.rows)) + more
