"""`python -m hone_dev canary`: shift requests from one version to the next, through a real gateway and back.

The API server, the definitions of the Gateway API and the gateway (Traefik) are real, and the routes are what
`hone serve` prints. The two servers only say which version they are: what is measured is who is asked. Traefik does not
know the filter RequestMirror, so routes with `--mirror` are not among them.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import requests
from rich.table import Table

from hone_api.words.states import ConditionType, Reason
from hone_dev.canary import answering, gateway, objects
from hone_dev.canary.answering import Version
from hone_dev.canary.objects import GATEWAY, MODEL, NAMESPACE, PLATFORM
from hone_dev.cluster import binaries
from hone_dev.cluster.controlplane import control_plane
from hone_dev.cluster.objectstore import free_port
from hone_dev.cluster.pki import Authority
from hone_dev.tools import paths
from hone_dev.tools.console import HoneDevError, console
from hone_dev.tools.shell import run as program

STEPS = ("100,0", "90,10", "50,50", "0,100", "100,0")
"""Weights of the two versions, in the order in which they are applied; the last one goes back."""
SIGMAS = 4.0
"""Of the binomial distribution: how far a share may be from its weight."""
GUARD = 600.0
"""Seconds; a guard against hanging, not an expectation."""


@dataclass(frozen=True)
class Row:
    """What one route did."""

    route: str
    answered: tuple[int, int]
    asked: tuple[int, int]
    refused: int
    is_as_printed: bool


@dataclass(frozen=True)
class Canary:
    """A cluster with two versions behind a gateway."""

    kubeconfig: Path
    address: str
    versions: list[Version]

    def apply(self, *options: str) -> None:
        """Apply the route that `hone serve` prints with these options."""
        names = [f"{MODEL}:{number}" for number in (1, 2)]
        argv = (sys.executable, "-m", "hone_cli", "serve", *names, "--to", "httproute", "--namespace", NAMESPACE)
        where = ("--gateway", f"{PLATFORM}/{GATEWAY}")
        self.kubectl("apply", "-f", "-", stdin=program(*argv, *where, *options, env=self._env))

    def kubectl(self, *argv: str, stdin: str | None = None) -> str:
        """Run kubectl as the administrator."""
        return program(binaries.kubernetes() / "kubectl", *argv, stdin=stdin, env=self._env)

    @property
    def _env(self) -> dict[str, str]:
        return {"KUBECONFIG": str(self.kubeconfig)}

    def ask(self, times: int) -> Counter[str]:
        """Who answered so many requests for the model; "" counts those without an answer."""
        said: Counter[str] = Counter()
        with requests.Session() as session:
            session.trust_env = False
            body = {"model": MODEL, "messages": [{"role": "user", "content": "What is a Pod?"}]}
            for _ in range(times):
                answer = session.post(f"{self.address}/v1/chat/completions", json=body, timeout=GUARD)
                said[answer.json()["choices"][0]["message"]["content"] if answer.ok else ""] += 1
        return said

    def until(self, what: str, is_so: Callable[[], bool]) -> None:
        """Wait for something that the gateway does on its own."""
        started = time.monotonic()
        while not is_so():
            if time.monotonic() - started > GUARD:
                raise HoneDevError(f"gave up waiting for {what}")
            time.sleep(0.2)


def run(times: int) -> bool:
    """Apply each route, ask `times` times, print who answered; whether all was as the routes say."""
    names = [f"{MODEL}-v{number}" for number in (1, 2)]
    with tempfile.TemporaryDirectory() as temporary, answering.serve(names) as versions:
        folder = Path(temporary)
        with control_plane(folder, controllers=True) as kubeconfig:
            port = free_port("127.0.0.1")
            canary = Canary(kubeconfig, f"http://127.0.0.1:{port}", versions)
            token = _prepare(canary, port)
            server = json.loads(canary.kubectl("config", "view", "-o", "json"))["clusters"][0]["cluster"]["server"]
            (folder / "gateway").mkdir()
            with gateway.serve(folder / "gateway", server, Authority(folder / "pki").certificate, token, port):
                rows = [_step(canary, weights, times) for weights in STEPS]
    return _show(rows, times)


def _prepare(canary: Canary, port: int) -> str:
    """Create all objects; the token of the gateway's account."""
    for source in (gateway.definitions(), *sorted((paths.SOURCE / "crds").glob("*.yaml"))):
        canary.kubectl("apply", "--server-side", "-f", str(source))
    canary.kubectl("wait", "--for=condition=Established", "customresourcedefinitions", "--all", f"--timeout={GUARD}s")
    for body in objects.everything(canary.versions, port):
        canary.kubectl("create", "-f", "-", stdin=json.dumps(body))
    ready = {"type": ConditionType.READY, "status": "True", "reason": Reason.VERIFIED, "message": ""}
    ready["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    for number in (1, 2):
        body = objects.model_version(number)
        canary.kubectl("create", "-f", "-", stdin=json.dumps(body))
        status = json.dumps({"status": {"conditions": [ready]}})
        name = body["metadata"]["name"]
        canary.kubectl(
            "patch", "modelversion", name, "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", status
        )
    return canary.kubectl("create", "token", "gateway", "-n", PLATFORM).strip()


def _step(canary: Canary, weights: str, times: int) -> Row:
    canary.apply("--weights", weights)
    wanted = [int(weight) / 100 for weight in weights.split(",")]
    _wait_for(canary, wanted)
    before = [version.asked for version in canary.versions]
    said = canary.ask(times)
    asked = [version.asked - count for version, count in zip(canary.versions, before, strict=True)]
    answered = [said[version.name] for version in canary.versions]
    return Row(
        weights,
        (answered[0], answered[1]),
        (asked[0], asked[1]),
        said[""],
        shares_are(said, canary.versions, wanted) and asked == answered,
    )


def _wait_for(canary: Canary, wanted: list[float]) -> None:
    """Until the gateway has the route, by who answers some requests."""
    canary.until("the gateway to follow the route", lambda: shares_are(canary.ask(100), canary.versions, wanted))


def shares_are(said: Counter[str], versions: list[Version], wanted: list[float]) -> bool:
    """Whether each version has its share of the answers."""
    times = said.total()
    return all(
        abs(said[version.name] - times * share) <= SIGMAS * math.sqrt(times * share * (1 - share))
        for version, share in zip(versions, wanted, strict=True)
    )


def _show(rows: list[Row], times: int) -> bool:
    table = Table("weights", "answers of v1", "answers of v2", "asked of v1", "asked of v2", "no answer", "held")
    for row in rows:
        held = row.is_as_printed and not row.refused
        counts = (*row.answered, *row.asked, row.refused)
        table.add_row(row.route, *(f"{count:,}" for count in counts), "yes" if held else "NO")
    console.print(table)
    console.print(f"{times:,} requests for each route, through {gateway.TRAEFIK}")
    return all(row.is_as_printed and not row.refused for row in rows)
