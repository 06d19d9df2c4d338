"""The dashboard: made from code, complete, and every expression is PromQL over metrics that exist."""

import json
import re
from pathlib import Path

import promql_parser
import pytest

from hone_dev.generate import dashboards

pytestmark = pytest.mark.pure
BOARD = json.loads(dashboards.FILE.read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
GOLDEN = Path(__file__).parents[1] / "operator" / "metrics.golden.txt"
PROCESS = {"process_resident_memory_bytes", "hone_operator_build_info"}
FOREIGN = {"DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": "DCGM exporter"}
"""Metrics of others by their exporter, which the description of a panel must name."""


def names() -> set[str]:
    """Every metric that the operator serves, with the series of histograms."""
    out = set(PROCESS)
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)", GOLDEN.read_text(), re.MULTILINE):
        out.add(name)
        if kind == "histogram":
            out |= {f"{name}_{part}" for part in ("bucket", "sum", "count")}
    return out


def test_the_committed_file_is_what_the_code_makes():
    """Otherwise: python -m hone_dev.generate.dashboards."""
    assert dashboards.FILE.read_text() == dashboards.build()


def test_the_dashboard_as_a_whole():
    assert BOARD["schemaVersion"] >= 41
    assert BOARD["uid"] == dashboards.UID
    assert BOARD.get("id") is None
    variables = {v["name"]: v for v in BOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    assert {"namespace", "finetunejob"} < variables.keys()
    titles = [panel["title"] for panel in PANELS]
    assert len(set(titles)) == len(titles) > 10


@pytest.mark.parametrize("panel", PANELS, ids=lambda p: p["title"])
def test_every_panel(panel):
    assert panel["title"]
    assert panel["description"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["datasource"]["uid"] == "${datasource}"
        expression = target["expr"].replace("$__rate_interval", "5m")
        promql_parser.parse(re.sub(r"\$\w+", "x", expression))
        used = set(re.findall(r"\b(?:hone|process)_\w+", expression))
        assert used
        assert used <= names()
        for metric in re.findall(r"\bDCGM_\w+", expression):
            assert FOREIGN[metric] in panel["description"]


def test_an_expression_that_is_none_is_found():
    with pytest.raises(ValueError, match=r"unclosed|unexpected|invalid"):
        promql_parser.parse("sum(hone_job_phase{")
