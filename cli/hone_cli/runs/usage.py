"""`hone usage`: GPU-hours, costs and goodput of a month by team, from what Prometheus has recorded."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from hone_cli.errors import CommandError
from hone_cli.reach.options import OutputOption, tell

TEAM = ("cluster", "namespace", "queue")
_BY, _JOB = ", ".join(TEAM), "cluster, namespace, finetunejob"
_SECONDS = 120.0
"""For one answer about a month."""


def usage(
    prometheus: Annotated[
        str,
        typer.Option(
            envvar="HONE_PROMETHEUS", help="Address of Prometheus, Thanos or Mimir, e.g. http://localhost:9090."
        ),
    ],
    month: Annotated[str | None, typer.Option(help="The month in UTC, e.g. 2026-11; default: the last one.")] = None,
    output: OutputOption = "text",
) -> None:
    """Report GPU-hours, costs and goodput of a month by team.

    It reads what the chart's rules have recorded (prometheusRule.enabled), by namespace and queue. Costs are those of
    prometheusRule.gpuHourPrices at the time. Goodput is the share of the GPU-hours in steps that count.

    \b
    kubectl -n monitoring port-forward svc/prometheus-operated 9090 &
    hone usage --prometheus http://localhost:9090 --month 2026-11
    """
    start, end = bounds(month, datetime.now(UTC))
    teams = report(prometheus, start, end)
    if not teams:
        raise CommandError(f"{prometheus} has recorded no GPU from {start:%Y-%m-%d} on: set prometheusRule.enabled")
    tell(output, _text(teams), teams)


def bounds(month: str | None, now: datetime) -> tuple[datetime, datetime]:
    """Begin and end of a month; the end of one that has not ended is now.

    Raises:
        CommandError: it is none, or has not begun.
    """
    try:
        start = datetime.strptime(month, "%Y-%m") if month else now.replace(day=1) - timedelta(days=1)
    except ValueError:
        raise CommandError(f"--month {month}: write it as 2026-11") from None
    start = datetime(start.year, start.month, 1, tzinfo=UTC)
    if start >= now:
        raise CommandError(f"--month {month} has not begun")
    return start, min(now, (start + timedelta(days=32)).replace(day=1))


def report(url: str, start: datetime, end: datetime) -> list[dict[str, Any]]:
    """A row for each team that held a GPU, the largest first.

    Raises:
        CommandError: Prometheus does not answer.
    """
    teams: dict[tuple[str, ...], dict[str, Any]] = {}
    for name, expr in expressions(f"{int((end - start).total_seconds())}s").items():
        for series in _query(url, expr, end):
            team = tuple(series["metric"].get(label, "") for label in TEAM)
            teams.setdefault(team, {**dict(zip(TEAM, team, strict=True))})[name] = round(float(series["value"][1]), 3)
    return sorted((t for t in teams.values() if t.get("gpuHours")), key=lambda team: -float(team["gpuHours"]))


def expressions(window: str) -> dict[str, str]:
    """What a row has, and the PromQL of it over a window."""
    held = f"max by ({_JOB}) (sum_over_time((max by ({_JOB}) (hone_job_gpus_held))[{window}:5m]))"
    of_jobs = f"max by ({_JOB}, queue) (last_over_time(hone_job_info[{window}])) * on ({_JOB}) group_left () {held}"
    ratio = f"last_over_time((max by ({_JOB}) (hone_job_goodput_ratio))[{window}:5m])"
    recorded = f"sum by ({_BY}) (sum_over_time(namespace_queue:hone_%s:sum[{window}:5m])) / 12"
    share = f"sum by ({_BY}) ({of_jobs} * on ({_JOB}) group_left () {ratio}) / sum by ({_BY}) ({of_jobs})"
    return {
        "gpuHours": recorded % "gpus_held",
        "cost": recorded % "cost_per_hour",
        "goodput": f"({share}) >= 0",  # JSON has no NaN
    }


def _query(url: str, expr: str, at: datetime) -> list[Mapping[str, Any]]:
    import requests

    try:
        fields = {"query": expr, "time": str(at.timestamp())}
        answer = requests.post(f"{url.rstrip('/')}/api/v1/query", data=fields, timeout=_SECONDS)
        body = answer.json()
    except (requests.RequestException, ValueError) as error:
        raise CommandError(f"{url} does not answer as Prometheus does: {error}"[:300]) from None
    if body.get("status") != "success":
        raise CommandError(f"{url} refuses the query: {str(body.get('error'))[:300]}")
    return list(body["data"]["result"])


def _text(teams: list[dict[str, Any]]) -> str:
    head = ("CLUSTER", "NAMESPACE", "QUEUE", "GPU-HOURS", "COST", "GOODPUT")
    lines: list[tuple[str, ...]] = [head]
    for team in teams:
        cost = f"{team['cost']:,.2f}" if "cost" in team else "-"
        share = f"{team['goodput']:.0%}" if "goodput" in team else "-"
        lines.append((*(team[label] or "-" for label in TEAM), f"{team['gpuHours']:,.1f}", cost, share))
    total = sum(team["gpuHours"] for team in teams), sum(team.get("cost", 0.0) for team in teams)
    lines.append(("", "", "all", f"{total[0]:,.1f}", f"{total[1]:,.2f}", ""))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(wide) for cell, wide in zip(line, widths, strict=True)).rstrip() for line in lines
    )
