"""Maps names of tasks and groups to what must be staged for them; refuses, by name, what cannot be measured."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hone_trainer import harness
from hone_trainer.errors import ConfigError

_OPTIONS = ("data_files", "data_dir", "column_names", "header", "delimiter", "sep")
"""Arguments that a task may pass to the loader of its data set."""
_NEAREST = 3
_MAX_TASKS = 128
"""Limit for a group, including the groups in it."""


@dataclass(frozen=True)
class DataSet:
    """A configuration of a data set of the hub."""

    repository: str
    config: str | None = None
    revision: str = "main"
    options: Mapping[str, Any] = field(default_factory=dict)
    """Additional arguments of `datasets.load_dataset`."""

    @property
    def key(self) -> str:
        """A key that is equal for equal rows."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True)
class HarnessTask:
    """One task of the harness."""

    name: str
    definition: str
    """Path of its YAML file below lm_eval/tasks."""
    data: DataSet
    splits: tuple[str, ...]
    """Splits that its prompts and examples come from."""


@dataclass(frozen=True)
class RequestedTasks:
    """An entry of a plan: a task, or a group of tasks."""

    name: str
    tasks: tuple[HarnessTask, ...]


def root() -> Path:
    """Folder of the harness's definitions."""
    import lm_eval.tasks

    return Path(str(lm_eval.tasks.__file__)).parent


def find(names: Sequence[str]) -> list[RequestedTasks]:
    """The tasks for each name, in the order of the names.

    Raises:
        ConfigError: InvalidConfiguration, naming every task that does not exist or cannot be measured, and why.
    """
    index = _index()
    benchmarks, wrong = [], []
    for name in names:
        tasks, problems = _members(name, index)
        benchmarks.append(RequestedTasks(name, tuple(tasks)))
        wrong += problems
    if wrong:
        raise ConfigError(f"{harness.FIELD}.tasks: {'; '.join(dict.fromkeys(wrong))}")
    return benchmarks


def addresses(names: Sequence[str]) -> list[str]:
    """The data sets of tasks, each once, as hf://OWNER/NAME@REVISION.

    Raises:
        ConfigError: as `find`.
    """
    data = [task.data for requested in find(names) for task in requested.tasks]
    return list(dict.fromkeys(f"hf://{each.repository}@{each.revision}" for each in data))


@cache
def _index() -> Mapping[str, Any]:
    """lm-eval's entry for each name of a task, a group or a tag: 14,000 files are parsed, 7 s of processor time."""
    from lm_eval.tasks._index import TaskIndex

    index: Mapping[str, Any] = TaskIndex.build([root()])
    return index


def _members(name: str, index: Mapping[str, Any]) -> tuple[list[HarnessTask], list[str]]:
    """(tasks, problems) of a name."""
    if name not in index:
        return [], [_unknown_task(name, index)]
    tasks: list[HarnessTask] = []
    try:
        leaves = list(dict.fromkeys(_leaves(name, index)))
    except _UnusableError as error:
        return [], [str(error)]
    if len(leaves) > _MAX_TASKS:
        return [], [f"{name} is a group of {len(leaves)} tasks, more than {_MAX_TASKS}: name those that matter"]
    wrong = []
    for leaf in leaves:
        try:
            tasks.append(_task(leaf, index[leaf]))
        except _UnusableError as error:
            wrong.append(str(error) if leaf == name else f"{error} (of group {name})")
    if len(wrong) > _NEAREST:
        wrong = [*wrong[:_NEAREST], f"and {len(wrong) - _NEAREST} more of group {name}"]
    return tasks, wrong


class _UnusableError(Exception):
    """The reason why a task or group cannot be measured."""


def _unknown_task(name: str, index: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, index, n=_NEAREST)
    words = f"; near to it: {', '.join(near)}" if near else ""
    return f"{name} is not a task of {harness.PACKAGE} {harness.installed_version()}{words}"


def _leaves(name: str, index: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[str]:
    """Names of the single tasks in a group, or the name itself."""
    entry = index.get(name)
    if entry is None or name in above:
        raise _UnusableError(f"{(*above, name)[0]} is a group; in it, {name} cannot be found")
    if entry.tags and entry.yaml_path is None:  # a tag: only a common name
        members: list[Any] = sorted(entry.tags)
    elif "group" in (entry.cfg or {}):
        members = _group(name, entry.cfg)
    else:
        yield name
        return
    for member in members:
        if not isinstance(member, str):
            raise _UnusableError(f"{name} is a group that changes its tasks: name the tasks themselves")
        yield from _leaves(member, index, (*above, name))


def _group(name: str, definition: Mapping[str, Any]) -> list[Any]:
    from lm_eval.tasks._factory import GROUP_FIELD_NAMES

    if changed := sorted(set(definition) - set(GROUP_FIELD_NAMES) - {"tag", "include"}):
        raise _UnusableError(
            f"{name} is a group that changes {', '.join(changed)} of its tasks: name the tasks themselves"
        )
    members = definition.get("task") or []
    return members if isinstance(members, list) else [members]


def _task(name: str, entry: Any) -> HarnessTask:
    definition: Mapping[str, Any] = entry.cfg or {}
    if entry.yaml_path is None or (why := _not_measured(definition)):
        raise _UnusableError(f"{name} {why if entry.yaml_path else 'has no definition of its own'}")
    examples = definition.get("fewshot_config")
    splits = [definition.get(f"{kind}_split") for kind in ("training", "validation", "test", "fewshot")]
    splits.append(examples.get("split") if isinstance(examples, Mapping) else None)
    return HarnessTask(
        name,
        Path(entry.yaml_path).relative_to(root()).as_posix(),
        _data_set(name, definition),
        tuple(dict.fromkeys(str(split) for split in splits if split)),
    )


def _not_measured(definition: Mapping[str, Any]) -> str | None:
    """The reason, as the rest of a sentence that begins with the task's name."""
    import lm_eval.api.metrics  # noqa: F401 - fills the registry
    from lm_eval.api.registry import metric_registry

    if definition.get("unsafe_code"):
        return (
            "runs code that the model writes (unsafe_code): measure that by evaluation.rewards of type Code, which has "
            "a sandbox"
        )
    if "class" in definition or "custom_dataset" in definition:
        return "is a program that loads its own rows"
    if definition.get("doc_to_image") or definition.get("doc_to_audio"):
        return "shows pictures or sounds"
    if definition.get("use_prompt"):
        return "takes its prompts from promptsource"
    own = "process_results" in definition
    for metric in definition.get("metric_list") or ():
        name = metric.get("metric")
        if not own and (metric.get("hf_evaluate") or (isinstance(name, str) and not _is_known(name, metric_registry))):
            return f"computes its metric with {name}, a program that would be downloaded"
    generation = definition.get("generation_kwargs") or {}
    sampled = generation.get("do_sample") or (
        generation.get("do_sample") is None and float(generation.get("temperature") or 0) > 0
    )
    if sampled or int(definition.get("repeats") or 1) > 1:
        return "samples answers, and only likeliest ones are compared here: see evaluation.passAt"
    return None


def _is_known(metric: str, registry: Any) -> bool:
    """Whether the harness or the task's own module has the metric (an unresolved `!function` is a path)."""
    return metric in registry or "/" in metric


def _data_set(name: str, definition: Mapping[str, Any]) -> DataSet:
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    repository = definition.get("dataset_path")
    plain = isinstance(repository, str) and repository.count("/") <= 1 and not repository.startswith((".", "/"))
    if not plain or repository in _PACKAGED_DATASETS_MODULES:
        raise _UnusableError(f"{name} reads its rows from elsewhere than a data set of the hub ({repository})")
    options = dict(definition.get("dataset_kwargs") or {})
    options.pop("trust_remote_code", None)
    revision = str(options.pop("revision", None) or "main")
    if other := sorted(set(options) - set(_OPTIONS)):
        raise _UnusableError(f"{name} loads its data set by {', '.join(other)}, which is not supported")
    if any("://" in text for text in _texts(options)):
        raise _UnusableError(f"{name} reads its rows from elsewhere than a data set of the hub")
    config = definition.get("dataset_name")
    return DataSet(str(repository), str(config) if config is not None else None, revision, options)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    for inner in value if isinstance(value, list | tuple) else [value]:
        if isinstance(inner, Mapping | list | tuple):
            yield from _texts(inner)
        else:
            yield str(inner)
