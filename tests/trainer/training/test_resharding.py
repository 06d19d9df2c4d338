"""A ZeRO checkpoint that another number of ranks reads: the same state, number by number, and the same steps next."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hone_trainer.errors import TrainerError
from hone_trainer.training import resharding
from hone_trainer.training.resharding import Layout, Span, copy_part

pytestmark = pytest.mark.trainer

PROGRAM = Path(__file__).parents[2] / "support" / "runs" / "zero_ranks.py"
CASES: dict[str, dict[str, Any]] = {
    "stage 1": {"zeroStage": 1},
    "stage 2": {"zeroStage": 2},
    "stage 2, offload, bfloat16, adapter": {"zeroStage": 2, "offload": "Optimizer", "bf16": True, "frozen": True},
    "stage 3, adapter": {"zeroStage": 3, "frozen": True},
    "stage 3, groups cut by size": {"zeroStage": 3, "subGroup": 40},
    "stage 3, offload": {"zeroStage": 3, "offload": "Optimizer"},
    "stage 3, all offloaded, bfloat16": {"zeroStage": 3, "offload": "OptimizerAndParameters", "bf16": True},
}
SELDOM = ("stage 1", "stage 3, offload")
"""Long tests: stage 1 is read by the code of stage 2, and an offloaded optimizer as where weights are offloaded too."""
FORGETFUL = ("stage 2", "stage 3, adapter")
KEYS = (("single_partition_of_fp32_groups", "base_optimizer_state"), ("fp32_flat_groups", "optimizer_state_dict"))
"""Of weights and of torch's state, of stages 1 and 2, and of stage 3."""


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each case, made by one process; for the long ones where their tests run."""
    folder = tmp_path_factory.mktemp("zero")
    tests = [item.name for item in request.session.items]
    cases = {n: case for n, case in CASES.items() if n not in SELDOM or any(f"[{n}]" in test for test in tests)}
    forgets = {f"{name}, forgets": {**CASES[name], "forgets": True} for name in FORGETFUL}
    command = [sys.executable, str(PROGRAM), str(folder), json.dumps({**cases, **forgets})]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def losses(trained: Path, case: str) -> dict[str, list[float]]:
    read: dict[str, list[float]] = json.loads((trained / case / "losses.json").read_text())
    return read


def states(checkpoint: Path, by_weight: bool) -> list[Any]:
    """Weights, moments and settings of each rank, without padding: that of stage 3 is not initialised."""
    (folder,) = checkpoint.glob("global_step*")
    model = resharding._mapped(folder / f"{'zero_pp_rank_0_' * by_weight}mp_rank_00_model_states.pt")
    counts = [{name: shape.numel() for name, shape in group.items()} for group in model["param_shapes"]]
    files, saved = resharding.optimizer_files(folder), []
    spans = Layout(counts, len(files), by_weight).spans().values()
    weights, moments = KEYS[by_weight]
    for rank, file in enumerate(files):
        state = resharding._mapped(file)["optimizer_state_dict"]
        groups = [{"weights": flat, **state[moments]["state"][group]} for group, flat in enumerate(state[weights])]
        values = [
            {key: numbers(tensor, rank, [span for span in spans if span.group == group]) for key, tensor in one.items()}
            for group, one in enumerate(groups)
        ]
        saved.append((values, state[moments]["param_groups"]))
    return saved


def numbers(tensor: Any, rank: int, spans: list[Span]) -> list[float]:
    """Those of a rank's flat tensor that are not padding."""
    if not tensor.dim():
        return [tensor.item()]
    lengths = [max(0, min(span.size, span.count - rank * span.size)) for span in spans]
    return [n for span, length in zip(spans, lengths, strict=True) for n in tensor[span.offset :][:length].tolist()]


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.long if case in SELDOM else ()) for case in CASES]
)
def test_other_ranks_go_on_from_the_same_state(trained: Path, case: str) -> None:
    """From three ranks to two and to three again not a bit changes. An engine can also read a checkpoint twice."""
    by_weight = CASES[case]["zeroStage"] == 3
    before, after = (states(trained / case / name, by_weight) for name in ("saved", "more"))
    assert len(before) == 3
    assert before == after
    found = losses(trained, case)
    undisturbed = found.pop("saved")
    assert found.pop("more") == undisturbed
    near = 1e-2 if CASES[case].get("bf16") else 1e-4
    for part in ("fewer", "alone", "fewer again", "more again", "alone again"):
        assert found.pop(part) == pytest.approx(undisturbed, abs=near), part
    assert not found


@pytest.mark.parametrize("case", FORGETFUL)
def test_a_lost_moment_would_show(trained: Path, case: str) -> None:
    whole, without = losses(trained, case)["fewer"], losses(trained, f"{case}, forgets")["fewer"]
    assert without[0] == pytest.approx(whole[0], abs=1e-4), "the weights are the same"
    assert abs(without[-1] - whole[-1]) > 1e-2


class Hostile:
    """Runs a command where it is unpickled."""

    def __init__(self, *call: Any) -> None:
        self._call = call

    def __reduce__(self) -> Any:
        return self._call[0], self._call[1:]


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    import os
    import pickle

    import torch
    from deepspeed.runtime.zero.config import ZeroStageEnum

    file, mark = tmp_path / "zero_pp_rank_0_mp_rank_00_optim_states.pt", tmp_path / "mark"
    chain = Hostile(getattr, Hostile(getattr, ZeroStageEnum, "__class__"), "mro")
    for hostile in (Hostile(os.system, f"touch {mark}"), Hostile(exec, f"open({str(mark)!r}, 'w')"), chain):
        torch.save({"optimizer_state_dict": hostile}, file)
        with pytest.raises(pickle.UnpicklingError):
            resharding._mapped(file)
        assert not mark.exists()


def test_weights_of_another_model_are_refused(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    weight = torch.zeros(7, 13)
    held = {"round_robin_bit16_groups": [[weight]], "single_partition_of_fp32_groups": [torch.zeros(46)]}
    files = SimpleNamespace(load=pytest.fail)
    engine = SimpleNamespace(
        optimizer=SimpleNamespace(param_names={weight: "0.weight"}, **held),
        zero_optimization_stage=lambda: 2,
        checkpoint_engine=files,
        _get_all_ckpt_names=pytest.fail,
    )
    resharding.allow_other_ranks(engine)
    monkeypatch.setenv("WORLD_SIZE", "2")
    (file,) = (trained / "stage 2" / "saved").glob("*/*zero_pp_rank_1_*_optim_states.pt")
    with pytest.raises(TrainerError, match="saved of 3 ranks cannot be resumed on 2: its weights are 6 in flat"):
        files.load(str(file))


def test_ranks_hold_other_parts_of_the_same_numbers() -> None:
    """Five numbers, of two ranks that hold three each, on three ranks that hold two each."""
    import torch

    held = [torch.tensor([7.0, 0, 1, 2]), torch.tensor([8.0, 3, 4, -1])]
    saved = Span(0, offset=1, size=3, count=5)
    parts = [torch.zeros(2) for _ in range(3)]
    for rank, part in enumerate(parts):
        copy_part(held, saved, part, 2 * rank)
    assert [part.tolist() for part in parts] == [[0, 1], [2, 3], [4, 0]]


def test_stages_1_and_2_divide_a_group_and_stage_3_each_weight() -> None:
    groups = [{"a": 5, "b": 4}, {"c": 1}]
    assert Layout(groups, 2, by_weight=False).spans() == {"group 0": Span(0, 0, 6, 9), "group 1": Span(1, 0, 2, 1)}
    by_weight = Layout(groups, 2, by_weight=True)
    assert by_weight.spans() == {"a": Span(0, 0, 3, 5), "b": Span(0, 3, 2, 4), "c": Span(1, 0, 1, 1)}
    assert by_weight.sizes() == [5, 1]
