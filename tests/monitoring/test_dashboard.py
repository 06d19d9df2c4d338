"""The dashboards: made from code, complete, and a real Prometheus answers every expression."""

import json
import re
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from typer.testing import CliRunner

from hone_api.words.progress_numbers import PROGRESS_NUMBERS
from hone_cli.__main__ import application
from hone_cli.errors import CommandError
from hone_cli.runs import usage
from hone_dev.generate import dashboard_pictures, dashboards
from hone_dev.generate.dashboard_story import HOURS, JOBS, PRICES, Server, first_step, prometheus
from hone_dev.tools import paths, tools

pytestmark = pytest.mark.pure
BOARDS = dashboards.boards()
JSON = {file.stem: json.loads(file.read_text()) for file in BOARDS}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, board in JSON.items()
    for panel in board["panels"]
    if panel["type"] != "row"
]
GOLDEN = Path(__file__).parents[1] / "operator" / "metrics.golden.txt"
OF_PROGRESS_PORT = "hone_operator_progress_refused_total"
SERVED = set(
    re.findall(r"# TYPE (hone_\w+)", (paths.SOURCE / "trainer/hone_trainer/artifacts/serving/follow.py").read_text())
)
TRAINER = {f"hone_trainer_{n.gauge_name}" for n in PROGRESS_NUMBERS} | {
    "hone_trainer_phase_seconds",
    "hone_trainer_last_progress_timestamp_seconds",
}
PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds"}
FOREIGN = {"DCGM": "DCGM exporter", "container": "cAdvisor"}
"""Exporters of others by how their metrics begin; the description of a panel must name them."""
RULES = yaml.safe_load(dashboard_pictures.RULES.read_text())
RECORDED = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}


def exported() -> dict[str, str]:
    """Every metric that Hone serves, and its type."""
    found = dict(re.findall(r"^# TYPE (\S+) (\S+)", GOLDEN.read_text(), re.MULTILINE))
    others = dict.fromkeys({"hone_operator_build_info", OF_PROGRESS_PORT} | SERVED | TRAINER, "gauge")
    return found | others


def expressions(board: dict) -> list[str]:
    of_panels = [target["expr"] for panel in board["panels"] for target in panel.get("targets") or ()]
    return of_panels + [each["expr"] for each in board["annotations"]["list"]]


GROUPED = re.compile(r"\b(?:by|on) \(([^)]*)\)")
NAMES = {"namespace", "finetunejob", "dataset", "modelversion", "model", "pod", "instance"}


@pytest.mark.parametrize("name", JSON)
def test_no_panel_merges_equal_names_of_two_clusters(name):
    grouped = [set(re.findall(r"\w+", found)) for e in expressions(JSON[name]) for found in GROUPED.findall(e)]
    assert [labels for labels in grouped if labels & NAMES and "cluster" not in labels] == []
    assert len([labels for labels in grouped if labels & NAMES]) > 10


def test_the_committed_files_are_what_the_code_makes():
    """Otherwise: python -m hone_dev.generate.dashboards."""
    assert {file: file.read_text() for file in dashboards.FOLDER.glob("*.json")} == {
        file: dashboards.build(board) for file, board in BOARDS.items()
    }


@pytest.mark.parametrize("name", JSON)
def test_a_dashboard_as_a_whole(name):
    board = JSON[name]
    assert board["schemaVersion"] >= 41
    assert board["uid"] == f"hone-{name}"
    assert board.get("id") is None
    variables = {v["name"]: v for v in board["templating"]["list"]}
    assert {n: v["query"] for n, v in variables.items() if v["type"] == "datasource"} == {
        "datasource": "prometheus",
        "logs": "loki",
    }
    assert {"cluster", "namespace"} < variables.keys()
    titles = [panel["title"] for panel in board["panels"] if panel["type"] != "row"]
    assert len(set(titles)) == len(titles) > 10
    other = ({"fleet", "job"} - {name}).pop()
    assert f"/d/hone-{other}" in [link["url"] for link in board["links"]]
    assert any(link["url"].startswith("/explore?") for link in board["links"])


@pytest.mark.parametrize("name", JSON)
def test_grafanas_own_models_read_a_dashboard_and_lose_nothing(name):
    """The SDK is generated from the schemas that Grafana publishes."""
    read = Dashboard.from_json(JSON[name])
    assert json.loads(JSONEncoder().encode(read)) == JSON[name]


def test_every_metric_is_on_a_panel_or_in_an_alert():
    shown = " ".join(
        [*(e for board in JSON.values() for e in expressions(board)), dashboard_pictures.RULES.read_text()]
    )
    used = set(re.findall(r"\b\w+", shown))
    missing = {n for n, kind in exported().items() if (f"{n}_bucket" if kind == "histogram" else n) not in used}
    assert missing == set()
    assert len(exported()) > 80


def test_every_metric_is_in_the_table_of_the_guide():
    page = (paths.SOURCE / "docs/guides/monitoring.md").read_text().split("## Metrics")[1].split("## Dashboards")[0]
    listed = set()
    for cell in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", cell):
            begin, _, rest = name.partition("{")
            middles, _, end = rest.partition("}")
            listed |= {f"{'hone_job' * name.startswith('_')}{begin}{each}{end}" for each in middles.split(",")}
    assert {name for name in exported() if not name.startswith(("hone_trainer_", "hone_serve"))} - listed == set()


@pytest.mark.parametrize("panel", PANELS)
def test_every_panel(panel):
    assert panel["description"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["datasource"]["uid"] == "${datasource}"
        expression = target["expr"].replace("$__rate_interval", "5m").replace("$__range", "1h")
        promql_parser.parse(re.sub(r"\$\w+", "x", expression))
        used = set(re.findall(r"(?<![:\w])(?:hone|process)_\w+", expression))
        series = {f"{name}_{part}" for name in exported() for part in ("bucket", "count", "sum")}
        assert used <= exported().keys() | series | PROCESS
        assert set(re.findall(r"\bnamespace_queue:[\w:]+", expression)) <= RECORDED
        for begin in re.findall(r"\b(DCGM|container)_\w+", expression):
            assert FOREIGN[begin] in panel["description"]


def test_rules_are_evaluated_from_a_step_that_is_in_the_first_block() -> None:
    assert [first_step(7200 - left) for left in (121, 120, 119, 1)] == [7079, 7080, 7200, 7200]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with prometheus(tmp_path_factory.mktemp("prometheus"), dashboard_pictures.RULES) as running:
        deadline = time.monotonic() + 120
        while not running.query('ALERTS{alertstate="firing"}', instant=True) and time.monotonic() < deadline:
            time.sleep(0.2)
        yield running


@pytest.mark.parametrize("file", BOARDS, ids=lambda file: file.stem)
def test_prometheus_answers_every_expression(file: Path, server: Server):
    """Of every panel with the story's job, of an annotation with any job to which it happened."""
    board = BOARDS[file]
    silent = []
    for panel in (panel for panels in board.rows.values() for panel in panels):
        for query in panel.queries:
            instant = panel.shows in ("number", "table")
            if not server.query(dashboard_pictures.chosen(query.expr), instant=instant):
                silent.append((panel.title, query.legend))
    for name, (expr, _) in board.annotations.items():
        if not any(server.query(dashboard_pictures.chosen(expr, job.name), instant=False) for job in JOBS):
            silent.append((name, expr))
    assert silent == []
    assert dashboard_pictures.draw(board, server).count("<polyline") > 40


def test_the_first_failure_of_its_kind_is_shown(server: Server):
    """A counter with new labels begins at 1, and `increase` sees no change."""
    panels = BOARDS[dashboards.FOLDER / "fleet.json"].rows["Failures"]
    for panel in panels[1:]:
        (query,) = panel.queries
        series = server.query(dashboard_pictures.chosen(query.expr), instant=False)
        assert {max(float(value) for _, value in each["values"]) for each in series} == {1.0}


PHASE_OF = 'hone_job_phase{cluster="%s",namespace="ml",finetunejob="a",phase="%s",instance="%s"}'
ENDED = 'hone_jobs_finished_total{cluster="c",namespace="ml",result="Failed",cause="user",reason="X",instance="%s"}'
START = 'process_start_time_seconds{cluster="%s",instance="%s"}'
BUILD = 'hone_operator_build_info{cluster="%s",instance="%s"}'
COUNT = 'hone_job_restarts_total{cluster="c",namespace="ml",finetunejob="a",instance="%s"}'
TWO_CLUSTERS = {
    PHASE_OF % ("east", "Running", "1"): "1x90",
    PHASE_OF % ("west", "Failed", "1"): "1x90",
    'hone_job_reason{cluster="west",namespace="ml",finetunejob="a",reason="X",cause="user"}': "1x90",
    'hone_job_reason{cluster="east",namespace="ml",finetunejob="a",reason="Y",cause="data"}': "1x90",
}
ALIAS = 'hone_model_alias_info{cluster="%s",namespace="ml",model="a",alias="best",version="1"}'
ROWS = 'hone_dataset_rows{cluster="%s",namespace="ml",dataset="a",split="train"}'
OVERLAP = {
    f'hone_modelversion_deliveries{{modelversion="m",scheme="s3",state="Failed",instance="{i}"}}': "1x90" for i in "ab"
}


@pytest.mark.parametrize(
    ("board", "name", "series", "shown"),
    [
        ("job", "Phase", TWO_CLUSTERS, 2),
        ("fleet", "All jobs", TWO_CLUSTERS, 2),
        ("fleet", "Aliases", {ALIAS % cluster: "1x90" for cluster in ("east", "west")}, 2),
        ("fleet", "Rows of Datasets", {ROWS % cluster: "9x90" for cluster in ("east", "west")}, 2),
        # 5 ended before the restart, in the hour, and 2 after it.
        ("fleet", "Failed, by reason", {ENDED % "a": "9x30 14x30 stale", ENDED % "b": "_x62 2x30"}, 7.0),
        ("fleet", "Deliveries, by state", OVERLAP, 1.0),
        ("fleet", "The operator started", {START % ("c", "b"): "_x83 4980x7", BUILD % ("c", "b"): "_x83 1x7"}, 1),
        # Another program of another cluster has the same address.
        ("fleet", "The operator started", {START % ("d", "b"): "_x83 4980x7", BUILD % ("c", "b"): "_x83 1x7"}, 0),
        ("job", "Restart", {COUNT % "a": "1x82 stale", COUNT % "b": "_x83 2x7"}, 1),
        ("job", "Restart", {COUNT % "a": "2x82 stale", COUNT % "b": "_x83 2x7"}, 0),
    ],
)
def test_after_a_restart_and_in_two_clusters(tmp_path, board, name, series, shown):
    """By promtool, after 84 minutes: an int is how many series there are, a float the value of the only one."""
    made = BOARDS[dashboards.FOLDER / f"{board}.json"]
    panels = {p.title: p.queries[0].expr for of_row in made.rows.values() for p in of_row}
    expr = re.sub(r'=~"\$\w+"', '=~".*"', (panels | {n: e for n, (e, _) in made.annotations.items()})[name])
    expr = expr.replace('"$finetunejob"', '"a"')
    if isinstance(shown, float):
        wanted = {"expr": f"sum({expr}) == {shown}", "exp_samples": [{"labels": "{}", "value": shown}]}
    else:
        wanted = {"expr": f"count({expr}) or vector(0)", "exp_samples": [{"labels": "{}", "value": shown}]}
    given = [{"series": each, "values": values} for each, values in series.items()]
    test = {"interval": "1m", "input_series": given, "promql_expr_test": [{**wanted, "eval_time": "84m"}]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"tests": [test]}))
    result = subprocess.run([tools.promtool(), "test", "rules", tmp_path / "test.yaml"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_report_of_a_month_by_team(server: Server):
    """What each job of the story held until its end, or until now; goodput within what its statuses say."""
    now = datetime.fromtimestamp(server.now, UTC)
    teams = {(t["namespace"], t["queue"]): t for t in usage.report(server.url, now - timedelta(hours=7), now)}
    hours: dict[tuple[str, str], float] = {}
    costs: dict[tuple[str, str], float] = {}
    for job in JOBS:
        team, held = (job.namespace, job.queue), job.gpus * max(0, min(job.ends, HOURS * 60) - job.starts) / 60
        hours[team] = hours.get(team, 0.0) + held
        costs[team] = costs.get(team, 0.0) + held * PRICES[job.product]
    assert teams.keys() == hours.keys()
    for team, found in teams.items():
        assert found["gpuHours"] == pytest.approx(hours[team], rel=0.12), team  # a sample each 5 minutes
        assert found["cost"] == pytest.approx(costs[team], rel=0.12), team
        assert 0.5 < found["goodput"] < 0.8
    month = now - timedelta(hours=3)  # of most of the story, also on the first of a month
    typed = ["usage", "--prometheus", server.url, "--month", f"{month:%Y-%m}"]
    result = CliRunner().invoke(application(["usage"]), typed)
    assert result.exit_code == 0, result.output
    head, *lines, total = result.stdout.splitlines()
    assert head.split() == ["CLUSTER", "NAMESPACE", "QUEUE", "GPU-HOURS", "COST", "GOODPUT"]
    assert total.split()[0] == "all"
    assert lines


@pytest.mark.parametrize(
    ("month", "start", "end"),
    [
        (None, datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)),
        ("2024-02", datetime(2024, 2, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
        ("2026-12", datetime(2026, 12, 1, tzinfo=UTC), datetime(2026, 12, 31, 5, tzinfo=UTC)),
    ],
)
def test_a_month(month, start, end):
    assert usage.bounds(month, datetime(2026, 12, 31, 5, tzinfo=UTC)) == (start, end)


@pytest.mark.parametrize("month", ["2027-01", "November", "2026-13"])
def test_other_words_than_a_month_are_refused(month):
    with pytest.raises(CommandError, match=month):
        usage.bounds(month, datetime(2026, 12, 31, 5, tzinfo=UTC))


def test_an_expression_that_is_none_is_found():
    with pytest.raises(ValueError, match=r"unclosed|unexpected|invalid"):
        promql_parser.parse("sum(hone_job_phase{")
