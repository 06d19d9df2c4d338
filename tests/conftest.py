"""Fixtures of every tier."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from screen import Screen, terminals


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
