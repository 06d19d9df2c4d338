"""The split of each row that is kept, as SQL: groups, strata, and what a row was in before.

The table `kept` has the rows; `divided` gets the code of each row's split: 1 plus its index in SPLITS.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hone_api.dataset.dataset import Splits
from hone_trainer.datasets.engine.arrays import column
from hone_trainer.datasets.engine.relation import LAST, Relation
from hone_trainer.datasets.splits import remembered
from hone_trainer.datasets.splits.remembered import NEW, TRAIN
from hone_trainer.datasets.splits.splits import Division, hash_of, share_of, wanted
from hone_trainer.errors import ConfigError
from hone_trainer.store.contents import SPLITS

_SPACE = 2**64
_STEP = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio: the first n multiples, modulo 2^64, are about as even as any n numbers can be,
whatever n is (Knuth, The Art of Computer Programming, 6.4, theorem S)."""
_MOST_STRATA = 10_000


def keep(rows: Relation) -> int:
    """Make the table `kept` of the rows that the curation left; gives their number."""
    rows.execute(
        f"""CREATE TABLE kept AS SELECT row, coalesce(new, grp) AS grp, content,
            coalesce(question, content) AS question, exact, stratum, size
            FROM {rows.left_by(LAST)} LEFT JOIN regrouped ON grp = old"""
    )
    count: int = rows.one("SELECT count(*) FROM kept")
    return count


def check_strata(rows: Relation, splits: Splits) -> None:
    """Refuse a column of very many values.

    Raises:
        ConfigError: more than 10,000 values.
    """
    if splits.stratify_by and rows.one("SELECT count(DISTINCT stratum) FROM kept") > _MOST_STRATA:
        raise ConfigError(
            f"splits.stratifyBy: column {splits.stratify_by} has over {_MOST_STRATA} values: choose a column with fewer"
        )


def divide(rows: Relation, splits: Splits, before: Path | None) -> dict[str, int]:
    """Make the table `divided` (row, code); gives the rows of each split.

    Args:
        before: the content whose rows keep their split.
    """
    _join_questions(rows, splits)
    _place(rows, splits)
    if before is not None:
        _remember(rows, before)
    else:
        rows.execute(f"CREATE TABLE remembered AS SELECT row, {NEW}::UTINYINT AS code FROM placed LIMIT 0")
    asked = set(wanted(splits))
    for forgotten in (NEW, TRAIN):
        # Where new rows alone cannot fill a wanted split, e.g. as its one row has gone, rows of train do.
        _assign_splits(rows, splits, forgotten)
        counts = dict(rows.all("SELECT code, count(*) FROM divided GROUP BY code"))
        if asked <= {SPLITS[code - 1] for code in counts} or before is None:
            break
    return {name: counts[code] for code, name in enumerate(SPLITS, 1) if code in counts}


def divide_as_parts(rows: Relation, names: Sequence[str]) -> None:
    """Make the table `divided` of rows that are divided already: each part is of one split."""
    rows.execute("CREATE TABLE divided (row BIGINT, code UTINYINT)")
    end = 0
    for part, name in zip(rows.parts, names, strict=True):
        begin, end = end + 1, end + part.rows
        rows.execute(
            f"INSERT INTO divided SELECT row, {1 + SPLITS.index(name)} FROM kept WHERE row BETWEEN {begin} AND {end}"
        )


def crossing(rows: Relation) -> dict[str, int]:
    """How many rows of each held-out split have their question in train, where there are any."""
    counts = rows.all(
        f"""WITH asked AS (SELECT code, question FROM divided JOIN kept USING (row))
        SELECT code, count(*) FROM asked WHERE code <> {TRAIN}
            AND question IN (SELECT question FROM asked WHERE code = {TRAIN}) GROUP BY code"""
    )
    by_code = dict(counts)
    return {name: by_code[code] for code, name in enumerate(SPLITS, 1) if code in by_code}


def _join_questions(rows: Relation, splits: Splits) -> None:
    """Make the table `grouped` (row, grp, joined): the group of each row for other reasons, and with those that ask
    the same.

    Rows with one question are one group, that of the first of them, if they are not more than a held-out split has.
    """
    shares = [one for one in (share_of(splits.validation), share_of(splits.test)) if one]
    if splits.group_by or not shares:
        rows.execute("CREATE TABLE grouped AS SELECT row, grp, grp AS joined FROM kept")
        return
    most = int(min(shares) * rows.one("SELECT count(*) FROM kept"))
    rows.execute(
        """CREATE TABLE edges AS SELECT DISTINCT grp, question FROM kept SEMI JOIN (
            SELECT question FROM kept GROUP BY question HAVING count(*) BETWEEN 2 AND ?
        ) USING (question)""",
        most,
    )
    rows.execute(
        """CREATE TABLE firsts AS SELECT grp, min(row) AS first FROM kept
            WHERE grp IN (SELECT grp FROM edges) GROUP BY grp"""
    )
    rows.execute("CREATE TABLE owners AS SELECT first, grp FROM firsts")
    while True:  # until no group of near duplicates connects two questions
        rows.execute(
            """CREATE TABLE near AS SELECT grp, min(lowest) AS first FROM edges JOIN (
                SELECT question, min(first) AS lowest FROM edges JOIN firsts USING (grp) GROUP BY question
            ) USING (question) GROUP BY grp"""
        )
        # Also what the group that has this first row has found: a chain takes rounds by the logarithm of its length.
        rows.execute(
            """CREATE TABLE lower AS SELECT near.grp, beyond.first FROM near
                JOIN owners ON owners.first = near.first JOIN near AS beyond ON beyond.grp = owners.grp"""
        )
        rows.execute("DROP TABLE near")
        changed = rows.one("SELECT count(*) FROM lower JOIN firsts USING (grp) WHERE lower.first < firsts.first")
        rows.execute("DROP TABLE firsts")
        rows.execute("ALTER TABLE lower RENAME TO firsts")
        if not changed:
            break
    rows.execute(
        """CREATE TABLE grouped AS SELECT kept.row, kept.grp, coalesce(f.joined, kept.grp) AS joined FROM kept
            LEFT JOIN (SELECT firsts.grp, kept.grp AS joined FROM firsts JOIN kept ON kept.row = firsts.first) f
            ON f.grp = kept.grp"""
    )


def _place(rows: Relation, splits: Splits) -> None:
    """Make the table `placed` (row, grp, joined, place): the number that decides the split of each row.

    A group has one: its hash, or its place in the stratum of its first row.
    """
    if not splits.stratify_by:
        rows.execute("CREATE VIEW placed AS SELECT *, joined AS place FROM grouped")
        return
    names = [name for (name,) in rows.all("SELECT DISTINCT stratum FROM kept")]
    rows.execute("CREATE TABLE begins (stratum VARCHAR, begin UBIGINT)")
    import pyarrow

    begins = [hash_of(name.encode(), splits.seed) for name in names]
    rows.insert("begins", {"stratum": names, "begin": column(begins, pyarrow.uint64())})
    rows.execute(
        f"""CREATE TABLE placed AS SELECT grouped.*, place FROM grouped JOIN (
            SELECT joined, ((begin::UHUGEINT + (row_number() OVER (PARTITION BY stratum ORDER BY first) - 1)::UHUGEINT
                * {_STEP}::UHUGEINT) % {_SPACE}::UHUGEINT)::UBIGINT AS place
            FROM (SELECT joined, min(row) AS first FROM grouped GROUP BY joined) JOIN kept ON kept.row = first
            JOIN begins USING (stratum)
        ) USING (joined)"""
    )


def _remember(rows: Relation, before: Path) -> None:
    """Make the table `remembered` (row, code) of rows whose split the content before decides.

    A group has one split. Where its rows were in several, as when a new row joins two groups, what was held out stays
    so: test goes before validation, and validation before train. A question only decides where its new rows go: the
    content before may have been divided before questions counted.
    """
    import pyarrow

    rows.execute("CREATE TABLE former (content UBIGINT, code UTINYINT)")
    for hashes, code in remembered.rows_before(before):
        rows.insert("former", {"content": column(hashes, pyarrow.uint64()), "code": [code] * len(hashes)})
    rows.execute(
        f"""CREATE TABLE remembered AS WITH
        -- A row that was in several splits held out nothing.
        known AS (SELECT content, min(code) AS code FROM former GROUP BY content HAVING count(DISTINCT code) = 1),
        own AS (SELECT placed.row, placed.joined, max(coalesce(code, {NEW})) OVER (PARTITION BY placed.grp) AS code
            FROM placed JOIN kept USING (row) LEFT JOIN known USING (content)),
        asked AS (SELECT row, code, max(code) OVER (PARTITION BY joined) AS others FROM own)
        SELECT row, CASE WHEN code = {NEW} THEN others ELSE code END AS code FROM asked WHERE others <> {NEW}"""
    )


def _assign_splits(rows: Relation, splits: Splits, forgotten: int) -> None:
    """Make the table `divided`; forgotten: the code of rows that are divided as if they were new."""
    rows.execute(f"CREATE OR REPLACE VIEW known AS SELECT * FROM remembered WHERE code <> {forgotten}")
    rows.execute("CREATE OR REPLACE VIEW new_rows AS SELECT row, place FROM placed ANTI JOIN known USING (row)")
    division = Division.of(splits)
    # Of all places, those alone that can move a bound.
    division.see_all(
        place
        for query in (
            "SELECT DISTINCT place FROM new_rows ORDER BY place DESC LIMIT 2",
            "SELECT place FROM new_rows ORDER BY place LIMIT 1",
            f"SELECT DISTINCT place FROM new_rows WHERE place >= {division.validation_end} ORDER BY place LIMIT 2",
        )
        for (place,) in rows.all(query)
    )
    division.settle({SPLITS[code - 1] for (code,) in rows.all("SELECT DISTINCT code FROM known")})
    train, validation, test = (1 + SPLITS.index(name) for name in ("train", "validation", "test"))
    rows.execute(
        f"""CREATE OR REPLACE TABLE divided AS SELECT row, code FROM known UNION ALL SELECT row, (CASE
            WHEN place::UHUGEINT < {division.validation_end}::UHUGEINT THEN {validation}
            WHEN place::UHUGEINT < {division.test_end}::UHUGEINT THEN {test}
            ELSE {train} END)::UTINYINT FROM new_rows"""
    )
