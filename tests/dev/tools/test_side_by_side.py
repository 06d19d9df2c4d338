"""What takes minutes on a cold machine is made at the same time, and what is waited for is shown."""

import io
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from hone_dev.cluster import cluster
from hone_dev.tools import console, paths, side_by_side
from hone_dev.tools.console import HoneDevError
from hone_dev.tools.side_by_side import Part

pytestmark = pytest.mark.pure
GUARD = 120.0
"""Seconds; ends a test that would hang."""

GO = """\
#!/bin/sh
# Stands for the Go compiler: writes down which program it compiled.
while [ $# -gt 0 ]; do [ "$1" = -o ] && out=$2; shift; done
basename "$out" >> "$COMPILED"
touch "$out"
"""


def test_coredns_is_compiled_after_kubernetes_whose_packages_it_shares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, both would compile each of these packages."""
    (tmp_path / "bin").mkdir()
    compiler = tmp_path / "bin" / "go"
    compiler.write_text(GO)
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("COMPILED", str(tmp_path / "compiled"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    side_by_side.run([part for part in cluster.programs() if "CoreDNS" in part.title])
    assert (tmp_path / "compiled").read_text().split() == ["kube.partial", "coredns.partial"]
    assert [path.name for path in paths.cache("bin").glob("*/coredns")] == ["coredns"]


def test_every_part_is_made_while_the_others_are() -> None:
    meeting = threading.Barrier(3)
    side_by_side.run([Part(f"part {n}", lambda: meeting.wait(GUARD)) for n in range(3)])
    assert not meeting.broken


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is written where there is no terminal; a thread can read it while another one writes."""
    out = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=out, highlight=False, soft_wrap=True))
    return out


def until(shown: io.StringIO, text: str) -> None:
    deadline = time.monotonic() + GUARD
    while text not in shown.getvalue():
        assert time.monotonic() < deadline, f"nobody wrote: {text}"
        time.sleep(0.01)


def test_a_failure_is_shown_at_once_and_raised_when_the_others_are_done(shown: io.StringIO) -> None:
    made = []

    def fail() -> None:
        raise HoneDevError("go is not installed", "install Go")

    def images() -> None:
        until(shown, "Kubernetes: go is not installed")
        made.append("images")

    with pytest.raises(HoneDevError, match="go is not installed") as caught:
        side_by_side.run([Part("Kubernetes", fail), Part("the images", images)])
    assert caught.value.hint == "install Go"
    assert made == ["images"]


def test_what_is_waited_for_is_named_without_a_terminal(shown: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "REFRESH", 0.01)
    monkeypatch.setattr(side_by_side, "REMIND", 0.0)
    side_by_side.run(
        [Part("CoreDNS", lambda: None), Part("Kubernetes", lambda: until(shown, "… waiting for Kubernetes ("))]
    )


@pytest.mark.parametrize(
    ("titles", "seconds", "text"),
    [
        (["Kubernetes"], 5, "waiting for Kubernetes (5s so far)"),
        (
            ["Kubernetes", "CoreDNS", "the images"],
            200,
            "waiting for Kubernetes, CoreDNS and the images (3m 20s so far)",
        ),
    ],
)
def test_how_it_is_said(titles: list[str], seconds: float, text: str) -> None:
    assert side_by_side.waiting_for(titles, seconds) == text
