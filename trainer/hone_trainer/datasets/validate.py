"""Validate: what Hone makes of a file of rows, for a person on a laptop. Nothing is kept."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from hone_api.dataset import Format, Source
from hone_api.plan import MaterializePlan
from hone_api.report import DatasetResult
from hone_api.rowcodes import ROW_CODES
from hone_trainer.datasets import materialize
from hone_trainer.errors import ConfigError, DataError, SourceError


def run(file: Path, format: str, columns: Sequence[str], html: Path | None = None) -> DatasetResult:
    """Materialise the file into a folder that is thrown away, and print what came of it.

    Args:
        columns: 'role=column' each.
        html: where to write the report as a page.

    Raises:
        ConfigError, DataError, SourceError: as `materialize.run`.
    """
    if not file.is_file():
        raise SourceError("SourceNotFound", f"there is no file {file}")
    if format not in set(Format):
        raise ConfigError(f"--format {format}: one of {', '.join(Format)}")
    wrong = [pair for pair in columns if "=" not in pair]
    if wrong:
        raise ConfigError(f"--column {', '.join(wrong)}: write ROLE=COLUMN, e.g. prompt=question")
    with tempfile.TemporaryDirectory(prefix="hone-validate-") as store:
        plan = MaterializePlan(
            name=file.name,
            source=Source(uri=f"pvc://laptop/{quote(file.name)}"[:1024]),
            source_path=str(file.resolve()),
            format=Format(format),
            columns=dict(pair.split("=", 1) for pair in columns),
            store=store,
        )
        try:
            result = materialize.run(plan)
            first = _first_row(Path(store) / str(result.path))
        except DataError as error:
            if error.result:
                print(_report(error.result))
                _keep_page(Path(store), error.result, html)
            raise
        _keep_page(Path(store), result, html)
    print(_report(result))
    print(f"first row:  {first}")
    return result


def _keep_page(store: Path, result: DatasetResult, html: Path | None) -> None:
    if html is not None and result.report:
        shutil.copyfile(store / result.report, html)
        print(f"report:     {html}")


def _report(result: DatasetResult) -> str:
    lines = [f"format:     {result.format_detected or 'not recognised'}"]
    splits = ", ".join(f"{split.name} {split.rows:,}" for split in result.splits)
    lines.append(f"rows:       {result.rows:,} valid" + (f" ({splits})" if splits else ""))
    if result.tokens:
        t = result.tokens
        lines.append(f"length:     median {t.median:,}, 95 % {t.p95:,}, longest {t.max:,} ({t.unit})")
    if result.languages:
        lines.append("languages:  " + ", ".join(f"{entry.language} {entry.share}" for entry in result.languages))
    lines.append(f"duplicates: {result.duplicates:,}")
    lines.append(f"rejected:   {result.rejected:,}")
    for error in result.errors:
        lines.append(
            f"  {error.code:16} {error.count:,} rows, first {', '.join(map(str, error.rows))}; {error.example}\n"
            f"  {'':16} {ROW_CODES[error.code].hint}"
        )
    lines += [f"{'advice:' if i == 0 else '':12}{sentence}" for i, sentence in enumerate(result.advice)]
    return "\n".join(lines)


def _first_row(folder: Path) -> str:
    for name in materialize.SPLITS:
        if (folder / f"{name}.jsonl").is_file():
            with open(folder / f"{name}.jsonl", encoding="utf-8") as file:
                return json.dumps(json.loads(file.readline()), ensure_ascii=False)[:300]
    return ""
