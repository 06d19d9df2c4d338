"""Secrets: keys and tokens of services, and passwords next to a name that identifies them.

Kingfisher's rules know keys by their form. They are made for source files, where a quote or a blank follows a key: so
the punctuation of prose is blanked first, without which two thirds of the keys in sentences are missed. Its rules take
seconds to compile, and are only loaded for a text that may hold a key; Kingfisher keeps them in the user's cache.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import re2

from hone_api.dataset.curation import PersonalData
from hone_trainer.datasets.pii.span import PersonalSpan

if TYPE_CHECKING:
    from kingfisher_sdk import Scanner

_NAMES = (
    r"(?:pass(?:word|wd|phrase)|passwor[dt]|pwd|kennwort|contraseña|mot de passe"
    r"|wachtwoord|senha|hasło|пароль|密码|密碼|パスワード|비밀번호"
    r"|(?:api|bot|auth|session|refresh)[_-]?token"
    r"|(?:api|access|secret|auth|private|account|encryption|client)[_ -]?(?:key|secret|token))"
)
_IS = r"[ \t]{0,7}[\"'`\]]{0,2}[ \t]{0,3}[:=：＝]"
"""Blanks before a quote: a backslash was there (`plain`)."""
_KEY = r"[\w+=\-]{16}"
_NAME = rf"://[^\s/]*@|(?i:(?:authorization|secret|token|{_NAMES}){_IS})"
SEED_PHRASE = r"\b[a-z]{3,8}(?: [a-z]{3,8}){11}"
"""Of a wallet: words that stand next to each other. In prose a shorter one is mostly among twelve."""
_MAY_BE_KEY, _MAY_BE_NAMED, _MAY_BE_EITHER = map(
    re2.compile, (f"{_KEY}|{SEED_PHRASE}", _NAME, f"{_KEY}|{SEED_PHRASE}|{_NAME}")
)
_KEY_BLOCK = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z ]*-----|\Z)", re.S)
_FORMS = re2.compile(
    "|".join(
        (
            r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b",  # id of an AWS key: Kingfisher requires the key next to it
            r"\bGOCSPX-[\w-]{28}",  # Google OAuth client
            r"\bhf_[A-Za-z0-9]{34,}\b",  # Hugging Face: Kingfisher knows those without digits
            r"\bsk-(?:proj|svcacct|admin|ant|or)-[\w-]{32,}",  # OpenAI, Anthropic, OpenRouter: of any length
            r"\b\d{8,10}:AA[\w-]{33}",  # Telegram
            r"\b[MNO][\w-]{23,25}\.[\w-]{6}\.[\w-]{27,38}",  # Discord
            r"\bya29\.[\w-]{30,}",  # Google, for an hour
            r"\bkey-[0-9a-f]{32}\b",  # Mailgun
            r"\b[\w.~-]{3}[78]Q~[\w.~-]{31,34}",  # Entra ID, client of Azure
            r"\bHRKU-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b",  # Heroku
            r"\bpscale_(?:tkn|pw|oauth)_[\w.-]{32,64}",  # PlanetScale
            r"\bNRAK-[A-Z0-9]{27}\b",  # New Relic
            r"\btskey-[a-z]+-\w{10,}-\w{20,}",  # Tailscale
            r"\b[rs]k_test_[A-Za-z0-9]{24,}\b",  # Stripe
            r"\bfm[12][a-z]?_[\w+/=]{60,}",  # Fly.io
            r"\bLS0tLS1CRUdJTiB(?:QUklW|SU0Eg|FQyBQ|PUEVOU1NI|FTkNSWVBURU)[\w+/=]{40,}",  # a private key in base64
        )
    )
)
"""Keys that Kingfisher does not find, or only next to others."""
_URL_PASSWORD = re.compile(r"://[^\s/:@]{0,64}:([^\s/@:$<{%*][^\s/@]{0,127})@")
_NAMED = re.compile(
    r"(?:(?<![^\W_])|(?<=[a-z])(?-i:(?=[A-Z]))|(?=[密パ비]))(?:[\w-]{0,40}[_-])?"
    rf"{_NAMES}{_IS}[=>]?[ \t]{{0,7}}[\"'`]?"
    r"([^\s\"'`,;<>(){}\[\]|&$%*][^\s\"'`,;<>(){}\[\]|&]{5,255})(?![(\[{])",
    re.IGNORECASE,
)
_BARE = re.compile(rf"\b(?:secret|token){_IS}[ \t]{{0,3}}[\"']?([\w+/=]{{20,256}})(?![\w(\[{{]|[.-]\w)", re.IGNORECASE)
_BEARER = re.compile(
    rf"\bauthorization{_IS}[ \t]{{0,3}}[\"']?(?:bearer|basic|token)\s+([\w+/=.~-]{{16,}})", re.IGNORECASE
)
_PLACEHOLDER = re.compile(
    r"your|example|placeholder|change.?me|redacted|xxxx|\.\.\.|\A(?:\w+[_-])?(?:pass|passw[do]r?[dt]?|secret|token|key)\Z",
    re.I,
)
_DOTTED_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_LETTER, _SIGN = re.compile(r"[^\W\d_]"), re.compile(r"[\d!@#%^+=?~]")
_PUNCTUATION = str.maketrans(dict.fromkeys(",;|<>()[]{}*»«„“”’…", " "))
_END_OF_SENTENCE = re.compile(r"[.!?:]+(?=\s|$)")
_LONGEST_VALUE, _BLANK = 256, re.compile(r"\s")
_SHORTEST = 8
"""Shorter values, such as the name of an account, are not secrets on their own."""


def find(text: str) -> Iterator[PersonalSpan]:
    """Keys and passwords in the text."""
    if not _MAY_BE_EITHER.search(text):
        return
    if _MAY_BE_KEY.search(text):
        yield from (_secret(match) for match in _FORMS.finditer(text))
        if "PRIVATE KEY" in text:
            yield from (_secret(match) for match in _KEY_BLOCK.finditer(text))
        yield from by_kingfisher(text)
    if _MAY_BE_NAMED.search(text):
        yield from _named(text)


def _named(text: str) -> Iterator[PersonalSpan]:
    for pattern in (_URL_PASSWORD, _BEARER, _BARE, _NAMED):
        for match in pattern.finditer(text):
            if not _PLACEHOLDER.search(match[1]) and (pattern is _URL_PASSWORD or _is_mixed(match[1])):
                yield PersonalSpan(match.start(1), _end_of_value(text, *match.span(1)), PersonalData.SECRET)


def _end_of_value(text: str, start: int, end: int) -> int:
    """A value in quotes ends with them, also where it has a sign at which others end, such as &."""
    quote = text[start - 1 : start]
    if quote not in ("'", '"', "`"):
        return end
    rest = text[end : end + _LONGEST_VALUE].partition(quote)
    return end + len(rest[0]) if rest[1] and not _BLANK.search(rest[0]) else end


def _secret(match: re.Match[str], group: int = 0) -> PersonalSpan:
    return PersonalSpan(match.start(group), match.end(group), PersonalData.SECRET)


def _is_mixed(value: str) -> bool:
    """Whether it has letters and digits or other signs, and is not a name in a program, like a.b1."""
    return not _DOTTED_NAME.fullmatch(value) and _LETTER.search(value) is not None and _SIGN.search(value) is not None


def by_kingfisher(text: str) -> Iterator[PersonalSpan]:
    """Keys that Kingfisher's rules know."""
    blanked = _END_OF_SENTENCE.sub(lambda match: " " * len(match[0]), text.translate(_PUNCTUATION))
    encoded = blanked.encode()
    start = read = 0  # characters and bytes before a finding: counted once, as a text may hold thousands
    for finding in sorted(_scanner().scan(blanked), key=lambda finding: finding.location["start_offset"]):
        if len(finding.secret) < _SHORTEST:
            continue
        offset = finding.location["start_offset"]
        start, read = start + len(encoded[read:offset].decode()), offset
        at = blanked.find(finding.secret, start)
        if at >= 0:
            yield PersonalSpan(at, at + len(finding.secret), PersonalData.SECRET)


@cache
def _scanner() -> Scanner:
    from kingfisher_sdk import Rules, Scanner

    return Scanner(Rules([Path(__file__).with_name("seed_phrase.yaml")]), base64=False)
