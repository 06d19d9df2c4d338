"""What monitoring sends to have a Model's job repeated: a metric in our own words, or a notification of Alertmanager.

Alertmanager posts version 4 of its webhook format (`Message` in notify/webhook/webhook.go); fields that it adds later
are ignored. In our own format an unknown field is refused.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import from_json

from hone_api.base.meta import ApiModel, ShortText, SignedDecimal

AUDIENCE = "retrain.hone.dev"
"""Audience of the token of a ServiceAccount that reports. No pod of Hone may have such a token."""
MAX_METRIC_BYTES = 64 * 1024
Since = Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC))]
_SHORT = 253


class Reading(NamedTuple):
    """A metric beyond its limit."""

    metric: str
    value: str | None
    reason: str | None
    since: datetime | None
    """None: now."""


class MetricReport(ApiModel):
    """The body of our own format, e.g. from a CronJob."""

    metric: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    value: SignedDecimal | None = None
    reason: ShortText | None = None
    since: Since | None = None

    def reading(self) -> Reading:
        """The same as a Reading."""
        return Reading(_line(self.metric), self.value, _line(self.reason or "") or None, self.since)


class AlertmanagerAlert(BaseModel):
    """One alert of a notification."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)
    status: Literal["firing", "resolved"]
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    starts_at: Since = Field(alias="startsAt")

    def reading(self) -> Reading:
        """Name of the alert; annotation `value`; annotation `summary`, else `description`. Long texts are cut."""
        reason = self.annotations.get("summary") or self.annotations.get("description") or ""
        value = _line(self.annotations.get("value", ""))[:_SHORT]
        return Reading(
            _line(self.labels.get("alertname", ""))[:128] or "alert",
            value or None,
            _line(reason)[:_SHORT] or None,
            self.starts_at,
        )


class AlertmanagerMessage(BaseModel):
    """A notification of Alertmanager's webhook_configs."""

    model_config = ConfigDict(extra="ignore")
    version: Literal["4"]
    alerts: list[AlertmanagerAlert]

    def reading(self) -> Reading | None:
        """The alert that began to fire last; None: none fires any more."""
        firing = [alert for alert in self.alerts if alert.status == "firing"]
        return max(firing, key=lambda alert: alert.starts_at).reading() if firing else None


def read_metric(body: bytes) -> Reading | None:
    """The metric in the body of a request; None: the notification says that no alert fires any more.

    Raises:
        pydantic.ValidationError: it is in neither format.
        ValueError: it is not JSON.
    """
    content: Any = from_json(body)
    if isinstance(content, dict) and "alerts" in content:
        return AlertmanagerMessage.model_validate(content).reading()
    return MetricReport.model_validate(content).reading()


def _line(text: str) -> str:
    """The text on one line, in a form that can be stored."""
    return " ".join(text.encode("utf-8", "replace").decode().split())
