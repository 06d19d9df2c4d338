"""Prometheus' Alertmanager on this machine: Debian's package, on loopback only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from prometheus_client.parser import text_string_to_metric_families

from hone_dev.cluster.objectstore import free_port, running
from hone_dev.tools import packages

_SECONDS = 60.0
"""Until a request is given up: a guard."""
_FILE = "alertmanager.yml"


@dataclass(frozen=True)
class Alertmanager:
    """A running Alertmanager, whose configuration, storage and log are in `folder`."""

    address: str
    folder: Path

    def post(self, labels: dict[str, str], annotations: dict[str, str], **times: str) -> None:
        """An alert, as Prometheus posts it. `startsAt` and `endsAt` are times in RFC 3339."""
        alert = {"labels": labels, "annotations": annotations, **times}
        answer = requests.post(f"{self.address}/api/v2/alerts", json=[alert], timeout=_SECONDS)
        assert answer.ok, answer.text

    def groups(self) -> list[Any]:
        """The groups of alerts that it notifies about; a group ends once it has notified that its alerts ended."""
        answer = requests.get(f"{self.address}/api/v2/alerts/groups", timeout=_SECONDS)
        assert answer.ok, answer.text
        groups: list[Any] = answer.json()
        return groups

    def metric(self, name: str) -> int:
        """The value of a metric; of one that has a series for each integration, that of webhooks."""
        text = requests.get(f"{self.address}/metrics", timeout=_SECONDS).text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        [value] = [s.value for s in samples if s.name == name and s.labels.get("integration") in (None, "webhook")]
        return int(value)

    def log(self) -> str:
        """What it logged."""
        return (self.folder / "log").read_text(errors="replace")


@contextmanager
def serve(folder: Path, config: dict[str, Any]) -> Iterator[Alertmanager]:
    """Run Alertmanager with this configuration and its state in `folder` until the block ends."""
    packages.ensure(packages.ALERTMANAGER)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _FILE).write_text(json.dumps(config))
    host = f"127.0.0.1:{free_port('127.0.0.1')}"
    argv = [
        packages.ALERTMANAGER["prometheus-alertmanager"],
        f"--config.file={folder / _FILE}",
        f"--storage.path={folder / 'state'}",
        f"--web.listen-address={host}",
        "--cluster.listen-address=",
    ]
    with running("Alertmanager", argv, f"http://{host}/-/ready", folder, {}):
        yield Alertmanager(f"http://{host}", folder)
