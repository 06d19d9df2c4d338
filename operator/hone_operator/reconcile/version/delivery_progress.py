"""How far a copy is, by what its pod reports. Pure."""

from typing import Any

from pydantic import ValidationError

from hone_api.base.meta import MAX_COUNT
from hone_api.base.wording import duration
from hone_api.contract.report import BYTES_PER_SECOND, DELIVERING
from hone_api.kinds.modelversion import DeliveryProgress
from hone_api.words.states import DeliveryState
from hone_operator.progress.numbers import Latest

_MIB = 2**20


def read(report: Latest | None) -> DeliveryProgress | None:
    """What the status says; None: nothing was reported yet."""
    if report is None or report.progress.stage != DELIVERING or report.progress.total_steps is None:
        return None
    progress = report.progress
    arrived, total = progress.step, progress.total_steps or 0
    rate = _read_rate((progress.metrics or {}).get(BYTES_PER_SECOND))
    left = duration(report.eta_seconds) if rate and report.eta_seconds is not None and arrived < total else None
    parts = (
        f"{arrived / _MIB:.1f} of {total / _MIB:.1f} MiB",
        f"{progress.percent}%",
        f"{rate / _MIB:.1f} MiB/s" if rate else None,
        f"{left} left" if left else None,
    )
    return DeliveryProgress(
        arrived_bytes=arrived,
        total_bytes=total,
        percent=progress.percent,
        bytes_per_second=rate,
        eta=left,
        summary=", ".join(filter(None, parts)),
        last_updated_time=progress.last_updated_time,
    )


def remembered_progress(entry: Any, tries: int | None) -> DeliveryProgress | None:
    """What an entry of the status said about this attempt before."""
    if not entry or entry.get("state") != DeliveryState.DELIVERING or entry.get("tries") != tries:
        return None
    try:
        return DeliveryProgress.model_validate(entry.get("progress"))
    except ValidationError:
        return None


def _read_rate(number: str | None) -> int | None:
    """A rate as reported; None: it is none, e.g. 'nan'."""
    try:
        rate = round(float(number or "nan"))
    except (ValueError, OverflowError):
        return None
    return rate if 0 <= rate <= MAX_COUNT else None
