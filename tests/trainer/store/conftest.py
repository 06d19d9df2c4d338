"""The servers of Sigstore, and a model that was signed by them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest
from support.servers import keyless_servers, token_issuer
from support.servers.keyless_pods import ACCOUNT, Pod, Signed, keyless
from support.servers.keyless_servers import Sigstore

from hone_trainer.store import manifest


@pytest.fixture(scope="session")
def sigstores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sigstore, Sigstore]]:
    """The Sigstore of the platform, and another that accepts the same tokens."""
    with ExitStack() as stack:
        issuer = stack.enter_context(token_issuer.serve())
        ours, theirs = (
            stack.enter_context(keyless_servers.serve(tmp_path_factory.mktemp(name), issuer)) for name in "ab"
        )
        yield ours, theirs


@pytest.fixture(scope="session")
def ours(sigstores: tuple[Sigstore, Sigstore]) -> Sigstore:
    return sigstores[0]


@pytest.fixture(scope="session")
def theirs(sigstores: tuple[Sigstore, Sigstore]) -> Sigstore:
    return sigstores[1]


@pytest.fixture(scope="session")
def by_identity(ours: Sigstore, tmp_path_factory: pytest.TempPathFactory) -> Signed:
    """A model that the platform's ServiceAccount has signed."""
    folder = tmp_path_factory.mktemp("signed") / "adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(Random(1).randbytes(100_000))
    (folder / "adapter_config.json").write_text("{}")
    digest = manifest.write(folder)
    pod = Pod.of(folder.parent, keyless(ours), ours.issuer.token(ACCOUNT))
    return Signed(folder, digest, pod.sign(folder, digest))


@pytest.fixture
def signed_copy(by_identity: Signed, tmp_path: Path) -> Path:
    return Path(shutil.copytree(by_identity.folder, tmp_path / "adapter"))


@pytest.fixture
def unsigned(signed_copy: Path) -> Path:
    (signed_copy / "model.sig").unlink()
    return signed_copy
