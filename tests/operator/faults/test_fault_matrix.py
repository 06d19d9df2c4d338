"""The operator under fault: whatever the API server answers or a watch delivers, a life comes to the same end.

Each cell is one fault at one stage of the life of a job, in a namespace of its own. All live at once under one
operator, and are compared with lives that nothing disturbs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.cluster.fault_proxy import STAGES, Fault, FaultProxy, Lane
from support.cluster.kube import Kube
from support.lives.fault_lanes import CANARY, check, live

pytestmark = pytest.mark.apiserver


@dataclass(frozen=True)
class Row:
    """A fault of the matrix and the stages at which it cannot happen."""

    id: str
    fault: Fault
    never: tuple[str, ...] = ()


NO_STATUS = ("Dataset", "delete")
"""No status is written in these."""
MATRIX: dict[str, Row] = {
    "409 on a write": Row("O3", Fault("answer", 409)),
    "409 on five writes": Row("O3", Fault("answer", 409, times=5)),
    "422 on a status": Row("O4", Fault("answer", 422, only="status"), NO_STATUS),
    "429 with Retry-After": Row("O5", Fault("answer", 429, retry_after=1, times=3)),
    "500 on three writes": Row("O5", Fault("answer", 500, times=3)),
    "503 for 5 s": Row("O5", Fault("answer", 503, seconds=5)),
    "connection cut before a write": Row("O5", Fault("cut")),
    "carried out, answer lost": Row("O6", Fault("lose the answer")),
    "watch: 410 Gone": Row("O7", Fault("gone")),
    "watch: error 500": Row("O7", Fault("error")),
    "watch: broken JSON": Row("O7", Fault("broken")),
    "watch: ends": Row("O7", Fault("end", times=3)),
    "watch: silent for 8 s": Row("O7", Fault("hide", seconds=8)),
    "lists and watches: 403 for 5 s": Row("O7", Fault("refuse reads", 403, seconds=5)),
    "lists and watches: 404 for 5 s": Row("O7", Fault("refuse reads", 404, seconds=5)),
    "old lists for 8 s": Row("O8", Fault("old lists", seconds=8)),
    "watch: everything again": Row("O8", Fault("repeat", times=3)),
    "watch: events swapped": Row("O8", Fault("swap", times=3)),
    "watch: events late": Row("O8", Fault("delay", times=3)),
    "watch: an event is lost": Row("O9", Fault("hide")),
    "watch: phases of pods are lost": Row("O9", Fault("hide", only="pods", seconds=8)),
}
EVERY_WRITE = [
    name
    for name, row in MATRIX.items()
    if row.fault.does in ("answer", "cut", "lose the answer") and not row.fault.only
]
"""What a sweep does to each write by its number."""
LAST_WRITE, TOGETHER = 45, 11
"""Every life has at least so many writes; how many lives are disturbed at once."""


@pytest.fixture(scope="module")
def proxy(kube: Kube) -> Iterator[FaultProxy]:
    proxy = FaultProxy.of(kube)
    yield proxy
    proxy.stop()


def sweep(
    kube: Kube, proxy: FaultProxy, folder: Path, cells: dict[tuple[str, Any], Lane], record: Any
) -> dict[tuple[str, Any], list[str]]:
    """What is wrong with each cell; the cells by id of their fault are noted for the table."""
    reference = [Lane(), Lane()]
    lives, log = live(kube, proxy, folder, [*reference, *cells.values()])
    assert CANARY not in log
    undisturbed, disturbed = lives[:2], lives[2:]
    assert [check(life, undisturbed) for life in undisturbed] == [[], []], log[-4000:]
    found = {cell: check(life, undisturbed) for cell, life in zip(cells, disturbed, strict=True)}
    record("faults", [[MATRIX[name].id, name, not found[name, when]] for name, when in cells])
    return {cell: wrong for cell, wrong in found.items() if wrong}


def stages(name: str) -> list[str]:
    """At which this fault can happen."""
    return [stage for stage in STAGES if stage not in MATRIX[name].never]


def at_a_stage(name: str, stage: str) -> Lane:
    return Lane(MATRIX[name].fault, stage)


@pytest.mark.faults("O3")
def test_every_fault_at_a_stage(kube: Kube, proxy: FaultProxy, tmp_path: Path, record_property: Any) -> None:
    """The sample: each fault once, each stage with several."""
    chosen = [(name, stages(name)[i % len(stages(name))]) for i, name in enumerate(MATRIX)]
    cells = {(name, stage): at_a_stage(name, stage) for name, stage in chosen}
    assert sweep(kube, proxy, tmp_path, cells, record_property) == {}


@pytest.mark.long
@pytest.mark.parametrize(
    "name", [pytest.param(name, id=name, marks=pytest.mark.faults(row.id)) for name, row in MATRIX.items()]
)
def test_a_fault_at_every_stage(kube: Kube, proxy: FaultProxy, tmp_path: Path, record_property: Any, name: str) -> None:
    cells = {(name, stage): at_a_stage(name, stage) for stage in stages(name)}
    assert sweep(kube, proxy, tmp_path, cells, record_property) == {}


@pytest.mark.long
@pytest.mark.parametrize("first", range(1, LAST_WRITE, TOGETHER))
@pytest.mark.parametrize(
    "name", [pytest.param(name, id=name, marks=pytest.mark.faults(MATRIX[name].id)) for name in EVERY_WRITE]
)
def test_a_fault_at_every_write(
    kube: Kube, proxy: FaultProxy, tmp_path: Path, record_property: Any, name: str, first: int
) -> None:
    """By the number of the write; a life has 45 to 50 of them."""
    cells = {(name, n): Lane(MATRIX[name].fault, write=n) for n in range(first, first + TOGETHER)}
    assert sweep(kube, proxy, tmp_path, cells, record_property) == {}
