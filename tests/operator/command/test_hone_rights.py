"""The rights that each command of `hone` asks for: with all of them but one, a line names the one that is missing.

The API server and its RBAC are real. Operator, kubelet and the way into a pod are played: what would go through the
way ends there.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.cluster.hand import Namespace
from support.cluster.rights import Account, token
from support.lives.filled import AT, IMAGE, fill, stored
from support.lives.shell import JOB, shell, write_files

from hone_cli.__main__ import _COMMANDS, _OF_PODS
from hone_cli.errors import CliExit, CommandError
from hone_cli.reach import connecting, pod, running
from hone_cli.reach.rights import role_of
from hone_cli.rows import upload
from hone_cli.runs import sweep

pytestmark = pytest.mark.apiserver
CALLS = {
    "upload (ConfigMap)": "upload rows.jsonl new",
    "upload (claim)": "upload large.jsonl new",
    "plan": "plan both.yaml",
    "run": "run both.yaml --yes --detach",
    "watch": "watch over",
    "list": "list",
    "logs": "logs job",
    "suspend": "suspend job",
    "resume": "resume job",
    "cancel": "cancel job --yes",
    "compare": "compare job over",
    "sweep": "sweep job.yaml --vary adapter.rank=8,16 -y --name trials",
    "bundle": "bundle job",
    "dataset review": "dataset review synthetic --web",
    "download": "download bot:1 copy",
    "report": "report bot:1",
    "chat": "chat bot:1",
    "serve": "serve bot:1",
    "models": "models",
    "approve": "approve bot:1 --despite-gates --comment why",
    "reject": "reject bot:1 --comment bad",
    "retrain": "retrain bot",
    "migrate report": "migrate report moved",
}
GROUPS = {"finetunejobs": "hone.dev", "datasets": "hone.dev", "models": "hone.dev", "modelversions": "hone.dev"}
GROUPS |= {"jobs": "batch"}
VERBS = {"POST": "create", "PATCH": "patch", "DELETE": "delete", "PUT": "update"}
REQUEST = re.compile(
    r"/api(?:s/[^/]+)?/[^/]+/namespaces/[^/]+/(?P<kind>[a-z]+)(?:/(?P<name>[^/?]+))?(?:/(?P<sub>[a-z]+))?"
)
Right = tuple[str, str]
"""A verb and a resource."""


def right(method: str, url: str) -> Right | None:
    """What a request to the API server asks for; None: nothing of a namespace."""
    if not (found := REQUEST.search(url)):
        return None
    kind, name, sub = found.groups()
    verb = VERBS.get(method) or ("get" if name else "list")
    return verb, f"{kind}/{sub}" if sub else kind


@pytest.fixture
def asked(monkeypatch) -> set[Right]:
    """The rights that commands have asked for."""
    rights: set[Right] = set()
    call = connecting.ApiConnection.call_api

    def called(self: Any, method: str, url: str, *rest: Any, **more: Any) -> Any:
        rights.add(right(method, url) or ("", ""))
        return call(self, method, url, *rest, **more)

    monkeypatch.setattr(connecting.ApiConnection, "call_api", called)
    return rights


@pytest.fixture
def scene(namespace, monkeypatch, tmp_path) -> Namespace:
    """What the commands find, and those who answer them."""
    fill(namespace)
    spec = namespace.get("FineTuneJob", "job")["spec"]
    namespace.create("FineTuneJob", "over", spec)
    ended = {"status": "True", "reason": "Succeeded", "message": "", "lastTransitionTime": AT}
    conditions = [{"type": type_, **ended} for type_ in ("Finished", "Succeeded")]
    status = {"phase": "Succeeded", "conditions": conditions, "modelVersionName": "bot-v1"}
    namespace.patch("FineTuneJob", "over", {"status": status}, "status")
    labels = {"hone.dev/finetunejob": "job", "hone.dev/component": "training", "hone.dev/attempt": "1"}
    container = {"name": "trainer", "image": "trainer"}
    body = {"metadata": {"name": "job-1-0", "labels": labels}, "spec": {"containers": [container]}}
    namespace.kube.call("POST", f"/api/v1/namespaces/{namespace.name}/pods", body)
    write_files(tmp_path, JOB.replace("name: job", "name: new"))
    (tmp_path / "moved").mkdir()
    record = {
        "name": "bot",
        "margin": 0.05,
        "price": 1,
        "parity": [],
        "notes": [],
        "unmapped": {fate: {} for fate in ("differs", "unknown", "dropped")},
    }
    (tmp_path / "moved/migration.json").write_text(json.dumps(record))
    monkeypatch.chdir(tmp_path)
    create, tail, settings = running.create, running.log_tail, upload._settings

    def created(kube: Any, body: Any) -> str:
        name = create(kube, body)
        ready = {
            "name": body["spec"]["containers"][0]["name"],
            "image": "x",
            "imageID": "",
            "ready": True,
            "restartCount": 0,
        }
        namespace.patch("Pod", name, {"status": {"phase": "Running", "containerStatuses": [ready]}}, "status")
        return name

    def tailed(kube: Any, name: str) -> str:
        tail(kube, name)  # no kubelet has the log
        return pod.LISTENING

    def settled(objects: Any, name: str) -> Any:
        namespace.patch("Dataset", name, {"status": {"uploadPod": {**IMAGE, "claim": "hone-store"}}}, "status")
        return settings(objects, name)

    def tunnel(*_: Any) -> Any:
        raise CommandError("the way is open")

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "create", created)
    monkeypatch.setattr(running, "log_tail", tailed)
    monkeypatch.setattr(running, "Tunnel", tunnel)
    monkeypatch.setattr(upload, "_settings", settled)
    monkeypatch.setattr(sweep, "time", SimpleNamespace(**{**vars(time), "sleep": stop}))
    return namespace


@pytest.fixture
def hone(scene, apiserver, monkeypatch, capsys):
    return shell(scene, apiserver, monkeypatch, capsys)


@pytest.fixture
def person(kube, scene, apiserver, tmp_path):
    """Makes the kubeconfig of a person with these rights in the namespace, and no others."""
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{scene.name}"

    def make(rights: set[Right]) -> Path:
        meta = {"name": "person"}
        rules = [{"apiGroups": [GROUPS.get(what, "")], "resources": [what], "verbs": [verb]} for verb, what in rights]
        kube.call("POST", f"{path}/roles", {"metadata": meta, "rules": rules})
        scene.create("ServiceAccount", "person")
        subject = {"kind": "ServiceAccount", "name": "person", "namespace": scene.name}
        ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "person"}
        kube.call("POST", f"{path}/rolebindings", {"metadata": meta, "roleRef": ref, "subjects": [subject]})
        account = Account(kube, token(kube, scene.name, "person"))
        verb, what = min(rights)
        attributes = {"namespace": scene.name, "verb": verb, "resource": what, "group": GROUPS.get(what, "")}
        review = {"spec": {"resourceAttributes": attributes}}
        url = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        scene.until(lambda: account.call("POST", url, review).body["status"]["allowed"], "the role is in force")
        return account.kubeconfig(apiserver, tmp_path / "person")

    return make


PAGE = (Path(__file__).parents[3] / "docs/guides/security.md").read_text()
POD = re.search(r"`a pod` is: ([^.]+)\.", PAGE)[1]
TABLE = PAGE.partition("| Command | Needs | Reads if it may |\n| --- | --- | --- |\n")[2].partition("\n\n")[0]
UNSEEN = {("create", "configmaps"), ("get", "pods/portforward"), ("create", "pods/portforward")}
"""Of what apply creates, and of the way into a pod, which is played here."""


def rights_of(cell: str) -> set[Right]:
    words = cell.replace("a pod", POD).split(", ")
    return {(verb, what) for verb, _, what in (each.partition(" ") for each in words) if verb}


ROWS_OF_PAGE = [[cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.splitlines()]
NEEDED = {name: rights_of(needs) for name, needs, _ in ROWS_OF_PAGE}
USED = {name: rights_of(reads) for name, _, reads in ROWS_OF_PAGE}
EVERY = set[Right]().union(*NEEDED.values(), *USED.values())
CASES = [(name, right) for name, rights in NEEDED.items() for right in sorted(rights)]


def test_every_command_is_in_the_table() -> None:
    without = {"check", "init", "convert", "recipes", "usage", "explain", "mirror", "doctor", "mcp", "ui"}
    assert [*CALLS] == [*NEEDED]
    words = {name.split()[0] for name in _COMMANDS if name not in _OF_PODS}
    assert {name.split()[0] for name in CALLS} == words - without


@pytest.mark.parametrize(("name", "missing"), CASES, ids=str)
def test_a_missing_right_is_named_and_nothing_is_begun(hone, person, scene, name, missing) -> None:
    kubeconfig, before = person(EVERY - {missing}), stored(scene)
    said = hone(CALLS[name], kubeconfig)
    assert said.code in (CliExit.FAILED, CliExit.REFUSED), said
    text = said.out + "\n".join(said.err)
    (line,) = {re.sub(r".*refused: ", "", line).strip() for line in text.splitlines() if "cannot" in line}
    verb, what = missing
    assert f'cannot {verb} resource "{what}"' in line
    assert f"ask for the role {role_of(*missing)} there" in line
    assert said.code == CliExit.REFUSED or said.err[-1].startswith("hone: "), said
    assert stored(scene) == before


@pytest.mark.parametrize("name", CALLS)
def test_no_other_right_is_used(hone, person, asked, scene, name) -> None:
    needed, used = NEEDED[name], USED[name]
    said = hone(CALLS[name], person(needed))
    assert said.code in (CliExit.DONE, CliExit.RUN_FAILED, 130) or said.err[-1] == "hone: the way is open", said
    assert needed - UNSEEN <= asked - {("", "")} <= needed | used


UNANSWERED = ("logs", "bundle", "dataset review", "report", "chat", "download", "upload (claim)", "sweep")
"""Commands without `-o json`, and those that end here before their answer."""


@pytest.mark.parametrize("name", [name for name in CALLS if name not in UNANSWERED])
def test_the_answer_is_one_json_document(hone, name) -> None:
    said = hone(f"{CALLS[name]} -o json")
    assert said.code in (CliExit.DONE, CliExit.RUN_FAILED), said
    assert json.loads(said.out)
