"""Work side by side: what runs together, what is shown, and what is counted."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hone_dev import lanes, tiers
from hone_dev.lanes import Result, Work

pytestmark = pytest.mark.pure
HANG = 120  # seconds; a guard


def python(name: str, program: str, *more: str) -> Work:
    """Work that runs programs, which have the functions `put` and `wait` for files of the folder."""
    helpers = (
        "import pathlib, sys, time\n"
        "put = lambda name: pathlib.Path(name).touch()\n"
        f"end = time.monotonic() + {HANG}\n"
        "def wait(name):\n"
        "    while not pathlib.Path(name).exists():\n"
        "        assert time.monotonic() < end\n"
        "        time.sleep(0.01)\n"
    )
    return Work(name, [[sys.executable, "-c", helpers + each] for each in (program, *more)])


def run(tmp_path: Path, *together: list[Work]) -> dict[str, Result]:
    """The results by name."""
    return {each.name: each for each in lanes.run(together, tmp_path, os.environ, tmp_path / "logs")}


def test_lanes_run_side_by_side_and_their_work_one_after_the_other(tmp_path: Path) -> None:
    first = python("first", "put('a'); wait('b'); put('first')")
    second = python("second", "assert pathlib.Path('first').exists()")
    other = python("other", "put('b'); wait('a')")
    results = run(tmp_path, [first, second], [other])
    assert {name: each.passed for name, each in results.items()} == {"first": True, "second": True, "other": True}


def test_the_output_of_a_piece_is_shown_in_one_piece_in_the_order_of_the_lanes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = python("slow", "print('slow 1', flush=True); wait('done'); print('slow 2')")
    quick = python("quick", "print('quick 1'); print('quick 2', file=sys.stderr)", "put('done')")
    run(tmp_path, [slow], [quick])
    shown = capsys.readouterr().out
    words = ["==> slow", "slow 1", "slow 2", "slow: passed", "==> quick", "quick 1", "quick 2", "quick: passed"]
    positions = [shown.index(word) for word in words]
    assert positions == sorted(positions)
    assert [shown.count(word) for word in words] == [1] * len(words)


def test_what_is_shown_grows_while_the_work_runs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The work ends only when what it has printed was seen."""
    program = (
        "from hone_dev import lanes; from hone_dev.lanes import Work; import pathlib, sys\n"
        f"wait = {[sys.executable, '-c', WAITS]!r}\n"
        "lanes.run([[Work('one', [wait])], [Work('two', [['true']])]], pathlib.Path(), {}, pathlib.Path('logs'))"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if line == "here\n":
                (tmp_path / "seen").touch()
    assert process.returncode == 0


WAITS = f"""
import pathlib, time
print("here", flush=True)
end = time.monotonic() + {HANG}
while not pathlib.Path("seen").exists():
    assert time.monotonic() < end
    time.sleep(0.01)
"""


def test_a_failure_fails_its_piece_alone_and_the_rest_still_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = python("bad", "sys.exit(3)", "put('second command')")
    impossible = Work("impossible", [["true"]], obstacle=lambda: "needs a moon")
    absent = Work("absent", [[str(tmp_path / "no such program")]])
    results = run(tmp_path, [bad, impossible, python("after", "put('after')")], [absent, python("other", "")])
    assert {each.name for each in results.values() if not each.passed} == {"bad", "impossible", "absent"}
    assert (tmp_path / "second command").exists()
    assert (tmp_path / "after").exists()
    shown = capsys.readouterr().out
    assert "FAILED: " in shown
    assert "cannot run here: impossible needs a moon, or leave it out by name: SKIP=impossible" in shown


def test_one_lane_writes_to_the_terminal_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, [python("one", "print('own words')"), python("two", "")], [])["two"].passed
    assert "own words" in capfd.readouterr().out
    assert not (tmp_path / "logs").exists()


def test_the_processor_time_of_all_processes_is_counted(tmp_path: Path) -> None:
    busy = "end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    child = f"import subprocess; subprocess.run([sys.executable, '-c', {'import time; ' + busy!r}], check=True)"
    results = run(tmp_path, [python("busy", busy, child)], [python("idle", "wait('never') if 0 else time.sleep(0.5)")])
    assert results["busy"].cpu >= 0.6
    assert results["idle"].cpu < results["idle"].seconds
    assert "busy         passed" in lanes.table(list(results.values()))


def test_nothing_more_starts_once_it_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object, __: Work) -> None:
        end = time.monotonic() + HANG
        while not (tmp_path / "began").exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(lanes._Lanes, "show", interrupt)
    first, second = python("first", "put('began'); wait('never')"), python("second", "put('two')")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, [first, second], [python("other", "")])
    assert not (tmp_path / "two").exists()


def test_every_tier_of_make_test_is_in_one_lane() -> None:
    chosen = [tier for tier in tiers.TIERS if not tier.by_name]
    planned = tiers.planned(chosen)
    assert sorted(tier.name for lane in planned for tier in lane) == sorted([*(t.name for t in chosen), "programs"])
    assert [tier.name for tier in planned[-1]] == ["programs"]


def test_programs_are_compiled_only_for_a_tier_that_runs_them() -> None:
    by_name = {tier.name: tier for tier in tiers.TIERS}
    assert tiers.planned([by_name["lint"], by_name["pure"]]) == [[by_name["lint"], by_name["pure"]], []]
    assert tiers.PROGRAMS in tiers.planned([by_name["lint"], by_name["apiserver"]])[-1]


def test_a_process_of_a_tier_keeps_bytecode_where_the_environment_forbids_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module.py").write_text("value = 1\n")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    env = tiers.environment() | {"PYTHONPYCACHEPREFIX": str(tmp_path / "kept")}
    subprocess.run([sys.executable, "-c", "import module"], cwd=tmp_path, env=env, check=True)
    assert list((tmp_path / "kept").rglob("module*.pyc"))
    assert not (tmp_path / "__pycache__").exists()
