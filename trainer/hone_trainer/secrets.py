"""Credentials: read from mounted files, and kept out of logs and messages."""

from __future__ import annotations

import logging
import re
from pathlib import Path

_PATTERNS = (
    (re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.S), "***"),
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), "hf_***"),
    (re.compile(r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b"), "***"),
    (re.compile(r"\bsk-[-A-Za-z0-9_]{16,}"), "sk-***"),
    (
        re.compile(r"\b(gh[oprsu]_|github_pat_|glpat-|xox[abprs]-|npm_|pypi-|AIza|dckr_pat_|nvapi-)[-A-Za-z0-9_]{16,}"),
        r"\1***",
    ),
    (re.compile(r"\beyJ[-A-Za-z0-9_]{8,}\.[-A-Za-z0-9_]{8,}(?:\.[-A-Za-z0-9_]*)?"), "***"),
    (
        re.compile(
            r"(?i)([\w-]*(?:secret_access_key|session_token|api[_-]?key|access[_-]?token|auth[_-]?token|password|passwd|"
            r"client[_-]?secret|account[_-]?key)['\"]?\s*[=:]\s*['\"]?)[^\s'\",;&]{6,}"
        ),
        r"\1***",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[-A-Za-z0-9._~+/=]{6,}"), r"\1 ***"),
    (re.compile(r"://[^\s/@]+@"), "://***@"),
    (re.compile(r"(?i)([?&](?:[\w-]*(?:token|signature|secret|password|credential|key|sig))=)[^&\s'\"]+"), r"\1***"),
)
_known: set[str] = set()


def remember(value: str) -> None:
    """Let `scrub` hide this value, and its parts such as the token in 'Bearer <token>', from now on."""
    for part in (value, *value.split()):
        if len(part) >= 6:
            _known.add(part)


def scrub(text: str) -> str:
    """The text with every remembered credential, and all that looks like one, replaced by ***."""
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, "***")
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


class ScrubbingFilter(logging.Filter):
    """Scrubs every log record, traceback included. Attach it to handlers, not loggers: those do not inherit."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = scrub(record.getMessage()), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = scrub(record.exc_text)
        return True


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
