"""model.sig: a signature of OpenSSF model signing 1.x over all files of a complete folder.

The signature lists the SHA-256 of each file. Whoever compares the files with the manifest, and the manifest with the
signature, has compared them with the signature: the files are read once.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from hone_api.contract.manifest import DESCRIPTIONS, MANIFEST, SIGNATURE
from hone_api.plan import ArtifactInput, ModelInput, PublicKey
from hone_api.words.failures import FailureCode
from hone_trainer.errors import StoreError
from hone_trainer.store import manifest

if TYPE_CHECKING:
    from model_signing._signing.signing import Signer
    from model_signing.manifest import Manifest

_MAX_BYTES = 32 * 2**20
"""Of a model.sig: a manifest's worth of files, in base64."""


def verify(folder: str | Path, digest: str, trusted: Sequence[PublicKey]) -> str:
    """Compare the folder's signature with its manifest; the content of the listed files is not read.

    Args:
        folder: a folder with a manifest.json of this digest.
        digest: 'sha256:' and the SHA-256 of manifest.json.
        trusted: PEM of public keys; one of them must have signed.

    Returns:
        SHA-256 of the PEM of the key that signed.

    Raises:
        StoreError: SignatureMissing, SignatureInvalid, or ManifestMismatch for a manifest with another digest.
    """
    root = Path(folder)
    expected = _contents(root, digest)
    who, signed = _opened(root / SIGNATURE, trusted)
    if problems := _differences(expected, signed):
        raise _invalid(root / SIGNATURE, f"it is over other files: {'; '.join(problems)}")
    return who


def compare(model: ModelInput | ArtifactInput, hashed: Callable[[str], bool] = lambda _: True) -> None:
    """Every file of a folder with its manifest, and the manifest with its signature where one is wanted; those of a
    model's adapter as well.

    Args:
        hashed: as in `manifest.verify`.

    Raises:
        StoreError: ManifestMismatch, SignatureMissing, SignatureInvalid.
    """
    if model.digest is not None:
        if model.trusted:
            verify(model.path, model.digest, model.trusted)
        manifest.verify(model.path, model.digest, hashed)
    if isinstance(model, ModelInput) and model.adapter:
        compare(model.adapter, hashed)


def write(folder: str | Path, digest: str, key: Path, trusted: Sequence[PublicKey]) -> str:
    """Hash every file of the folder and sign them; a signature that counts stays as it is.

    Args:
        folder: a folder with a manifest.json of this digest; model.sig is written to it, complete or not at all.
        digest: 'sha256:' and the SHA-256 of manifest.json.
        key: file with the PEM of an unencrypted elliptic curve key.
        trusted: PEM of public keys; that of the key must be one of them.

    Returns:
        SHA-256 of the PEM of the key that signed.

    Raises:
        StoreError: ManifestMismatch, if a file differs from the manifest; SigningKeyUnusable.
    """
    root = Path(folder)
    try:
        return verify(root, digest, trusted)
    except StoreError as error:
        if error.code not in (FailureCode.SIGNATURE_MISSING, FailureCode.SIGNATURE_INVALID):
            raise
    expected = _contents(root, digest)
    with tempfile.TemporaryDirectory(prefix="hone-sign-") as scratch:
        fresh = Path(scratch) / SIGNATURE
        _sign(root, key, fresh)
        try:
            who, signed = _opened(fresh, trusted)
        except StoreError as error:
            if error.code != FailureCode.SIGNATURE_INVALID:
                raise
            message = f"the public key of {key.name} is not one of signing.publicKeys of the chart"
            raise StoreError(FailureCode.SIGNING_KEY_UNUSABLE, message) from None
        if problems := _differences(expected, signed):
            raise StoreError(FailureCode.MANIFEST_MISMATCH, f"{root}: {'; '.join(problems)}: it is not signed")
        manifest.write_atomically(root / SIGNATURE, fresh.read_bytes())
    return who


def _contents(root: Path, digest: str) -> dict[str, str]:
    """SHA-256 of every file that the signature covers, by path; those of the files are the manifest's."""
    if (actual := manifest.digest_of(root)) != digest:
        message = f"{root}: {MANIFEST}: digest is {actual}, expected {digest}"
        raise StoreError(FailureCode.MANIFEST_MISMATCH, message)
    contents = {entry.path: entry.sha256 for entry in manifest.read_entries(root)}
    contents[MANIFEST] = digest.removeprefix("sha256:")
    for name in DESCRIPTIONS:
        if os.path.lexists(root / name):
            contents[name] = hashlib.sha256(_read(root / name)).hexdigest()
    return contents


def _differences(expected: Mapping[str, str], signed: Mapping[str, str]) -> list[str]:
    """The first ten."""
    problems = [f"{path}: not signed" for path in sorted(expected.keys() - signed.keys())]
    problems += [f"{path}: signed, but not in the manifest" for path in sorted(signed.keys() - expected.keys())]
    both = sorted(expected.keys() & signed.keys())
    problems += [f"{path}: another content was signed" for path in both if expected[path] != signed[path]]
    return problems[:10]


def _sign(root: Path, key: Path, target: Path) -> None:
    from model_signing import hashing
    from model_signing._signing.signing import Payload

    every_file = hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)
    _signer(key).sign(Payload(every_file.hash(root))).write(target)


def _signer(private_key: Path) -> Signer:
    from model_signing._signing.sign_ec_key import Signer

    try:
        return Signer(private_key)
    except (ValueError, TypeError, AttributeError) as error:
        message = f"{private_key.name} cannot be used: {type(error).__name__}"  # its words may quote the key
        raise StoreError(FailureCode.SIGNING_KEY_UNUSABLE, message) from None


def _opened(path: Path, trusted: Sequence[PublicKey]) -> tuple[str, dict[str, str]]:
    """(key, SHA-256 of each signed file by path) of a signature by one of them."""
    if not os.path.lexists(path):
        raise StoreError(FailureCode.SIGNATURE_MISSING, f"{path.parent} has no {path.name}")
    _read(path)
    for each in trusted:
        if opened := _by_key(path, each):
            digests = {str(d.identifier): d.digest for d in opened[1].resource_descriptors()}
            return opened[0], {
                name: d.digest_hex if d.algorithm == "sha256" else d.algorithm for name, d in digests.items()
            }
    raise _invalid(path, f"none of the {len(trusted)} keys of this platform has signed it")


def _by_key(path: Path, pem: str) -> tuple[str, Manifest] | None:
    from model_signing._signing.sign_ec_key import Verifier
    from model_signing._signing.sign_sigstore_pb import Signature

    with tempfile.TemporaryDirectory(prefix="hone-keys-") as scratch, redirect_stdout(StringIO()):
        file = Path(scratch) / "public-key.pem"
        file.write_text(pem)
        try:
            return fingerprint(pem), Verifier(file).verify(Signature.read(path))
        except Exception:  # whoever can write the folder chose its bytes: whatever is wrong, it does not count
            return None


def fingerprint(pem: str) -> str:
    """SHA-256 of a public key's PEM, as signatures name their key."""
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_public_key(pem.encode())
    text = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(text).hexdigest()


def _read(path: Path) -> bytes:
    """A file that was added to the folder; a link or a huge one is refused."""
    mode = path.lstat()
    if not stat.S_ISREG(mode.st_mode) or mode.st_size > _MAX_BYTES:
        raise _invalid(path, f"not a file of at most {_MAX_BYTES} bytes")
    return path.read_bytes()


def _invalid(path: Path, why: str) -> StoreError:
    return StoreError(FailureCode.SIGNATURE_INVALID, f"{path}: {why}")
