"""Public keys that sign models."""

import hashlib

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

CURVES = ("secp256r1", "secp384r1", "secp521r1")


def public_key_fingerprint(pem: str) -> str:
    """SHA-256 of a public key's PEM, as signatures of OpenSSF model signing name their key.

    Raises:
        ValueError: it is not a key of P-256, P-384 or P-521.
    """
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("a public key that signs models is PEM: openssl ec -in private-key.pem -pubout") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise ValueError("models are signed by keys of P-256, P-384 or P-521: openssl ecparam -name prime256v1 -genkey")
    text = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(text).hexdigest()
