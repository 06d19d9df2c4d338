"""Compares deliveries with the plain client of each store: time for the same bytes, and bytes of a second version.

    make setup && .venv/bin/python bench/push.py [--megabytes 300] [--repeats 3]

Against servers on this machine, in processes of their own, alternating:

- s3: Hone's delivery to versitygw, which compares each file with its manifest and each part with the server's hash;
  boto3's `upload_file` of the same files, with its defaults.
- oci: Hone's delivery to docker-registry, which compares each file with its manifest and makes the layers while it
  sends them; `tar`, `sha256sum` and `curl` of the same files.

Both by the clock and by the CPU seconds of the client and its children, the servers' not included. Imports do not
count. Exit code 1 when Hone takes more than 1.25 times the plain client's time by the clock (on a machine that nobody
else uses), or when a second version sends more than the one file of weights that changed and a MiB.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table

from hone_dev import imageregistry, objectstore

RATE = 0.8
"""Bound: the plain client's seconds by Hone's."""
FILES = 3


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


def deliver(folder: str, digest: str, target: dict[str, Any], version: int, secret: str | None) -> dict[str, Any]:
    """Hone's delivery; returns its result."""
    from hone_api.plan import DeliverPlan
    from hone_trainer.artifacts.delivery import deliver as delivery

    plan = DeliverPlan.model_validate(
        {
            "name": f"model-v{version}",
            "version": version,
            "artifact": {"path": folder, "digest": digest},
            "target": target,
            "secretPath": secret,
            "limits": {"allowPrivateAddresses": True},
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


CALLS: dict[str, Callable[..., dict[str, Any] | None]] = {
    "deliver": deliver,
    "upload_files": upload_files,
    "curl": curl,
}


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock and of the CPU, and the result of a call."""

    clock: float
    cpu: float
    result: Any


def measured(call: str, *arguments: Any) -> Cost:
    """A call in a process of its own, without imports."""
    argv = [sys.executable, __file__, "--call", json.dumps([call, arguments])]
    return Cost(**json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1]))


def run_call(text: str) -> None:
    """One call, for `measured`."""
    for module in ("boto3", "botocore.config", "hone_trainer.artifacts.delivery.deliver"):
        import_module(module)
    call, arguments = json.loads(text)
    clock, cpu = time.perf_counter(), sum(os.times()[:4])
    result = CALLS[call](*arguments)
    took = {"clock": time.perf_counter() - clock, "cpu": sum(os.times()[:4]) - cpu}
    print(json.dumps({**took, "result": result}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--call", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.call:
        run_call(options.call)
        return 0
    with tempfile.TemporaryDirectory(prefix="hone-push-") as temporary:
        return compare(Path(temporary), options.megabytes, options.repeats)


def compare(work: Path, megabytes: int, repeats: int) -> int:
    """Measure, print, and return the exit code."""
    first, second = work / "first", work / "second"
    digests = {folder: write_model(folder, megabytes, seed) for seed, folder in ((7, first), (8, second))}
    table = Table("Store", "Seconds of", "Hone", "Plain client", "Rate by the plain client's", "Second version sent")
    failed = False
    changed = (megabytes // FILES + 1) * 2**20
    (work / "s3").mkdir()
    with objectstore.serve(work / "s3") as bucket, imageregistry.serve(work / "oci") as registry:
        bucket.bucket("models")
        secret = work / "secret"
        secret.mkdir()
        (secret / "AWS_ACCESS_KEY_ID").write_text(bucket.access_key)
        (secret / "AWS_SECRET_ACCESS_KEY").write_text(bucket.secret_key)
        keys = (bucket.endpoint, bucket.access_key, bucket.secret_key)
        for store in ("s3", "oci"):
            own, plain = [], []
            for repeat in range(repeats):
                place = f"r{repeat}-{time.time_ns()}"
                target: dict[str, Any] = {"uri": f"oci://{registry.host}/{place}"}
                if store == "s3":
                    target = {"uri": f"s3://models/{place}", "s3": {"endpoint": bucket.endpoint}}
                credentials = str(secret) if store == "s3" else None
                own.append(measured("deliver", str(first), digests[first], target, 1, credentials))
                arguments = (*keys, f"plain-{place}") if store == "s3" else (registry.host, f"plain-{place}")
                plain.append(measured("upload_files" if store == "s3" else "curl", str(first), *arguments))
            sent = ""
            if store == "oci":
                result = measured("deliver", str(second), digests[second], target, 2, None).result
                sent = f"{result['uploadedBytes'] / 2**20:.0f} of {result['sizeBytes'] / 2**20:.0f} MiB"
                failed |= result["uploadedBytes"] > changed
            for what in ("clock", "cpu"):
                ours, theirs = (statistics.median(getattr(cost, what) for cost in costs) for costs in (own, plain))
                table.add_row(store, what, f"{ours:.2f}", f"{theirs:.2f}", f"{theirs / ours:.2f}", sent)
                failed |= what == "clock" and theirs / ours < RATE
    Console().print(table)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
