"""From the keys of another tool to the objects of Hone, with an account of every key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from hone_api.methods import METHOD_BLOCKS, METHODS, Method
from hone_cli.convert import graders
from hone_cli.convert.tables import KeyTable, TableRow
from hone_cli.convert.values import LOCAL, NoCounterpartError, NotOfferedError, Partly, default, is_off, targets
from hone_cli.rows import place
from hone_cli.runs.planning import own_problems

TIMES = " x "
"""Between the keys of a product."""


class Fate(StrEnum):
    """What became of a key."""

    MAPPED = "mapped"
    """It is in the manifest, or it asks for what Hone does anyway, or it is not set."""
    DROPPED = "dropped"
    """What is learned does not depend on it."""
    DIFFERS = "differs"
    """What is learned differs without it."""
    UNKNOWN = "unknown"
    """The table does not know it."""


class KeyFate(NamedTuple):
    """A key of the source, its fate, and its field or the reason."""

    fate: Fate
    words: str


class ConvertRequest(NamedTuple):
    """What the configuration does not say."""

    name: str
    model: str | None = None
    method: str | None = None
    gpus: int = 1
    judge: str | None = None
    """Server of a model that grades answers."""


class Whole(NamedTuple):
    """A value that is one key, although it has keys itself."""

    value: Any


class Value(NamedTuple):
    """A value of a field and where it comes from."""

    value: Any
    key: str


Fields = dict[str, Value]
"""Fields of a spec by path."""


class Converted(NamedTuple):
    """The result."""

    objects: list[dict[str, Any]]
    origins: list[dict[str, str]]
    """For each object, the path of a field to the key that it comes from."""
    keys: dict[str, KeyFate]
    uploads: list[str]
    """Sources that are not in reach of a cluster."""


class NoJobError(Exception):
    """No job of Hone does what the configuration asks for; the message has the way out."""


class Conversion:
    """One configuration on its way."""

    def __init__(self, table: KeyTable, request: ConvertRequest) -> None:
        self.table = table
        self.request = request
        self.keys: dict[str, KeyFate] = {}
        self.job: Fields = {}
        self.extra: Fields = {}
        """Values that several fields are computed from."""
        self.rows: dict[str, Fields] = {}
        """Fields of the Datasets by the list item that they come from; "" is for all."""
        self.held: dict[str, Fields] = {}
        self.code: dict[str, str] = {}
        """Files of the ConfigMap with rewards."""

    def convert(self, document: Mapping[str, Any]) -> Converted:
        """All keys.

        Raises:
            NoJobError: no job does this.
        """
        found = [(key, value, self.table.row(key)) for key, value in flat(document)]
        self.keys = {key: KeyFate(Fate.UNKNOWN, "not a key that Hone knows") for key, *_ in found}
        for key, value, row in sorted(found, key=lambda each: each[2].order if each[2] else 0):
            if row:
                self.keys[key] = self._fate(key, value, row)
        without = {to for key, value, _ in found if value is None for to in self.table.nulls.get(key, ())}
        for target, value in self.table.defaults.items():
            if target in without:
                continue
            fields = self._fields(target, "")
            fields.setdefault(target.partition(".")[2] if self._is_rooted(target) else target, Value(*default(value)))
        self._combine()
        return self._objects()

    def _fate(self, key: str, value: Any, row: TableRow) -> KeyFate:
        if value is None or (row.kind != "keys" and is_off(value)):
            return KeyFate(Fate.MAPPED, "not set")
        if row.kind == "refused":
            raise NoJobError(f"{key}: {row.to}")
        if row.kind != "keys":
            return KeyFate(Fate(row.kind), str(row.to))
        try:
            return self._put(key, targets(row.to, value))
        except NoCounterpartError as error:
            if self.request.model and str(row.to).startswith("model.uri"):
                return KeyFate(Fate.MAPPED, "model.uri")  # by --model
            return KeyFate(Fate.DIFFERS, str(error))
        except NotOfferedError as error:
            raise NoJobError(f"{key} {value}: {error}") from None

    def _put(self, key: str, values: Mapping[str, Any]) -> KeyFate:
        reason, written = "", []
        for target, value in values.items():
            if isinstance(value, Partly):
                value, reason = value
            if value is None:
                continue
            if target == "dropped":
                return KeyFate(Fate.DROPPED, value)
            if target.startswith("unless "):
                reason = "" if f"{key.rpartition('.')[0]}.{target.removeprefix('unless ')}" in self.keys else value
                continue
            several = value if target in ("rows.source.uri", "held.source.uri") else None
            several = [several] if isinstance(several, str) else several
            for number, each in enumerate(several or [value]):
                item = f"{key}[{number}]" if several and len(several) > 1 else key
                path = target.partition(".")[2] if self._is_rooted(target) else target
                fields = self._fields(target, item)
                if path == "format" and path in fields and fields[path].value != each:
                    self._drop(path, f"{key} says what the rows are", fields)
                fields[path] = Value(each, key)
            written.append(target)
        if reason:
            return KeyFate(Fate.DIFFERS, reason)
        return KeyFate(Fate.MAPPED, ", ".join(written) or "as Hone does")

    @staticmethod
    def _is_rooted(target: str) -> bool:
        return target.startswith(("rows.", "held.", "x."))

    def _fields(self, target: str, key: str) -> Fields:
        groups = {"rows": self.rows, "held": self.held}.get(target.partition(".")[0])
        if groups is None:
            return self.extra if target.startswith("x.") else self.job
        item = re.match(r".*\[\d+\]", key)
        return groups.setdefault(item[0] if item else "", {})

    # What depends on several keys

    def _combine(self) -> None:
        if self.request.model:
            uri = self.request.model if "://" in self.request.model else f"hf://{self.request.model}"
            self._set("model.uri", uri, self._key("model.uri") or "--model")
        if self.request.method:
            if self.request.method not in {*Method}:
                raise NoJobError(f"--method {self.request.method}: Hone has {', '.join(Method)}")
            self._set("method", self.request.method, "--method")
        if (revision := self.extra.get("revision")) and "model.uri" in self.job:
            self._set("model.uri", f"{self.job['model.uri'].value}@{revision.value}", revision.key)
        self._shared_rows()
        self._batch()
        self._steps()
        own = METHODS[Method(self.job["method"].value if "method" in self.job else "SFT")].block
        for path in [p for p in self.job if p.partition(".")[0] in METHOD_BLOCKS and not p.startswith(f"{own}.")]:
            self._drop(path, f"the method is not {path.partition('.')[0].upper()}")
        if "adapter.type" in self.job and self.job["adapter.type"].value == "None":
            for path in [p for p in self.job if p.startswith("adapter.") and p != "adapter.type"]:
                self._drop(path, "all weights are trained, without an adapter")
        self._scaled_positions()
        self._resources()
        self._graders()
        for key, (fate, words) in self.keys.items():
            if fate == Fate.MAPPED and "x." in {name[:2] for name in words.split(", ")}:
                self.keys[key] = KeyFate(Fate.DIFFERS, "no field follows from it and the other keys: set the field")

    def _set(self, path: str, value: Any, key: str) -> None:
        self.job[path] = Value(value, key)
        if key in self.keys:
            self.keys[key] = KeyFate(Fate.MAPPED, path)

    def _key(self, path: str) -> str:
        return self.job[path].key if path in self.job else ""

    def _drop(self, path: str, reason: str, fields: Fields | None = None, fate: Fate = Fate.DROPPED) -> None:
        where = self.job if fields is None else fields
        origin = where.pop(path).key
        for key in {origin, *origin.split(TIMES)} & {*self.keys}:
            kept = ", ".join(other for other, value in where.items() if value.key == key)
            self.keys[key] = KeyFate(Fate.MAPPED, kept) if kept else KeyFate(fate, reason)

    def _batch(self) -> None:
        """Rows of a step: Hone's batch is of all GPUs together."""
        micro, sum_of, total, whole = (self.extra.get(name) for name in ("micro", "accumulation", "total", "batch"))
        nodes = self.job.get("resources.nodes", Value(1, "")).value
        ranks = max(1, self._gpus()) * nodes
        if shared := self.job.get("training.sequenceParallel"):
            ranks //= shared.value
        each = micro.value if micro else 0
        if total and each and not sum_of:
            sum_of = Value(max(1, total.value // each), total.key)
        rows = whole.value if whole else each * (sum_of.value if sum_of else 1) * ranks
        parts = [part for part in ([whole] if whole else [micro, sum_of]) if part and part.key]
        if not rows:
            return
        origin = TIMES.join(part.key for part in parts) + (
            f"{TIMES}{ranks} {'groups of ' if shared else ''}GPUs" if ranks > 1 and not whole else ""
        )
        for part in (micro, sum_of, whole):
            if part and part.key in self.keys:
                self.keys[part.key] = KeyFate(Fate.MAPPED, "training.batchSize")
        self.job["training.batchSize"] = Value(rows, origin)
        if total and sum_of and sum_of.key == total.key and "gradient_accumulation_steps" not in self.keys:
            reason = "releases of Axolotl with a schema take it only with gradient_accumulation_steps: null"
            self.keys[total.key] = KeyFate(Fate.DIFFERS, reason)
        if micro and micro.key and each and rows % (each * ranks) == 0:
            self._set("training.microBatchSize", each, micro.key)

    def _shared_rows(self) -> None:
        """GPUs that compute a row together: how it is computed, and not what is learned."""
        path = "training.sequenceParallel"
        if path not in self.job:
            return
        degree, method = self.job[path].value, self.job.get("method", Value("SFT", "")).value
        if method not in ("SFT", "DAPT"):
            self._drop(path, f"{path} is for methods SFT and DAPT")
        elif "sft.neftuneAlpha" in self.job:
            self._drop(path, f"{path} does not go with sft.neftuneAlpha, on which depends what is learned")
        elif not (gpus := self._gpus()) or gpus % degree:
            self._drop(path, f"{path} needs a multiple of {degree} GPUs on the node: --gpus {degree} keeps it")

    def _scaled_positions(self) -> None:
        parts = [path for path in self.job if path.startswith("training.ropeScaling.")]
        adapter = self.job.get("adapter.type", Value("LoRA", "")).value
        if len(parts) < 2:
            reason = "training.ropeScaling needs a type, YaRN, and a factor"
        elif adapter != "None":
            reason = f"training.ropeScaling is for whole models, with adapter.type None and not {adapter}"
        else:
            return
        for path in parts:
            self._drop(path, reason, fate=Fate.DIFFERS)

    def _steps(self) -> None:
        if "training.maxSteps" in self.job and "training.epochs" in self.job:
            self._drop("training.epochs", "the number of steps ends the run")
        warmup, steps = self.extra.get("warmupSteps"), self.job.get("training.maxSteps")
        if not warmup:
            return
        number = warmup.value
        if number >= 1 and not steps:
            self.keys[warmup.key] = KeyFate(Fate.DIFFERS, "training.warmupRatio is a share of the steps: set it")
            return
        share = number if number < 1 or not steps else min(1.0, number / steps.value)
        self._set("training.warmupRatio", f"{share:.4g}" if share else 0, warmup.key)

    def _gpus(self) -> int:
        """GPUs of a node."""
        gpus: int = self.job.get("resources.gpusPerNode", Value(self.request.gpus, "")).value
        return gpus

    def _resources(self) -> None:
        gpus = self.request.gpus
        self.job.setdefault("resources.gpusPerNode", Value(gpus, "--gpus"))
        if gpus:
            self.job.setdefault("resources.cpu", Value("8", ""))
            self.job.setdefault("resources.memory", Value("32Gi", ""))

    def _graders(self) -> None:
        if not (grader := self.extra.get("grader")):
            return
        try:
            made = graders.convert(grader.value.value, self.request.judge, f"{self.request.name}-rewards")
        except NotOfferedError as error:
            raise NoJobError(f"{grader.key}: {error}") from None
        self._set("grpo.rewards", made.rewards, grader.key)
        if made.reason:
            self.keys[grader.key] = KeyFate(Fate.DIFFERS, made.reason)
        self.code = made.code
        for groups in (self.rows, self.held):
            groups.setdefault("", {})["columns.answer"] = Value(made.answer, grader.key)

    # Objects

    def _objects(self) -> Converted:
        if "model.uri" not in self.job:
            raise NoJobError("the configuration names no model of a hub: name it by --model OWNER/NAME")
        shared, held_shared = self.rows.pop("", {}), self.held.pop("", {})
        datasets = [shared | fields for fields in self.rows.values()] or ([shared] if shared else [])
        held = [held_shared | fields for fields in self.held.values()] or ([held_shared] if held_shared else [])
        datasets = [fields for fields in datasets if "source.uri" in fields]
        held = [fields for fields in held if "source.uri" in fields]
        if not datasets:
            unknown = {re.split(r"[.\[]", key)[0] for key, (fate, _) in self.keys.items() if fate == Fate.UNKNOWN}
            seen = ", ".join(sorted(key for key in unknown if key.startswith("dataset")))
            raise NoJobError(
                "the configuration names no rows to train on"
                + (f" in a key that Hone knows, but {seen}" if seen else "")
            )
        names = _names(self.request.name, len(datasets))
        held_names = _names(f"{self.request.name}-held", len(held))
        self.job["datasets"] = Value([{"name": name} for name in names], "")
        if held:
            self.job["evaluationDatasets"] = Value([{"name": name, "split": "train"} for name in held_names], "")
        self.job["output.modelName"] = Value(self.request.name, "")
        uploads: list[str] = []
        for name, fields in zip(names + held_names, datasets + held, strict=True):
            self._source(name, fields, uploads)
            if held:
                fields["splits.validation"] = Value("0%", fields.get("splits.validation", Value("", "")).key)
        kinds = [("Dataset", name, fields) for name, fields in zip(names + held_names, datasets + held, strict=True)]
        kinds.append(("FineTuneJob", f"{self.request.name}-1", self.job))
        for each in kinds:
            self._require_valid(*each)
        objects = [_object(kind, name, fields) for kind, name, fields in kinds]
        if self.code:
            name = f"{self.request.name}-rewards"
            objects.insert(0, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": self.code})
            kinds.insert(0, ("ConfigMap", name, {}))
        origins = [{f"spec.{path}": v.key for path, v in fields.items() if v.key} for _, _, fields in kinds]
        return Converted(objects, origins, self.keys, uploads)

    def _source(self, name: str, fields: Fields, uploads: list[str]) -> None:
        """The address of the rows, and the settings that go with it alone."""
        uri, key = fields["source.uri"]
        if uri.startswith(LOCAL):
            file = Path(uri.removeprefix(LOCAL))
            uploads.append(f"hone upload {file} {name}")
            is_here = file.is_file()  # otherwise nobody knows how large it is
            fields["source.uri"] = Value(
                place.address(file, name) if is_here else f"pvc://{name}/{place.key(file)}", key
            )
        is_hub = uri.startswith("hf://")
        for path in ("source.config", "source.split", "source.files"):
            if path in fields and (not is_hub or (path != "source.files" and "source.files" in fields)):
                self._drop(path, "the rows are the file's" if not is_hub else "files names the rows", fields)
        roles = fields.get("format", Value("Auto", "")).value
        of_turns = roles in ("ShareGPT", "Preference") or "columns.chosen" in fields
        if of_turns and "columns.messages" in fields:
            fields["columns.conversations"] = fields.pop("columns.messages")

    def _require_valid(self, kind: str, name: str, fields: Fields) -> None:
        """Leave out what the API refuses.

        Raises:
            NoJobError: the problem is not of a field that the source has.
        """
        for _ in range(len(fields) + 1):
            for problem in own_problems(kind, name, {"spec": _nested(fields)}, alone=True):
                path = _blamed(problem, fields)
                if path is None or path in ("source.uri", "model.uri", "datasets"):
                    raise NoJobError(problem)
                fate = Fate.DROPPED if path.startswith("checkpoints.") else Fate.DIFFERS
                whole = "training.ropeScaling."  # none of its fields means anything alone
                paths = [p for p in fields if p.startswith(whole)] if path.startswith(whole) else [path]
                for each in paths:
                    self._drop(each, f"Hone refuses it: {problem}", fields, fate)
                break
            else:
                return


def _blamed(problem: str, paths: Iterable[str]) -> str | None:
    """The field that a problem names: by its whole path, by block and field, or alone."""
    for form in (r"\b{block}\.{field}\b", r"\b{block}\b.*\b{field}\b", r"\b{field}\b"):
        found = {}
        for path in paths:
            block, _, name = path.rpartition(".")
            if match := re.search(form.format(block=re.escape(block), field=re.escape(name)), problem):
                found[path] = match.end()
        if found:
            return min(found, key=lambda path: found[path])
    return None


def flat(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each key with its value; a list of objects has numbered items."""
    if isinstance(document, Mapping) and document:
        for name, value in document.items():
            yield from flat(value, f"{path}.{name}" if path else str(name))
    elif isinstance(document, list) and any(isinstance(item, Mapping) for item in document):
        for number, item in enumerate(document):
            yield from flat(item, f"{path}[{number}]")
    else:
        yield path, document


def _names(name: str, number: int) -> list[str]:
    return [name] if number == 1 else [f"{name}-{n}" for n in range(1, number + 1)]


def _nested(fields: Mapping[str, Value]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for path, value in fields.items():
        node = root
        *parents, last = path.split(".")
        for step in parents:
            node = node.setdefault(step, {})
        node[last] = value.value
    return root


def _object(kind: str, name: str, fields: Fields) -> dict[str, Any]:
    return {"apiVersion": "hone.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": _nested(fields)}
