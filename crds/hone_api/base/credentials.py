"""Patterns of credentials, which trainer and operator hide before others read logs and messages.

Each pattern takes time linear in the text: whoever writes a log must not be able to stall its reader.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_PATTERNS = (
    (re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.S), "***"),
    # The end of a key whose beginning was cut off.
    (re.compile(r"\A.*?-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----", re.S), "***"),
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), "hf_***"),
    (re.compile(r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b"), "***"),
    (re.compile(r"\bsk-[-A-Za-z0-9_]{16,}"), "sk-***"),
    (
        re.compile(r"\b(gh[oprsu]_|github_pat_|glpat-|xox[abprs]-|npm_|pypi-|AIza|dckr_pat_|nvapi-)[-A-Za-z0-9_]{16,}"),
        r"\1***",
    ),
    (re.compile(r"(?<![-A-Za-z0-9_])eyJ[-A-Za-z0-9_]{8,}\.[-A-Za-z0-9_]{8,}(?:\.[-A-Za-z0-9_]*)?"), "***"),
    (
        re.compile(
            r"(?i)((?:secret_?access_?key|session_?token|security[_-]?token|tracking[_-]?token|api[_-]?key|access[_-]?token|auth[_-]?token|password|passwd|"
            r"client[_-]?secret|client-key-data|account[_-]?key)(?:\\?['\"])?\s{0,8}[=:]\s{0,8}(?:\\?['\"])?)[^\s'\",;&\\]{6,}"
        ),
        r"\1***",
    ),
    # Of the environment, whatever the service is called.
    (
        re.compile(
            r"\b([A-Z][A-Z0-9_]{0,64}_(?:TOKEN|SECRET|PASSWORD|PASSPHRASE|KEY)(?:\\?['\"])?\s{0,8}[=:]\s{0,8}(?:\\?['\"])?)[^\s'\",;&\\]{6,}"
        ),
        r"\1***",
    ),
    # Of a command line.
    (
        re.compile(
            r"(?i)(--[\w-]{0,64}?(?:token|secret|password|passphrase|api-?key)(?:=|\s{1,8})['\"]?)[^\s'\",;&\\]{6,}"
        ),
        r"\1***",
    ),
    (
        re.compile(
            r"(?i)(\bauthorization(?:\\?['\"])?\s{0,8}[=:]\s{0,8}(?:\\?['\"])?(?:token|apikey)\s{1,8})[^\s'\",]{12,}"
        ),
        r"\1***",
    ),
    # Of a registry's config.json.
    (re.compile(r"(\\?['\"]auth\\?['\"]\s{0,8}:\s{0,8}\\?['\"])[A-Za-z0-9+/=]{8,}"), r"\1***"),
    (re.compile(r"\bdapi[0-9a-f]{32}"), "dapi***"),
    (re.compile(r"(?i)\b(bearer|basic)\s{1,8}[-A-Za-z0-9._~+/=]{6,}"), r"\1 ***"),
    (re.compile(r"://[^\s/@]+@"), "://***@"),
    (
        re.compile(r"(?i)([?&][\w-]{0,64}?(?:token|signature|secret|password|credential|key|sig)=)[^&\s'\"]+"),
        r"\1***",
    ),
)


def hide_credentials(text: str) -> str:
    """The text with everything that looks like a credential replaced by ***."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def hide_credentials_in(value: Any) -> Any:
    """A JSON value with `hide_credentials` applied to each of its strings; keys stay."""
    return map_strings(hide_credentials, value)


def map_strings(change: Callable[[str], str], value: Any) -> Any:
    """A JSON value with each of its strings changed; keys stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: map_strings(change, inner) for key, inner in value.items()}
    return [map_strings(change, inner) for inner in value] if isinstance(value, list) else value
