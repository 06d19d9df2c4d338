"""`hone mcp` by the SDK's own client, at a real API server; and the protocol by its conformance suite."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import requests
import yaml
from mcp import Client as McpClient
from mcp import StdioServerParameters
from support.cluster.rights import Account, token

from hone import Client, DatasetSpec, FineTuneJobSpec, manifest
from hone_cli.clients.agents import server
from hone_cli.errors import CommandError
from hone_dev.tools import packages, paths
from hone_dev.tools.shell import locked, run

pytestmark = pytest.mark.apiserver
ROOT = Path(__file__).resolve().parents[3]
CONFORMANCE = "0.1.16"
NODE = "22.23.3"
"""The suite needs it; npm has it as a package, so that the machine's own may be older."""
HOLD = {
    "dns-rebinding-protection": 2,
    "ping": 1,
    "prompts-list": 1,
    "resources-list": 1,
    "server-initialize": 1,
    "server-sse-multiple-streams": 2,
    "tools-call-error": 1,
    "tools-list": 1,
}
"""Scenarios about the protocol, and their checks. All others ask for a tool, a resource or a prompt of the suite's own
server, or for what Hone does not declare: logging, completions, subscriptions, sampling, elicitation."""
BY_CHANCE = {"tools-call-simple-text"}
"""Asks for a tool of the suite's own server, and takes the error for its text."""
READS = {"discover", "check", "plan", "watch", "explain", "compare"}
PRICES = "currency: EUR\ngpuHour: {}\ncoreHour: 0.05\n"


def text(*bodies):
    return yaml.safe_dump_all(bodies)


def dataset(name="rows", **spec):
    checked = {"splits": [{"name": "train", "rows": 900}], "tokens": {"mean": 100, "max": 400}}
    body = manifest(name, DatasetSpec.model_validate({"source": {"uri": "pvc://data/rows.jsonl"}, **spec}))
    body["metadata"]["annotations"] = {"hone.dev/checked": json.dumps(checked)}
    return body


def job(name="job", **spec):
    body = {"model": {"uri": "hf://Qwen/Qwen2.5-0.5B-Instruct"}, "datasets": [{"name": "rows"}], **spec}
    body |= {"output": {"modelName": "bot"}, "resources": {"gpusPerNode": 0, "memory": "64Gi", "cpu": "4"}}
    return manifest(name, FineTuneJobSpec.model_validate(body))


@pytest.fixture
def agent(namespace, apiserver, tmp_path):
    """Starts `hone mcp` and connects to it as a host does."""
    (tmp_path / "prices.yaml").write_text(PRICES)

    @asynccontextmanager
    async def connect(*words, kubeconfig=apiserver):
        arguments = ["-m", "hone_cli", "mcp", "--namespace", namespace.name, "--prices", str(tmp_path / "prices.yaml")]
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "PYTHONPATH": ":".join(sys.path)}
        program = StdioServerParameters(command=sys.executable, args=[*arguments, *words], env=environment)
        async with McpClient(program) as client:
            yield client

    return connect


async def asked(client, tool, **arguments):
    """What a tool answers; a refusal as its text."""
    result = await client.call_tool(tool, arguments)
    return result.content[0].text if result.is_error else result.structured_content


async def test_tools_say_what_they_are_and_only_one_writes(agent) -> None:
    async with agent() as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == READS | {"propose"}
        assert {name for name, tool in tools.items() if tool.annotations.read_only_hint} == READS
        assert all(len(tool.description) > 60 and tool.output_schema for tool in tools.values())
        assert "data, not instructions" in client.instructions
        (explained,) = [await asked(client, "explain", code="doesnotfit")]
        assert explained["code"] == "DoesNotFit"
        assert "no code or reason is called Nope" in await asked(client, "explain", code="Nope")
        assert "is an option, not a file" in await asked(client, "check", source="--html=x")
    async with agent("--persona", "observer") as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == READS


async def test_what_is_proposed_waits_for_a_person(agent, namespace, tmp_path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"question": f"q {i}?", "answer": f"a {i}."}) + "\n" for i in range(50))
    )
    async with agent() as client:
        looked = await asked(client, "check", source=str(tmp_path / "rows.jsonl"))
        assert (looked["rows"], looked["formatDetected"][:6]) == (50, "Prompt")
        planned = await asked(client, "plan", manifest=text(dataset(), job()))
        assert (planned["exitCode"], planned["jobs"][0]["currency"]) == (0, "EUR")
        assert planned["jobs"][0]["price"]["low"] > 0
        assert namespace.names("Dataset") == namespace.names("FineTuneJob") == []
        proposed = await asked(client, "propose", manifest=text(dataset(), job(suspend=False)))
        assert proposed["created"] == ["Dataset rows", "FineTuneJob job"]
        assert proposed["plan"]["jobs"][0]["price"] == planned["jobs"][0]["price"]
        assert proposed["release"][1] == f"hone resume job -n {namespace.name}"
        assert all(
            namespace.get(kind, name)["spec"]["suspend"] for kind, name in (("Dataset", "rows"), ("FineTuneJob", "job"))
        )
        again = await asked(client, "propose", manifest=text(dataset(), job(training={"epochs": "9"})))
        assert again["created"] == again["release"] == []
        assert "+  epochs: '9'" in again["patches"]["FineTuneJob job"]
        assert namespace.get("FineTuneJob", "job")["spec"]["training"].get("epochs") != "9"
        watched = await asked(client, "watch", job="job")
        assert (watched["over"], watched["suspended"]) == (False, True)
        found = await asked(client, "discover")
        assert [row["name"] for row in found["runs"]] == ["job"]
        assert found["datasets"][0]["suspended"] is True


async def test_nothing_is_proposed_that_is_refused_or_cannot_wait(agent, namespace) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hone-hub"}, "stringData": {"HF_TOKEN": "x"}}
    wrong = job("wrong")
    wrong["spec"]["colour"] = "red"
    async with agent() as client:
        assert "only Datasets and FineTuneJobs wait" in await asked(client, "propose", manifest=text(secret, job()))
        refused = await asked(client, "propose", manifest=text(dataset(), job(), wrong))
        assert (refused["created"], refused["plan"]["exitCode"]) == ([], 3)
        assert "nothing was created" in refused["why"]
        assert "is not YAML" in await asked(client, "propose", manifest="a: [")
        assert "hone applies" in await asked(client, "plan", manifest=text({**secret, "kind": "Pod"}))
    assert namespace.names("Dataset") == namespace.names("FineTuneJob") == []


def dear(name="dear"):
    body = job(name, budget={"gpuHours": "0.00001"})
    body["spec"]["resources"] = {"gpusPerNode": 1, "gpuProducts": ["NVIDIA-L4"]}
    return body


async def test_a_proposal_that_exceeds_its_budget_or_stops_a_model_from_retraining_is_not_created(
    agent, namespace
) -> None:
    async with agent() as client:
        proposed = await asked(client, "propose", manifest=text(dataset(), dear()))
        assert (proposed["created"], proposed["plan"]["exitCode"]) == ([], 4)
        assert "exceeds its budget" in proposed["why"]
        namespace.create("Model", "bot", {"retrain": {"fineTuneJob": "first"}})
        assert "Model bot retrains by itself" in await asked(client, "propose", manifest=text(dataset(), job()))
    assert namespace.names("Dataset") == namespace.names("FineTuneJob") == []


async def test_what_is_proposed_has_no_owner_and_no_finalizer(agent, namespace) -> None:
    body = job()
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "absent", "uid": "x"}
    body["metadata"] |= {"ownerReferences": [owner], "finalizers": ["hone.dev/x"], "labels": {"team": "a"}}
    body["metadata"]["annotations"] = {"hone.dev/restored": "true"}
    async with agent() as client:
        assert (await asked(client, "propose", manifest=text(dataset(), body)))["created"]
    meta = namespace.get("FineTuneJob", "job")["metadata"]
    assert not {"ownerReferences", "finalizers", "annotations"} & set(meta)
    assert meta["labels"] == {"team": "a"}
    assert list(namespace.get("Dataset", "rows")["metadata"]["annotations"]) == ["hone.dev/checked"]


@pytest.mark.parametrize("spec", [None, ["a"]])
async def test_a_manifest_without_a_spec_is_refused_in_words(agent, namespace, spec) -> None:
    namespace.create("FineTuneJob", "job", job()["spec"] | {"suspend": True})
    async with agent() as client:
        assert "FineTuneJob job has no spec" in await asked(client, "propose", manifest=text({**job(), "spec": spec}))


async def test_an_agent_that_may_only_create_cannot_release_what_it_proposed(
    agent, namespace, kube, apiserver, tmp_path
) -> None:
    space, group = namespace.name, "rbac.authorization.k8s.io"
    objects = ["finetunejobs", "datasets", "models", "modelversions"]
    role = {"apiVersion": f"{group}/v1"}
    rules = [{"apiGroups": ["hone.dev"], "resources": objects, "verbs": ["get", "list", "create"]}]
    rules += [{"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get", "list"]}]
    meta, path = {"name": "agent"}, f"/apis/{group}/v1/namespaces/{space}"
    namespace.create("ServiceAccount", "agent")
    kube.call("POST", f"{path}/roles", {**role, "kind": "Role", "metadata": meta, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "agent", "namespace": space}
    binding = {"roleRef": {"apiGroup": group, "kind": "Role", "name": "agent"}, "subjects": [subject]}
    kube.call(
        "POST",
        f"{path}/rolebindings",
        {"apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": meta, **binding},
    )
    account = Account(kube, token(kube, space, "agent"))
    home = f"/apis/hone.dev/v1alpha1/namespaces/{space}/finetunejobs"
    namespace.until(lambda: account.call("GET", home).code == 200, "the role is in force")
    async with agent(kubeconfig=account.kubeconfig(apiserver, tmp_path / "agent")) as client:
        proposed = await asked(client, "propose", manifest=text(dataset(), job()))
        assert proposed["created"] == ["Dataset rows", "FineTuneJob job"], proposed
    released = account.call("PATCH", f"{home}/job", {"spec": {"suspend": False}}, "application/merge-patch+json")
    assert released.code == 403, released
    assert namespace.get("FineTuneJob", "job")["spec"]["suspend"] is True


def test_without_the_sdk_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp.server", None)
    with pytest.raises(CommandError, match=re.escape("pip install '.[cli,mcp]'")):
        server(None)


def installed() -> Path:
    """The folder with the programs of the suite, and a Node that it runs on."""
    folder = paths.cache("mcp-conformance", CONFORMANCE)
    with locked(folder / ".lock"):
        if not (folder / "node_modules" / ".bin" / "conformance").exists():
            packages.ensure(packages.NPM)
            wanted = (f"node@{NODE}", f"@modelcontextprotocol/conformance@{CONFORMANCE}")
            run("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, *wanted)
    return folder / "node_modules" / ".bin"


def serve(client, port) -> None:
    """The same server over HTTP, which the suite asks for."""
    threading.Thread(
        target=server(client).run, args=("streamable-http",), kwargs={"host": "127.0.0.1", "port": port}, daemon=True
    ).start()


@pytest.mark.outside
@pytest.mark.long
def test_the_conformance_suite_holds_where_it_applies(namespace, apiserver, monkeypatch, tmp_path, free_ports) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(apiserver))
    (port,), programs = free_ports(1), installed()
    serve(Client(namespace.name), port)
    url = f"http://127.0.0.1:{port}/mcp"

    def answers() -> bool:
        try:
            return requests.get(url, timeout=60).status_code > 0
        except requests.ConnectionError:
            return False

    namespace.until(answers, "the server answers")
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    command = [programs / "conformance", "server", "--url", url, "--suite", "all", "--output-dir", tmp_path]
    subprocess.run(command, env=environment, capture_output=True, text=True)
    found = {}
    for file in tmp_path.glob("*/checks.json"):
        name = re.sub(r"^server-(.+?)-\d{4}-\d\d-\d\dT.*$", r"\1", file.parent.name)
        states = [check["status"] for check in json.loads(file.read_text())]
        found[name] = (states.count("SUCCESS"), states.count("FAILURE"))
    passed = {name: good for name, (good, bad) in found.items() if good and not bad}
    for name, (good, bad) in sorted(found.items()):
        print(f"{name}: {good} passed, {bad} failed{'' if name in HOLD else '; does not apply'}")
    assert {name: passed.get(name) for name in HOLD} == HOLD
    assert set(passed) - set(HOLD) == BY_CHANCE
    row = next(line for line in (ROOT / "docs/outside.md").read_text().splitlines() if "MCP conformance" in line)
    assert f"| {len(found)} scenarios | {len(HOLD)} |" in row, len(found)
