"""Fixtures of every tier."""

import functools
import gc
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from support.pages.screen import Screen, terminals

TIERS = ("pure", "apiserver", "trainer", "e2e")
CONJUNCTION = re.compile(r"(not )?\w+( and (not )?\w+)*")
SHOWN = 30
"""Files whose processor time is printed."""
CLUSTER = os.environ.get("CLUSTER") or "embedded"
"""Where tests of the tier `apiserver` run: `embedded`, `current` (the kubectl context) or `kind`."""
YOUNG = 10_000
"""Objects that may be new before a test's garbage is looked for; Python says 700."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Whether a file has no test with the marks that `-m` wants: else each worker of each tier would import all files.

    A mark stands in the file of its test as `pytest.mark.NAME`.
    """
    wanted = config.option.markexpr
    if collection_path.suffix != ".py" or not CONJUNCTION.fullmatch(wanted):
        return None
    words = [word for word in wanted.split(" and ") if not word.startswith("not ")]
    text = collection_path.read_text(encoding="utf-8")
    return True if any(f"pytest.mark.{word}" not in text for word in words) else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leaves what is imported and collected here, millions of objects, out of all later looks for garbage.

    These looks took 17 % of the processor time of the tests of hone_api, the chart and the CLI.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """A test without a tier would never run. The longest ones come first, so that none ends alone."""
    nowhere = [item.nodeid for item in items if not any(map(item.get_closest_marker, TIERS))]
    if nowhere:
        raise pytest.UsageError(f"mark these tests as one of {', '.join(TIERS)}: {', '.join(nowhere)}")
    yield
    items.sort(key=lambda item: item.get_closest_marker("early") is None)


# -- processor time, which shows what a test costs, also on a busy machine --------------------------------------

used: Counter[str] = Counter()
"""Seconds of processor time by file, of its tests and the processes that these started."""
noted = 0.0
reporter: pytest.TerminalReporter | None = None
"""None in a worker, whose reports the process that started it prints."""


def so_far() -> float:
    """Seconds of processor time that this process and its children have used. Many of these serve several files."""
    return sum(os.times()[:4]) + sum(map(used_by, children()))


def children() -> list[Path]:
    """The folders in /proc of this process's children; none where there is no such folder."""
    return [Path("/proc", number) for thread in Path("/proc/self/task").glob("*") for number in children_of(thread)]


def children_of(thread: Path) -> list[str]:
    """Process ids of the children that a thread of this process has started; none once the thread has ended."""
    try:
        return (thread / "children").read_text().split()
    except OSError:
        return []


def used_by(process: Path) -> float:
    """Seconds of processor time of a process and of its own children that have ended; 0 once it is gone."""
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def pytest_collection_finish() -> None:
    global noted
    noted = so_far()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What went by since the end of the last test was used by this one."""
    global noted
    report = yield
    if call.when == "teardown":
        before, noted = noted, so_far()
        report.processor_seconds = noted - before
    return report


def pytest_sessionstart(session: pytest.Session) -> None:
    global reporter
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed and reporter:  # at once: a tier that is ended early has shown what had failed
        reporter.write_line(f"\n{report.nodeid} failed in its {report.when}:\n{report.longreprtext}")
    # The other parts of a test report without it, and so does a worker that died.
    used[report.nodeid.partition("::")[0]] += getattr(report, "processor_seconds", 0.0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.option.durations:
        terminalreporter.section("processor time by file")
        for file, seconds in used.most_common(SHOWN):
            terminalreporter.line(f"{seconds:8.1f}s {file}")


@pytest.fixture(scope="session", autouse=True)
def schemas_read_once() -> Iterator[None]:
    """kubernetes_validate parses all definitions of a version of Kubernetes again for each object: half a second."""
    utils = sys.modules.get("kubernetes_validate.utils")
    with pytest.MonkeyPatch.context() as patch:
        if utils:
            patch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_other_cluster() -> Iterator[None]:
    """Where a cluster that exists is to be used, no test compiles Kubernetes for one of its own."""
    with pytest.MonkeyPatch.context() as patch:
        if CLUSTER != "embedded":
            name = "hone_dev.cluster.binaries.kubernetes"
            patch.setattr(name, lambda: pytest.skip("it needs a control plane of its own"))
        yield


@pytest.fixture(scope="session")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kubeconfig of a real etcd and kube-apiserver that run for this session, without pods, or of `CLUSTER`."""
    from hone_dev.cluster.controlplane import control_plane
    from hone_dev.demo import targets

    if CLUSTER != "embedded":
        yield targets.administrator(CLUSTER, tmp_path_factory.mktemp("apiserver"))
        return
    with control_plane(tmp_path_factory.mktemp("apiserver"), garbage="400") as kubeconfig:
        yield kubeconfig


@pytest.fixture
def terminal() -> Iterator[Callable[..., Screen]]:
    """Starts `hone` with these arguments under a real terminal."""
    with terminals() as start:
        yield start
