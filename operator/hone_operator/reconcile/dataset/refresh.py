"""A Ready Dataset that is refreshed on a schedule. It stays Ready with its content until there is new content;
condition UpToDate has the result of the last look."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from hone_api.base.wording import counted
from hone_api.contract.report import DatasetResult
from hone_api.dataset.dataset import DatasetSpec, Refresh
from hone_api.plan import DatasetInput
from hone_api.words.failures import FAILURES, FailureCode, Retry
from hone_api.words.states import AnyReason, ConditionType, Reason
from hone_operator.desired.core.platform import Platform
from hone_operator.reconcile.core.failures import Cause
from hone_operator.reconcile.core.outcome import Outcome
from hone_operator.reconcile.core.outcome_builder import DatasetBuilder
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.core.upstream import Wait
from hone_operator.reconcile.dataset import materialized
from hone_operator.reconcile.staging.staging_attempts import StagingAttempts
from hone_operator.times import duration_seconds, parse_time

UP_TO_DATE = ConditionType.UP_TO_DATE
LEAST, MOST = timedelta(minutes=5), timedelta(hours=1)
"""Between two looks, until a failed look is retried."""


def problems(spec: DatasetSpec) -> list[str]:
    """Problems of spec.refresh that the CRD's rules cannot detect."""
    if spec.refresh is None:
        return []
    out = schedule_problems("spec.refresh", spec.refresh)
    if spec.synthesis:
        out.append("spec.refresh with spec.synthesis: reviewed rows are never regenerated automatically")
    return out


def schedule_problems(path: str, refresh: Refresh) -> list[str]:
    """Problems of the times at this path of a spec."""
    out = []
    if refresh.every and duration_seconds(refresh.every) < LEAST.total_seconds():
        out.append(f"{path}.every is {refresh.every}, the least is 5m")
    try:
        next_look(refresh, datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        out.append(f"{path}.schedule {refresh.schedule!r}: {error}")
    except StopIteration:
        out.append(f"{path}.schedule {refresh.schedule!r} names a time that never comes")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        out.append(f"{path}.timeZone {refresh.time_zone!r} is not a zone of the IANA time zone database")
    return out


def next_look(refresh: Refresh, last: datetime) -> datetime:
    """When to look again after a look at `last`.

    Raises:
        CronSimError, StopIteration, ZoneInfoNotFoundError, ValueError: for schedules that `problems` reports.
    """
    if refresh.every:
        return last + timedelta(seconds=duration_seconds(refresh.every))
    zone = ZoneInfo(refresh.time_zone or "UTC")
    following: datetime = next(CronSim(refresh.schedule or "", last.astimezone(zone)))
    return max(following.astimezone(UTC), last + LEAST)


def due(refresh: Refresh, status: Mapping[str, Any]) -> datetime | None:
    """When to look again; None: now, because no look is recorded.

    A failed look is retried after a tenth of the time between two looks, but at least 5 minutes and at most an hour.
    """
    read, tried = status.get("readTime"), status.get("lastTryTime")
    if not read:
        return None
    regular = next_look(refresh, parse_time(read))
    if not tried or parse_time(tried) <= parse_time(read):
        return regular
    ended = parse_time(tried)
    if _final(status):
        return next_look(refresh, ended)
    return ended + min(max(LEAST, (regular - parse_time(read)) / 10), MOST)


def is_news(status: Mapping[str, Any], job: ObservedJob) -> bool:
    """Whether the status does not yet say how this Job of a Ready Dataset ended."""
    return job.finished and job.ended_at != status.get("lastTryTime")


def same_parts(parts: Sequence[DatasetInput], status: Mapping[str, Any]) -> bool:
    """Whether a mixture was made from the present content of its parts."""
    return {(p.name, p.digest) for p in parts} == {(u["name"], u.get("digest")) for u in status.get("mixture") or ()}


def record_unchanged(builder: DatasetBuilder, at: str) -> None:
    """Record a look that found nothing new."""
    builder.put(readTime=at)
    builder.conditions.set(UP_TO_DATE, True, Reason.UNCHANGED, "The source has not changed since it was read.")


def first(builder: DatasetBuilder) -> None:
    """Record the first reading of the source in this generation."""
    builder.conditions.set(UP_TO_DATE, True, Reason.READ, "The source was read.")


def record_look(builder: DatasetBuilder, attempts: StagingAttempts, platform: Platform) -> None:
    """Take the result of a finished look: nothing new, new content, or an error that changes nothing."""
    assert attempts.job is not None
    ended = attempts.job.ended_at
    builder.put(lastTryTime=ended)
    result = attempts.ending.result if attempts.ending else None
    if attempts.cause or not isinstance(result, DatasetResult):
        return record_failure(builder, attempts.cause or Cause(FailureCode.RESULT_MISSING, "The pod left no result."))
    if result.unchanged:
        return record_unchanged(builder, ended)
    before, changes = builder.status.get("digest"), builder.status.get("changes")
    materialized.describe(builder, result, platform)
    materialized.serve(builder, result, platform)
    builder.put(readTime=ended)
    if result.digest == before:
        builder.put(changes=changes)
        builder.conditions.set(
            UP_TO_DATE, True, Reason.SAME_CONTENT, "The source was read again and has the same rows."
        )
        return None
    sentence = f"{counted(result.rows, 'row')}, {result.rejected:,} rejected."
    if result.changes:
        sentence = f"{counted(result.changes.added, 'row')} added, {result.changes.removed:,} removed: {sentence}"
    builder.conditions.set(UP_TO_DATE, True, Reason.REFRESHED, sentence)
    builder.ready(True, Reason.MATERIALIZED, f"{counted(result.rows, 'row')}, {result.rejected:,} rejected.")
    builder.add_event(Reason.REFRESHED, f"{sentence} Jobs that have started keep {before}.")
    return None


def record_failure(builder: DatasetBuilder, cause: Cause) -> None:
    """Record a failed look: jobs continue with the present content."""
    _outdated(builder, cause.code, cause.advice)


def put_off(builder: DatasetBuilder, why: Wait | Cause) -> Outcome:
    """Record that something the look needs is missing."""
    _outdated(builder, *((why.reason, why.message) if isinstance(why, Wait) else (why.code, why.advice)))
    return builder.outcome()


def _outdated(builder: DatasetBuilder, reason: AnyReason, message: str) -> None:
    message = f"{message.rstrip('.')}. The content of {builder.status.get('readTime')} stays in use."
    builder.conditions.set(UP_TO_DATE, False, reason, message)
    builder.add_event_if_changed(UP_TO_DATE, warning=True)


def _final(status: Mapping[str, Any]) -> bool:
    """Whether the last look failed in a way that an early retry cannot fix."""
    reason = next((c["reason"] for c in status.get("conditions") or () if c["type"] == UP_TO_DATE), "")
    return reason in FAILURES and FAILURES[reason].retry is Retry.NEVER
