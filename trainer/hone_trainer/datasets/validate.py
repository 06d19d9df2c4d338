"""Validate: what Hone makes of a file of rows, for a person on a laptop. Nothing is kept."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hone_api.curation import Curation, CurationStep, Scorer
from hone_api.dataset import DatasetSpec, Format
from hone_api.plan import MaterializePlan
from hone_api.report import DatasetResult
from hone_api.rowcodes import ROW_CODES
from hone_api.source import Source
from hone_trainer.datasets import materialize
from hone_trainer.errors import ConfigError, DataError, SourceError


def run(
    file: Path,
    format: str,
    columns: Sequence[str],
    html: Path | None = None,
    dataset: Path | None = None,
    ignored: Sequence[str] = (),
) -> DatasetResult:
    """Materialise the file, or a folder of files, into a folder that is thrown away, and print what came of it.

    Args:
        columns: 'role=column' each.
        html: where to write the report as a page.
        dataset: manifest of a Dataset, whose settings count as in the cluster; its source's URI does not.

    Raises:
        ConfigError, DataError, SourceError: as `materialize.run`.
    """
    if not file.exists():
        raise SourceError("SourceNotFound", f"there is no file {file}")
    if format not in set(Format):
        raise ConfigError(f"--format {format}: one of {', '.join(Format)}")
    wrong = [pair for pair in columns if "=" not in pair]
    if wrong:
        raise ConfigError(f"--column {', '.join(wrong)}: write ROLE=COLUMN, e.g. prompt=question")
    if dataset is not None and (columns or ignored or format != Format.AUTO):
        raise ConfigError("--dataset has format and columns: leave out --format, --column and --ignore-column")
    with tempfile.TemporaryDirectory(prefix="hone-validate-") as store:
        told: dict[str, Any] = {"format": Format(format), "columns": dict(pair.split("=", 1) for pair in columns)}
        told["ignore_columns"] = list(ignored)
        plan = MaterializePlan(
            name=file.name,
            source=Source(uri=f"pvc://laptop/{quote(file.name)}"[:1024], files=_files(dataset)),
            source_path=str(file.resolve()),
            store=store,
            **(told if dataset is None else _settings(manifest_of(dataset))),
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


def manifest_of(path: Path) -> DatasetSpec:
    """The spec of the Dataset in a YAML file, which may have other objects, too.

    Raises:
        ConfigError: there is none, or several, or its spec cannot be.
    """
    import yaml
    from pydantic import ValidationError

    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"--dataset {path}: {error}") from None
    found = [one for one in documents if isinstance(one, dict) and one.get("kind") == "Dataset"]
    if len(found) != 1:
        raise ConfigError(f"--dataset {path}: has {len(found)} Datasets, not one")
    try:
        return DatasetSpec.model_validate(found[0].get("spec") or {})
    except ValidationError as error:
        lines = (f"spec.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"--dataset {path}: {'; '.join(lines)}") from None


def _files(dataset: Path | None) -> list[str] | None:
    source = manifest_of(dataset).source if dataset else None
    return source.files if source else None


def _settings(spec: DatasetSpec) -> dict[str, Any]:
    """What of a spec can be had without its cluster; what cannot is said."""
    curation = spec.curation or Curation()
    scores = [score for score in curation.scores or () if score.scorer != Scorer.CLASSIFIER]
    absent = {
        "mixture": spec.mixture,
        "synthesis": spec.synthesis,
        "curation.contamination": curation.contamination,
        "curation.scores by a Classifier": len(scores) < len(curation.scores or ()),
    }
    for name in (name for name, value in absent.items() if value):
        print(f"left out:   {name}: it needs what is in the cluster")
    return {
        "format": spec.format,
        "columns": spec.columns or {},
        "ignore_columns": spec.ignore_columns or [],
        "splits": spec.splits,
        "checks": spec.checks,
        "curation": curation.model_copy(update={"contamination": None, "scores": scores}),
        "raft": spec.raft if not spec.synthesis else None,
    }


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
    lines += [_told(step) for step in result.curation]
    lines += [f"{'advice:' if i == 0 else '':12}{sentence}" for i, sentence in enumerate(result.advice)]
    return "\n".join(lines)


def _told(step: CurationStep) -> str:
    counts = {"removed": step.removed, "changed": step.changed}
    done = ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)
    return f"{step.step}: {done or 'nothing'}" + (f"; {step.example}" if step.example else "")


def _first_row(folder: Path) -> str:
    for name in materialize.SPLITS:
        if (folder / f"{name}.jsonl").is_file():
            with open(folder / f"{name}.jsonl", encoding="utf-8") as file:
                return json.dumps(json.loads(file.readline()), ensure_ascii=False)[:300]
    return ""
