"""What a dashboard is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

RUNBOOK = "docs/guides/runbooks/${__data.fields.alertname}"
"""The chart puts `prometheusRule.runbookBaseUrl` before the name."""
TO_JOB = (
    "/d/hone-job?${datasource:queryparam}&var-cluster=${__data.fields.cluster}&var-namespace=${__data.fields.namespace}"
    "&var-finetunejob=${__data.fields.finetunejob}&${__url_time_range}"
)


def logs(selector: str) -> str:
    """The page of Grafana that shows these logs in Loki."""
    query = {"refId": "A", "expr": selector}
    panes = {"logs": {"datasource": "${logs}", "queries": [query], "range": {"from": "${__from}", "to": "${__to}"}}}
    return f"/explore?schemaVersion=1&panes={quote(json.dumps(panes, separators=(',', ':')), safe='${}_|=~')}"


@dataclass(frozen=True)
class Query:
    """An expression, and how its series are called."""

    expr: str
    legend: str = "{{namespace}}/{{finetunejob}} {{cluster}}"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel."""

    title: str
    about: str
    unit: str = "none"
    queries: Sequence[Query]
    width: int = 8
    height: int = 7
    shows: Literal["curves", "areas", "number", "table"] = "curves"
    log_scale: bool = False
    columns: Sequence[str] = ()
    """Labels that a table shows, and `Value` if the number says something."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Addresses behind the cells of a column."""


@dataclass(frozen=True, kw_only=True)
class Board:
    """A dashboard."""

    title: str
    uid: str
    about: str
    hours: int
    variables: Sequence[tuple[str, str, str, bool]]
    """Name, label, the expression whose values it has, and whether several can be chosen."""
    links: Mapping[str, str]
    rows: Mapping[str, Sequence[Panel]]
    annotations: Mapping[str, tuple[str, str]]
    """An expression that is there when it happened, and a colour, by name."""


def curves(title: str, about: str, unit: str, *queries: Query, width: int = 8, log_scale: bool = False) -> Panel:
    """A panel of lines."""
    return Panel(title=title, about=about, unit=unit, queries=queries, width=width, log_scale=log_scale)


def areas(title: str, about: str, unit: str, *queries: Query, width: int = 8) -> Panel:
    """A panel of areas, one on the other."""
    return Panel(title=title, about=about, unit=unit, queries=queries, width=width, shows="areas")


def number(title: str, about: str, unit: str, expr: str) -> Panel:
    """A panel with one number."""
    return Panel(title=title, about=about, unit=unit, queries=[Query(expr, "")], width=4, height=4, shows="number")


def rows(title: str, about: str, expr: str, *columns: str, width: int = 12, **links: str) -> Panel:
    """A table of series."""
    return Panel(
        title=title, about=about, queries=[Query(expr)], columns=columns, width=width, shows="table", links=links
    )
