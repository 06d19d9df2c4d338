"""Validate: what Hone makes of rows, for a person on a laptop: files, globs, or an address, with a manifest or without.

Only what the options request is kept: the report as a page (html), the rows and everything about them (out).
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from hone_api.base.reading import in_words, only_unknown
from hone_api.base.wording import counted, visible
from hone_api.combinations import dataset_problems
from hone_api.contract.report import DatasetResult
from hone_api.dataset.curation import Curation, CurationStep, Scorer
from hone_api.dataset.dataset import DatasetSpec, Format
from hone_api.dataset.source import Source
from hone_api.plan import Limits, MaterializePlan
from hone_api.words.failures import FailureCode
from hone_api.words.rowcodes import ROW_CODES
from hone_trainer.datasets import against, materialize
from hone_trainer.datasets.sources import layout
from hone_trainer.datasets.sources.sources import LAPTOP
from hone_trainer.errors import ConfigError, DataError, SourceError
from hone_trainer.store import contents

_REMOTE = {
    "hf": (),
    "https": ("AUTHORIZATION",),
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
}
"""Schemes that are read from here, and the variables of the environment that stand for the keys of their secret."""
_API_KEY = ("API_KEY",)
_STORE = "store"
"""Folder in `out` with the batch of generated rows: a second run asks for nothing again."""


@dataclass(frozen=True)
class ValidationRequest:
    """What a person asks for."""

    sources: Sequence[str] = ()
    """Files, one folder, globs, or one https://, hf:// or s3:// address; none: the source of the manifest."""
    format: str = Format.AUTO
    columns: Sequence[str] = ()
    """'role=column' each."""
    ignored: Sequence[str] = ()
    dataset: Path | None = None
    """Manifest of a Dataset, whose settings count as in the cluster; its source does where no other is named."""
    html: Path | None = None
    """Where to write the report as a page."""
    out: Path | None = None
    """Folder for the rows of each split, those rejected and removed, and the report."""
    against: Sequence[str] = ()
    """Files or globs of evaluation sets: rows that hold a row of these are removed (curation.contamination)."""
    synthesis: bool = False
    """Generate the rows of spec.synthesis, by its endpoint and the environment's API_KEY."""
    private_addresses: bool = False


def run(request: ValidationRequest) -> DatasetResult:
    """Materialize the rows into a folder that is thrown away, and print what came of it.

    Raises:
        ConfigError, DataError, SourceError: as `materialize.run`.
    """
    _check(request)
    with tempfile.TemporaryDirectory(prefix="hone-validate-") as scratch:
        store = request.out / _STORE if request.synthesis and request.out else Path(scratch) / _STORE
        store.mkdir(parents=True, exist_ok=True)
        plan, files = _plan(request, store, Path(scratch))
        try:
            result = materialize.run(plan, files)
        except DataError as error:
            if error.result:
                print(visible(_report(error.result)))
                _keep(store, error.result, request)
            raise
        if result.path is None:
            print(_waiting(plan, result, store))
            return result
        first = _first_row(store / result.path)
        _keep(store, result, request)
    print(visible(_report(result)))
    print(visible(f"first row:  {first}"))
    return result


def _check(request: ValidationRequest) -> None:
    if request.format not in set(Format):
        raise ConfigError(f"--format {request.format}: one of {', '.join(Format)}", FailureCode.INVALID_ARGUMENT)
    wrong = [pair for pair in request.columns if "=" not in pair]
    if wrong:
        raise ConfigError(
            f"--column {', '.join(wrong)}: write ROLE=COLUMN, e.g. prompt=question", FailureCode.INVALID_ARGUMENT
        )
    if request.dataset is not None and (request.columns or request.ignored or request.format != Format.AUTO):
        raise ConfigError(
            "--dataset has format and columns: leave out --format, --column and --ignore-column",
            FailureCode.INVALID_ARGUMENT,
        )
    if not request.sources and request.dataset is None:
        raise ConfigError(
            "name files, or by --dataset a manifest whose source is hf://, https:// or s3://",
            FailureCode.INVALID_ARGUMENT,
        )
    if request.synthesis and (request.dataset is None or request.out is None):
        raise ConfigError(
            "--synthesis needs --dataset, which says what to generate, and --out, where answers are kept",
            FailureCode.INVALID_ARGUMENT,
        )


def _plan(request: ValidationRequest, store: Path, scratch: Path) -> tuple[MaterializePlan, list[Path]]:
    """The plan, and the files where there are several."""
    name, spec = named_manifest(request.dataset) if request.dataset else ("rows", None)
    source, paths = _source(request.sources, spec)
    if spec is None:
        columns = dict(pair.split("=", 1) for pair in request.columns)
        settings: dict[str, Any] = {"format": Format(request.format), "columns": columns}
        settings["ignore_columns"] = list(request.ignored)
    else:
        settings = _settings(spec, request)
    if request.against:
        exams = [path for source in request.against for path in _paths(source)]
        settings["evaluation_sets"] = list(against.evaluation_sets(exams, settings, scratch / "exams"))
        curation = settings.get("curation", Curation())
        update = {"contamination": against.settings(curation.contamination)}
        settings["curation"] = curation.model_copy(update=update)
    secrets = scratch / "secrets"
    has_keys = _write_keys(_REMOTE.get(source.uri.partition("://")[0], ()), secrets / "source")
    has_api_key = request.synthesis and _write_keys(_API_KEY, secrets / "api")
    plan = MaterializePlan(
        name=name if request.dataset else (paths[0].name if paths else source.uri.rstrip("/").rpartition("/")[2]),
        source=source,
        source_path=str(paths[0].resolve()) if paths else None,
        secret_path=str(secrets / "source") if has_keys else None,
        synthesis_secret_path=str(secrets / "api") if has_api_key else None,
        store=str(store.resolve()),
        limits=Limits(allow_private_addresses=request.private_addresses),
        **settings,
    )
    return plan, paths if len(paths) > 1 else []


def _source(sources: Sequence[str], spec: DatasetSpec | None) -> tuple[Source, list[Path]]:
    """What the rows are read from: an address, or files of this machine.

    Raises:
        ConfigError: an address that is not read, or several sources that do not go together.
        SourceError: SourceNotFound, SeveralSplits.
    """
    described = spec.source if spec else None
    addresses = [source for source in sources if "://" in source]
    if not sources:
        if described is None or described.uri.partition("://")[0] not in _REMOTE:
            raise ConfigError("the manifest's source is in the cluster: name local files to use instead")
        return described, []
    if addresses:
        if len(sources) > 1:
            raise ConfigError("name either one address, or files")
        try:
            return Source(uri=sources[0], files=described.files if described else None), []
        except ValidationError as error:
            problems = "; ".join(_words(e["msg"]) for e in error.errors())
            raise ConfigError(f"{sources[0]}: {problems}") from None
    paths = [path for source in sources for path in _paths(source)]
    if len(paths) > 1 and not (described and described.files):
        _check_one_split(paths)
    uri = f"{LAPTOP}{quote(paths[0].name or 'rows')}"[:1024]
    return Source(uri=uri, files=described.files if described and len(paths) == 1 else None), paths


def _words(message: str) -> str:
    """pydantic's message about a value, without the prefix that it adds to a validator's own message."""
    return message.removeprefix("Value error, ")


def _check_one_split(paths: Sequence[Path]) -> None:
    """Refuse the files of several splits as one source.

    Raises:
        SourceError: SeveralSplits.
    """
    top = os.path.commonpath([path.absolute().parent for path in paths])
    by_name = {path.absolute().relative_to(top).as_posix(): path for path in paths}
    by_split = layout.splits_of([*by_name])
    by_split.pop(layout.OTHER, None)  # files that somebody names one by one
    if len(by_split) < 2:
        return
    listed = "; ".join(f"{split}: {', '.join(names[:4])}" for split, names in by_split.items())
    held = by_name[next(names[0] for split, names in by_split.items() if split != layout.TRAIN)]
    raise SourceError(
        FailureCode.SEVERAL_SPLITS,
        f"the files are of several splits ({listed}). Name those of one; --against {held} finds its rows in them."
        " To split all rows again, name a manifest by --dataset whose spec.source.files has them."[:1000],
    )


def _paths(source: str) -> list[Path]:
    """The file or folder of this name, or what a glob matches, sorted."""
    if Path(source).exists():
        return [Path(source)]
    pattern = Path(source)
    inner = pattern.relative_to(pattern.anchor).as_posix()
    matched = sorted(path for path in Path(pattern.anchor).glob(inner) if path.is_file())
    if not matched:
        raise SourceError(FailureCode.SOURCE_NOT_FOUND, f"there is no file {source}")
    return matched


def _write_keys(names: Sequence[str], folder: Path) -> bool:
    """Write the variables of the environment that are set as a mounted secret has them; gives whether one is."""
    keys = {name: value for name in names if (value := os.environ.get(name))}
    if keys:
        folder.mkdir(parents=True, mode=0o700)
    for name, value in keys.items():
        (folder / name).write_text(value)
    return bool(keys)


def named_manifest(path: Path) -> tuple[str, DatasetSpec]:
    """Name and spec of the Dataset in a YAML file, which may have other objects as well.

    Raises:
        ConfigError: there is none, or several, or its spec cannot be.
    """
    import yaml

    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ConfigError(f"--dataset {path}: there is no such file", FailureCode.FILE_NOT_FOUND) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"--dataset {path}: {error}") from None
    datasets = [one for one in documents if isinstance(one, dict) and one.get("kind") == "Dataset"]
    if len(datasets) != 1:
        raise ConfigError(f"--dataset {path}: has {len(datasets)} Datasets, not one")
    try:
        spec = DatasetSpec.model_validate(datasets[0].get("spec") or {})
    except ValidationError as error:
        lines = "; ".join(f"spec.{words}" for words in in_words(error, DatasetSpec))
        code = FailureCode.UNKNOWN_FIELD if only_unknown(error) else FailureCode.INVALID_VALUE
        raise ConfigError(f"--dataset {path}: {lines}", code) from None
    name = str((datasets[0].get("metadata") or {}).get("name") or "rows")
    problems = dataset_problems(name, spec)
    if problems:
        raise ConfigError(f"--dataset {path}: {'; '.join(each.message for each in problems)}", problems[0].code)
    return name, spec


def _settings(spec: DatasetSpec, request: ValidationRequest) -> dict[str, Any]:
    """The parts of a spec that work without its cluster; the others are reported."""
    synthesis = request.synthesis
    curation = spec.curation or Curation()
    scores = [score for score in curation.scores or () if score.scorer != Scorer.CLASSIFIER]
    absent = {
        "mixture": spec.mixture,
        "curation.scores by a Classifier": len(scores) < len(curation.scores or ()),
        "curation.deduplicateAgainst": curation.deduplicate_against,
    }
    for name in (name for name, value in absent.items() if value):
        print(f"left out:   {name}: it needs what is in the cluster")
    if curation.contamination and not request.against:
        name = "curation.contamination: it needs what is in the cluster"
        print(f"left out:   {name}; use --against FILE instead of its datasets")
    if spec.synthesis and not synthesis:
        print("left out:   synthesis: --synthesis asks its endpoint, and --out keeps the answers")
    return {
        "format": spec.format,
        "columns": spec.columns or {},
        "ignore_columns": spec.ignore_columns or [],
        "splits": spec.splits,
        "checks": spec.checks,
        "curation": curation.model_copy(
            update={
                "contamination": curation.contamination if request.against else None,
                "deduplicate_against": None,
                "scores": scores,
            }
        ),
        "raft": spec.raft if synthesis or not spec.synthesis else None,
        "synthesis": spec.synthesis if synthesis else None,
    }


def _keep(store: Path, result: DatasetResult, request: ValidationRequest) -> None:
    """Copy what is asked for out of the store."""
    if request.html is not None and result.report:
        shutil.copyfile(store / result.report, request.html)
        print(f"report:     {request.html}")
    if request.out is not None and result.report:
        for split in contents.SPLITS:  # of a run before
            (request.out / f"{split}.jsonl").unlink(missing_ok=True)
        shutil.copytree((store / result.report).parent, request.out, dirs_exist_ok=True)
        print(f"kept:       {request.out}")


def _waiting(plan: MaterializePlan, result: DatasetResult, store: Path) -> str:
    """What to do with generated rows that wait for people."""
    pending = result.synthetic.pending if result.synthetic else 0
    review = f"hone dataset review {plan.name} --path {store}"
    waiting = counted(pending, "row waits", "rows wait")
    return f"generated:  {waiting} for review: {review}\n{'':12}then run the same command again"


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
            f"  {error.code:16} {counted(error.count, 'row')}, first {', '.join(map(str, error.rows))};"
            f" {error.example}\n"
            f"  {'':16} {ROW_CODES[error.code].hint}"
        )
    lines += [
        f"not read:   {counted(one.count, 'name')} ({one.reason}): {', '.join(one.first)}" for one in result.not_read
    ]
    lines += [_line_of_step(step) for step in result.curation]
    lines += [f"{'advice:' if i == 0 else '':12}{sentence}" for i, sentence in enumerate(result.advice)]
    return "\n".join(lines)


def _line_of_step(step: CurationStep) -> str:
    counts = {"removed": step.removed, "changed": step.changed}
    summary = ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)
    summary += f" ({step.other_answers:,} with another answer)" if step.other_answers else ""
    return f"{step.step}: {summary or 'nothing'}" + (f"; {step.example}" if step.example else "")


def _first_row(folder: Path) -> str:
    for name in contents.SPLITS:
        if (folder / f"{name}.jsonl").is_file():
            with open(folder / f"{name}.jsonl", encoding="utf-8") as file:
                return json.dumps(json.loads(file.readline()), ensure_ascii=False)[:300]
    return ""
