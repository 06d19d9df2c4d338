"""A private key that stays in an HSM: the token of a PKCS #11 library signs with it.

Messages name the library, the token and the key, and never the PIN.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pkcs11
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing._signing import sign_ec_key
from pkcs11.util.ec import encode_ec_public_key, encode_ecdsa_signature

from hone_api.words.failures import FailureCode
from hone_trainer.errors import StoreError
from hone_trainer.store import key_uri

CURVES = ("secp256r1", "secp384r1", "secp521r1")
"""Those of OpenSSF model signing."""
REFUSED_PIN = (
    pkcs11.PinExpired,
    pkcs11.PinIncorrect,
    pkcs11.PinInvalid,
    pkcs11.PinLenRange,
    pkcs11.PinLocked,
    pkcs11.UserPinNotInitialized,
)


@dataclass(frozen=True)
class TokenKey:
    """What model-signing uses of an elliptic curve key of `cryptography`."""

    private: Any
    public: ec.EllipticCurvePublicKey

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public half, as the token has it."""
        return self.public

    def sign(self, data: bytes, scheme: ec.ECDSA) -> bytes:
        """DER of an ECDSA signature: the data is hashed here, and the token signs the hash."""
        algorithm = scheme.algorithm
        assert isinstance(algorithm, hashes.HashAlgorithm), "model-signing hashes nothing beforehand"
        digest = hashes.Hash(algorithm)
        digest.update(data)
        return encode_ecdsa_signature(self.private.sign(digest.finalize(), mechanism=pkcs11.Mechanism.ECDSA))


class TokenSigner(sign_ec_key.Signer):
    """The signer of model-signing, with a key that is not in a file."""

    def __init__(self, key: TokenKey) -> None:
        self._private_key: Any = key


@contextmanager
def opened(module: str, uri: str, pin: str) -> Iterator[TokenSigner]:
    """Signs by the key that the URI names, in one session with its token; the library is unloaded at the end.

    Args:
        module: path of the PKCS #11 library.
        uri: RFC 7512, without query.

    Raises:
        StoreError: SigningModuleUnusable, SigningTokenUnreachable, SigningPinRefused, SigningKeyUnusable; also for
            what the token refuses inside the block.
    """
    try:
        wanted = key_uri.parse(uri)
    except ValueError as error:
        raise StoreError(FailureCode.SIGNING_KEY_UNUSABLE, f"pkcs11-uri of the signing Secret: {error}") from None
    # A vendor's library that crashes would leave the PIN in a core dump.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    try:
        library = pkcs11.lib(module)
    except pkcs11.PKCS11Error as error:
        message = f"the PKCS #11 library {module} does not start: {_words(error)}"
        raise StoreError(FailureCode.SIGNING_MODULE_UNUSABLE, message) from None
    try:
        with _login(_token(library, wanted), pin) as session:
            yield TokenSigner(_key(session, wanted))
    except pkcs11.PKCS11Error as error:
        message = f"the token stopped answering, or refused the operation: {_words(error)}"
        raise StoreError(FailureCode.SIGNING_TOKEN_UNREACHABLE, message) from None
    finally:
        pkcs11.unload(module)


def _token(library: Any, wanted: key_uri.KeyUri) -> Any:
    tokens = list(library.get_tokens())
    fitting = [token for token in tokens if wanted.token.items() <= _attributes(token).items()]
    if len(fitting) == 1:
        return fitting[0]
    asked = ", ".join(f"{name} {value}" for name, value in wanted.token.items())
    if fitting:
        message = f"{len(fitting)} tokens have {asked}: add serial=… to pkcs11-uri of the signing Secret"
        raise StoreError(FailureCode.SIGNING_KEY_UNUSABLE, message)
    labels = ", ".join(token.label for token in tokens if token.label) or "none"
    message = f"no token has {asked}; tokens that the library sees: {labels}"
    raise StoreError(FailureCode.SIGNING_TOKEN_UNREACHABLE, message)


def _attributes(token: Any) -> dict[str, str]:
    return {
        "token": token.label,
        "serial": token.serial.decode(errors="replace"),
        "manufacturer": token.manufacturer_id,
        "model": token.model,
        "slot-id": str(token.slot.slot_id),
    }


def _login(token: Any, pin: str) -> Any:
    """A session; a token that has one attempt left before it locks is not asked."""
    if token.flags & (pkcs11.TokenFlag.USER_PIN_LOCKED | pkcs11.TokenFlag.USER_PIN_FINAL_TRY):
        message = f"token {token.label} is locked, or would be by one more wrong PIN: Hone does not try"
        raise StoreError(FailureCode.SIGNING_PIN_REFUSED, message)
    try:
        return token.open(user_pin=pin)
    except REFUSED_PIN as error:
        message = f"token {token.label} refused the PIN: {type(error).__name__}"
        raise StoreError(FailureCode.SIGNING_PIN_REFUSED, message) from None


def _key(session: Any, wanted: key_uri.KeyUri) -> TokenKey:
    private = _only(session, pkcs11.ObjectClass.PRIVATE_KEY, wanted)
    public = _only(session, pkcs11.ObjectClass.PUBLIC_KEY, wanted)
    try:
        decoded = serialization.load_der_public_key(encode_ec_public_key(public))
    except Exception as error:  # the token chose the bytes
        raise _unusable(f"the token's public key cannot be read: {type(error).__name__}") from None
    if not isinstance(decoded, ec.EllipticCurvePublicKey) or decoded.curve.name not in CURVES:
        raise _unusable(f"the token's key is of none of the curves {', '.join(CURVES)}")
    return TokenKey(private, decoded)


def _only(session: Any, kind: Any, wanted: key_uri.KeyUri) -> Any:
    attributes = {
        pkcs11.Attribute.CLASS: kind,
        pkcs11.Attribute.LABEL: wanted.label,
        pkcs11.Attribute.ID: wanted.id,
    }
    keys = list(session.get_objects({name: value for name, value in attributes.items() if value is not None}))
    what = "private" if kind == pkcs11.ObjectClass.PRIVATE_KEY else "public"
    if len(keys) != 1:
        raise _unusable(f"the token has {len(keys)} {what} keys of pkcs11-uri of the signing Secret; it needs one pair")
    if keys[0].key_type != pkcs11.KeyType.EC:
        raise _unusable(f"the {what} key of the token is of type {keys[0].key_type!r}, not of an elliptic curve")
    return keys[0]


def _unusable(why: str) -> StoreError:
    return StoreError(FailureCode.SIGNING_KEY_UNUSABLE, why)


def _words(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip()[:300]
