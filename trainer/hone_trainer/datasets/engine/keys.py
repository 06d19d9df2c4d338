"""Keys of rows, in a file next to each split: rows of several Datasets are compared without being read.

A key is 64 bits of a hash, in columns: `content` of the line, `question` of what a row asks (null: of a document), and
`exact` as exact duplicates are found by (null: these were not looked for). Keys are in the order of the rows.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from hone_api.dataset.dataset_status import SharedRows
from hone_api.plan import DatasetInput
from hone_api.words.failures import FailureCode
from hone_trainer.datasets.engine.arrays import column
from hone_trainer.datasets.engine.features import features
from hone_trainer.datasets.engine.relation import Relation, parquet
from hone_trainer.datasets.splits.remembered import TRAIN
from hone_trainer.datasets.splits.splits import hash_of
from hone_trainer.datasets.texts.texts import texts_of
from hone_trainer.errors import SourceError, StoreError
from hone_trainer.store import manifest
from hone_trainer.store.contents import KEYS, SPLITS

_READ_ROWS = 2**15
_ASKED = "coalesce(question, content)"
_VERSION = "1"
"""Of how keys are made, in a file's metadata: keys of another version are not compared with ours."""
_log = logging.getLogger(__name__)


class UnreadKeysError(Exception):
    """Keys of other Datasets cannot be read: they were swept, or damaged, meanwhile."""


def write(rows: Relation, folder: Path) -> None:
    """The keys of the rows of the table `divided`, a file for each split."""
    for (code,) in rows.all("SELECT DISTINCT code FROM divided"):
        path = str(folder / f"{SPLITS[code - 1]}{KEYS}").replace("'", "''")
        rows.execute(
            f"""COPY (SELECT content, nullif(question, content) AS question, exact FROM divided JOIN kept USING (row)
                WHERE code = {code} ORDER BY row) TO '{path}' (FORMAT parquet, COMPRESSION uncompressed,
                KV_METADATA {{version: '{_VERSION}'}})"""
        )


def files(rows: Relation, splits: Sequence[DatasetInput], folder: Path, column: str) -> list[Path]:
    """The keys of each split; where a file has none in a column, they are made of its rows.

    Args:
        folder: for keys that are made.

    Raises:
        SourceError: SourceNotFound when a split is not in the store.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, split in enumerate(splits):
        path = _stored(split)
        if path is None or not _has(rows, path, column):
            path = folder / f"{number}.parquet"
            _make(split, path)
        paths.append(path)
    return paths


def shared(rows: Relation, others: Sequence[DatasetInput]) -> list[SharedRows]:
    """The Datasets that have rows of the table `divided`, or their questions, the most first; of the others' splits
    those alone that have keys.

    Raises:
        UnreadKeysError: some cannot be read.
    """
    import duckdb

    try:
        return _shared(rows, others)
    except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException):  # a mistake of ours
        raise
    except (OSError, duckdb.Error) as error:
        _log.warning("other Datasets are not compared: %s", error)
        raise UnreadKeysError from error


def _shared(rows: Relation, others: Sequence[DatasetInput]) -> list[SharedRows]:
    stored = [(split, path) for split in others if (path := _stored(split))]
    if not stored:
        return []
    names = list(dict.fromkeys((split.name, split.digest) for split, _ in stored))
    rows.execute("CREATE TABLE theirs (file UBIGINT, other BIGINT, trains BOOLEAN)")
    about = [(names.index((split.name, split.digest)), split.split == SPLITS[TRAIN - 1]) for split, _ in stored]
    columns = [*range(len(about))], *map(list, zip(*about, strict=True))
    rows.insert("theirs", dict(zip(("file", "other", "trains"), columns, strict=True)))
    rows.execute(
        f"""CREATE TABLE mine AS SELECT content, question, code = {TRAIN} AS trains, count(*) AS rows
            FROM divided JOIN kept USING (row) GROUP BY ALL"""
    )
    # Equal rows ask the same.
    rows.execute(
        f"""CREATE TABLE met AS SELECT DISTINCT other, k.content, {_ASKED} AS question, trains
            FROM {parquet([path for _, path in stored])} k JOIN theirs ON k.file_index = theirs.file
            WHERE {_ASKED} IN (SELECT question FROM mine)"""
    )
    counts = rows.all(
        """WITH asked AS (SELECT other, question, bool_or(trains) AS trained, bool_or(NOT trains) AS held_out
            FROM met GROUP BY ALL),
        asking AS (SELECT question, trains, sum(rows) AS rows FROM mine GROUP BY ALL),
        questions AS (SELECT other, sum(rows) AS rows,
            sum(CASE WHEN CASE WHEN trains THEN held_out ELSE trained END THEN rows ELSE 0 END) AS crossing
            FROM asked JOIN asking USING (question) GROUP BY other),
        equal AS (SELECT other, sum(rows) AS rows FROM (SELECT DISTINCT other, content FROM met)
            JOIN mine USING (content) GROUP BY other)
        SELECT other, coalesce(equal.rows, 0), q.rows, crossing FROM questions q LEFT JOIN equal USING (other)
        ORDER BY q.rows DESC, other"""
    )
    return [
        SharedRows(name=names[at][0], digest=names[at][1], rows=equal, questions=asked, crossing=crossing)
        for at, equal, asked, crossing in counts
    ]


def trained_on(
    train: Sequence[DatasetInput], held_out: Sequence[DatasetInput], folder: Path
) -> Iterator[tuple[DatasetInput, int, int]]:
    """Each held-out split that has questions of the training rows: rows with such a question, and all.

    Args:
        folder: an empty one.

    Raises:
        SourceError: SourceNotFound when a split is not in the store.
    """
    with Relation([], folder / "relation", 0) as rows:
        trained = files(rows, train, folder / "train", "content")
        rows.execute(f"CREATE TABLE trained AS SELECT DISTINCT {_ASKED} AS question FROM {parquet(trained)}")
        for split, path in zip(held_out, files(rows, held_out, folder / "held-out", "content"), strict=True):
            met, all_rows = rows.all(
                f"""SELECT count(*) FILTER ({_ASKED} IN (SELECT question FROM trained)), count(*)
                    FROM {parquet([path])}"""
            )[0]
            if met:
                yield split, met, all_rows


def _stored(split: DatasetInput) -> Path | None:
    """The keys next to a split, if they are what was written, by a version that makes the same."""
    import pyarrow.parquet

    path = Path(split.path).with_suffix(KEYS)
    if not path.is_file():
        return None
    try:
        manifest.verify(path.parent, hashed=lambda name: name == path.name)
    except StoreError:
        return None
    metadata = pyarrow.parquet.read_metadata(path).metadata or {}
    return path if metadata.get(b"version") == _VERSION.encode() else None


def _has(rows: Relation, path: Path, column: str) -> bool:
    """Whether rows have a key in the column: all have one, or none."""
    return not rows.all(f"SELECT 1 FROM (SELECT {column} FROM {parquet([path])} LIMIT 1) WHERE {column} IS NULL")


def _make(split: DatasetInput, target: Path) -> None:
    import pyarrow.parquet

    kind = pyarrow.uint64()
    schema = pyarrow.schema([(name, kind) for name in ("content", "question", "exact")])
    try:
        lines = open(split.path, "rb")  # noqa: SIM115
    except FileNotFoundError:
        message = f"{split.name}/{split.split} {split.digest} is not in the store"
        raise SourceError(FailureCode.SOURCE_NOT_FOUND, message) from None
    with lines, pyarrow.parquet.ParquetWriter(target, schema, compression="none") as writer:
        while some := list(itertools.islice(lines, _READ_ROWS)):
            keys = [_keys_of(line.removesuffix(b"\n")) for line in some]
            arrays = [column(list(values), kind) for values in zip(*keys, strict=True)]
            writer.write_batch(pyarrow.record_batch(arrays, schema=schema))


def _keys_of(line: bytes) -> tuple[int, int | None, int | None]:
    record = json.loads(line)
    row = features(record, texts_of(record), is_exact=True)
    return hash_of(line, 0), row.question, row.exact
