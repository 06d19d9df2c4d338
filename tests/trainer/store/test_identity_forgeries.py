"""What an attacker who can write the folder of a model makes of a signature without a key: nothing that counts."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.servers.keyless_pods import ACCOUNT, Pod, Signed, flip, keyless, refusal
from support.servers.keyless_servers import Sigstore

from hone_api.plan import ArtifactInput
from hone_trainer.errors import StoreError
from hone_trainer.store import manifest, signature

pytestmark = pytest.mark.trainer


@pytest.mark.faults("D4")
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("adapter_model.safetensors", "ManifestMismatch"),
        ("provenance.json", "SignatureInvalid"),
        ("model.sig", "SignatureInvalid"),
    ],
)
def test_an_altered_file_is_refused(
    name: str, code: str, signed_copy: Path, by_identity: Signed, ours: Sigstore
) -> None:
    flip(name)(signed_copy)
    with pytest.raises(StoreError) as caught:
        signature.compare(ArtifactInput(path=str(signed_copy), digest=by_identity.digest, trusted=[keyless(ours)]))
    assert caught.value.code == code


def test_weights_and_manifest_that_were_changed_together_are_refused(signed_copy: Path, ours: Sigstore) -> None:
    flip("adapter_model.safetensors")(signed_copy)
    assert refusal(signed_copy, manifest.write(signed_copy), keyless(ours)) == "SignatureInvalid"


def without(*path: str) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(bundle: dict[str, Any], _: dict[str, Any]) -> None:
        inner = bundle["verificationMaterial"]
        for name in path[:-1]:
            inner = inner[name] if not name.isdigit() else inner[int(name)]
        del inner[path[-1]]

    return change


def of_another(name: str) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(bundle: dict[str, Any], other: dict[str, Any]) -> None:
        bundle["verificationMaterial"][name] = other["verificationMaterial"][name]

    return change


def about_other_files(bundle: dict[str, Any], _: dict[str, Any]) -> None:
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    statement["predicate"]["resources"].pop()
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()


FORGERIES: dict[str, Callable[[dict[str, Any], dict[str, Any]], None]] = {
    "no entry in the log": without("tlogEntries"),
    "no proof of the log": without("tlogEntries", "0", "inclusionProof"),
    "no checkpoint of the log": without("tlogEntries", "0", "inclusionProof", "checkpoint"),
    "the entry of another signature": of_another("tlogEntries"),
    "no timestamp": without("timestampVerificationData"),
    "the timestamp of another signature": of_another("timestampVerificationData"),
    "the certificate of another signature": of_another("certificate"),
    "no certificate": without("certificate"),
    "another statement": about_other_files,
}


@pytest.fixture(scope="module")
def another(by_identity: Signed, ours: Sigstore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same files, signed by the same identity at another time."""
    folder = tmp_path_factory.mktemp("another")
    copied = Path(shutil.copytree(by_identity.folder, folder / "adapter"))
    (copied / "model.sig").unlink()
    Pod.of(folder, keyless(ours), ours.issuer.token(ACCOUNT)).sign(copied, by_identity.digest)
    return copied


@pytest.mark.faults("D5")
@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_bundle_that_is_not_whole_does_not_count(
    forgery: str, signed_copy: Path, another: Path, by_identity: Signed, ours: Sigstore
) -> None:
    bundle, other = (json.loads((folder / "model.sig").read_text()) for folder in (signed_copy, another))
    FORGERIES[forgery](bundle, other)
    (signed_copy / "model.sig").write_text(json.dumps(bundle))
    assert refusal(signed_copy, by_identity.digest, keyless(ours)) == "SignatureInvalid"


def test_an_altered_model_is_not_signed(unsigned: Path, by_identity: Signed, ours: Sigstore, tmp_path: Path) -> None:
    flip("adapter_model.safetensors")(unsigned)
    with pytest.raises(StoreError) as caught:
        Pod.of(tmp_path, keyless(ours), ours.issuer.token(ACCOUNT)).sign(unsigned, by_identity.digest)
    assert caught.value.code == "ManifestMismatch"
    assert not (unsigned / "model.sig").exists()
