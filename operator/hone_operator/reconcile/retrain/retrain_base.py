"""spec.retrain.base of a Model: what the base of the repeated job names now, and what the last job started from. Pure.

An alias is read from the Model that has it. The commit of a branch is looked up by a short Job, at most every
`checkEvery`, and only while a new commit could start a job.
"""

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from hone_api.base.meta import alias_of
from hone_api.blocks.retrain import RetrainBase
from hone_api.contract.report import LookupResult
from hone_api.contract.status_json import RetrainBaseStatusJson
from hone_operator.desired.core import names
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.staging import lookup
from hone_operator.desired.staging.lookup import Question
from hone_operator.reconcile.core import bounds
from hone_operator.reconcile.core.outcome import Refusal
from hone_operator.reconcile.core.outcome_builder import ModelBuilder
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.staging.observed import of_component
from hone_operator.reconcile.staging.staging_attempts import observe_attempts, start_timeout_cause
from hone_operator.times import duration_seconds, parse_time, read_time

Body = Mapping[str, Any]
LEAST, MOST = timedelta(minutes=5), timedelta(hours=1)
"""Until a look that failed is repeated."""
LEAST_EVERY = timedelta(hours=1)
JITTER = 0.1
"""Share of checkEvery by which looks of different Models are spread."""
COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class ObservedForBase:
    """What spec.retrain.base depends on."""

    platform: Platform | None = None
    """None: without spec.retrain.base."""
    looks: Sequence[ObservedJob] = ()
    """Jobs of the Model."""
    target: str | None = None
    """ModelVersion to which the alias points that the repeated job starts from."""
    refusals: Sequence[Refusal] = ()


def problems(base: RetrainBase) -> list[str]:
    """Problems that the CRD's rules cannot detect."""
    short = duration_seconds(base.check_every) < LEAST_EVERY.total_seconds()
    return [f"spec.retrain.base.checkEvery is {base.check_every}, the least is 1h"] if short else []


def unwatchable(model: str, template: Body) -> str | None:
    """Why the base of this job is never new, or new with every job; None: it can be watched."""
    name, uri = template["metadata"]["name"], (template["spec"].get("model") or {}).get("uri")
    alias = alias_of(uri)
    if alias and alias[0] == model:
        words = f"FineTuneJob {name} starts from {uri}, so every promotion would start the next job"
        return f"spec.retrain.base: {words}: name the base or another model there, or remove base."
    if alias or (uri and uri.startswith("hf://") and not COMMIT.fullmatch(uri.partition("@")[2])):
        return None
    words = f"FineTuneJob {name} starts from {uri or 'a ModelVersion or job'}, which never changes"
    return f"spec.retrain.base: {words}: name a branch (hf://owner/name@main) or an alias there, or remove base."


def base_of_job(job: Body) -> str | None:
    """Commit or ModelVersion that a job started from, once it is known."""
    status = job.get("status") or {}
    resolved = status.get("resolved") or {}
    name = (resolved.get("modelVersion") or {}).get("name") or status.get("baseModelVersion")
    base = name or resolved.get("modelCommit")
    return str(base) if base else None


def decide_base(
    builder: ModelBuilder,
    base: RetrainBase | None,
    template: Body,
    newest: Body | None,
    seen: ObservedForBase,
    idle: bool,
) -> RetrainBaseStatusJson | None:
    """What is known of the base, for the status; requests a look if one is due.

    Args:
        newest: the newest job of this model.
        idle: whether a new base could start a job now.
    """
    if base is None or seen.platform is None:
        stop_looking(builder, seen)
        return None
    own = of_component(seen.looks, lookup.COMPONENT)
    model: Body = template["spec"].get("model") or {}
    question = Question(str(model.get("uri") or ""), model.get("secretName"))
    old: RetrainBaseStatusJson | None = (builder.old.get("retrain") or {}).get("base")
    entry: RetrainBaseStatusJson = {**old} if old and old.get("uri") == question.uri else {"uri": question.uri}
    if alias_of(question.uri):
        stop_looking(builder, seen)
        entry = _with(entry, present=seen.target)
    else:
        entry = _Looking(builder, base, question, seen, seen.platform).run(entry, own, idle)
    trained = (newest and base_of_job(newest)) or entry.get("trained") or entry.get("present")
    return _with(entry, trained=trained)


def stop_looking(builder: ModelBuilder, seen: ObservedForBase) -> None:
    """Delete the Jobs of looks, whose answer nobody needs."""
    builder.delete += [look.body for look in of_component(seen.looks, lookup.COMPONENT)]


def present_base(entry: RetrainBaseStatusJson | None) -> str | None:
    """Commit or ModelVersion that the base names, if it is known."""
    return entry.get("present") if entry else None


def is_new(entry: RetrainBaseStatusJson | None) -> bool:
    """Whether the base is another one than the last job started from."""
    return bool(entry and present_base(entry) and present_base(entry) != entry.get("trained"))


@dataclass(frozen=True)
class _Looking:
    """One decision about looking at the hub."""

    builder: ModelBuilder
    base: RetrainBase
    question: Question
    seen: ObservedForBase
    platform: Platform

    def run(self, entry: RetrainBaseStatusJson, own: Sequence[ObservedJob], idle: bool) -> RetrainBaseStatusJson:
        content = self.question.key(self.platform)
        looks = [look for look in own if look.body["metadata"]["labels"].get(names.CONTENT) == content]
        self.builder.delete += [look.body for look in own if look not in looks]
        attempts = observe_attempts(looks)
        if attempts.job is None:
            return self._next(entry, idle)
        cause = attempts.cause or start_timeout_cause(
            attempts, self.builder.now, self.platform.trainer.start_timeout_seconds
        )
        if attempts.active and cause is None:
            self.builder.await_start(attempts.job)
            return entry
        self.builder.delete += [look.body for look in looks]
        ended = attempts.job.ended_at if attempts.job.finished else self.builder.time
        result = attempts.ending.result if attempts.ending else None
        if isinstance(result, LookupResult) and not cause:
            entry = _with(entry, present=result.commit, lookedAt=ended, problem=None)
        else:
            words = cause.advice if cause else "The pod left no result."
            entry = _with(entry, lookedAt=ended, problem=f"{words} The next look follows."[:4096])
        self.builder.check_in(max(0.0, self.builder.until(self._due(entry) or self.builder.now)))
        return entry

    def _next(self, entry: RetrainBaseStatusJson, idle: bool) -> RetrainBaseStatusJson:
        due = self._due(entry)
        if due and due > self.builder.now:
            self.builder.check_in(self.builder.until(due))
            return entry
        if not idle:
            return entry
        if words := "; ".join(bounds.watch_problems(self.question.uri, self.question.secret, self.platform.tenants)):
            return _with(entry, problem=words[:4096])
        objects = lookup.lookup(self.builder.body, self.question, entry.get("lookedAt") or "", self.platform)
        ours = {body["metadata"]["name"] for body in objects}
        if refused := next((r for r in self.seen.refusals if r.name in ours), None):
            problem = f"{refused.kind} {refused.name} is not created: {refused.message}"[:4096]
            self.builder.check_in(LEAST.total_seconds())
            return _with(entry, lookedAt=self.builder.time, problem=problem)
        self.builder.create += objects
        return entry

    def _due(self, entry: RetrainBaseStatusJson) -> datetime | None:
        """When to look; None: now, since nobody has looked."""
        last = entry.get("lookedAt")
        if read_time(last) is None or last is None:
            return None
        every = timedelta(seconds=duration_seconds(self.base.check_every))
        if entry.get("problem"):
            every = min(max(every / 10, LEAST), MOST)
        spread = zlib.crc32(self.builder.body["metadata"]["uid"].encode()) / 2**32
        return parse_time(last) + every * (1 + JITTER * spread)


def _with(entry: RetrainBaseStatusJson, **fields: str | None) -> RetrainBaseStatusJson:
    """The entry with these fields; None removes one."""
    return cast(RetrainBaseStatusJson, {k: v for k, v in {**entry, **fields}.items() if v is not None})
