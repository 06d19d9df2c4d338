"""Where a model's versions are copied: a registry that asks for a password and an S3 server, outside the cluster."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from hone_dev.cluster import cluster, imageregistry, objectstore
from hone_dev.tools.console import HoneDevError

BUCKET, PREFIX = "models", "served"
REGISTRY_PORT, STORE_PORT = 5000, 9000
"""Of their Services, as `deliver/model.yaml` of the example has them."""
FILTER: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Python 3.11 has it from 3.11.4 on; the layers are Hone's own."""
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True)
class Places:
    """Both servers, which pods reach as the Services `registry` and `bucket` of their namespace."""

    registry: imageregistry.ImageRegistry
    store: objectstore.ObjectStore

    def objects(self) -> list[dict[str, Any]]:
        """Services and Secrets by which the pods reach both."""
        login = {"username": imageregistry.USER, "password": imageregistry.PASSWORD}
        keys = {"AWS_ACCESS_KEY_ID": self.store.access_key, "AWS_SECRET_ACCESS_KEY": self.store.secret_key}
        return [
            *service("registry", REGISTRY_PORT, port_of(self.registry.host)),
            *service("bucket", STORE_PORT, port_of(self.store.endpoint)),
            secret("hone-registry", login),
            secret("hone-bucket", keys),
        ]

    def pull(self, location: str, folder: Path) -> Path:
        """The folder with the files of an image, by its digest.

        Raises:
            HoneDevError: a manifest or layer is not that of its digest.
        """
        for digest in self.layers(location):
            with tarfile.open(fileobj=io.BytesIO(self._blob(location, "blobs", digest))) as tar:
                tar.extractall(folder, **FILTER)
        return folder / "models"

    def layers(self, location: str) -> dict[str, int]:
        """Sizes of the layers of an image, by digest."""
        manifest = json.loads(self._blob(location, "manifests", digest_of(location)))
        return {layer["digest"]: layer["size"] for layer in manifest["layers"]}

    def copied(self, version: str) -> dict[str, bytes]:
        """What the bucket has of a ModelVersion."""
        return read(self.store.root / BUCKET / PREFIX / version)

    def _blob(self, location: str, kind: str, digest: str) -> bytes:
        name = location.removeprefix("oci://").partition("/")[2].partition("@")[0]
        url = f"http://{self.registry.host}/v2/{name}/{kind}/{digest}"
        login = (imageregistry.USER, imageregistry.PASSWORD)
        content = requests.get(url, auth=login, headers={"Accept": _MANIFEST}, timeout=600).content
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
            raise HoneDevError(f"what the registry has as {digest} has another digest")
        return content


@contextmanager
def serve(folder: Path) -> Iterator[Places]:
    """Both servers, with their files in `folder`, until the block ends."""
    login = imageregistry.basic(folder / "registry")
    with (
        imageregistry.serve(folder / "registry", login, host=cluster.ADDRESS) as registry,
        objectstore.serve(folder / "s3", host=cluster.ADDRESS) as store,
    ):
        store.bucket(BUCKET)
        yield Places(registry, store)


def digest_of(location: str) -> str:
    """The digest by which a location names an image."""
    return location.partition("@")[2]


def read(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def secret(name: str, data: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def service(name: str, port: int, target: int | None = None) -> list[dict[str, Any]]:
    """A Service that leads to a port of this machine, by default the same one."""
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": port}]}}
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"port": target or port}],
        "endpoints": [{"addresses": [cluster.ADDRESS]}],
    }
    return [body, slice_]


def port_of(address: str) -> int:
    """The number at the end of a server's address."""
    return int(address.rpartition(":")[2])
