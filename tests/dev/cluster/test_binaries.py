"""Programs of the cluster that share packages are compiled from the same versions of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hone_dev.cluster import binaries

pytestmark = pytest.mark.pure


def versions(module: Path) -> dict[str, str]:
    """Module -> version, of all that a program's go.mod requires or puts in their place."""
    text = (module / "go.mod").read_text()
    required = re.findall(r"^(?:require|\t)\s*(\S+) (v\S+)(?: // indirect)?$", text, re.MULTILINE)
    return dict(required) | dict(re.findall(r"^\t(\S+) => \S+ (v\S+)$", text, re.MULTILINE))


@pytest.mark.parametrize("module", [binaries.COREDNS, binaries.KUEUE], ids=lambda module: module.name)
def test_a_program_has_the_versions_of_kubernetes(module: Path) -> None:
    """One that differs has the whole client of Kubernetes compiled again: a minute of processor time and more."""
    ours, theirs = versions(module), versions(binaries.MODULE)
    shared = ours.keys() & theirs.keys()
    assert "k8s.io/client-go" in shared
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}
