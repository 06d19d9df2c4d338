"""Local files as evaluation sets: `validate --against` uses them for the Datasets of curation.contamination."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hone_api.base.wording import counted
from hone_api.contract.report import DatasetResult
from hone_api.dataset.curation import Contamination, NamedSplit
from hone_api.dataset.dataset import Format, Splits
from hone_api.dataset.source import Source
from hone_api.plan import DatasetInput, MaterializePlan
from hone_trainer.datasets import materialize
from hone_trainer.errors import ConfigError, DataError
from hone_trainer.store.contents import UNKNOWN

_AUTO = {"format": Format.AUTO, "columns": {}, "ignore_columns": []}


def settings(contamination: Contamination | None) -> Contamination:
    """Those of the manifest, else the defaults."""
    return contamination or Contamination(datasets=[NamedSplit(name="exam")])


def evaluation_sets(files: Sequence[Path], rows: dict[str, Any], folder: Path) -> Iterator[DatasetInput]:
    """Each file as an evaluation set, normalised below folder; how many rows it has is printed.

    Args:
        rows: format, columns and ignore_columns of the rows that are validated. An exam is read by these, or by its
            own columns if it has others.

    Raises:
        ConfigError, DataError, SourceError: as `materialize.run`; the message begins with the file.
    """
    for number, file in enumerate(files):
        store = folder / str(number)
        result = _read(file, rows, store)
        path = store / str(result.path) / "train.jsonl"
        rejected = f", {result.rejected:,} rejected" if result.rejected else ""
        print(f"against:    {file.name}: {counted(result.rows, 'row')}{rejected}")
        yield DatasetInput(name=file.name, split="", path=str(path), digest=UNKNOWN)


def _read(file: Path, rows: dict[str, Any], store: Path) -> DatasetResult:
    store.mkdir(parents=True)
    own = {name: rows[name] for name in _AUTO}
    problem: ConfigError | DataError | None = None
    for how in (own, _AUTO):
        plan = MaterializePlan(
            name=file.name,
            source=Source(uri=f"pvc://laptop/{quote(file.name)}"[:1024]),
            source_path=str(file.resolve()),
            splits=Splits(validation="0%"),
            store=str(store.resolve()),
            **how,
        )
        try:
            return materialize.run(plan)
        except (ConfigError, DataError) as error:
            problem = problem or error
    assert problem is not None
    message = f"--against {file}: {problem.message}"
    raise DataError(problem.code, message) if isinstance(problem, DataError) else ConfigError(message)
