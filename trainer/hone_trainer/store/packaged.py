"""Files of known makers in packages of unknown ones: compared with the digests that the makers published. The code of
such a package is never imported."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path


def folder_of(package: str, files: Mapping[str, str]) -> Path:
    """The folder of an installed package.

    Args:
        files: SHA-256 of each file that is used, by its path in the folder.

    Raises:
        RuntimeError: a file is missing, or another than this.
    """
    spec = find_spec(package)
    if spec is None or not spec.origin:
        raise ModuleNotFoundError(f"the package {package} is not installed", name=package)
    folder = Path(spec.origin).parent
    for name, sha256 in files.items():
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise RuntimeError(f"{path} is not the file that was chosen: install what requirements/trainer.txt names")
    return folder
