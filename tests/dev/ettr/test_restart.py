"""Where the time of a restart goes."""

from __future__ import annotations

import pytest

from hone_dev.ettr.restart import Restart, show

pytestmark = pytest.mark.pure


def test_every_second_of_a_restart_is_in_one_row(capsys: pytest.CaptureFixture[str]) -> None:
    show([Restart(39.4, {"scheduled": 0, "image": 2, "loading": 20, "firstStep": 4}), Restart(47, {"loading": 16})])
    rows = [line.replace("│", " ").split() for line in capsys.readouterr().err.splitlines() if "│" in line]
    assert ["image", "2"] in rows
    assert ["loading", "20", "16"] in rows
    assert ["before", "and", "between", "13", "31"] in rows
    assert ["together", "(bound", "60)", "39", "47"] in rows
