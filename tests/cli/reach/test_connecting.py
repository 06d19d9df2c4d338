"""How `hone` reaches a cluster: the kubeconfig as kubectl reads it, plugins that fail, servers that do not answer."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.servers.loopback import Handler, serve

from hone_cli.errors import CommandError
from hone_cli.reach import completing, connecting
from hone_cli.reach.kube import Kube, ServerRefusalError
from hone_dev.tools.tools import kubectl

pytestmark = pytest.mark.pure
PLUGIN = "client.authentication.k8s.io/v1"
PATH = "/api/v1/namespaces/team/pods"


class TokenServer(Handler):
    """An API server that knows one token."""

    accepted = "new"

    def do_GET(self) -> None:  # noqa: N802
        if self.headers["Authorization"] == f"Bearer {self.accepted}":
            self.answer(200, "application/json", b'{"items": []}')
        else:
            self.answer(401, "application/json", json.dumps({"message": "Unauthorized"}).encode())


def kubeconfig(file: Path, server: str, name: str = "c", current: str | None = "c", **user: Any) -> Path:
    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server}}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": f"of-{name}"}}],
        **({"current-context": current} if current else {}),
    }
    file.write_text(yaml.safe_dump(body))
    return file


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch):
    """Makes files the kubeconfig."""

    def using(*files: Path) -> str:
        text = ":".join(map(str, files))
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", text)
        return text

    return using


def printing(file: Path) -> dict[str, Any]:
    """A plugin that gives the token in a file."""
    script = f'printf \'{{"apiVersion":"{PLUGIN}","kind":"ExecCredential","status":{{"token":"%s"}}}}\' "$(cat {file})"'
    return {"exec": {"apiVersion": PLUGIN, "command": "sh", "args": ["-c", script], "interactiveMode": "Never"}}


def test_credentials_that_expired_are_read_again(use, tmp_path: Path) -> None:
    """As kubectl asks a plugin again; a person who logs in again goes on in an open page of `hone ui`."""
    token = tmp_path / "token"
    with serve(TokenServer) as server:
        use(kubeconfig(tmp_path / "config", server, **printing(token)))
        for before, after in (("old", "new"), ("new", "new")):
            token.write_text(before)
            kube = Kube.load(None, None)
            token.write_text(after)
            assert kube.call("GET", PATH) == {"items": []}
        token.write_text("old")
        with pytest.raises(ServerRefusalError, match=r"401 Unauthorized\): log in again"):
            Kube.load(None, None).call("GET", PATH)
        kube = Kube.load(None, None)
        use(kubeconfig(tmp_path / "other", "https://127.0.0.1:1", name="other", current="other"), tmp_path / "config")
        token.write_text("new")
        assert kube.call("GET", PATH) == {"items": []}, "the context that is current now is another cluster's"


def test_a_plugin_that_fails_is_one_sentence_and_nobody_is_asked(use, tmp_path: Path, capfd) -> None:
    failing = {"exec": {"apiVersion": PLUGIN, "command": "sh", "args": ["-c", "echo run: sso login >&2; exit 255"]}}
    absent = {"exec": {"apiVersion": PLUGIN, "command": "no-such-plugin"}}
    for user, words in ((failing, "returned 255. run: sso login"), (absent, "'no-such-plugin'")):
        use(kubeconfig(tmp_path / "config", "https://127.0.0.1:1", **user))
        with pytest.raises(CommandError, match=re.escape(words)):
            Kube.load(None, None)
    assert capfd.readouterr().err == "", "the library logs it besides"


def test_an_error_that_another_thread_logs_is_not_the_plugins(use, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("new")
    ended = threading.Event()

    def log() -> None:
        while not ended.wait(0.001):
            logging.getLogger("other").error("nothing of this kubeconfig")

    thread = threading.Thread(target=log)
    with serve(TokenServer) as server:
        use(kubeconfig(tmp_path / "config", server, **printing(token)))
        thread.start()
        try:
            assert Kube.load(None, None).call("GET", PATH) == {"items": []}
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize("text", ["{{{", "- a list", "a text", "clusters: [1]", "contexts: {}\n", "\0"])
def test_a_broken_kubeconfig_is_one_sentence(use, tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    use(tmp_path / "config")
    with pytest.raises(CommandError, match=r"^no cluster: "):
        Kube.load(None, None)


@pytest.mark.parametrize("text", ["- a", "x", "a: [", "contexts: [1]", ""])
def test_a_broken_kubeconfig_completes_no_context(use, tmp_path: Path, text: str) -> None:
    """A traceback would stand in the line that is typed."""
    file = tmp_path / "config"
    file.write_text(text)
    use(file)
    assert completing.context_names("") == []


def test_contexts_are_completed_where_none_is_current(use, tmp_path: Path) -> None:
    """Then one must be typed."""
    use(*(kubeconfig(tmp_path / name, "https://a", name, current=None) for name in ("two", "one", "tree")))
    assert completing.context_names("") == ["one", "tree", "two"]
    assert completing.context_names("t") == ["tree", "two"]


def test_the_context_is_that_of_kubectl(use, tmp_path: Path) -> None:
    first = kubeconfig(tmp_path / "first", "https://127.0.0.1:1", name="one", current="one")
    second = kubeconfig(tmp_path / "second", "https://127.0.0.1:2", name="two", current="two")
    none = kubeconfig(tmp_path / "none", "https://127.0.0.1:3", name="three", current=None)
    for files, expected in (((first, second), "one"), ((second, first), "two"), ((none, second), "two")):
        paths = use(*files)
        command = [str(kubectl()), "config", "current-context"]
        theirs = subprocess.run(command, env={"KUBECONFIG": paths}, capture_output=True, text=True, check=True)
        assert theirs.stdout.strip() == expected
        assert Kube.load(None, None).namespace == f"of-{expected}"
    use(none)
    assert Kube.load("three", None).namespace == "of-three", "no context is current, and one is named"


def test_a_server_that_takes_a_connection_and_says_nothing_is_given_up(use, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(connecting, "SECONDS", (5.0, 0.2))
    asked, released = threading.Event(), threading.Event()

    class Silent(Handler):
        def do_GET(self) -> None:  # noqa: N802
            asked.set()
            released.wait(30)

    with serve(Silent) as server:
        use(kubeconfig(tmp_path / "config", server, token="x"))
        with pytest.raises(CommandError, match=f"does not answer at {server}: Read timed out"):
            Kube.load(None, None).call("GET", PATH)
        released.set()
    assert asked.is_set()
