"""Staged tasks as lm-eval's own objects, built from its definitions and the rows in the store. Nothing is
downloaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone_api.blocks.evaluation import Harness
from hone_api.words.failures import FailureCode
from hone_trainer import harness
from hone_trainer.errors import ConfigError, StoreError
from hone_trainer.harness import catalogue
from hone_trainer.harness.metrics import HarnessMetric, of_task
from hone_trainer.store import manifest

INDEX = "tasks.json"
DATA = "data"
"""Folder of the data sets, each as `DatasetDict.save_to_disk` writes it."""


@dataclass(frozen=True)
class Benchmark:
    """An entry of a plan: a task, or a group whose tasks are counted together."""

    name: str
    tasks: Mapping[str, Any]
    """lm-eval's tasks by their names."""
    metrics: tuple[HarnessMetric, ...]


@dataclass(frozen=True)
class Loaded:
    """The tasks of a plan."""

    benchmarks: tuple[Benchmark, ...] = ()
    sentences: tuple[str, ...] = ()
    """Sentences for people: metrics that are left out, examples that a task does not accept."""

    @property
    def tasks(self) -> dict[str, Any]:
        """All tasks, each once."""
        return {name: task for benchmark in self.benchmarks for name, task in benchmark.tasks.items()}


def load(folder: Path, options: Harness) -> Loaded:
    """The plan's tasks, from the folder where they were staged.

    Raises:
        ConfigError: InvalidConfiguration, naming tasks that are missing or cannot be built, and why.
    """
    index = json.loads((folder / INDEX).read_text())
    staged = {benchmark["name"]: benchmark for benchmark in index["benchmarks"]}
    if missing := [name for name in options.tasks if name not in staged]:
        raise ConfigError(f"{harness.FIELD}.tasks: {', '.join(missing)} was not staged: stage the tasks again")
    entries = [staged[name] for name in options.tasks]
    built: dict[str, Any] = {}
    sentences, wrong = [], []
    if (then := index["version"]) != (now := harness.installed_version()):
        sentences.append(f"{harness.FIELD}: staged by {harness.PACKAGE} {then}, measured by {now}")
    with harness.seeded(), _without_cache_files():
        for entry in {task["name"]: task for benchmark in entries for task in benchmark["tasks"]}.values():
            try:
                built[entry["name"]] = _load_task(folder, entry)
            except Exception as error:
                wrong.append(f"{entry['name']} cannot be made: {_words(error)}")
    if wrong:
        raise ConfigError(f"{harness.FIELD}.tasks: {'; '.join(wrong[:5])}")
    for name, task in built.items():
        sentences += _examples(name, task, options.few_shot)
    benchmarks = [_benchmark(w["name"], {t["name"]: built[t["name"]] for t in w["tasks"]}) for w in entries]
    sentences += [sentence for _, task_sentences in benchmarks for sentence in task_sentences]
    return Loaded(tuple(benchmark for benchmark, _ in benchmarks), tuple(sentences))


def ask_once(loaded: Loaded) -> None:
    """Build the first prompt of each task.

    Raises:
        ConfigError: InvalidConfiguration, naming tasks whose prompt cannot be built, e.g. for lack of examples.
    """
    wrong = []
    with harness.seeded():
        for name, task in loaded.tasks.items():
            task.set_fewshot_seed(harness.SEEDS["examples"])
            try:
                task.build_all_requests(limit=1)
            except Exception as error:
                wrong.append(f"{name} cannot be asked with {task.config.num_fewshot} examples: {_words(error)}")
    if wrong:
        raise ConfigError(f"{harness.FIELD}: {'; '.join(wrong[:5])}")


def check(folder: Path, digest: str) -> None:
    """Check that a folder is the one that was staged.

    Raises:
        StoreError: ManifestMismatch.
    """
    manifest.verify(folder, digest)


def _load_task(folder: Path, entry: Mapping[str, Any]) -> Any:
    """One task: its definition from lm-eval, its rows from the folder."""
    from datasets import load_from_disk
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    rows = load_from_disk(str(folder / DATA / entry["data"]))
    definition = load_yaml(_definition(entry["definition"]), resolve_func=True)
    for key in ("tag", "group", "task_list", "dataset_kwargs"):
        definition.pop(key, None)
    if process := definition.get("process_docs"):
        definition["process_docs"] = _once(process)
    definition |= {"task": entry["name"], "custom_dataset": lambda **_: rows}
    return TaskManager(include_defaults=False).load([definition])["tasks"][entry["name"]]


def _definition(path: str) -> Path:
    """The file of lm-eval that defines a task. It can name Python to run, so one from the store is never read.

    Raises:
        StoreError: ManifestMismatch.
    """
    root = catalogue.root().resolve()
    file = (root / path).resolve()
    if not file.is_relative_to(root):
        raise StoreError(
            FailureCode.MANIFEST_MISMATCH, f"the task definition {path[:100]!r} is not one of lm-evaluation-harness"
        )
    return file


def _once(process: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`process`, called once for each split. lm-eval relies on the cache files of `datasets`: some tasks shuffle their
    choices there, and lm-eval reads the rows again to compare answers with them.
    """
    processed_splits: dict[int, tuple[Any, Any]] = {}

    def processed(split: Any) -> Any:
        if id(split) not in processed_splits:
            processed_splits[id(split)] = (split, process(split))  # keeps the split alive, so that its id is not reused
        return processed_splits[id(split)][1]

    return processed


@contextmanager
def _without_cache_files() -> Iterator[None]:
    """Keep `datasets` from writing cache files next to the rows in the store, and from showing progress."""
    import datasets

    caching, silent = datasets.is_caching_enabled(), datasets.are_progress_bars_disabled()
    datasets.disable_caching()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if caching:
            datasets.enable_caching()
        if not silent:
            datasets.enable_progress_bars()


def _examples(name: str, task: Any, wanted: int | None) -> list[str]:
    """Set the number of examples as `lm_eval.simple_evaluate` does; returns sentences for people."""
    own = task.get_config("num_fewshot")
    if wanted is None or own == 0:
        task.set_config("num_fewshot", own or 0)
        return [f"{harness.FIELD}.fewShot: {name} takes no examples by its own definition"] if wanted else []
    task.set_config("num_fewshot", wanted)
    return []


def _benchmark(name: str, tasks: Mapping[str, Any]) -> tuple[Benchmark, list[str]]:
    """The benchmark, and sentences for people.

    Raises:
        ConfigError: InvalidConfiguration, if no metric can be counted.
    """
    metrics_of = {task: of_task(task_object) for task, task_object in tasks.items()}
    metrics, left_out = next(iter(metrics_of.values()))
    names = [metric.name for metric in metrics]
    if not names:
        raise ConfigError(
            f"{harness.FIELD}.tasks: {name} counts by {', '.join(left_out)} alone, which is not a mean over rows and "
            "has no interval: remove it"
        )
    if other := [task for task, (theirs, _) in metrics_of.items() if [metric.name for metric in theirs] != names]:
        raise ConfigError(
            f"{harness.FIELD}.tasks: {name} is a group whose tasks have different metrics ({other[0]} has others): "
            "name the tasks themselves"
        )
    words = f"{harness.FIELD}: of {name}, {', '.join(left_out)} is left out, which is not a mean over rows"
    return Benchmark(name, tasks, tuple(metrics)), [words] if left_out else []


def _words(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"it needs the package {error.name}, which this image does not have"
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"
