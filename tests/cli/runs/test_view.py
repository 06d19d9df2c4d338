"""What `hone watch`, `compare` and `explain` make of objects, without a cluster."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from hone_api.words.failures import FAILURES, FailureCode
from hone_api.words.states import Reason
from hone_cli.clients.agents import dataset_row
from hone_cli.errors import CliExit, CommandError
from hone_cli.reach.kube import ServerRefusalError
from hone_cli.runs.compare import compared
from hone_cli.runs.explain import explained
from hone_cli.runs.jobs import row_of
from hone_cli.runs.logs import _container
from hone_cli.runs.view import curves, ending, has_failed, is_over, spark
from hone_cli.runs.watch import follow, screen

pytestmark = pytest.mark.pure


def job(name="one", rank=8, conditions=(), **status):
    listed = [{"type": t, "status": "True", "reason": r, "message": m} for t, r, m in conditions]
    spec = {"adapter": {"rank": rank}, "datasets": [{"name": "rows"}], "output": {"modelName": "bot"}}
    return {"metadata": {"name": name}, "spec": spec, "status": {"conditions": listed, **status}}


TRAINING = job(
    conditions=[("Running", "Running", "")],
    phase="Running",
    progress={"stage": "Training", "step": 30, "totalSteps": 100, "loss": "0.5123", "eta": "3m"},
    metrics=[{"name": "loss", "curve": "10:3.5 20:2.25 30:0.5"}, {"name": "eval_loss", "curve": "10:nan 20:2"}],
    queue={"position": 3, "message": "no quota\x1b[2J left"},
)


@pytest.mark.parametrize("width", [20, 40, 120])
def test_the_screen_fits_and_carries_no_control_characters(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None)
    console.print(screen(TRAINING, ["Evil: \x1b[31m" + "long " * 60], width))
    printed = out.getvalue()
    assert "\x1b[2J" not in printed
    assert "\x1b[31m" not in printed
    assert max(map(len, printed.splitlines())) <= width
    lines = [line.rstrip() for line in printed.splitlines()]
    assert "30/100" in lines[1]
    assert lines[3] == "loss 0.51  ETA 3m", "on a line of its own: a narrow terminal lost what followed the bar"
    assert "place 3" in printed


def test_the_screen_has_the_memory_of_the_gpu_while_the_run_trains() -> None:
    progress = TRAINING["status"]["progress"] | {"gpuMemoryBytes": 6 << 30}
    out = io.StringIO()
    running = job(memory={"estimated": 9 << 30}, progress=progress)
    Console(file=out, width=80).print(screen(running, [], 80))
    assert "9.0 GiB a pod estimated, 6.0 GiB on the first GPU so far" in out.getvalue()


class Seen:
    """A cluster whose API server restarts once, and then shows a job and its version."""

    kube = SimpleNamespace(options="")

    def __init__(self, **objects: Any) -> None:
        self.objects, self.restarts = objects, 1

    def get(self, kind: str, name: str) -> Any:
        return self.objects[kind]

    def find(self, kind: str, name: str) -> Any:
        if self.restarts:
            self.restarts -= 1
            refusal = ServerRefusalError("too many requests")
            refusal.passes = True
            raise refusal
        return self.objects[kind]


@pytest.mark.parametrize(("type_", "code"), [("Ready", CliExit.DONE), ("Stalled", CliExit.RUN_FAILED)])
def test_a_model_that_nobody_can_use_is_no_success(type_: str, code: int, capsys: Any) -> None:
    done = job(conditions=[("Finished", "Succeeded", ""), ("Succeeded", "Succeeded", "")], modelVersionName="bot-v1")
    done["metadata"]["uid"] = "1"
    condition = {"type": type_, "status": "True", "reason": "SignatureInvalid", "message": "by no known key"}
    seen = Seen(FineTuneJob=done, ModelVersion={"status": {"conditions": [condition]}})
    assert follow(seen, "one", seconds=0) == code
    assert ("bot-v1 cannot be used: SignatureInvalid: by no known key" in capsys.readouterr().out) is (code == 5)


def test_curves_are_drawn_with_the_lowest_as_the_lowest() -> None:
    drawn = curves(TRAINING)
    assert drawn["loss"] == [(10, 3.5), (20, 2.25), (30, 0.5)]
    assert spark(drawn["loss"], 10) == "█▅▁"
    assert spark(drawn["loss"], 2) == "█▁"
    assert math.isnan(drawn["eval_loss"][0][1])
    assert spark(drawn["eval_loss"], 10) == ""
    assert spark([], 10) == ""
    assert spark([(1, math.inf), (2, 1.0), (3, 2.0)], 10) == "▁█"


def test_each_ending_says_what_to_do_next() -> None:
    good = job(conditions=[("Finished", "", ""), ("Succeeded", "", "")], modelVersionName="bot-v1")
    assert not has_failed(good)
    assert list(ending(good)) == ["one has succeeded: ModelVersion bot-v1", "Next: hone chat bot"]
    failed = job(
        conditions=[("Finished", "", ""), ("Failed", "", "")],
        failure={"code": "OutOfMemory", "message": "rank 0", "hint": "Ask for more."},
    )
    assert has_failed(failed)
    assert "hone explain OutOfMemory" in list(ending(failed))[-1]
    stalled = job(conditions=[("Stalled", "InvalidValue", "spec.x")])
    assert is_over(stalled)
    assert list(ending(stalled)) == ["one cannot run: InvalidValue: spec.x"]
    assert not is_over(TRAINING)


def test_runs_are_compared_by_what_differs() -> None:
    other = job("two", rank=16, metrics=[{"name": "loss", "curve": "10:1 20:2"}])
    number = {"name": "loss", "dataset": "rows/validation", "base": "3", "tuned": "1.5", "low": "1.4", "high": "1.6"}
    version = {"spec": {"evaluation": {"numbers": [number]}}}
    table = compared([job(), other], [None, version])
    assert table["settings that differ"] == {"adapter.rank": ["8", "16"]}
    assert table["curves"] == {"loss": [None, "▁█ 2"]}
    assert table["held-out rows"] == {"loss (rows/validation)": [None, "1.5 [1.4, 1.6], base 3"]}
    assert table["run"] == {"state": ["Pending", "Pending"]}


@pytest.mark.parametrize("word", [*FailureCode, *Reason])
def test_every_code_and_reason_is_explained(word: str) -> None:
    entry = explained(str(word).upper())
    assert entry["code"] == word
    assert entry["do"] == FAILURES[word].hint if word in FAILURES else len(entry["meaning"]) > 10


def test_a_code_that_does_not_exist_names_the_nearest() -> None:
    with pytest.raises(CommandError, match="did you mean GpuOutOfMemory, OutOfMemory"):
        explained("GpuOutOfMemroy")
    with pytest.raises(CommandError, match=r"see docs/reference/conditions.md"):
        explained("§")


def test_no_command_of_every_day_loads_torch_or_takes_long_to_print_its_help() -> None:
    """What is imported, not the time: the clock of a busy machine proves nothing."""
    for command in ("run", "init", "upload"):
        program = f"import sys; sys.argv = ['hone', {command!r}, '-h']; from hone_cli.__main__ import main\n"
        program += "try: main()\nexcept SystemExit: print(*sys.modules, file=sys.stderr)"
        environment = {"PYTHONPATH": ":".join(sys.path)}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
        assert done.stdout.startswith(f"Usage: hone {command}"), done.stderr
        assert not {"torch", "transformers", "hone_trainer", "aiohttp"} & {*done.stderr.split()}, command


@pytest.mark.parametrize("names", [["trainer"], ["istio-proxy", "trainer"], ["trainer", "istio-proxy"]])
def test_logs_are_those_of_the_container_that_trains(names: list[str]) -> None:
    assert _container({"spec": {"containers": [{"name": name} for name in names]}}) == "trainer"


def test_an_object_of_another_form_has_a_row_all_the_same() -> None:
    whole = job() | {"metadata": {"name": "one", "creationTimestamp": "2026-01-01T00:00:00Z"}}
    assert row_of(whole)["model"] == "bot"
    assert row_of({**whole, "spec": {}})["model"] == ""
    for broken in ({**whole, "spec": None}, {**whole, "status": {"conditions": [{"type": "Accepted"}]}}):
        assert "in a form that this release of hone does not know" in row_of(broken)["state"]
        assert row_of(broken)["name"] == "one"
    assert "does not know" in dataset_row({**whole, "status": {"splits": [{"rows": 3}]}})["message"]
    assert curves(job(metrics=[{"name": "loss", "curve": "1:2.5 x:3 2 3:1.5"}])) == {"loss": [(1, 2.5), (3, 1.5)]}
