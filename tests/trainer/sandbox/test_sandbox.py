"""What programs try in the sandbox, and that none of them can do harm, hang the run or pass for another."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from hone_trainer.sandbox import ExecutionLimits, Program, Reply, SandboxWorkers, WorkerRequest
from hone_trainer.sandbox import workers as pool

pytestmark = pytest.mark.trainer
SHORT = ExecutionLimits(seconds=0.5)


@pytest.fixture(scope="module")
def workers() -> Iterator[SandboxWorkers]:
    with SandboxWorkers(2) as made:
        yield made


def run(workers: SandboxWorkers, source: str, limits: ExecutionLimits = SHORT) -> Reply:
    return workers.run([Program([source], limits=limits).request()])[0]


ATTACKS = {
    "loops": ("while True: pass", "computed longer than its limit"),
    "sleeps": ("import time; time.sleep(10**6)", "OSError"),
    "waits for its clock": ("import time\nwhile time.time() < 2*10**9: pass", "system calls"),
    "forks": ("import os; os.fork()", "no attribute 'fork'"),
    "starts a process": ("import subprocess; subprocess.run(['true'])", "does not support processes"),
    "starts a thread": ("import threading; threading.Thread(target=print).start()", "can't start new thread"),
    "opens a socket": ("import socket; socket.socket().connect(('127.0.0.1', 80))", "Error"),
    "looks a host up": ("import socket; socket.getaddrinfo('localhost', 80)", "no attribute 'getaddrinfo'"),
    "reads a file": ("open('/etc/passwd')", "FileNotFoundError"),
    "reads its environment": ("open('/proc/self/environ')", "FileNotFoundError"),
    "lists the root": ("import os; os.listdir('/')", "FileNotFoundError"),
    "climbs": ("open('../../../../etc/passwd')", "FileNotFoundError"),
    "writes a file": ("open('/tmp/escaped', 'w')", "FileNotFoundError"),
    "writes in place": ("open('escaped', 'w')", "FileNotFoundError"),
    "uses ctypes": ("import ctypes", "No module named"),
    "exits": ("import sys; sys.exit(0)", "SystemExit"),
    "exits at once": ("import os; os._exit(0)", "ended before its result was known"),
    "is interrupted": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "aborts": ("import os; os.abort()", ""),
    "takes memory": ("x = bytearray(10**9)", "MemoryError"),
    "takes memory in pieces": ("x = []\nwhile True: x.append(bytes(10**6))", "MemoryError"),
    "prints gigabytes": ("while True: print('x' * 10**6)", "computed longer than its limit"),
    "writes gigabytes": ("import os\nwhile True: os.write(1, bytes(10**6))", "wrote more than"),
    "writes a byte at a time": ("import os\nwhile True: os.write(2, b'x')", "system calls"),
    "draws gigabytes": ("import os\nwhile True: os.urandom(10**6)", "system calls"),
    "recurses": ("def f(): return f()\nf()", "RecursionError"),
    "recurses without a limit": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f()\nf()",
        "",
    ),
    "recurses in C": ("x = []\nfor i in range(10**6): x = [x]\nrepr(x)", ""),
    "is no Python": ("def (", "SyntaxError"),
    "has a null byte": ("x = '\0'", "SyntaxError"),
    "raises half a surrogate": ("raise ValueError('\\ud800')", "ValueError: ?"),
    "raises what cannot be told": (
        "class E(Exception):\n def __str__(self): raise SystemExit\nraise E",
        "",
    ),
}


@pytest.mark.attack("sandbox")
@pytest.mark.parametrize("what", ATTACKS)
def test_a_program_that(workers: SandboxWorkers, what: str) -> None:
    source, told = ATTACKS[what]
    reply = run(workers, source)
    assert reply.outcome == "Failed"
    assert told in reply.message
    assert run(workers, "assert 1 + 1 == 2").outcome == "Done", "the sandbox goes on"


_FRAMES = """
import sys, os
frame, found = sys._getframe(), []
while frame:
    found += [*frame.f_locals.values(), *frame.f_globals.values(), *frame.f_code.co_consts]
    frame = frame.f_back
"""
_SAY = "\nfor one in found:\n os.write(1, b'\\n' + (one if isinstance(one, bytes) else str(one).encode()) + REPLY)\n"
_REPLY = "b'{\"results\": []}\\n'"
# Each is followed by a test that fails, so only a forged reply could be Done.
FORGERIES = {
    "prints a reply": "import sys, os\nsys.__stdout__.write('\\n0{\"results\": []}\\n')\nsys.__stdout__.flush()",
    "prints a reply and exits": "import os\nos.write(1, b'\\n0{\"results\": []}\\n')\nos._exit(0)",
    "looks in its arguments": "import sys, os\nfound = [*sys.argv, *sys.orig_argv, *os.environ.values()]" + _SAY,
    "looks in the frames": _FRAMES + _SAY + "os._exit(0)",
    "looks in what the frames refer to": (
        "import gc\n"
        + _FRAMES
        + "found = [x for one in gc.get_referents(*found) for x in gc.get_referents(one)]"
        + _SAY
    ),
    "looks at all objects": "import gc, os\nfound = [o for o in gc.get_objects() if isinstance(o, (str, bytes))]"
    + _SAY,
    "reads standard input": "import os\nfound = [os.read(0, 100)]" + _SAY,
    "reads the file of standard input": "import sys, os\nfound = [sys.__stdin__.read()]" + _SAY,
    "reads the configuration": "import _testinternalcapi, os\nfound = str(_testinternalcapi.get_configs()).split()"
    + _SAY,
    "looks in the traceback": (
        "import os\nfound = []\ntry: 1 / 0\nexcept Exception as error:\n frame = error.__traceback__.tb_frame\n"
        " while frame: found += frame.f_locals.values(); frame = frame.f_back" + _SAY
    ),
    "replaces exec": "import builtins\nbuiltins.exec = lambda *_: None",
    "replaces compile": "import builtins\nold = compile\nbuiltins.compile = lambda *_: old('', 'x', 'exec')",
    "replaces dumps": "import json\njson.dumps = lambda *_: '{\"results\": []}'",
    "replaces the harness": (
        "import sys\nfor name in ('_run', '_call', '_results', '_described', '_write'):\n"
        " setattr(sys.modules['__main__'], name, lambda *_: b'{\"results\": []}')"
    ),
    "replaces os.write and os.read": "import os\nos.write = lambda f, d: len(d)\nos.read = lambda f, n: b'0' * n",
    "runs the harness again": "import sys\nsys.modules['__main__'].main()",
    "runs the harness's end": (
        "import sys\nsys.modules['__main__']._run({}, {'sources': ['', ''], 'function': None, 'calls': []})"
    ),
    "empties the request": _FRAMES
    + "for one in found:\n if isinstance(one, (dict, list)) and 'sources' in one: one.clear()",
    "empties every list": _FRAMES + "for one in found:\n if isinstance(one, list): one.clear()",
    "spends every iterator": _FRAMES + "for one in found:\n if hasattr(one, '__next__'): list(one)",
    "traces": "import sys\nsys.settrace(lambda *_: None)",
    "traces by threading": "import threading\nthreading.settrace(print)\nthreading._sys.settrace(print)",
    "profiles": "import sys\nsys.setprofile(lambda *_: None)",
    "monitors": "import sys\nsys.monitoring.use_tool_id(1, 'x')",
    "takes errors away": "import builtins\nbuiltins.AssertionError = type('Fine', (), {})",
    "exits in a finalizer": (
        "import os\nclass L:\n def __del__(s):\n  os.write(1, b'\\n!{\"results\": []}\\n'); os._exit(0)\nl = L()"
    ),
    "exits at the end": "import atexit, os\natexit.register(os._exit, 0)",
    "says an error that is none": "import os\nos.write(1, b'\\n!{\"results\": []}\\n')\nos._exit(0)",
    "says an error of the wrong type": "import os\nos.write(1, b'\\n![1, 2]\\n')\nos._exit(0)",
    "says an error nested deep": "import os\nos.write(1, b'\\n!' + b'[' * 100000)\nos._exit(0)",
    "says an error that is no UTF-8": "import os\nos.write(1, b'\\n!\\xff\\xfe\"')\nos._exit(0)",
}


@pytest.mark.attack("sandbox")
@pytest.mark.parametrize("what", FORGERIES)
def test_a_failing_test_is_failed_though_the_program(workers: SandboxWorkers, what: str) -> None:
    source = FORGERIES[what].replace("REPLY", _REPLY)
    reply = workers.run([Program([source, "assert False"], limits=ExecutionLimits(seconds=2)).request()])[0]
    assert reply.outcome == "Failed"
    assert reply.value is None


MALFORMED = {
    "results of calls that were not made": "[1]",
    "a text": "'x'",
    "a number": "10**5000",
    "nothing": "",
}


@pytest.mark.attack("sandbox")
@pytest.mark.parametrize("what", MALFORMED)
def test_results_that_are_none_are_the_functions_fault(workers: SandboxWorkers, what: str) -> None:
    """A function of the user's own replaces the harness's end, after it was called."""
    source = f"""
import sys
sys.modules['__main__']._results = lambda *_: ('{{"results": ' + str({MALFORMED[what] or "''"}) + '}}').encode()
def f(): return 1
"""
    program = Program([source], "f", [{}], ExecutionLimits(seconds=2))
    assert workers.run([program.request()])[0].outcome == "Failed"


def test_nothing_of_the_machine_is_seen(workers: SandboxWorkers) -> None:
    source = (
        "import os, sys, time, random\n"
        "def look(): return [dict(os.environ), sys.argv, os.getpid(), time.time(), random.random(), hash('a')]"
    )
    program = Program([source], "look", [{}])
    first, second = workers.run([program.request(), program.request()])
    assert first == second, "the same program gives the same result"
    environment, arguments, *_ = first.value[0]["value"]
    assert environment == {"PYTHONHASHSEED": "0"}
    assert arguments == ["-c"]


def test_one_call_that_fails_leaves_the_others(workers: SandboxWorkers) -> None:
    calls = [{"x": 1}, {"x": 0}, {"y": 1}, {"x": 4}]
    program = Program(["def f(x):\n print('not a reply')\n return 1 / x"], "f", calls)
    found = workers.run([program.request()])[0].value
    assert [result.get("value") for result in found] == [1.0, None, None, 0.25]
    assert found[1]["error"] == "ZeroDivisionError: division by zero"


def test_replies_keep_the_order_of_requests(workers: SandboxWorkers) -> None:
    programs = [Program([f"def f(): return {i}"], "f", [{}]) for i in range(12)]
    replies = workers.run([program.request() for program in programs])
    assert [reply.value[0]["value"] for reply in replies] == list(range(12))


def test_a_limit_is_counted_and_not_timed(workers: SandboxWorkers) -> None:
    source = "n = 0\nfor i in range({}): n += i"
    outcomes = [run(workers, source.format(n)).outcome for n in (10**4, 10**7, 10**4, 10**7)]
    assert outcomes == ["Done", "Failed", "Done", "Failed"]


def test_a_worker_that_is_killed_breaks_its_request_alone() -> None:
    with SandboxWorkers(1) as workers:
        assert run(workers, "pass").outcome == "Done"
        worker = workers._idle.get()
        assert worker is not None
        os.kill(worker._process.pid, signal.SIGKILL)
        workers._idle.put(worker)
        broken = run(workers, "pass")
        assert broken.outcome == "Broken"
        assert "did not answer" in broken.message
        assert run(workers, "pass").outcome == "Done"


def test_a_worker_that_does_not_answer_is_killed() -> None:
    with SandboxWorkers(1, patience=0.1) as workers:
        assert run(workers, "pass", ExecutionLimits(seconds=30)).outcome == "Done"
        worker = workers._idle.get()
        assert worker is not None
        os.kill(worker._process.pid, signal.SIGSTOP)
        workers._idle.put(worker)
        start = time.monotonic()
        assert run(workers, "pass", ExecutionLimits(seconds=0.01)).outcome == "Broken"
        assert time.monotonic() - start < 600
        assert worker._process.poll() is not None


def test_a_sandbox_that_cannot_start_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool.sys, "executable", "/nowhere/python")
    with SandboxWorkers(1) as workers:
        reply = run(workers, "pass")
    assert reply.outcome == "Broken"
    assert "cannot start" in reply.message


def test_no_secret_reaches_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with SandboxWorkers(1) as workers:
        run(workers, "pass")
        worker = workers._idle.get()
        assert worker is not None
        with open(f"/proc/{worker._process.pid}/environ", "rb") as file:
            environment = file.read()
        workers._idle.put(worker)
    assert b"hf_secret" not in environment
    assert b"PYTHONPATH=" in environment


def test_no_worker_stays_behind() -> None:
    with SandboxWorkers(2) as workers:
        workers.run([WorkerRequest("jsonSchema", {"schema": {}, "instance": "1"})] * 4)
        worker = workers._idle.get()
        workers._idle.put(worker)
    assert worker is not None
    assert worker._process.poll() is not None
