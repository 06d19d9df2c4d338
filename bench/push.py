"""Compares deliveries with the plain clients of each store: time for the same bytes, and bytes of a second version.

    make setup && .venv/bin/python bench/push.py [--megabytes 300] [--repeats 3] [--only oci]

Against servers on this machine, alternating. Hone compares each file with its manifest while it sends it, and what
arrived with what was sent. The others send the same files:

- s3: boto3's `upload_file` with its defaults, to versitygw.
- oci: `oras push`, and `tar`, `sha256sum` and `curl`, to docker-registry. Hone makes the layers while it sends them.
- hf: `upload_folder` of huggingface_hub, to the hub of the tests.
- pvc: `cp`, `sync` and `cmp`.

Both by the clock and by the CPU seconds of the client and its children, the servers' not included. Imports do not
count. Exit code 1 when Hone takes more than 1.25 times a plain client's time by the clock (on a machine that nobody
else uses), or when a second version sends more than the one file of weights that changed and a MiB (oci and hf).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table

from hone_dev import hub
from hone_dev.cluster import binaries, imageregistry, objectstore

RATE = 0.8
"""Bound: the plain client's seconds by Hone's."""
FILES = 3
COLUMNS = (
    "Store",
    "Next to",
    "Seconds of",
    "Hone",
    "Plain client",
    "Rate to its",
    "Second version sent",
)
TOKEN = "hf_benchBenchBenchBench42"


@dataclass(frozen=True)
class Store:
    """Where a model goes, and who else can bring it there.

    Args:
        target: fields of Hone's plan for a place of this name.
        others: (words, key of CALLS, its arguments after the folder for a place of this name).
        sends_less: whether a second version sends only what differs.
        environment: variables of all clients.
        forget: called before each client, so that none finds what another one has sent.
    """

    target: Callable[[str], dict[str, Any]]
    others: Sequence[tuple[str, str, Callable[[str], tuple[Any, ...]]]]
    sends_less: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    forget: Callable[[], None] = lambda: None


def write_model(folder: Path, megabytes: int, seed: int) -> str:
    """Write a tokenizer and weights in files of equal size; the seed changes only the last. Returns the digest."""
    from hone_trainer.store import manifest

    folder.mkdir(parents=True)
    for number in range(FILES):
        random = Random(seed if number == FILES - 1 else number)
        with open(folder / f"model-{number}.safetensors", "wb") as file:
            for _ in range(megabytes // FILES):
                file.write(random.randbytes(2**20))
    (folder / "tokenizer.json").write_bytes(Random(0).randbytes(2**20))
    return manifest.write(folder)


def deliver(folder: str, digest: str, fields: dict[str, Any], version: int) -> dict[str, Any]:
    """Hone's delivery; returns its result."""
    from hone_api.plan import DeliverPlan
    from hone_trainer.artifacts.delivery import deliver as delivery

    plan = DeliverPlan.model_validate(
        {
            "name": f"model-v{version}",
            "version": version,
            "artifact": {"path": folder, "digest": digest},
            "limits": {"allowPrivateAddresses": True},
            **fields,
        }
    )
    return delivery.run(plan).to_json()


def upload_files(folder: str, endpoint: str, key: str, secret: str, prefix: str) -> None:
    """The plain client of S3."""
    import boto3

    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id=key, aws_secret_access_key=secret, region_name="us-east-1"
    )
    for path in sorted(Path(folder).iterdir()):
        client.upload_file(str(path), "models", f"{prefix}/{path.name}")


def curl(folder: str, host: str, name: str) -> None:
    """The plain client of a registry: a tar of each file, its digest, and an upload."""
    with tempfile.TemporaryDirectory(dir=Path(folder).parent) as work:
        for path in sorted(Path(folder).iterdir()):
            layer = f"{work}/layer.tar"
            subprocess.run(["tar", "cf", layer, "-C", folder, path.name], check=True)
            digest = subprocess.run(["sha256sum", layer], check=True, capture_output=True, text=True).stdout.split()[0]
            post = ["curl", "-sSi", "-X", "POST", f"http://{host}/v2/{name}/blobs/uploads/"]
            head = subprocess.run(post, check=True, capture_output=True, text=True).stdout
            place = next(line.split(": ")[1] for line in head.splitlines() if line.lower().startswith("location"))
            url = f"{place.strip()}&digest=sha256:{digest}"
            subprocess.run(
                ["curl", "-sSf", "-T", layer, "-H", "Content-Type: application/octet-stream", url], check=True
            )


def oras(folder: str, program: str, reference: str) -> None:
    """The registries' own client: each file is a layer."""
    names = [path.name for path in sorted(Path(folder).iterdir())]
    subprocess.run([program, "push", "--plain-http", "--no-tty", reference, *names], cwd=folder, check=True)


def upload_folder(folder: str, name: str) -> None:
    """The plain client of the hub."""
    from huggingface_hub import HfApi

    api = HfApi(token=TOKEN)
    api.create_repo(name)
    api.upload_folder(repo_id=name, folder_path=folder)


def copy(folder: str, place: str) -> None:
    """What a person does to be as sure of a copy as Hone is."""
    subprocess.run(["cp", "-r", folder, place], check=True)
    subprocess.run(["sync", "-f", place], check=True)
    for path in sorted(Path(folder).iterdir()):
        subprocess.run(["cmp", path, f"{place}/{path.name}"], check=True)


CALLS: dict[str, Callable[..., dict[str, Any] | None]] = {
    "deliver": deliver,
    "upload_files": upload_files,
    "curl": curl,
    "oras": oras,
    "upload_folder": upload_folder,
    "copy": copy,
}


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock and of the CPU, and the result of a call."""

    clock: float
    cpu: float
    result: Any


def measured(environment: Mapping[str, str], call: str, *arguments: Any) -> Cost:
    """A call in a process of its own, without imports."""
    argv = [sys.executable, __file__, "--call", json.dumps([call, arguments])]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, env={**os.environ, **environment})
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def run_call(text: str) -> None:
    """One call, for `measured`."""
    for module in ("boto3", "botocore.config", "huggingface_hub", "hone_trainer.artifacts.delivery.deliver"):
        import_module(module)
    call, arguments = json.loads(text)
    clock, cpu = time.perf_counter(), sum(os.times()[:4])
    result = CALLS[call](*arguments)
    took = {"clock": time.perf_counter() - clock, "cpu": sum(os.times()[:4]) - cpu}
    print(json.dumps({**took, "result": result}))


@contextmanager
def s3(work: Path) -> Iterator[Store]:
    """versitygw."""
    (work / "s3").mkdir()
    with objectstore.serve(work / "s3") as server:
        server.bucket("models")
        names = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
        secret = secret_of(work, **names)
        endpoint = {"endpoint": server.endpoint}
        keys = (server.endpoint, *names.values())
        yield Store(
            lambda place: {"target": {"uri": f"s3://models/{place}", "s3": endpoint}, "secretPath": secret},
            [("upload_file of boto3", "upload_files", lambda place: (*keys, place))],
        )


@contextmanager
def oci(work: Path) -> Iterator[Store]:
    """Debian's docker-registry."""
    program = str(binaries.program("oras"))
    with imageregistry.serve(work / "oci") as server:
        yield Store(
            lambda place: {"target": {"uri": f"oci://{server.host}/{place}"}},
            [
                ("oras push", "oras", lambda place: (program, f"{server.host}/{place}:v1")),
                ("tar, sha256sum and curl", "curl", lambda place: (server.host, place)),
            ],
            sends_less=True,
        )


@contextmanager
def hf(work: Path) -> Iterator[Store]:
    """The hub of the tests."""
    with hub.serve(work / "hf", writers=frozenset({TOKEN})) as url:
        secret = secret_of(work, HF_TOKEN=TOKEN)
        yield Store(
            lambda place: {"target": {"uri": f"hf://team/{place}"}, "secretPath": secret},
            [("upload_folder of huggingface_hub", "upload_folder", lambda place: (f"team/{place}",))],
            sends_less=True,
            forget=lambda: shutil.rmtree(work / "hf" / ".lfs", ignore_errors=True),
            environment={"HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        )


@contextmanager
def pvc(work: Path) -> Iterator[Store]:
    """A folder."""
    (work / "pvc").mkdir()

    def target(place: str) -> dict[str, Any]:
        return {"target": {"uri": f"pvc://claim/{place}"}, "targetPath": str(work / "pvc" / place)}

    yield Store(target, [("cp, sync and cmp", "copy", lambda place: (str(work / "pvc" / place),))])


STORES = {"s3": s3, "oci": oci, "hf": hf, "pvc": pvc}


def secret_of(work: Path, **keys: str) -> str:
    """A folder as a Secret is mounted."""
    folder = work / "secret"
    folder.mkdir()
    for name, value in keys.items():
        (folder / name).write_text(value)
    return str(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=300, help="size of the model")
    parser.add_argument("--repeats", type=int, default=3, help="deliveries by each client; the median counts")
    parser.add_argument("--only", nargs="*", choices=STORES, default=STORES, help="stores to compare")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.call:
        run_call(options.call)
        return 0
    table = Table(*COLUMNS)
    with tempfile.TemporaryDirectory(prefix="hone-push-") as temporary:
        models = Models.write(Path(temporary) / "models", options.megabytes)
        held = [compare(name, models, Path(temporary) / name, options.repeats, table) for name in options.only]
    Console(width=140).print(table)
    return int(not all(held))


@dataclass(frozen=True)
class Models:
    """Two versions of a model: their folders and digests."""

    first: tuple[str, str]
    second: tuple[str, str]
    most_sent: int
    """Bytes that the second may send after the first."""

    @classmethod
    def write(cls, folder: Path, megabytes: int) -> Models:
        """Write them; all but one file of weights is the same."""
        first, second = folder / "first", folder / "second"
        return cls(
            first=(str(first), write_model(first, megabytes, 7)),
            second=(str(second), write_model(second, megabytes, 8)),
            most_sent=(megabytes // FILES + 1) * 2**20,
        )


def compare(name: str, models: Models, work: Path, repeats: int, table: Table) -> bool:
    """Measure one store, add its rows to the table, and return whether the bounds held. Its folder is removed."""
    work.mkdir()
    folder, digest = models.first
    with STORES[name](work) as store:
        own: list[Cost] = []
        plain: dict[str, list[Cost]] = {words: [] for words, *_ in store.others}
        for repeat in range(repeats):
            store.forget()
            own.append(measured(store.environment, "deliver", folder, digest, store.target(f"r{repeat}"), 1))
            for number, (words, call, arguments) in enumerate(store.others):
                store.forget()
                others = arguments(f"p{number}-{repeat}")
                plain[words].append(measured(store.environment, call, folder, *others))
        sent, held = "", True
        if store.sends_less:
            result = measured(store.environment, "deliver", *models.second, store.target(f"r{repeats - 1}"), 2).result
            sent = f"{result['uploadedBytes'] / 2**20:.0f} of {result['sizeBytes'] / 2**20:.0f} MiB"
            held = result["uploadedBytes"] <= models.most_sent
    for words, costs in plain.items():
        for what in ("clock", "cpu"):
            ours, theirs = (statistics.median(getattr(cost, what) for cost in each) for each in (own, costs))
            table.add_row(name, words, what, f"{ours:.2f}", f"{theirs:.2f}", f"{theirs / ours:.2f}", sent)
            held &= what == "cpu" or theirs / ours >= RATE
    shutil.rmtree(work)
    return held


if __name__ == "__main__":
    sys.exit(main())
