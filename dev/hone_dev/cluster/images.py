"""The images of Hone, built here and pushed to the cluster's own registry.

A tag is the hash of everything that goes into the image: the same sources give the same
reference, and a change of code gives a new one that pods pick up without a pull policy.
"""

import hashlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from hone_dev.cluster import binaries, cleanup
from hone_dev.cluster.node import REGISTRY
from hone_dev.tools import packages, paths
from hone_dev.tools.console import HoneDevError, step
from hone_dev.tools.shell import locked, run

BASE_PACKAGES = ("python3", "python3-venv", "libgomp1", "ca-certificates")
SUITE = "bookworm"
TARGETS = {
    "operator": ("requirements/operator.txt", "operator/hone_operator"),
    "trainer": (
        "requirements/trainer.txt",
        "requirements/deepspeed.txt",
        "requirements/gguf.txt",
        "trainer/hone_trainer",
        "cli/hone_cli",
    ),
    "trainer-vllm": ("requirements/vllm.txt", "requirements/gguf.txt", "trainer/hone_trainer"),
}
DEFAULT = ("operator", "trainer")
"""Those that the tests and the demo run; vLLM's is twice as large, and for GPUs."""
# The builder's access to the package index; never part of an image.
BUILD_ENVIRONMENT = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
BUILD_PREFIXES = ("PIP_INDEX", "PIP_EXTRA", "PIP_TRUSTED", "PIP_DEFAULT_TIMEOUT", "UV_")
_MOST = {"operator": 200_000_000, "code": 5_000_000}
"""Bytes that a node pulls: for the operator, and of any image for a change of code."""
_TIMESTAMP = "315532800"
"""Of all files, so that a second build has the same digest: 1980, before which a ZIP file knows no time."""
_RUNROOT = "/run/hone-dev-buildah"  # what buildah has mounted; gone after each build
_SNAPSHOT = re.compile("/archive/debian/")
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_CA = "/etc/ssl/certs/ca-certificates.crt"


def reference(target: str) -> str:
    """The full reference of the image of the present sources."""
    digest = hashlib.sha256(_base_inputs())
    for path in _inputs(target):
        digest.update(f"{path.relative_to(paths.SOURCE)}\0".encode() + path.read_bytes())
    return f"{REGISTRY}/hone/{target}:{digest.hexdigest()[:16]}"


def _inputs(target: str) -> Iterable[Path]:
    common = ("Dockerfile", "dev/image-install.sh", "requirements/uv.txt", "crds/hone_api")
    for name in (*common, *TARGETS[target]):
        root = paths.SOURCE / name
        files = [root] if root.is_file() else sorted(root.rglob("*"))
        yield from (f for f in files if f.is_file() and "__pycache__" not in f.parts)


def ensure(*targets: str) -> dict[str, str]:
    """Return the reference of each image, building and pushing those the registry lacks.

    Without arguments those of DEFAULT. The cluster must be up, because its registry is part of it.
    """
    references = {target: reference(target) for target in targets or DEFAULT}
    for target, ref in references.items():
        if not in_registry(ref):
            build(target, ref)
    return references


def in_registry(ref: str) -> bool:
    """True when the registry holds this reference. Raises HoneDevError when it does not answer."""
    name, tag = ref.removeprefix(f"{REGISTRY}/").rsplit(":", 1)
    connection = http.client.HTTPConnection(REGISTRY, timeout=30)
    accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
    try:
        connection.request("HEAD", f"/v2/{name}/manifests/{tag}", headers={"Accept": accept})
        return connection.getresponse().status == 200
    except OSError as error:
        raise HoneDevError("the cluster's registry does not answer", "bring the cluster up: make cluster-up") from error
    finally:
        connection.close()


def _buildah(*argv: str | Path, log: Path | None = None) -> str:
    store = ("--root", paths.cache("buildah"), "--runroot", _RUNROOT, "--storage-driver", "overlay")
    return run("buildah", *store, *argv, log=log, env={"BUILDAH_ISOLATION": "chroot"})


def _base_image() -> str:
    """Debian with Python, made from the Debian archive, because there may be no registry to pull it from."""
    key = hashlib.sha256(_base_inputs()).hexdigest()[:12]
    name = f"localhost/hone/base:{key}"
    if name in _images():
        return name
    with step("making the base image from Debian packages"), tempfile.TemporaryDirectory() as folder:
        archive, log = Path(folder, "base.tar"), paths.cache("logs") / "mmdebstrap.log"
        include = f"--include={','.join(BASE_PACKAGES)}"
        run("mmdebstrap", "--variant=minbase", include, SUITE, archive, *debian_sources(), log=log)
        container = _buildah("from", "scratch").strip()
        try:
            _buildah("add", "--quiet", container, archive, "/")
            _buildah("commit", "--quiet", container, name)
        finally:
            _buildah("rm", container)
    return name


def debian_mirror() -> str | None:
    """Where the packages of the base image come from, and those that the Dockerfile adds; None: Debian's own mirrors.

    A snapshot of the archive has a date in its address, and gives the same packages for ever.

    Raises:
        HoneDevError: it has credentials, which would stand in the images and in the provenance.
    """
    mirror = os.environ.get("HONE_DEBIAN_MIRROR") or None
    if mirror and "@" in urlsplit(mirror).netloc:
        raise HoneDevError("HONE_DEBIAN_MIRROR has credentials", "name a mirror that needs none")
    return mirror


def debian_sources() -> list[str]:
    """What mmdebstrap and apt in the images read: by an address alone they would leave out updates and security."""
    mirror = debian_mirror()
    if mirror is None or not _SNAPSHOT.search(mirror):
        return [mirror] if mirror else []
    options = f"[signed-by={_KEYRING} check-valid-until=no]"  # a snapshot is older than its lists are valid
    security = _SNAPSHOT.sub("/archive/debian-security/", mirror)
    suites = ((mirror, SUITE), (mirror, f"{SUITE}-updates"), (security, f"{SUITE}-security"))
    return [f"deb {options} {address} {suite} main" for address, suite in suites]


def _base_inputs() -> bytes:
    """What the base image is made from, and with it every other image."""
    return " ".join((SUITE, str(BASE_PACKAGES), *debian_sources())).encode()


def _package_cache() -> Path:
    """uv's own cache: what .venv was made from is not downloaded again."""
    folder = Path(os.environ.get("UV_CACHE_DIR") or paths.cache().parent / "uv")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _build_environment() -> str:
    """A shell file with this machine's settings for package indexes and proxies."""
    wanted = {
        name: value
        for name, value in os.environ.items()
        if name.upper() in BUILD_ENVIRONMENT or name.startswith(BUILD_PREFIXES)
    }
    wanted.pop("UV_CACHE_DIR", None)
    if "UV_DEFAULT_INDEX" not in wanted and "UV_INDEX_URL" not in wanted:  # uv does not read pip's own settings
        pip = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
        if index := subprocess.run(pip, capture_output=True, text=True).stdout.strip():
            wanted |= {"UV_DEFAULT_INDEX": index, "PIP_INDEX_URL": index}
    if Path(_CA).exists():
        wanted |= {name: "/run/secrets/build-ca" for name in ("SSL_CERT_FILE", "PIP_CERT")}
    quoted = {name: "'" + value.replace("'", "'\\''") + "'" for name, value in wanted.items()}
    return "".join(f"{name}={value}\n" for name, value in quoted.items())


def _unmount() -> None:
    cleanup.unmount_below(paths.cache("buildah"))
    shutil.rmtree(_RUNROOT, ignore_errors=True)


def prepare(*targets: str) -> None:
    """Build what `ensure` would push, as far as it is not built yet. No cluster is needed."""
    packages.require_root()
    packages.ensure(packages.IMAGES)
    with _builder():
        for target in targets or DEFAULT:
            _build(target, reference(target))


def build(target: str, ref: str | None = None) -> str:
    """Build one image and push it to the registry; return its reference."""
    packages.require_root()
    packages.ensure(packages.IMAGES)
    ref = ref or reference(target)
    with _builder():
        _build(target, ref)
        _push(target, ref, ref)
        _forget_others(target, ref)
    return ref


def push(
    repository: str, insecure: bool = False, targets: Sequence[str] = DEFAULT
) -> dict[str, tuple[str, dict[str, int]]]:
    """Build the images of a release and push them below `repository`, under the tag of their sources.

    Args:
        insecure: the registry has no certificate.

    Returns:
        By target, the reference by digest, and how many bytes a node pulls: all, and after a change of code.

    Raises:
        HoneDevError: one is larger than it may be.
    """
    packages.require_root()
    packages.ensure(packages.IMAGES)
    pushed = {}
    with _builder():
        for target in targets:
            ref = reference(target)
            _build(target, ref)
            name = f"{repository}/{target}"
            tag = ref.rpartition(":")[2]
            by_digest = f"{name}@{_push(target, ref, f'{name}:{tag}', insecure)}"
            pushed[target] = by_digest, sizes_of(target, by_digest, ("--plain-http",) if insecure else ())
    return pushed


@contextmanager
def mounted(target: str) -> Iterator[Path]:
    """The root folder of an image of the present sources, built if absent."""
    prepare(target)
    with _builder():
        container = _buildah("from", "--pull-never", reference(target)).strip()
        try:
            yield Path(_buildah("mount", container).strip())
        finally:
            _buildah("rm", container)


def sizes_of(target: str, reference: str, options: Sequence[str] = ()) -> dict[str, int]:
    """Bytes of all layers of an image in a registry, and of those with code of Hone, which are the last."""
    oras = binaries.program("oras")
    layers = json.loads(run(oras, "manifest", "fetch", *options, reference))["layers"]
    history = json.loads(run(oras, "manifest", "fetch-config", *options, reference))["history"]
    made = [each["created_by"] for each in history if not each.get("empty_layer")]
    first = next(place for place, command in enumerate(made) if "in /app/" in command)
    sizes = {"all": sum(each["size"] for each in layers), "code": sum(each["size"] for each in layers[first:])}
    if sizes["code"] > _MOST["code"] or sizes["all"] > _MOST.get(target, sizes["all"]):
        raise HoneDevError(
            f"{reference} is too large: {sizes}", f"most bytes: {_MOST}; see the order of layers in Dockerfile"
        )
    return sizes


def _push(target: str, ref: str, destination: str, insecure: bool = True) -> str:
    """Push what the builder has as `ref`; returns the digest."""
    with step(f"pushing it as {destination}"), tempfile.TemporaryDirectory() as folder:
        # Measured on 6 GB with 2 cores, push and pull: zstd 1 180 s, gzip 211 s.
        compression = ("--compression-format", "zstd", "--compression-level", "1")
        log, digest = paths.cache("logs") / f"push-{target}.log", Path(folder, "digest")
        verify = f"--tls-verify={str(not insecure).lower()}"
        _buildah("push", verify, *compression, "--digestfile", digest, ref, f"docker://{destination}", log=log)
        return digest.read_text()


@contextmanager
def _builder() -> Iterator[None]:
    """One build at a time; what it has mounted is gone afterwards."""
    with locked(paths.cache("locks") / "images.lock"):
        _buildah("rm", "--all")  # a build that was interrupted leaves its containers, and their images stay in use
        try:
            yield
        finally:
            _unmount()


def _build(target: str, ref: str) -> None:
    """Make the image in the builder's own store, unless it is there."""
    base = _base_image()
    if ref in _images():
        return
    log = paths.cache("logs") / f"image-{target}.log"
    with tempfile.TemporaryDirectory() as folder, step(f"building the {target} image (its log: {log})"):
        secrets = Path(folder, "env")
        secrets.touch(mode=0o600)
        secrets.write_text(_build_environment())
        _buildah(
            *("build", "--layers", "--force-rm", "--timestamp", _TIMESTAMP, "--target", target, "--tag", ref),
            *("--build-arg", f"BASE_IMAGE={base}"),
            *("--build-arg", "UV_CACHE_DIR=/uv-cache", "--volume", f"{_package_cache()}:/uv-cache"),
            *("--secret", f"id=build-env,src={secrets}"),
            *(("--secret", f"id=build-ca,src={_CA}") if Path(_CA).exists() else ()),
            paths.SOURCE,
            log=log,
        )


def _images() -> list[str]:
    """References in the builder's own store."""
    return _buildah("images", "--format", "{{.Name}}:{{.Tag}}").split()


def _forget_others(target: str, ref: str) -> None:
    """Untag what earlier sources built; the layers it shares with the present image stay."""
    for name in _images():
        if name.startswith(f"{REGISTRY}/hone/{target}:") and name != ref:
            _buildah("rmi", name)
