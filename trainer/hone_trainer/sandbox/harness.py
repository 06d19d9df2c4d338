"""Runs inside the sandbox, before and after the program: CPython 3.12, standard library only.

The request arrives on standard input, followed by a marker that makes a reply valid. The program shares this
interpreter: it can read the harness's local variables, replace every function that is looked up by name, and print. So
everything that decides the result is out of its reach: the marker, the code that is still to run and the functions that
run it are arguments of calls that began before the program did, and no frame shows them. Whatever else the program
does,
it ends without the marker, which counts as failed.
"""

import builtins
import json
import os
import sys

TYPE_CHECKING = False  # typing itself would be read from the sandbox's disk at every start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class _Nowhere:
    """Discards what the program prints."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500]


def _call(function: "Callable[..., object]", arguments: "dict[str, object]") -> "dict[str, object]":
    try:
        value = function(**arguments)
        json.dumps(value)
    except BaseException as error:
        return {"error": _described(error)}
    return {"value": value}


def _results(namespace: "dict[str, Any]", request: "dict[str, Any]") -> bytes:
    """Results of the calls, after all sources ran to their end; as JSON."""
    function = request["function"]
    if function is None:
        return b'{"results": []}'
    if not callable(namespace.get(function)):
        raise NameError(f"there is no function {function}")
    results = [_call(namespace[function], arguments) for arguments in request["calls"]]
    return json.dumps({"results": results}).encode("utf-8", "replace")


def _close() -> None:
    """Remove what could watch or steer other frames, which include those of the tests."""
    for name in ("settrace", "setprofile", "monitoring", "_current_frames", "_current_exceptions"):
        if hasattr(sys, name):
            delattr(sys, name)
    for name in ("gc", "_testcapi", "_testinternalcapi"):
        vars(sys)["modules"][name] = None


def _read(size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(0, size - len(data))
    return data


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def main() -> None:
    request = json.loads(_read(int(_read(16), 16)))
    namespace = {"__name__": "program"}
    sys.stdout = sys.stderr = _Nowhere()
    _close()
    try:
        _run(namespace, request)
    except BaseException as error:
        message = json.dumps({"error": _described(error)})
        _write(f"\n!{message}\n".encode("utf-8", "replace"))
    os._exit(0)


def _run(namespace: "dict[str, Any]", request: "dict[str, Any]") -> None:
    """One expression, because arguments are evaluated from left to right: everything is at hand before `first` runs."""
    first, second = (compile(source, f"program-{i}", "exec") for i, source in enumerate(request["sources"]))
    run = vars(builtins)["exec"]
    _write(
        b"".join(
            (
                b"\n",
                os.read(0, 32),
                run(second, namespace, run(first, namespace) or namespace) or b"",
                _results(namespace, request),
                b"\n",
            )
        )
    )


main()
