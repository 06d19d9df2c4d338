"""Argo CD's health scripts, run as Argo CD runs them: Lua 5.1 with base, package, table and a safe os."""

from collections.abc import Callable
from typing import Any

import lupa.lua51
import pytest

from hone_dev.generate import argocd

# What is left after gitops-engine opened its libraries; the methods of strings go with `string`.
SANDBOX = """
getmetatable('').__index = nil
os = {time = os.time, date = os.date, clock = os.clock, difftime = os.difftime}
for _, name in ipairs({'string', 'math', 'io', 'debug', 'coroutine', 'python'}) do _G[name] = nil end
"""
Health = Callable[[dict[str, Any]], dict[str, str]]


@pytest.fixture
def lua() -> lupa.lua51.LuaRuntime:
    """A fresh interpreter."""
    runtime = lupa.lua51.LuaRuntime(register_eval=False)
    runtime.execute(SANDBOX)
    return runtime


@pytest.fixture
def health(lua: lupa.lua51.LuaRuntime) -> Health:
    """health(object) -> {status, message}, by the script of its kind."""

    def run(obj: dict[str, Any]) -> dict[str, str]:
        script = argocd.FOLDER / "resource_customizations" / "hone.dev" / obj["kind"] / "health.lua"
        lua.globals().obj = lua.table_from(obj, recursive=True)
        return dict(lua.execute(script.read_text()))

    return run
