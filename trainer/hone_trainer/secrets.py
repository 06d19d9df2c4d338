"""Credentials: read from mounted files, and kept out of logs and messages."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from hone_api.base.credentials import hide_credentials, map_strings
from hone_api.base.wording import visible
from hone_api.plan import SECRET_VARIABLES_ENV, SECRETS_ENV

_known: set[str] = set()
_SCHEMES = {"basic", "bearer", "apikey", "digest"}
"""First words of an Authorization header: no secrets, and what other credentials are found by."""


def remember(value: str) -> None:
    """Let `scrub` hide this value, and its parts such as the token in 'Bearer <token>', from now on."""
    for part in (value, *value.split()):
        if len(part) >= 6 and part.lower() not in _SCHEMES:
            _known.add(part)


def remember_variables() -> None:
    """Let `scrub` hide the values of the environment that come from Secrets."""
    for name in os.environ.get(SECRET_VARIABLES_ENV, "").split(","):
        remember(os.environ.get(name, ""))


def scrub(text: str) -> str:
    """The text with every remembered credential, and everything that looks like one, replaced by ***, and with no
    control sequences of terminals.

    What looks like a credential goes first: a remembered value may be a part of it, whose rest would look like nothing.
    A remembered value that this hides in part is found by what is left of it.
    """
    text = hide_credentials(visible(text))
    values = _known.copy()  # another thread may remember a value meanwhile
    for value in sorted(values | {_left_of(value) for value in values}, key=len, reverse=True):
        text = text.replace(value, "***")
    return hide_credentials(text)


def _left_of(value: str) -> str:
    """What `hide_credentials` leaves of a remembered value; the value itself where too little is left to find it by."""
    form = hide_credentials(value)
    left = form.replace("***", "").strip()
    return form if len(left) >= 6 and left.lower() not in _SCHEMES else value


def scrub_in(value: Any) -> Any:
    """A JSON value with `scrub` applied to each of its strings; keys stay."""
    return map_strings(scrub, value)


class ScrubbingFilter(logging.Filter):
    """Scrubs every log record, traceback included. Attach it to handlers, not loggers: those do not inherit."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = scrub(record.getMessage()), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = scrub(record.exc_text)
        return True


def secret_name(folder: str) -> str | None:
    """The name of the Secret that is mounted there; None on a laptop, where a folder replaces it."""
    try:
        name: str | None = json.loads(os.environ.get(SECRETS_ENV, "{}")).get(folder)
    except (ValueError, AttributeError):
        return None
    return name


def read_key(folder: str, key: str) -> str | None:
    """The value of one key of a mounted secret, or None when the secret has no such key.

    Raises:
        FileNotFoundError: the secret itself is not there (its folder is absent or empty).
    """
    path = Path(folder)
    # The kubelet mounts a secret that does not exist as a folder with only its own bookkeeping (`..data`).
    if not path.is_dir() or all(entry.name.startswith("..") for entry in path.iterdir()):
        raise FileNotFoundError(folder)
    file = path / key
    if not file.is_file():
        return None
    value = file.read_text(encoding="utf-8").strip()
    remember(value)
    return value
