"""`python -m hone_dev canary`: what counts as the shares of a route, and that the routes lead to the servers."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from hone_cli.serving import httproute
from hone_cli.serving.models import served
from hone_cli.serving.vllm import Server
from hone_dev.canary import objects
from hone_dev.canary.command import shares_are

pytestmark = pytest.mark.pure
VERSIONS: Any = [SimpleNamespace(name=f"bot-v{number}", address=f"10.0.0.{number}") for number in (1, 2)]


@pytest.mark.parametrize(
    ("answers", "wanted", "are"),
    [
        ({"bot-v1": 900, "bot-v2": 100}, [0.9, 0.1], True),
        ({"bot-v1": 870, "bot-v2": 130}, [0.9, 0.1], True),
        ({"bot-v1": 500, "bot-v2": 500}, [0.9, 0.1], False),
        ({"bot-v1": 1000}, [1.0, 0.0], True),
        ({"bot-v1": 999, "bot-v2": 1}, [1.0, 0.0], False),
        ({"bot-v1": 999, "": 1}, [1.0, 0.0], False),
        ({"": 1000}, [0.5, 0.5], False),
    ],
)
def test_each_version_has_its_share_of_the_answers(answers: dict[str, int], wanted: list[float], are: bool) -> None:
    assert shares_are(Counter(answers), VERSIONS, wanted) is are


def test_the_printed_route_leads_to_the_services_of_the_versions() -> None:
    versions = served([objects.model_version(number) for number in (1, 2)])
    server = Server(objects.MODEL, objects.NAMESPACE, "image")
    gateway = f"{objects.PLATFORM}/{objects.GATEWAY}"
    [route] = httproute.render(versions, server, httproute.Sharing("90,10", gateway=gateway))
    bodies = objects.everything(VERSIONS, 18000)
    [public] = [body["metadata"] for body in bodies if body["kind"] == "Gateway"]
    assert route["spec"]["parentRefs"] == [{"name": public["name"], "namespace": public["namespace"]}]
    services = {(b["metadata"]["name"], b["spec"]["ports"][0]["port"]) for b in bodies if b["kind"] == "Service"}
    assert {(b["name"], b["port"]) for b in route["spec"]["rules"][0]["backendRefs"]} == services
