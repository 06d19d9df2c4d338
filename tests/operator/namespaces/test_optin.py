"""What the operator makes in a labelled namespace, on an API server in memory that refuses, fails and is slow."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from support.cluster.memory_cluster import Body, MemoryCluster

from hone_operator.apiserver.errors import ClusterError, NamespaceGoneError
from hone_operator.desired.core.namespace import NamespaceSetup
from hone_operator.namespaces import optin
from hone_operator.settings import Settings

pytestmark = pytest.mark.pure
ROLE = "hone-system-hone-namespace"


class Server(MemoryCluster):
    """An API server with the chart's ClusterRole, whose next answer may be an error."""

    error: ClusterError | None = None

    def __init__(self) -> None:
        super().__init__(lambda: "2026-01-02T03:04:05Z")
        self.reads: list[str] = []
        self.objects["ClusterRole", "", ROLE] = {"kind": "ClusterRole", "metadata": {"name": ROLE, "uid": "role"}}

    async def get(self, kind: str, namespace: str | None, name: str) -> Body | None:
        self.reads.append(kind)
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        return await super().get(kind, namespace or "", name)

    async def create(self, body: Mapping[str, Any], brief: bool = False) -> Body:
        await asyncio.sleep(0)
        if body["kind"] == "SelfSubjectAccessReview":
            return {**body, "status": {"allowed": True}}
        return await super().create(body, brief)

    def made(self) -> list[str]:
        return sorted(kind for kind, namespace, _ in self.objects if namespace == "team")


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def opened(server: Server) -> Any:
    """A function that makes an operator's OptedInNamespaces for which namespace team has the label."""

    async def open_(**opt_in: Any) -> optin.OptedInNamespaces:
        config = Settings(
            namespace="hone-system",
            trainer={"image": "trainer:1"},
            opt_in={"role": ROLE, "service_account": "hone", **opt_in},
        )
        made = optin.OptedInNamespaces(server, config)
        await made._set("team", True)
        return made

    return open_


async def test_an_api_server_that_fails_says_nothing_about_the_namespace(server: Server, opened: Any) -> None:
    """Else each job of a namespace says that it is not enabled, and all are written twice, while the server is busy."""
    opt_in = await opened()
    for status in (429, 500, 503):
        server.error = ClusterError(status, "Busy", "try again")
        with pytest.raises(ClusterError, match="try again"):
            await opt_in.problem("team")
    server.error = ClusterError(403, "Forbidden", "no such right")
    closed = await opt_in.problem("team")
    assert closed is not None
    assert "no such right" in closed.message


async def test_a_namespace_that_is_being_deleted_is_let_go(server: Server, opened: Any) -> None:
    opt_in = await opened()
    server.error = NamespaceGoneError(403, "Forbidden", "it is being terminated")
    with pytest.raises(NamespaceGoneError):
        await opt_in.problem("team")


async def test_many_keys_of_a_namespace_ask_once(server: Server, opened: Any) -> None:
    opt_in = await opened()
    assert set(await asyncio.gather(*(opt_in.problem("team") for _ in range(12)))) == {None}
    assert sorted(server.reads) == ["ClusterRole", "NetworkPolicy", "RoleBinding"]
    assert server.made() == ["NetworkPolicy", "RoleBinding"]


@pytest.mark.parametrize("steps", range(12))
async def test_a_label_that_comes_and_goes_leaves_the_rights_that_the_last_one_says(
    server: Server, opened: Any, steps: int
) -> None:
    """Whenever it goes while another key enters: afterwards the operator's belief is what the API server has."""
    opt_in = await opened()
    entering = asyncio.create_task(opt_in.problem("team"))
    for _ in range(steps):
        await asyncio.sleep(0)
    await opt_in._set("team", False)
    await entering
    assert "RoleBinding" not in server.made()
    await opt_in._set("team", True)
    assert await opt_in.problem("team") is None
    assert "RoleBinding" in server.made()


async def test_nothing_is_kept_of_namespaces_that_are_gone(server: Server, opened: Any) -> None:
    """Neither of those that had the label, nor of those where somebody only made an object of Hone."""
    opt_in = await opened()
    for number in range(50):
        await opt_in._set(f"gone-{number}", True)
        assert await opt_in.problem(f"gone-{number}") is None
        await opt_in._set(f"gone-{number}", False)
        assert await opt_in.problem(f"never-{number}") is not None
    assert await opt_in.problem("team") is None
    kept = [name for value in vars(opt_in).values() if hasattr(value, "__len__") for name in value]
    assert kept == ["team", "team"], "that it has the label, and its rights"


async def test_ports_that_are_no_longer_closed_are_opened(server: Server, opened: Any) -> None:
    assert await (await opened()).problem("team") is None
    assert await (await opened(close_ports=False)).problem("team") is None
    assert server.made() == ["RoleBinding"]


async def test_a_policy_of_somebody_else_stays_where_ports_are_not_closed(server: Server, opened: Any) -> None:
    server.add({"kind": "NetworkPolicy", "metadata": {"name": ROLE, "namespace": "team"}, "spec": {}})
    assert await (await opened(close_ports=False)).problem("team") is None
    assert server.made() == ["NetworkPolicy", "RoleBinding"]


def test_what_is_empty_in_a_peer_is_left_out_as_the_api_server_leaves_it_out() -> None:
    """Else the policy that it gives back is another one, is replaced once a minute, and is missing meanwhile."""
    peers = [
        {"namespaceSelector": {}, "podSelector": {"matchLabels": {}, "matchExpressions": []}},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": []}, "podSelector": None},
        {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "Exists", "values": []}]}},
    ]
    (rule,) = NamespaceSetup("team", ROLE, "role").closed_ports(peers)["spec"]["ingress"]
    assert rule["from"] == [
        {"namespaceSelector": {}, "podSelector": {}},
        {"ipBlock": {"cidr": "10.0.0.0/8"}},
        {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "Exists"}]}},
    ]
