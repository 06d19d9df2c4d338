"""The program that draws the diagrams of the documentation, of the major version that the site loads."""

import hashlib
import tarfile
import tempfile
from pathlib import Path

from hone_dev.tools import packages, paths
from hone_dev.tools.console import HoneDevError, step
from hone_dev.tools.shell import locked, run

VERSION = "12.3.0"
SHA256 = "be0684e8d20bfc874df12c0f04927a5c482f57f2200eec54cca52a4583fd4040"
_SCRIPT = "package/dist/mermaid.min.js"


def script() -> Path:
    """The path of mermaid.min.js, from the npm package; npm is installed where it is absent."""
    folder = paths.cache("mermaid", VERSION)
    file = folder / "mermaid.min.js"
    with locked(folder / ".lock"):
        if not file.exists():
            packages.ensure(packages.NPM)
            with step(f"downloading mermaid {VERSION}"), tempfile.TemporaryDirectory(dir=folder) as work:
                _unpack(Path(work), file)
    return file


def _unpack(work: Path, file: Path) -> None:
    run("npm", "pack", f"mermaid@{VERSION}", "--silent", "--pack-destination", work, cwd=work)
    archive = work / f"mermaid-{VERSION}.tgz"
    if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
        raise HoneDevError(
            f"mermaid {VERSION} is not the package that was pinned", "compare SHA256 in hone_dev/generate/mermaid.py"
        )
    with tarfile.open(archive) as tar:
        member = tar.extractfile(_SCRIPT)
        assert member is not None, "the package's layout has changed"
        (work / file.name).write_bytes(member.read())
    (work / file.name).replace(file)
