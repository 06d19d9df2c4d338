"""Runs inside the sandbox, before and after the program: CPython 3.12, standard library only.

The first argument is the request. The reply goes to standard output behind the request's nonce, so that neither what
the program prints nor an early exit can pass for it.
"""

import json
import os
import sys


class _Nowhere:
    """Takes what the program prints."""

    encoding = "utf-8"

    def write(self, text):
        return len(text)

    def flush(self):
        pass

    def isatty(self):
        return False


def _described(error):
    return f"{type(error).__name__}: {error}"[:500]


def _call(function, arguments):
    try:
        value = function(**arguments)
        json.dumps(value)
    except BaseException as error:
        return {"error": _described(error)}
    return {"value": value}


def _run(sources, function, calls):
    namespace = {"__name__": "program"}
    for number, source in enumerate(sources):
        exec(compile(source, f"program-{number}", "exec"), namespace)  # noqa: S102 - inside the sandbox
    if function is None:
        return []
    if not callable(namespace.get(function)):
        raise NameError(f"there is no function {function}")
    return [_call(namespace[function], arguments) for arguments in calls]


def main():
    request = json.loads(sys.argv[1])
    nonce = request.pop("nonce")
    del sys.argv[1:]
    sys.orig_argv.clear()
    dumps, write = json.dumps, os.write
    sys.stdout = sys.stderr = _Nowhere()
    try:
        reply = {"results": _run(**request)}
    except BaseException as error:
        reply = {"error": _described(error)}
    data = f"\n{nonce}{dumps(reply)}\n".encode("utf-8", "replace")
    while data:
        data = data[write(1, data) :]
    os._exit(0)


main()
