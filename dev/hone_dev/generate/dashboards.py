"""The Grafana dashboards of the chart, made from code: `python -m hone_dev.generate.dashboards` writes them.

What they show is in `fleet_board` and `job_board`.
"""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders.common import ScaleDistributionConfig, StackingConfig
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from hone_dev.generate import fleet_board, job_board
from hone_dev.generate.panels import Board, Panel
from hone_dev.tools import paths

FOLDER = paths.SOURCE / "charts" / "hone" / "files" / "dashboards"
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
FIVE_MINUTES = 5 * 60_000.0
"""Gaps of a curve up to this, in milliseconds, are bridged."""


def build(board: Board) -> str:
    """The dashboard as JSON."""
    out = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.about)
        .tags(["hone", "fine-tuning"])
        .editable()
        .refresh("30s")
        .time(f"now-{board.hours}h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Metrics").type("prometheus"))
        .with_variable(dashboard.DatasourceVariable("logs").label("Logs").type("loki"))
    )
    for each in board.variables:
        out.with_variable(_variable(*each))
    for title, url in board.links.items():
        link = dashboard.DashboardLink(title).type(models.DashboardLinkType.LINK).url(url).keep_time(True)
        out.link(link.include_vars(url.startswith("/d/")))
    for name, (expr, color) in board.annotations.items():
        out.annotation(
            dashboard.AnnotationQuery().name(name).datasource(SOURCE).enable(True).expr(expr).icon_color(color)
        )
    for title, panels in board.rows.items():
        out.with_row(dashboard.Row(title))
        for panel in panels:
            out.with_panel(_panel(panel))
    return json.dumps(json.loads(JSONEncoder(sort_keys=True).encode(out.build())), indent=2) + "\n"


def _variable(name: str, label: str, query: str, several: bool) -> dashboard.QueryVariable:
    out = dashboard.QueryVariable(name).label(label).datasource(SOURCE).query(query)
    out.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
    # Where one cluster is seen, no series has a label of it: .* takes these as well.
    return out.multi(True).include_all(True).all_value(".*") if several else out


def _panel(board: Panel) -> stat.Panel | table.Panel | timeseries.Panel:
    panel: stat.Panel | table.Panel | timeseries.Panel
    if board.shows == "number":
        panel = stat.Panel()
    elif board.shows == "table":
        panel = _table(board)
    else:
        panel = timeseries.Panel().show_points(common.VisibilityMode.NEVER).span_nulls(FIVE_MINUTES)
        if board.shows == "areas":
            panel.stacking(StackingConfig().mode(common.StackingMode.NORMAL)).fill_opacity(30)
        if board.log_scale:
            panel.scale_distribution(ScaleDistributionConfig().type(common.ScaleDistribution.LOG).log(10))
    panel.title(board.title).description(board.about).unit(board.unit).datasource(SOURCE)
    panel.span(board.width).height(board.height)
    for query in board.queries:
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).datasource(SOURCE)
        if board.shows == "table":
            target.format(PromQueryFormat.TABLE)
        panel.with_target(target.range() if board.shows in ("curves", "areas") else target.instant())
    return panel


def _table(board: Panel) -> table.Panel:
    shown = {"include": {"names": list(board.columns)}}
    panel = table.Panel().with_transformation(models.DataTransformerConfig("filterFieldsByName", options=shown))
    for column, url in board.links.items():
        link = {"title": "Open", "url": url}
        panel.override_by_name(column, [models.DynamicConfigValue("links", [link])])
    return panel


def boards() -> dict[Path, Board]:
    """Every dashboard by its file."""
    return {FOLDER / "fleet.json": fleet_board.BOARD, FOLDER / "job.json": job_board.BOARD}


def main() -> None:
    """Write the files."""
    for file, board in boards().items():
        file.write_text(build(board))
        print(f"wrote {file.relative_to(paths.SOURCE)}")


if __name__ == "__main__":
    main()
