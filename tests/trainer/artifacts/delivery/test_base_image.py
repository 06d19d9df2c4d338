"""A modelcar on a base image with a shell, against a real registry, and run as KServe runs it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import os
import re
import shutil
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from hone_api.plan import DeliverPlan
from hone_dev.cluster import imageregistry
from hone_trainer.artifacts.delivery import deliver
from hone_trainer.artifacts.delivery.registry import INDEX_TYPE, MANIFEST_TYPE, ImageRepository
from hone_trainer.endpoints.addresses import AllowedNetwork
from hone_trainer.errors import TrainerError

from .conftest import Model, get

pytestmark = pytest.mark.trainer
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"
FILTER: Any = {"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}
"""Python 3.11 has it from 3.11.4 on."""
COMMANDS = ("sh", "ln", "ls", "mkdir", "sleep")
MODELCAR = "ln -sf /proc/$$/root/models /mnt/models && sleep infinity"
"""What KServe's modelcarCommand gives the container (pkg/utils/storage.go, August 2026)."""
PREFETCH = (
    "echo 'Pre-fetching modelcar m: ' && [ -d /models ] && [ \"$(ls -A /models)\" ] && "
    "echo 'OK ... Prefetched and valid (/models exists)' || (echo 'NOK' && exit 1)"
)
"""What it gives the init container."""


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def tools() -> bytes:
    """A tar of commands of this machine, with the libraries that they load."""
    files = {f"bin/{name}": str(shutil.which(name)) for name in COMMANDS}
    for program in list(files.values()):
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        files |= {path.lstrip("/"): path for path in re.findall(r"(/\S+) \(0x", listed)}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, file in files.items():
            tar.add(os.path.realpath(file), name)
    return content.getvalue()


class Registry:
    """A registry with an image of tools, as somebody else has pushed it."""

    def __init__(self, registry: imageregistry.ImageRegistry, name: str) -> None:
        network = AllowedNetwork(allow_private=True)
        login = (imageregistry.USER, imageregistry.PASSWORD)
        self.name, self.host = name, registry.host
        self.repository = ImageRepository(registry.host, name, network, login, math.inf)

    def blob(self, content: bytes, media_type: str) -> dict[str, Any]:
        self.repository.upload(digest(content), len(content), lambda: iter((content,)))
        return {"mediaType": media_type, "digest": digest(content), "size": len(content)}

    def put(self, body: dict[str, Any], media_type: str = MANIFEST_TYPE) -> str:
        """Push a manifest; the reference of the image."""
        text = json.dumps({"schemaVersion": 2, "mediaType": media_type, **body}).encode()
        self.repository.put_manifest(digest(text), text, media_type)
        return f"{self.host}/{self.name}@{digest(text)}"

    def image(self, content: bytes, layer_type: str = LAYER, **config: Any) -> str:
        """Push an image of one layer, gzipped."""
        settings = {"Env": ["PATH=/bin"], "Entrypoint": ["/bin/ls"], "Cmd": ["sh"]}
        rootfs = {"type": "layers", "diff_ids": [digest(content)]}
        body = {"architecture": "amd64", "os": "linux", "rootfs": rootfs, "config": settings, **config}
        own = self.blob(json.dumps(body).encode(), CONFIG)
        return self.put({"config": own, "layers": [self.blob(gzip.compress(content, 1), layer_type)]})


@pytest.fixture
def tools_image(registry: imageregistry.ImageRegistry, tmp_path: Path) -> Registry:
    return Registry(registry, f"tools/t{abs(hash(str(tmp_path)))}")


def on(model: Model, repository: str, keys: str, image: str) -> DeliverPlan:
    return model.plan(f"oci://{repository}", secretPath=keys, target={"baseImage": image})


def unpacked(repository: str, folder: Path) -> dict[str, Any]:
    """The image as a container's file system; its configuration."""
    manifest = get(repository, "manifests/v3").json()
    config: dict[str, Any] = get(repository, f"blobs/{manifest['config']['digest']}").json()
    for layer, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
        content = get(repository, f"blobs/{layer['digest']}").content
        content = gzip.decompress(content) if layer["mediaType"].endswith("gzip") else content
        assert digest(content) == diff_id
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            tar.extractall(folder, **FILTER)
    return config


@pytest.mark.parametrize("layer_type", [LAYER, DOCKER_LAYER])
def test_kserve_finds_the_model_in_the_running_image(
    repository: str, model: Model, keys: str, tools_image: Registry, tmp_path: Path, layer_type: str
) -> None:
    base = tools_image.image(tools(), layer_type)
    plan = on(model, repository, keys, base)
    result = deliver.run(plan)
    assert deliver.run(plan).uploaded_bytes == 0
    written = get(repository, f"manifests/{result.digest}").json()
    assert written["layers"][0]["mediaType"] == LAYER
    assert written["annotations"]["org.opencontainers.image.base.name"] == base
    root = tmp_path / "root"
    config = unpacked(repository, root)
    assert config["config"] == {"Env": ["PATH=/bin"]}, "KServe gives arguments: an entrypoint would take them"
    (root / "mnt").mkdir()
    enter = [str(shutil.which("chroot", path="/usr/sbin:/usr/bin:/sbin")), str(root), "sh", "-c"]
    enter = [str(shutil.which("unshare")), "--map-root-user", *enter] if os.geteuid() else enter
    ready = subprocess.run([*enter, PREFETCH], env={"PATH": "/bin"}, capture_output=True, text=True, check=True)
    assert "OK ... Prefetched" in ready.stdout
    running = subprocess.Popen([*enter, MODELCAR], env={"PATH": "/bin"}, start_new_session=True)
    try:
        link = root / "mnt" / "models"
        until = time.monotonic() + 60
        while not link.is_symlink() and time.monotonic() < until:
            time.sleep(0.05)
        assert str(link.readlink()) == f"/proc/{running.pid}/root/models"
        seen = {p.relative_to(link).as_posix(): p.read_bytes() for p in link.rglob("*") if p.is_file()}
        assert seen == model.files(), "what a server next to it reads"
    finally:
        os.killpg(running.pid, 9)
        running.wait()


def test_of_an_index_it_is_the_image_for_amd64(
    repository: str, model: Model, keys: str, tools_image: Registry, tmp_path: Path
) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("hello"))
    image = tools_image.image(content.getvalue()).partition("@")[2]
    other = tools_image.image(content.getvalue(), architecture="arm64").partition("@")[2]
    entries = [
        {"mediaType": MANIFEST_TYPE, "digest": d, "size": 1, "platform": {"os": "linux", "architecture": a}}
        for d, a in ((other, "arm64"), (image, "amd64"))
    ]
    for entry in entries:
        entry["size"] = len(get(f"{tools_image.host}/{tools_image.name}", f"manifests/{entry['digest']}").content)
    deliver.run(on(model, repository, keys, tools_image.put({"manifests": entries}, INDEX_TYPE)))
    unpacked(repository, tmp_path / "root")
    assert (tmp_path / "root" / "hello").is_file()


def refusal(plan: DeliverPlan) -> str:
    with pytest.raises(TrainerError) as caught:
        deliver.run(plan)
    return f"{caught.value.code}: {caught.value.message}"


def test_what_is_not_an_image_is_refused(repository: str, model: Model, keys: str, tools_image: Registry) -> None:
    content = b"not a tar, which nobody reads"
    host = f"{tools_image.host}/{tools_image.name}"
    assert "has no such image" in refusal(on(model, repository, keys, f"{host}@sha256:{'0' * 64}"))
    config = tools_image.blob(b"[]", CONFIG)
    bad = (
        tools_image.image(content, architecture="arm64"),
        tools_image.image(content, rootfs={"diff_ids": []}),
        tools_image.image(content, rootfs={"diff_ids": ["md5:0"]}),
        tools_image.image(content, layer_type="application/vnd.oci.image.layer.nondistributable.v1.tar"),
        tools_image.put({"config": config, "layers": []}),
    )
    for image in bad:
        answer = refusal(on(model, repository, keys, image))
        assert answer.startswith("DestinationRefused: baseImage"), answer
        assert "it is not an image for linux/amd64" in answer
    assert get(repository, "manifests/v3").status_code == 404
