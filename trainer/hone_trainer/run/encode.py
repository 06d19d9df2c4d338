"""Rows to tokens, once: before a GPU is requested (`python -m hone_trainer encode`), or else before the ranks start.

Each split has a folder of its own, by the key of `hone_api.contract.encoding`: below `encodedPath` of the plan
where the stage made it, else below workPath. Ranks map it.

`python -m hone_trainer.run.encode <plan.json> <file of the outcome>` encodes before several ranks start, in a process
whose memory is not theirs.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hone_api.contract import encoding
from hone_api.contract.report import EncodeResult
from hone_api.plan import DatasetInput, TrainingPlan
from hone_api.words.failures import FailureCode
from hone_api.words.phases import ENCODING
from hone_trainer.encoding import chunks, rendering, reuse
from hone_trainer.encoding.mapped import Mapped
from hone_trainer.encoding.split_file import (
    Counts,
    Encoded,
    Policy,
    encode_records,
    encode_split,
    records,
    refuse_empty,
)
from hone_trainer.encoding.writing import Encoders, Task
from hone_trainer.errors import StoreError, TrainerError
from hone_trainer.methods import METHODS
from hone_trainer.models import base_model
from hone_trainer.models.base_model import Base
from hone_trainer.reporting import live, phases
from hone_trainer.reporting.live import Reporters
from hone_trainer.run import apart, leaks, preflight
from hone_trainer.signals import Stop
from hone_trainer.store import contents, folders, manifest, signature
from hone_trainer.workers.parallel import cores
from hone_trainer.workers.pods import ALONE, Pod, this_pod

if TYPE_CHECKING:
    from hone_trainer.training.method import TrainingMethod

STAGE = "Encoding"
_MODEL_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
log = logging.getLogger("hone.trainer")


def run(plan: TrainingPlan) -> EncodeResult | None:
    """Encode every split of the plan into `encodedPath`, or find that it is there.

    Returns:
        None in a pod that does not lead: it has encoded its share.

    Raises:
        TrainerError: what reading the model and the rows raises; InvalidConfiguration for a plan whose rows a teacher
            has yet to answer.
        StoreError: DatasetChanged, ManifestMismatch; the folder cannot be written.
    """
    if encoding.is_answered_later(plan):
        message = "distillation.level Sequence: the teacher answers once the run has started, so no rows exist yet"
        raise TrainerError(FailureCode.INVALID_CONFIGURATION, message)
    pod = this_pod(plan.pods)
    reporters = live.from_environment() if pod.leads else Reporters()
    try:
        if pod.leads:
            contents.verify_datasets(plan)
        base = _checked_base(plan)
        work = _Work(plan, base, reporters, counts_steps=True, pod=pod)
        places = {source.path: place(plan, source, writes=True) for source in encoding.splits(plan)}
        missing = {path: folder for path, folder in places.items() if not folders.claim(folder)}
        if missing := work.not_reused(missing):
            work.encode(missing)
        return _result(plan, places, work) if pod.leads else None
    finally:
        reporters.close()


def prepare(plan: TrainingPlan, stop: Stop, first: bool) -> TrainingPlan:
    """The plan, once what was encoded before is checked, and the rest is encoded; before several ranks start.

    Args:
        first: whether this is the first node, which encodes; the others wait for it.

    Raises:
        StoreError: ManifestMismatch, when encoded rows are not those that the plan names.
        TrainerError: what went wrong in the process that encodes; Interrupted.
    """
    plan = verify_folders(plan)
    targets = [place(plan, source) for source in encoding.splits(plan)]
    if plan.nodes * plan.processes_per_node == 1:  # the one rank does it itself
        return plan
    with phases.of_process().within(ENCODING):
        _await_rows(plan, targets, stop, first)
    return plan


def _await_rows(plan: TrainingPlan, targets: list[Path], stop: Stop, first: bool) -> None:
    if first and not all(map(manifest.is_complete, targets)):
        apart.run("hone_trainer.run.encode", plan, stop, "the encoder")
    if not all(map(manifest.is_complete, targets)):
        log.info("waiting for the first node to encode the rows into %s", targets[0].parent)
    while not all(map(manifest.is_complete, targets)):
        stop.check("while waiting for the encoded rows")
        time.sleep(1)


def verify_folders(plan: TrainingPlan) -> TrainingPlan:
    """The plan, once every encoded folder that it uses was hashed; without `encodedPath` if one there is damaged.

    Raises:
        StoreError: ManifestMismatch, when the plan pins the folders, and they are not those.
    """
    places = {source.path: place(plan, source) for source in encoding.splits(plan)}
    complete = {folder for folder in places.values() if manifest.is_complete(folder)}
    outside = {folder for folder in complete if plan.encoded_path and folder.parent == Path(plan.encoded_path)}
    if plan.encoded_digest is not None and outside == set(places.values()):
        digest = encoding.digest({folder.name: manifest.digest_of(folder) for folder in outside})
        if digest != plan.encoded_digest:
            message = f"{plan.encoded_path}: the encoded rows are {digest}, and not {plan.encoded_digest} of the plan"
            raise StoreError(FailureCode.MANIFEST_MISMATCH, message)
    for folder in sorted(complete):
        try:
            manifest.verify(folder)
        except StoreError as error:
            if folder in outside and plan.encoded_digest is not None:
                raise
            log.warning("%s; the rows are encoded again", error.message)
            if folder in outside:
                return verify_folders(plan.model_copy(update={"encoded_path": None, "encoded_digest": None}))
            folders.remove(folder)
    return plan


def ready(plan: TrainingPlan, base: Base, reporters: Reporters | None = None) -> Mapping[str, Mapped]:
    """The rows of every split of the plan by the split's path; what nobody has encoded yet is encoded now."""
    places = {source.path: place(plan, source) for source in encoding.splits(plan)}
    missing = {path: folder for path, folder in places.items() if not manifest.is_complete(folder)}
    if missing:
        _Work(plan, base, reporters or Reporters()).encode(missing)
    return {path: Mapped(folder) for path, folder in places.items()}


def try_rows(plan: TrainingPlan, files: Path) -> None:
    """Encode each split up to the first row that can be trained on: `run` would refuse a split that has none.

    Args:
        files: folder with config and tokenizer of the base.

    Raises:
        TrainerError: NoTrainableRows, and what else `run` raises for these rows.
    """
    base = base_model.open_base(files, with_weights=False, training=plan.training)
    policy = _policy(plan, base)
    with rendering.of_run(plan.template_date, plan.training.thinking):
        for source in encoding.splits(plan):
            encoder, path = _method(plan).encoder(plan, base), Path(source.path)
            counts = Counts()
            if next(encode_records(records(path), encoder, policy, path, counts), None) is None:
                refuse_empty(counts, f"{source.name}/{source.split}")
            log.info("%s/%s: line %s can be trained on", source.name, source.split, f"{counts.lines:,}")


def in_memory(plan: TrainingPlan, base: Base, path: str) -> Encoded:
    """A file of rows by the plan's method, for a look at it alone."""
    policy = _policy(plan, base)
    encoder = _method(plan).encoder(plan, base)
    return encode_split(path, encoder, max_length=policy.max_length, truncation=policy.truncation)


def place(plan: TrainingPlan, source: DatasetInput, *, writes: bool = False) -> Path:
    """The folder of a split's encoded rows.

    Args:
        writes: whether it is that of the stage that encodes: below `encodedPath`, also when it is not there yet.
    """
    key = encoding.key(plan, source)
    if key is not None and plan.encoded_path is not None:
        staged = Path(plan.encoded_path) / key
        if writes or manifest.is_complete(staged):
            return staged
    return Path(plan.work_path) / encoding.FOLDER / (key or _local_key(plan, source))


def _local_key(plan: TrainingPlan, source: DatasetInput) -> str:
    """The key of rows or a model that the plan does not identify: by what is on this machine's disk."""
    rows = [source.digest, source.split]
    if source.digest == contents.UNKNOWN or encoding.is_answered_later(plan):
        stat = Path(source.path).stat()
        rows = [source.path, str(stat.st_size), str(stat.st_mtime_ns), str(stat.st_ino)]
    return encoding.address(plan, rows, encoding.model_identity(plan) or _model_files(Path(plan.model_path)))


def _model_files(folder: Path) -> str:
    """SHA-256 over config, tokenizer and template."""
    hasher = hashlib.sha256()
    for file in sorted(file for pattern in _MODEL_FILES for file in folder.glob(pattern)):
        with open(file, "rb") as opened:
            hasher.update(f"{file.name}\0{hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
    return hasher.hexdigest()


def _method(plan: TrainingPlan) -> TrainingMethod:
    return METHODS[plan.method]


def _policy(plan: TrainingPlan, base: Base) -> Policy:
    method = _method(plan)
    longest = plan.training.max_length or method.longest(base) or base.context
    return Policy(longest, plan.training.truncation)


def _checked_base(plan: TrainingPlan) -> Base:
    """Config and tokenizer of the base, each file of them as the plan pins it; the weights are not read."""
    model = plan.base
    signature.compare(model, hashed=lambda path: not path.endswith(".safetensors"))
    tokenizer = model.adapter.path if model.adapter else None
    return base_model.open_base(model.path, tokenizer_path=tokenizer, training=plan.training)


def _result(plan: TrainingPlan, places: Mapping[str, Path], work: _Work) -> EncodeResult:
    names = {source.path: f"{source.name}/{source.split}" for source in encoding.splits(plan)}
    done = set(places.values())
    counts = {path: Mapped(folder).counts for path, folder in places.items()}
    return EncodeResult(
        digest=encoding.digest({folder.name: manifest.digest_of(folder) for folder in done}),
        splits=len(done),
        reused=len(done) - len(work.written),
        rows=sum(split.rows for split in counts.values()),
        tokens=sum(split.tokens for split in counts.values()),
        size_bytes=sum(map(manifest.size_of, done)),
        tokens_per_second=f"{work.speed:.0f}" if work.written else None,
        summary=[f"{names[path]}: {split.summary(examples=False)}"[:600] for path, split in counts.items()],
        advice=[
            *(text[:600] for path, split in counts.items() for text in preflight.untrained_ends(split, names[path])),
            *leaks.advice(plan),
        ],
    )


@dataclass
class _Work:
    """Encodes splits and reports its progress."""

    plan: TrainingPlan
    base: Base
    reporters: Reporters
    counts_steps: bool = False
    """Whether lines are reported as steps: in a run those are its optimiser steps."""
    pod: Pod = ALONE
    written: set[Path] = field(default_factory=set)
    token_keys: dict[str, str | None] = field(default_factory=dict)
    """By a split's path, where the rows are for other models as well."""
    tokens: int = 0
    _lines: int = 0
    _all: int = 0
    _kept: tuple[int, int] = (0, 0)
    """Lines and tokens that an earlier attempt encoded; they took none of this one's time."""
    _started: float = field(default_factory=time.monotonic)

    @property
    def speed(self) -> float:
        """Tokens a second so far."""
        return (self.tokens - self._kept[1]) / max(time.monotonic() - self._started, 1e-6)

    def not_reused(self, targets: Mapping[str, Path]) -> dict[str, Path]:
        """Of these splits and their folders those that must be encoded: the rows of no other model serve."""
        sources = [source for source in encoding.splits(self.plan) if source.path in targets]
        self.token_keys = {
            source.path: reuse.token_key(self.plan, source, self.base)
            for source in sources
            if encoding.key(self.plan, source) is not None
        }
        keys = {targets[path]: key for path, key in self.token_keys.items()}
        there = {folder for folder, key in keys.items() if key is not None and reuse.reused(folder, key)}
        return {path: folder for path, folder in targets.items() if folder not in there}

    def encode(self, targets: Mapping[str, Path]) -> None:
        """Encode the splits of these paths into their folders, one after the other, each on all cores."""
        pieces = {Path(path): chunks.chunks(Path(path)) for path in targets}
        self._all = sum(chunk.lines for split in pieces.values() for chunk in split)
        self.reporters.begin_rows(STAGE, self._all)
        tasks: dict[Path, Task] = {}
        for source in encoding.splits(self.plan):
            if (folder := targets.get(source.path)) is not None:
                tasks.setdefault(folder, self._task(source))
        count = min(cores(), max(map(len, pieces.values()), default=1))
        with Encoders(list(tasks.values()), count, self.pod) as encoders:
            for folder, task in tasks.items():
                if not self.pod.leads:
                    encoders.share(task, folder, pieces[task.path])
                    continue
                noted = partial(self._note, self._lines, self.tokens)
                encoders.write(task, folder, pieces[task.path], noted, partial(self._keep, task.where))
                self.written.add(folder)

    def _task(self, source: DatasetInput) -> Task:
        return Task(
            path=Path(source.path),
            encoder=_method(self.plan).encoder(self.plan, self.base),
            policy=_policy(self.plan, self.base),
            vocabulary=self.base.vocabulary,
            where=f"{source.name}/{source.split}",
            day=self.plan.template_date,
            thinking=self.plan.training.thinking,
            token_key=self.token_keys.get(source.path),
        )

    def _keep(self, where: str, lines: int, tokens: int) -> None:
        log.info("%s: going on with %s lines that are encoded already", where, f"{lines:,}")
        self._kept = (self._kept[0] + lines, self._kept[1] + tokens)

    def _note(self, lines_before: int, tokens_before: int, lines: int, tokens: int) -> None:
        """Report what is done: of this split so many lines and tokens, after those of the splits before."""
        self._lines, self.tokens = lines_before + lines, tokens_before + tokens
        steps = {"step": self._lines, "total_steps": self._all} if self.counts_steps else {}
        self.reporters.report_rows(self._lines, self._all, kept=self._kept[0], tokens_per_second=self.speed, **steps)


def _encode(plan: TrainingPlan) -> None:
    reporters = live.from_environment()
    try:
        ready(plan, preflight.before_ranks(plan), reporters)
    finally:
        reporters.close()


if __name__ == "__main__":
    sys.exit(apart.main(_encode))
