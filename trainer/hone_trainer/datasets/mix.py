"""Mix materialized Datasets into one, split by split: what a part holds out stays held out.

The first part's train rows are used once, the others' left out or repeated for their weights (`mixing`). Held-out rows
are never repeated, and those that the mixture also trains on are left out. Rows of all parts are interleaved.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from hone_api.base.wording import counted
from hone_api.contract.report import DatasetResult
from hone_api.dataset.dataset_status import DatasetUse
from hone_api.dataset.source import Source as DatasetSource
from hone_api.plan import DatasetInput, MaterializePlan, MixPlan
from hone_api.words.failures import FailureCode
from hone_trainer.datasets import materialize, publishing, report
from hone_trainer.datasets.checked import Normalised, PartMaker
from hone_trainer.datasets.engine import dividing, keys
from hone_trainer.datasets.engine.counts import RowCounts
from hone_trainer.datasets.engine.relation import Relation
from hone_trainer.datasets.readers.rows import RawRow
from hone_trainer.datasets.row_statistics import Tally
from hone_trainer.datasets.sources import croissant
from hone_trainer.datasets.splits import changes, shares
from hone_trainer.datasets.splits.splits import hash_of
from hone_trainer.datasets.texts.statistics import length_of
from hone_trainer.errors import DataError, SourceError
from hone_trainer.reporting.task import TaskProgress
from hone_trainer.store import contents
from hone_trainer.store.part_folder import PartFolder
from hone_trainer.workers.parallel import Workers


@dataclass
class IndexedSplit:
    """A split of a Dataset: each row's position, hash and estimated tokens; 24 bytes of memory a row."""

    dataset: DatasetInput
    file: IO[bytes]
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    hashes: array[int] = field(default_factory=lambda: array("Q"))
    tokens: array[int] = field(default_factory=lambda: array("Q"))

    @classmethod
    def open(cls, dataset: DatasetInput) -> IndexedSplit:
        """Read the split once.

        Raises:
            SourceError: SourceNotFound when it is not in the store.
        """
        try:
            part = cls(dataset, open(dataset.path, "rb"))  # noqa: SIM115
        except FileNotFoundError:
            message = f"{dataset.name}/{dataset.split} {dataset.digest} is not in the store"
            raise SourceError(FailureCode.SOURCE_NOT_FOUND, message) from None
        at = 0
        for line in part.file:
            part.offsets.append(at)
            part.hashes.append(hash_of(line, 0))
            part.tokens.append(length_of(json.loads(line)))
            at += len(line)
        return part

    def leave_out(self, hashes: Sequence[array[int]]) -> None:
        """Forget rows whose hash is among these."""
        import numpy

        hashes_seen = numpy.concatenate([numpy.array(some, dtype=numpy.uint64) for some in hashes])
        keep = numpy.flatnonzero(~numpy.isin(numpy.array(self.hashes, dtype=numpy.uint64), hashes_seen))
        for name in ("offsets", "hashes", "tokens"):
            setattr(self, name, array("Q", numpy.array(getattr(self, name), dtype=numpy.uint64)[keep].tobytes()))

    def sized(self, by: str) -> shares.WeightedRows:
        """The part as `mixing` takes it."""
        sizes = self.tokens if by == "Tokens" else [1] * len(self.offsets)
        return shares.WeightedRows(self.dataset.name, sizes, self.dataset.share)

    def line(self, index: int) -> bytes:
        self.file.seek(self.offsets[index])
        return self.file.readline()


def run(plan: MixPlan) -> DatasetResult:
    """Mix the plan's parts, or find that this was done, and publish the rows.

    Raises:
        ConfigError, SourceError, DataError: as `make`.
    """
    return publishing.at_once(plan, partial(make, plan))


def make(plan: MixPlan, work: Path) -> DatasetResult:
    """Rows, report and manifest in `content` of a folder, as `publishing.Make`.

    Raises:
        ConfigError: weights that are not 100 % together.
        SourceError: a part that is not in the store.
        DataError: TooFewRows.
    """
    content = work / publishing.CONTENT
    with TaskProgress(f"dataset {plan.name}") as progress:
        tally = Tally(_as_source(plan), _revision(plan.parts))
        tally.format = _format(plan.parts)
        if all(Path(part.path).is_file() for part in plan.parts):  # else `IndexedSplit.open` reports it
            contents.verify(plan.parts)
        used: list[DatasetUse] = []
        trained: list[array[int]] = []
        for split in contents.SPLITS:
            opened = [IndexedSplit.open(part) for part in plan.parts if part.split == split]
            for part in opened if trained else ():
                part.leave_out(trained)
            parts = [part for part in opened if part.offsets]
            if parts:
                chosen = _choose(plan, split, parts)
                tally.splits[split] = _write(plan, parts, chosen, content / f"{split}.jsonl")
                used += _uses(parts, chosen)
                progress.log(f"{split}: {', '.join(f'{u.name} {u.row_share}' for u in used if u.split == split)}")
            if split == "train":
                trained = [part.hashes for part in parts]
            for part in opened:
                part.file.close()
        _count(tally, plan.other_datasets, content, work)
        if tally.rows < plan.checks.min_rows:
            message = f"{counted(tally.rows, 'row')}, checks.minRows is {plan.checks.min_rows}"
            raise DataError(FailureCode.TOO_FEW_ROWS, message, tally.result())
        hashes = contents.hashes_of(content)
        tally.digest = contents.digest_of(content, hashes)
        result = tally.result()
        result.croissant = croissant.merged({Path(part.path).with_name(croissant.NAME): None for part in plan.parts})
        result.mixture = used
        result.changes = changes.since(plan.previous, Path(plan.store) / "datasets", content, tally.digest)
        materialize.write_report(tally, result, content, hashes)
    return result


def _choose(plan: MixPlan, split: str, parts: Sequence[IndexedSplit]) -> list[list[int]]:
    """Indices of each part's rows."""
    sized = [part.sized(plan.by) for part in parts]
    amounts = shares.amounts(sized, plan.total) if split == "train" else shares.amounts_once(sized)
    return [shares.pick(part, amount, plan.seed) for part, amount in zip(sized, amounts, strict=True)]


def _write(plan: MixPlan, parts: Sequence[IndexedSplit], chosen: list[list[int]], path: Path) -> int:
    """All chosen rows, in an order that depends on the seed alone."""
    import numpy

    places, numbers, rows = array("Q"), array("H"), array("Q")
    for number, (part, indices) in enumerate(zip(parts, chosen, strict=True)):
        for repeat, index in enumerate(indices):
            places.append(hash_of(b"%d %d" % (part.hashes[index], repeat), plan.seed))
            numbers.append(number)
            rows.append(index)
    order = numpy.argsort(numpy.array(places, dtype=numpy.uint64), kind="stable")
    with open(path, "wb") as file:
        file.writelines(parts[numbers[at]].line(rows[at]) for at in order)
    return len(places)


def _count(tally: Tally, others: Sequence[DatasetInput], content: Path, work: Path) -> None:
    """Count the rows of the splits that were written."""
    maker = PartMaker(Normalised(tally.plan, None), tally.plan, {}, None, False, PartFolder(work / "parts", ""), 0)
    names = [name for name in contents.SPLITS if name in tally.splits]
    with Workers() as workers:
        parts = [maker.of_rows(at, _lines(content / f"{name}.jsonl")) for at, name in enumerate(names)]
        with Relation(parts, work / "relation", 0) as rows:
            tally.rows = tally.valid = dividing.keep(rows)
            tally.count(RowCounts(rows), workers)
            dividing.divide_as_parts(rows, names)
            tally.see_splits(tally.splits, dividing.crossing(rows))
            keys.write(rows, content)
            tally.see_shared(rows, others)


def _lines(path: Path) -> Iterator[RawRow]:
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            yield RawRow(number, path.name, line=line[:-1])


def _uses(parts: Sequence[IndexedSplit], chosen: Sequence[Sequence[int]]) -> list[DatasetUse]:
    tokens = [sum(part.tokens[i] for i in indices) for part, indices in zip(parts, chosen, strict=True)]
    rows = [len(indices) for indices in chosen]
    return [
        DatasetUse(
            name=part.dataset.name,
            split=part.dataset.split,
            digest=part.dataset.digest,
            rows=rows[i],
            tokens=tokens[i],
            row_share=shares.percent(rows[i], sum(rows)),
            token_share=shares.percent(tokens[i], sum(tokens)),
            passes=f"{rows[i] / len(part.offsets):.2f}",
        )
        for i, part in enumerate(parts)
    ]


def _format(parts: Sequence[DatasetInput]) -> str:
    """The format of the parts, from their reports, if it is the same for all."""
    formats = set()
    for part in parts:
        part_report = json.loads((Path(part.path).parent / report.DATA).read_text(encoding="utf-8"))
        formats.add(str(part_report["result"].get("formatDetected") or "").partition(" ")[0])
    return formats.pop() if len(formats) == 1 else f"Mixture of {', '.join(sorted(formats))}"


def _revision(parts: Sequence[DatasetInput]) -> str:
    digests = sorted({f"{part.name} {part.digest} {part.share}" for part in parts})
    return f"{hash_of(json.dumps(digests).encode(), 0):016x}"


def _as_source(plan: MixPlan) -> MaterializePlan:
    """The origin of the rows, for the report. It is not a URI, so it is not validated as one."""
    names = ", ".join(dict.fromkeys(f"{part.share} {part.name}" for part in plan.parts))
    source = DatasetSource.model_construct(uri=f"mixture of {names}")
    return MaterializePlan.model_construct(name=plan.name, source=source, checks=plan.checks, store=plan.store)
