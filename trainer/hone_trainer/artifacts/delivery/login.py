"""Credentials of a registry from a mounted Secret: of type basic-auth, or the kind that pulls images."""

from __future__ import annotations

import base64
import json

from hone_api.words.failures import FailureCode
from hone_trainer.artifacts.delivery.registry_names import registry_of
from hone_trainer.errors import SourceError
from hone_trainer.secrets import read_key, remember
from hone_trainer.store.hub import secret_key

DOCKER = ".dockerconfigjson"


def login_of(secret_path: str | None, host: str) -> tuple[str, str] | None:
    """User name and password for a registry; None without a Secret: anonymous.

    Raises:
        SourceError: SecretNotFound; SecretKeyNotFound, also when .dockerconfigjson has no entry for the host.
    """
    if secret_path is None:
        return None
    try:
        text = read_key(secret_path, DOCKER)
    except FileNotFoundError:
        text = None  # the next line says what is missing
    if text is None:
        return secret_key(secret_path, "username"), secret_key(secret_path, "password")
    try:
        entries = json.loads(text)["auths"]
        same = sorted((key for key in entries if registry_of(key) == registry_of(host)), key=len)
        entry = next(entries[key] for key in (host, *same) if entries.get(key))
        user, _, password = base64.b64decode(entry["auth"]).decode().partition(":") if "auth" in entry else ("", "", "")
        user, password = entry.get("username") or user, entry.get("password") or password
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        message = f"{DOCKER} of the Secret has no user name and password for {host}"
        raise SourceError(FailureCode.SECRET_KEY_NOT_FOUND, message) from None
    remember(password)
    return user, password
