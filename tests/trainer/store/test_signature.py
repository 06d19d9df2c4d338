"""Signatures over all files of a model, by the library and the command line of OpenSSF model signing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner
from support.servers.signing_key import Key

from hone_api.plan import ArtifactInput
from hone_trainer.artifacts import sign
from hone_trainer.errors import StoreError
from hone_trainer.store import manifest, signature

pytestmark = pytest.mark.trainer
PREDICATE = {"runDetails": {"builder": {"id": "https://hone.dev/operator"}}}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Key, Key]:
    """The platform's, and somebody else's."""
    folder = tmp_path_factory.mktemp("keys")
    return Key(folder / "ours"), Key(folder / "theirs")


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory, keys: tuple[Key, Key]) -> tuple[Path, str]:
    """A folder that was signed, and its digest."""
    folder = tmp_path_factory.mktemp("signed") / "adapter"
    (folder / "plots").mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(Random(1).randbytes(100_000))
    (folder / "adapter_config.json").write_text("{}")
    (folder / "plots" / "loss.svg").write_text("<svg/>")
    digest = manifest.write(folder)
    keys[0].sign(folder, digest, **PREDICATE)
    return folder, digest


def flip(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        text = bytearray((folder / name).read_bytes())
        text[len(text) // 2] ^= 1
        (folder / name).write_bytes(text)

    return change


def command_line(folder: Path, key: Key) -> int:
    """Exit code of `model_signing verify key`, which sigstore's model-validation-operator runs."""
    from model_signing._cli import main

    public = key.folder / "public.pem"
    public.write_text(key.public)
    arguments = ["verify", "key", str(folder), "--signature", str(folder / "model.sig"), "--public_key", str(public)]
    return CliRunner().invoke(main, arguments).exit_code


def test_the_commands_of_the_page_have_options_that_exist(signed: tuple[Path, str], keys: tuple[Key, Key]) -> None:
    from model_signing._cli import main

    folder, public = signed[0], keys[0].folder / "public-key.pem"
    public.write_text(keys[0].public)
    page = (Path(__file__).parents[3] / "docs" / "guides" / "signing.md").read_text()
    (line,) = re.findall(r"^\$ model_signing (verify .*)$", page, re.MULTILINE)
    places = {"model": str(folder), "model/model.sig": str(folder / "model.sig"), public.name: str(public)}
    done = CliRunner().invoke(main, [places.get(word, word) for word in line.split()])
    assert done.exit_code == 0, done.output
    (option,) = re.findall(r"`model_signing sign pkcs11-key (\S+) …`", page)
    assert option in CliRunner().invoke(main, ["sign", "pkcs11-key", "--help"]).output


@pytest.fixture
def copy(signed: tuple[Path, str], tmp_path: Path) -> Path:
    return Path(shutil.copytree(signed[0], tmp_path / "adapter"))


def test_all_files_are_signed_once_and_others_can_check_it(signed: tuple[Path, str], keys: tuple[Key, Key]) -> None:
    folder, digest = signed
    bundle = json.loads((folder / "model.sig").read_text())
    assert bundle["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert bundle["dsseEnvelope"]["payloadType"] == "application/vnd.in-toto+json"
    assert command_line(folder, keys[0]) == 0
    before = (folder / "model.sig").read_bytes()
    key = keys[0].sign(folder, digest, **PREDICATE)
    assert (folder / "model.sig").read_bytes() == before, "a signature that counts stays"
    assert bundle["verificationMaterial"]["publicKey"]["hint"] == key == signature.fingerprint(keys[0].public)
    manifest.verify(folder, digest)


def test_the_statement_is_about_every_file(signed: tuple[Path, str]) -> None:
    folder, digest = signed
    statement = json.loads((folder / "provenance.json").read_text())
    assert (statement["_type"], statement["predicate"]) == ("https://in-toto.io/Statement/v1", PREDICATE)
    subject = {entry["name"]: entry["digest"]["sha256"] for entry in statement["subject"]}
    assert subject["manifest.json"] == digest.removeprefix("sha256:")
    assert subject.keys() == {e.path for e in manifest.read_entries(folder)} | {"manifest.json"}


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights": (flip("adapter_model.safetensors"), "ManifestMismatch"),
    "a file in a folder": (flip("plots/loss.svg"), "ManifestMismatch"),
    "manifest": (flip("manifest.json"), "ManifestMismatch"),
    "statement": (flip("provenance.json"), "SignatureInvalid"),
    "signature": (flip("model.sig"), "SignatureInvalid"),
    "no signature": (lambda folder: (folder / "model.sig").unlink(), "SignatureMissing"),
    "no statement": (lambda folder: (folder / "provenance.json").unlink(), "SignatureInvalid"),
    "a link as signature": (
        lambda folder: (
            (folder / "model.sig").rename(folder.parent / "x")
            and (folder / "model.sig").symlink_to(folder.parent / "x")
        ),
        "SignatureInvalid",
    ),
    "an empty signature": (lambda folder: (folder / "model.sig").write_text(""), "SignatureInvalid"),
    "a file more": (lambda folder: (folder / "evil.py").write_text("1"), "ManifestMismatch"),
    "a file less": (lambda folder: (folder / "adapter_config.json").unlink(), "ManifestMismatch"),
}


@pytest.mark.faults("D4")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_change_at_any_place_is_found(
    fault: str, copy: Path, signed: tuple[Path, str], keys: tuple[Key, Key]
) -> None:
    change, code = FAULTS[fault]
    change(copy)
    with pytest.raises(StoreError) as caught:
        signature.compare(ArtifactInput(path=str(copy), digest=signed[1], trusted=[keys[0].public]))
    assert caught.value.code == code


@pytest.mark.faults("D5")
def test_weights_and_manifest_that_were_changed_together_are_found(copy: Path, keys: tuple[Key, Key]) -> None:
    flip("adapter_model.safetensors")(copy)
    with pytest.raises(StoreError) as caught:
        signature.verify(copy, manifest.write(copy), [keys[0].public])
    assert caught.value.code == "SignatureInvalid"
    assert "adapter_model.safetensors: another content was signed" in caught.value.message
    assert command_line(copy, keys[0]) == 1, "and others find it as well"


@pytest.mark.faults("D5")
def test_only_keys_of_the_platform_count(copy: Path, signed: tuple[Path, str], keys: tuple[Key, Key]) -> None:
    ours, theirs = keys
    with pytest.raises(StoreError) as caught:
        signature.verify(copy, signed[1], [theirs.public])
    assert caught.value.code == "SignatureInvalid"
    assert signature.verify(copy, signed[1], [theirs.public, ours.public]) == signature.fingerprint(ours.public)
    (copy / "model.sig").unlink()
    with pytest.raises(StoreError) as caught:
        theirs.sign(copy, signed[1], ours)
    assert caught.value.code == "SigningKeyUnusable"
    assert not (copy / "model.sig").exists()
    assert theirs.sign(copy, signed[1]) == signature.fingerprint(theirs.public), "a new key signs again"


@pytest.mark.faults("D4")
def test_an_altered_model_is_not_signed(copy: Path, signed: tuple[Path, str], keys: tuple[Key, Key]) -> None:
    (copy / "model.sig").unlink()
    flip("adapter_model.safetensors")(copy)
    with pytest.raises(StoreError) as caught:
        keys[0].sign(copy, signed[1])
    assert caught.value.code == "ManifestMismatch"
    assert not (copy / "model.sig").exists()


def test_a_key_that_cannot_sign_is_named_without_its_content(
    copy: Path, signed: tuple[Path, str], tmp_path: Path
) -> None:
    (copy / "model.sig").unlink()
    key = Key(tmp_path / "broken")
    (key.folder / sign.KEY).write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
    with pytest.raises(StoreError) as caught:
        key.sign(copy, signed[1])
    assert caught.value.code == "SigningKeyUnusable"
    assert "c2VjcmV0" not in caught.value.message
