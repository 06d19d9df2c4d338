"""PKCS #11 URIs (RFC 7512), which name a key of a token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

SCHEME = "pkcs11:"
TOKEN = ("token", "serial", "manufacturer", "model", "slot-id")
KEY = ("object", "id")


@dataclass(frozen=True)
class KeyUri:
    """What must be true of the token and of the key."""

    token: Mapping[str, str]
    """By the URI's name of the attribute, one of TOKEN."""
    label: str | None
    id: bytes | None


def parse(uri: str) -> KeyUri:
    """The token and the key that a URI names.

    Raises:
        ValueError: it is not such a URI, has attributes that Hone does not compare, or names no token or no key. A PIN
            that it contains is not quoted.
    """
    if not uri.startswith(SCHEME):
        raise ValueError(f"it does not begin with {SCHEME}")
    path, question, _ = uri.removeprefix(SCHEME).partition("?")
    if question:
        raise ValueError("it has a query: the PIN is a key of the Secret, the library is signing.pkcs11.module")
    values: dict[str, bytes] = {}
    for part in filter(None, path.split(";")):
        name, equals, value = part.partition("=")
        if not equals or name in values or name not in (*TOKEN, *KEY, "type"):
            raise ValueError(f"its attributes are {', '.join((*TOKEN, *KEY, 'type'))}, each at most once")
        values[name] = unquote_to_bytes(value)
    if values.pop("type", b"private") != b"private":
        raise ValueError("its type is not private")
    token = {name: _text(name, values[name]) for name in TOKEN if name in values}
    if not token:
        raise ValueError("it names no token: add token=LABEL")
    if not values.keys() & set(KEY):
        raise ValueError("it names no key: add object=LABEL or id=%01")
    return KeyUri(token, _text("object", values["object"]) if "object" in values else None, values.get("id"))


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ValueError(f"its {name} is not UTF-8") from None
