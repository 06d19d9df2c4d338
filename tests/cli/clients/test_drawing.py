"""Curves as SVG: well-formed, within their frame, and text that is not markup."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from hone_cli.clients.drawing import chart, run

pytestmark = pytest.mark.pure
CURVES = {
    "one point": [(3, 2.0)],
    "equal values": [(1, 2.0), (2, 2.0)],
    "a gap": [(1, 2.0), (2, math.nan), (3, 1.0), (4, math.inf), (5, 0.5)],
    "huge": [(0, -1e300), (10**9, 1e300)],
}


@pytest.mark.parametrize("name", CURVES)
def test_every_curve_is_within_its_frame(name: str) -> None:
    svg = ElementTree.fromstring(chart({name: CURVES[name]}, name))
    width, height = map(float, svg.attrib["viewBox"].split()[2:])
    lines = [element.attrib["points"] for element in svg.iter("polyline")]
    lines += [f"{element.attrib['cx']},{element.attrib['cy']}" for element in svg.iter("circle")]
    assert len(lines) == (3 if name == "a gap" else 1)
    numbers = [tuple(map(float, pair.split(","))) for line in lines for pair in line.split()]
    assert all(0 <= x <= width and 0 <= y <= height for x, y in numbers)


def test_one_point_is_a_dot_in_the_middle_with_its_numbers_once() -> None:
    svg = ElementTree.fromstring(chart({"loss": [(3, 2.0)]}, "loss"))
    (dot,) = svg.iter("circle")
    assert (float(dot.attrib["cx"]), float(dot.attrib["cy"])) == (264, 68)
    assert [text.text for text in svg.iter("text")] == ["2", "step 3", "loss 2"]


def test_names_are_text_and_nothing_needs_a_style_sheet() -> None:
    name = "<script>alert(1)</script>"
    html = run(name, name, {"loss": [(1, 2.0)], "eval_loss": [(1, 2.1)], name: [(1, 1.0), (2, 3.0)]})
    assert "<script" not in html
    assert html.count("<svg") == 2
    assert not re.search(r"style=|class=|href=|on\w+=", html)


def test_a_run_without_numbers_has_no_chart() -> None:
    assert "<svg" not in run("job", "starting", {"loss": [(1, math.nan)]})
