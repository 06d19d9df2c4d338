"""Fixtures of every tier."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from screen import Screen, terminals

TIERS = ("pure", "apiserver", "trainer", "e2e")
CONJUNCTION = re.compile(r"(not )?\w+( and (not )?\w+)*")


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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test without a tier would never run."""
    nowhere = [item.nodeid for item in items if not any(map(item.get_closest_marker, TIERS))]
    if nowhere:
        raise pytest.UsageError(f"mark these tests as one of {', '.join(TIERS)}: {', '.join(nowhere)}")


@pytest.fixture(scope="session")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kubeconfig of a real etcd and kube-apiserver that run for this session; pods never run."""
    from hone_dev.controlplane import control_plane

    with control_plane(tmp_path_factory.mktemp("apiserver")) as kubeconfig:
        yield kubeconfig


@pytest.fixture
def terminal() -> Iterator[Callable[..., Screen]]:
    """Starts `hone` with these arguments under a real terminal."""
    with terminals() as start:
        yield start
