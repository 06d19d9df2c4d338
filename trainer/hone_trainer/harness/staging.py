"""`python -m hone_trainer tasks`: stores the data sets of tasks, pinned, in `store`/evaluation-tasks/<digest>.

A folder has tasks.json, which lists its content, and each data set as `DatasetDict.save_to_disk` writes it. Only data
files are downloaded, and no code of a data set runs.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hone_api.blocks.evaluation import Harness
from hone_api.contract.report import TasksResult
from hone_api.contract.termination import TerminationMessage
from hone_api.kinds.resolved import MAX_TASK_DATA_SETS
from hone_api.plan import TasksInput, TasksPlan
from hone_api.words.failures import FailureCode
from hone_trainer import harness
from hone_trainer.datasets.sources import layout, listing
from hone_trainer.errors import ConfigError, SourceError, TrainerError
from hone_trainer.harness import catalogue
from hone_trainer.harness.catalogue import DataSet, RequestedTasks
from hone_trainer.harness.tasks import DATA, INDEX
from hone_trainer.reporting.task import TaskProgress
from hone_trainer.store import folders, hub, hub_card, manifest
from hone_trainer.store.deadline import Deadline

FOLDER = "evaluation-tasks"
CARD = "README.md"
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}


@dataclass(frozen=True)
class Chosen:
    """A data set with its commit and the files with its rows."""

    data: DataSet
    repository: hub.Repository
    snapshot: hub.Snapshot
    card: Mapping[str, Any]
    files: Sequence[str]
    splits: Sequence[str]

    @property
    def pinned(self) -> str:
        return f"{self.data.repository}@{self.snapshot.commit}"

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(self.snapshot.files[name] for name in self.files)


def run(plan: TasksPlan) -> TasksResult:
    """Stage the plan's tasks unless they are staged already, then build each once, as a run will.

    Raises:
        ConfigError: InvalidConfiguration, for tasks that do not exist or cannot be measured.
        SourceError: DatasetSourceNotFound, GatedModelAccessDenied, RevisionNotFound, SourceUnreachable, SourceTooLarge,
            SecretNotFound, SecretKeyNotFound.
        TrainerError: DamagedFile.
    """
    hub.go_online()
    token = hub.token_of(plan.secret_path)
    with TaskProgress("evaluation tasks") as progress:
        wanted = catalogue.find(plan.harness.tasks)
        parent = Path(plan.store) / FOLDER
        with folders.work_folder(parent) as downloads:
            chosen = _choose(wanted, token, Deadline.after(plan.limits.timeout_seconds), downloads)
            if (size := sum(c.size for c in chosen)) > plan.limits.max_source_bytes:
                limit = plan.limits.max_source_bytes
                raise SourceError(FailureCode.SOURCE_TOO_LARGE, f"{harness.FIELD}.tasks: {size} bytes, limit {limit}")
            index = _index(wanted, chosen)
            path = f"{FOLDER}/{hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()}"
            target = Path(plan.store) / path
            if folders.is_intact(target):
                progress.log("the tasks are already in the store")
            else:
                progress.log(f"fetching {len(chosen)} data sets: {size / 2**20:.1f} MiB")
                _stage(index, chosen, target, downloads, progress)
        for sentence in rehearse(target, plan.harness):
            progress.log(sentence)
        result = TasksResult(
            path=path,
            digest=manifest.digest_of(target),
            version=index["version"],
            data_sets=sorted({c.pinned for c in chosen}),
            size_bytes=manifest.size_of(target),
        )
        tasks_input = TasksInput(
            path=str(target), digest=result.digest, version=result.version, data_sets=result.data_sets
        )
        progress.log(f"harnessTasks of a plan: {json.dumps(tasks_input.to_json())}")
    return result


def rehearse(folder: Path, options: Harness) -> list[str]:
    """Build every task once as a run will: in a separate process, without the hub.

    Returns:
        Sentences for people.

    Raises:
        TrainerError: why a task cannot be built.
    """
    command = [sys.executable, "-m", "hone_trainer.harness.rehearsal", str(folder), options.model_dump_json()]
    environment = {name: value for name, value in os.environ.items() if name != "HF_ENDPOINT"}
    process = subprocess.run(command, env=environment | OFFLINE, stdout=subprocess.PIPE, text=True, check=False)
    if process.returncode not in (0, 1):
        raise TrainerError(
            FailureCode.TRAINER_ERROR, f"{harness.FIELD}: the tasks were not made: exit code {process.returncode}"
        )
    reply: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    if failure := TerminationMessage.model_validate(reply["outcome"]).failure:
        raise TrainerError(FailureCode(failure.code), failure.message)
    return list(reply["sentences"])


def _choose(wanted: Sequence[RequestedTasks], token: str | None, deadline: Deadline, downloads: Path) -> list[Chosen]:
    """Every data set once, in the order of the names."""
    tasks = [task for benchmark in wanted for task in benchmark.tasks]
    splits: dict[str, list[str]] = {}
    for task in tasks:
        splits.setdefault(task.data.key, []).extend(task.splits)
    looked: dict[tuple[str, str], tuple[hub.Repository, hub.Snapshot, Mapping[str, Any]]] = {}
    chosen = []
    for data in {task.data.key: task.data for task in tasks}.values():
        place = (data.repository, data.revision)
        if place not in looked:
            repository = hub.Repository(data.repository, data.revision, "dataset", token, deadline)
            snapshot = hub.look_up(repository)
            looked[place] = repository, snapshot, _card(repository, snapshot, downloads / f"card-{len(looked)}")
        if len(looked) > MAX_TASK_DATA_SETS:
            message = f"{harness.FIELD}.tasks are of more than {MAX_TASK_DATA_SETS} data sets: name fewer"
            raise ConfigError(message)
        repository, snapshot, card = looked[place]
        files = _files(data, repository, snapshot, card)
        chosen.append(Chosen(data, repository, snapshot, card, files, tuple(dict.fromkeys(splits[data.key]))))
    return chosen


def _card(repository: hub.Repository, snapshot: hub.Snapshot, folder: Path) -> Mapping[str, Any]:
    folder.mkdir()
    return hub_card.front_matter(repository, snapshot, folder)


def _files(data: DataSet, repository: hub.Repository, snapshot: hub.Snapshot, card: Mapping[str, Any]) -> list[str]:
    """Names of the files that hold the rows of a configuration.

    Raises:
        ConfigError: InvalidConfiguration, if there is no data file.
    """
    names = sorted(name for name in snapshot.files if listing.is_data(name))
    if patterns := data.options.get("data_files"):
        files = [n for n in names if any(fnmatch.fnmatchcase(n, str(p).lstrip("./")) for p in _flat(patterns))]
    elif data.options.get("data_dir"):
        below = str(data.options["data_dir"]).strip("./") + "/"
        files = [name for name in names if name.startswith(below)]
    elif any(isinstance(entry, Mapping) and entry.get("config_name") for entry in card.get("configs") or ()):
        files = layout.of_config(names, card, data.config, str(repository))
    else:
        files = names
    if files:
        return files
    programs = [name for name in snapshot.files if name.endswith(".py")]
    has = f"but {programs[0]}, and no code of a data set is run" if programs else "of a kind that is read"
    raise ConfigError(f"{harness.FIELD}.tasks: data set {repository} has no file of rows {has}: remove its tasks")


def _flat(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    return [inner for one in value for inner in _flat(one)] if isinstance(value, list | tuple) else [value]


def _index(wanted: Sequence[RequestedTasks], chosen: Sequence[Chosen]) -> dict[str, Any]:
    """The content of tasks.json; equal for equal tasks, rows and version of the harness."""
    places = {one.data.key: f"{number:03d}" for number, one in enumerate(chosen)}
    return {
        "version": harness.installed_version(),
        "benchmarks": [
            {
                "name": benchmark.name,
                "tasks": [
                    {"name": task.name, "definition": task.definition, "data": places[task.data.key]}
                    for task in benchmark.tasks
                ],
            }
            for benchmark in wanted
        ],
        "data": [
            {"repository": c.pinned, "config": c.data.config, "options": dict(c.data.options), "splits": list(c.splits)}
            for c in chosen
        ],
    }


def _stage(
    index: Mapping[str, Any], chosen: Sequence[Chosen], target: Path, downloads: Path, progress: TaskProgress
) -> None:
    with folders.work_folder(target.parent) as folder:
        for number, one in enumerate(chosen):
            progress.log(f"{one.data.repository} at {one.snapshot.commit[:12]}: {one.data.config or 'default'}")
            place = downloads / f"{number:03d}"
            place.mkdir()
            hub.download(one.repository, one.snapshot, one.files, place)
            _describe(one, place)
            _rows(one, place, downloads / "cache").save_to_disk(str(folder / DATA / f"{number:03d}"))
        (folder / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")
        manifest.write(folder)
        folders.publish(folder, target)


def _describe(one: Chosen, place: Path) -> None:
    """Write a card for this configuration only: `datasets` expects the files of every configuration in a card."""
    config = one.data.config
    card: dict[str, Any] = {}
    entries = [e for e in one.card.get("configs") or () if isinstance(e, Mapping) and e.get("config_name")]
    if entries and not one.data.options:
        card["configs"] = [dict(layout.entry(entries, config, str(one.repository)))]
        config = str(card["configs"][0]["config_name"])
    infos = one.card.get("dataset_info") or []
    infos = [infos] if isinstance(infos, Mapping) else infos
    features = [{k: i[k] for k in ("config_name", "features") if k in i} for i in infos if isinstance(i, Mapping)]
    if matching := [info for info in features if info.get("config_name", config or "default") == (config or "default")]:
        card["dataset_info"] = matching
    (place / CARD).write_text(f"---\n{yaml.safe_dump(card, sort_keys=False)}---\n", encoding="utf-8")


def _rows(one: Chosen, place: Path, cache: Path) -> Any:
    """The splits that the tasks use.

    Raises:
        ConfigError: InvalidConfiguration, if the configuration or a split does not exist.
        TrainerError: DamagedFile.
    """
    import datasets
    from datasets.exceptions import DatasetsError
    from pyarrow.lib import ArrowException

    datasets.disable_progress_bars()
    what = f"{harness.FIELD}.tasks: data set {one.repository}"
    try:
        splits = datasets.load_dataset(str(place), one.data.config, cache_dir=str(cache), **one.data.options)
    except (DatasetsError, ArrowException) as error:
        cause = error.__cause__ or error
        message = f"{what} cannot be read: {type(cause).__name__}: {str(cause)[:300]}"
        raise TrainerError(FailureCode.DAMAGED_FILE, message) from None
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(f"{what}: {str(error)[:300]}") from None
    if missing := [split for split in one.splits if split not in splits]:
        raise ConfigError(f"{what} has no split {', '.join(missing)}; it has {', '.join(splits)}")
    return datasets.DatasetDict({split: splits[split] for split in one.splits})
