"""Work side by side: what runs together, what is shown, and what is counted."""

import dataclasses
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hone_dev.campaigns import lanes, tiers
from hone_dev.campaigns.lanes import Lane, Processors, Result, Work

pytestmark = pytest.mark.pure
ROOT = Path(__file__).resolve().parents[3]
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
    return run_stages(tmp_path, [Lane(works) for works in together])


def run_stages(tmp_path: Path, *stages: lanes.Stage) -> dict[str, Result]:
    """The results by name."""
    return {each.name: each for each in lanes.run(stages, tmp_path, os.environ, tmp_path / "logs")}


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
        "from hone_dev.campaigns import lanes; from hone_dev.campaigns.lanes import Lane, Work; import pathlib, sys\n"
        f"one = Lane([Work('one', [{[sys.executable, '-c', WAITS]!r}])])\n"
        "two = Lane([Work('two', [['true']])])\n"
        "lanes.run([[one, two]], pathlib.Path(), {}, pathlib.Path('logs'))"
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
    assert "FAILED (exit code 3): " in shown
    assert "cannot run here: impossible needs a moon, or leave it out by name: SKIP=impossible" in shown


def test_the_end_repeats_the_reasons(tmp_path: Path) -> None:
    """A log of 10,000 lines is shown before it, and CI keeps the last lines."""
    internal = "print('INTERNALERROR> RuntimeError: no active workers'); print('1105 passed'); sys.exit(3)"
    bad = python("bad", "print('FAILED tests/a.py::one - assert 1 == 2'); sys.exit(1)", internal)
    results = run(tmp_path, [bad, python("good", "print('FAILED as a word of its own')")], [python("other", "")])
    title, *lines = lanes.reasons(list(results.values()))[1:]
    assert title == f"{tmp_path / 'logs' / 'bad.log'}:"
    assert lines[:2] == ["FAILED tests/a.py::one - assert 1 == 2", "INTERNALERROR> RuntimeError: no active workers"]
    assert [line[:26] for line in lines[2:]] == ["    FAILED (exit code 1): ", "    FAILED (exit code 3): "]


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


def test_a_stage_begins_when_all_lanes_before_it_have_ended(tmp_path: Path) -> None:
    quick = python("quick", "put('quick')")
    slow = python("slow", "wait('quick'); time.sleep(0.3); put('slow')")
    last = python("last", "assert pathlib.Path('slow').exists()")
    results = run_stages(tmp_path, [Lane([quick]), Lane([slow])], [Lane([last])])
    assert [(name, each.passed) for name, each in results.items()] == [("quick", True), ("slow", True), ("last", True)]


def test_stages_of_one_lane_write_to_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    results = run_stages(tmp_path, [Lane([python("one", "print('own words')")]), Lane([])], [Lane([python("two", "")])])
    assert all(each.passed for each in results.values())
    assert "own words" in capfd.readouterr().out
    assert not (tmp_path / "logs").exists()


def after(work: Work, *names: str) -> Work:
    return dataclasses.replace(work, needs=names)


def test_work_waits_for_what_it_needs(tmp_path: Path) -> None:
    made = python("made", "time.sleep(0.3); put('made')")
    user = after(python("user", "assert pathlib.Path('made').exists()"), "made", "not planned")
    results = run(tmp_path, [user, python("last", "")], [made])
    assert all(each.passed for each in results.values())


@pytest.mark.parametrize("patience", [0.2, HANG])
def test_after_a_while_work_that_needs_less_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    """One lane makes first `quick`, which `light` needs, then `slow`, which `heavy` needs."""
    monkeypatch.setattr(lanes, "_PATIENCE", patience)
    light_is_first = patience < HANG
    slow = python("slow", "wait('light')" if light_is_first else "time.sleep(0.5)")
    heavy = python("heavy", "assert pathlib.Path('light').exists()" if light_is_first else "put('heavy')")
    light = python("light", "put('light')" if light_is_first else "assert pathlib.Path('heavy').exists()")
    waits = [after(heavy, "quick", "slow"), after(light, "quick")]
    results = run(tmp_path, waits, [python("quick", ""), slow])
    assert list(results) == ["heavy", "light", "quick", "slow"], "shown in the order of the plan"
    assert all(each.passed for each in results.values())


def test_work_does_not_wait_for_what_fails_or_for_its_own_lane(tmp_path: Path) -> None:
    results = run(tmp_path, [after(python("user", ""), "made", "later"), python("later", "")], [python("made", "1/0")])
    assert {name: each.passed for name, each in results.items()} == {"user": True, "later": True, "made": False}


def test_a_lane_runs_at_its_priority(tmp_path: Path) -> None:
    def shown(niceness: int) -> str:
        return f"import os; assert os.nice(0) == {niceness}"

    now = os.nice(0)
    low, usual = python("low", shown(min(now + 3, 19))), python("usual", shown(now))
    results = run_stages(tmp_path, [Lane([low], nice=3), Lane([usual])])
    assert all(each.passed for each in results.values())


def test_the_share_of_the_machine_that_was_busy_is_counted(tmp_path: Path) -> None:
    def at(*ticks: int) -> Processors | None:
        (tmp_path / "stat").write_text(f"cpu  {' '.join(map(str, ticks))}\ncpu0 1 2 3\n")
        return Processors.now(tmp_path / "stat")

    # user, nice, system, idle, iowait, irq, softirq, steal, guest (counted in user, too), guest_nice
    before, after = at(10, 0, 10, 80, 0, 0, 0, 0, 5, 0), at(25, 5, 15, 145, 5, 1, 2, 2, 15, 0)
    assert before
    assert after
    assert after.busy_since(before) == 30 / 100
    assert before.busy_since(before) is None
    assert Processors.now(tmp_path / "absent") is None
    assert "one          passed     1 min 01 s   0 min 02 s           30%" in lanes.table(
        [Result("one", True, 61, 2, 0.3)]
    )


def by_name(*names: str) -> list[tiers.Tier]:
    return [tier for tier in tiers.TIERS if tier.name in names]


def names(planned: list[lanes.Stage]) -> list[list[list[str]]]:
    """Of the work in each lane of each stage that has some."""
    stages = ([[work.name for work in lane.works] for lane in stage if lane.works] for stage in planned)
    return [stage for stage in stages if stage]


def test_what_waits_runs_next_to_what_computes_and_what_compares_the_machine_at_the_end() -> None:
    chosen = [dataclasses.replace(tier, obstacle=lambda: None) for tier in tiers.TIERS if not tier.by_name]
    planned = tiers.planned(chosen)
    assert names(planned) == [
        [["lint", "pure", "trainer"], ["e2e", "e2e-alone", "apiserver"], ["programs", "images"]],
        [["e2e-machine"]],
    ]
    assert [work.needs for work in planned[0][1].works] == [("programs", "images")] * 2 + [("programs",)]
    assert [lane.nice for lane in planned[0]] == [tiers.LOW, 0, 0]


def test_tests_that_run_alone_go_with_their_tier() -> None:
    chosen = dataclasses.replace(*by_name("e2e"), obstacle=lambda: None)
    assert names(tiers.planned([chosen])) == [[["e2e", "e2e-alone"]], [["e2e-machine"]]]
    assert names(tiers.planned([dataclasses.replace(chosen, obstacle=lambda: "needs root")])) == [[["e2e"]]]
    (long,) = (dataclasses.replace(tier, obstacle=lambda: None) for tier in by_name("long"))
    assert names(tiers.planned([long])) == [[["long"]], [["long-alone"]]]
    planned = tiers.planned(by_name("lint", "trainer"))
    assert names(planned) == [[["lint", "trainer"]]]
    assert planned[0][0].nice == 0, "nothing runs next to it"


def chooses(expression: str, marks: set[str]) -> bool:
    """Whether a test with these marks runs with `-m EXPRESSION`."""
    return all((word.removeprefix("not ") in marks) != word.startswith("not ") for word in expression.split(" and "))


def test_a_test_runs_in_exactly_one_part_of_a_tier() -> None:
    parts = [work for tier in tiers.TIERS if tier.name != "light" for work in (tier, tier.alone, tier.last) if work]
    commands = [command for work in parts for command in work.commands if "pytest" in command]
    wanted = [command[command.index("-m", command.index("pytest")) + 1] for command in commands]
    for tier in ("pure", "apiserver", "trainer", "e2e"):
        for marks in ({tier}, {tier, "long"}, {tier, "alone"}, {tier, "long", "alone"}, {tier, "machine"}):
            assert len([each for each in wanted if chooses(each, marks)]) == 1, marks


def test_programs_are_compiled_only_for_a_tier_that_runs_them() -> None:
    assert names(tiers.planned(by_name("lint", "pure"))) == [[["lint", "pure"]]]
    assert names(tiers.planned(by_name("lint", "apiserver"))) == [[["lint"], ["apiserver"], ["programs"]]]


def test_the_longest_tests_begin_first(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    text = "import pytest\npytestmark = pytest.mark.pure\ndef test_a(): ...\n"
    (tmp_path / "test_1.py").write_text(text + "@pytest.mark.early\ndef test_b(): ...\n")
    (tmp_path / "test_2.py").write_text(text + "@pytest.mark.early\ndef test_c(): ...\n")
    pytest_ = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml"]
    command = [*pytest_, "--rootdir", tmp_path, "--collect-only", "-q", "-m", "pure", tmp_path]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert re.findall(r"::(\w+)", shown) == ["test_b", "test_c", "test_a", "test_a"]


@pytest.mark.parametrize("more", [[], ["-n", "2"]], ids=["one process", "workers"])
def test_a_tier_that_is_ended_has_shown_what_failed(tmp_path: Path, more: list[str]) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    text = "import time, pytest\npytestmark = pytest.mark.pure\n"
    (tmp_path / "test_1.py").write_text(f"{text}def test_a():\n    assert 1 + 1 == 3\ndef test_b(): time.sleep(60)\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml", "-q", *more]
    with subprocess.Popen([*command, "--rootdir", tmp_path, tmp_path], stdout=subprocess.PIPE, text=True) as tier:
        assert tier.stdout
        lines = iter(tier.stdout.readline, "")
        assert "test_1.py::test_a failed in its call:\n" in lines
        assert "E       assert (1 + 1) == 3\n" in lines
        tier.kill()


def test_a_process_of_a_tier_keeps_bytecode_where_the_environment_forbids_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module.py").write_text("value = 1\n")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    env = tiers.environment() | {"PYTHONPYCACHEPREFIX": str(tmp_path / "kept")}
    subprocess.run([sys.executable, "-c", "import module"], cwd=tmp_path, env=env, check=True)
    assert list((tmp_path / "kept").rglob("module*.pyc"))
    assert not (tmp_path / "__pycache__").exists()
