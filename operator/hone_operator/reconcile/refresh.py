"""A Ready Dataset that is looked at again on a schedule. It stays Ready, with the content it has, until there is
another; condition UpToDate says what came of the last look."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from hone_api.dataset import DatasetSpec, Refresh
from hone_api.failures import FAILURES, FailureCode, Retry
from hone_api.plan import DatasetInput
from hone_api.report import DatasetResult
from hone_api.states import AnyReason, ConditionType, Reason
from hone_operator.desired.platform import Platform
from hone_operator.reconcile import materialized
from hone_operator.reconcile.draft import Draft
from hone_operator.reconcile.failures import Cause
from hone_operator.reconcile.outcome import Outcome, duration_seconds
from hone_operator.reconcile.pods import ObservedJob
from hone_operator.reconcile.tries import Tries
from hone_operator.reconcile.upstream import Wait
from hone_operator.times import parse_time

UP_TO_DATE = ConditionType.UP_TO_DATE
LEAST, MOST = timedelta(minutes=5), timedelta(hours=1)
"""Between two looks; until a look that failed is made again."""


def problems(spec: DatasetSpec) -> list[str]:
    """What the CRD's rules cannot tell of spec.refresh."""
    refresh = spec.refresh
    if refresh is None:
        return []
    out = []
    if refresh.every and duration_seconds(refresh.every) < LEAST.total_seconds():
        out.append(f"spec.refresh.every is {refresh.every}, the least is 5m")
    try:
        next_look(refresh, datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        out.append(f"spec.refresh.schedule {refresh.schedule!r}: {error}")
    except StopIteration:
        out.append(f"spec.refresh.schedule {refresh.schedule!r} names a time that never comes")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        out.append(f"spec.refresh.timeZone {refresh.time_zone!r} is not a zone of the IANA time zone database")
    if spec.synthesis:
        out.append("spec.refresh with spec.synthesis: reviewed rows are never regenerated automatically")
    return out


def next_look(refresh: Refresh, last: datetime) -> datetime:
    """When to look again after a look at `last`.

    Raises:
        CronSimError, StopIteration, ZoneInfoNotFoundError, ValueError: as `problems` tells them.
    """
    if refresh.every:
        return last + timedelta(seconds=duration_seconds(refresh.every))
    zone = ZoneInfo(refresh.time_zone or "UTC")
    found: datetime = next(CronSim(refresh.schedule or "", last.astimezone(zone)))
    return max(found.astimezone(UTC), last + LEAST)


def due(refresh: Refresh, status: Mapping[str, Any]) -> datetime | None:
    """When to look again; None: now, as no look is known.

    A look that failed is made again after a tenth of the time between two looks, 5 minutes to an hour.
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
    """Whether the status does not know yet how this Job of a Ready Dataset ended."""
    return job.finished and job.ended_at != status.get("lastTryTime")


def same_parts(parts: Sequence[DatasetInput], status: Mapping[str, Any]) -> bool:
    """Whether a mixture was made of the contents that its parts have now."""
    return {(p.name, p.digest) for p in parts} == {(u["name"], u.get("digest")) for u in status.get("mixture") or ()}


def unchanged(draft: Draft, at: str) -> None:
    """Looked, and there is nothing new."""
    draft.put(readTime=at)
    draft.conditions.set(UP_TO_DATE, True, Reason.UNCHANGED, "The source has not changed since it was read.")


def first(draft: Draft) -> None:
    """The source was read for the first time of this generation."""
    draft.conditions.set(UP_TO_DATE, True, Reason.READ, "The source was read.")


def take(draft: Draft, tries: Tries, platform: Platform) -> None:
    """What the finished look found: nothing new, another content, or an error that leaves all as it is."""
    assert tries.job is not None
    ended = tries.job.ended_at
    draft.put(lastTryTime=ended)
    result = tries.ending.result if tries.ending else None
    if tries.cause or not isinstance(result, DatasetResult):
        return failed(draft, tries.cause or Cause(FailureCode.RESULT_MISSING, "The pod left no result."))
    if result.unchanged:
        return unchanged(draft, ended)
    before, changes = draft.status.get("digest"), draft.status.get("changes")
    materialized.describe(draft, result, platform)
    materialized.serve(draft, result, platform)
    draft.put(readTime=ended)
    if result.digest == before:
        draft.put(changes=changes)
        draft.conditions.set(UP_TO_DATE, True, Reason.SAME_CONTENT, "The source was read again and gave the same rows.")
        return None
    said = f"{result.rows} rows, {result.rejected} rejected."
    if result.changes:
        said = f"{result.changes.added} rows added, {result.changes.removed} removed: {said}"
    draft.conditions.set(UP_TO_DATE, True, Reason.REFRESHED, said)
    draft.ready(True, Reason.MATERIALIZED, f"{result.rows} rows, {result.rejected} rejected.")
    draft.tell(Reason.REFRESHED, f"{said} Jobs that have started keep {before}.")
    return None


def failed(draft: Draft, cause: Cause) -> None:
    """The look failed: jobs go on with the content that is there."""
    _outdated(draft, cause.code, cause.advice)


def put_off(draft: Draft, why: Wait | Cause) -> Outcome:
    """What the look needs is not there."""
    _outdated(draft, *((why.reason, why.message) if isinstance(why, Wait) else (why.code, why.advice)))
    return draft.outcome()


def _outdated(draft: Draft, reason: AnyReason, message: str) -> None:
    message = f"{message.rstrip('.')}. The content of {draft.status.get('readTime')} stays in use."
    draft.conditions.set(UP_TO_DATE, False, reason, message)
    draft.tell_change(UP_TO_DATE, warning=True)


def _final(status: Mapping[str, Any]) -> bool:
    """Whether the last look failed in a way that soon trying again cannot help."""
    reason = next((c["reason"] for c in status.get("conditions") or () if c["type"] == UP_TO_DATE), "")
    return reason in FAILURES and FAILURES[reason].retry is Retry.NEVER
