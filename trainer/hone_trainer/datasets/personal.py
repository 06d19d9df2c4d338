"""Personal data in a text: where it is and of what kind.

datafog-core finds e-mail addresses, phone numbers (international or North American form), card numbers (Luhn), US
social security numbers and IP addresses; schwifty checks IBANs; detect-secrets knows the keys of common services.
Names and addresses of people are not found: that takes a language model, and misses many all the same.
"""

from __future__ import annotations

import ipaddress
import re
import string
from collections.abc import Collection, Iterator
from functools import cache
from typing import NamedTuple

from hone_api.curation import PersonalData

MARKS = {
    PersonalData.EMAIL: "[EMAIL]",
    PersonalData.PHONE: "[PHONE]",
    PersonalData.CREDIT_CARD: "[CREDIT_CARD]",
    PersonalData.IBAN: "[IBAN]",
    PersonalData.IP_ADDRESS: "[IP_ADDRESS]",
    PersonalData.SSN: "[SSN]",
    PersonalData.SECRET: "[SECRET]",
}
_BY_DATAFOG = {
    "EMAIL": PersonalData.EMAIL,
    "PHONE": PersonalData.PHONE,
    "CREDIT_CARD": PersonalData.CREDIT_CARD,
    "IP_ADDRESS": PersonalData.IP_ADDRESS,
    "SSN": PersonalData.SSN,
}
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_IBAN = re.compile(r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_SHORTEST_IBAN = 15
_KEY_BLOCK = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z ]*-----|\Z)", re.S)
_MAY_BE_SECRET = re.compile(r"[\w+/=.\-]{20}|://[^\s/]*@")
"""Every key that is known is at least so long: most texts need not be looked at by all of detect-secrets."""
_NAME = frozenset(string.ascii_letters + string.digits + "_-")
_BASE64 = _NAME | frozenset("+/=")
_DETECTORS = (
    ("aws", "AWSKeyDetector"),
    ("azure_storage_key", "AzureStorageKeyDetector"),
    ("basic_auth", "BasicAuthDetector"),
    ("discord", "DiscordBotTokenDetector"),
    ("github_token", "GitHubTokenDetector"),
    ("gitlab_token", "GitLabTokenDetector"),
    ("jwt", "JwtTokenDetector"),
    ("npm", "NpmDetector"),
    ("openai", "OpenAIDetector"),
    ("pypi_token", "PypiTokenDetector"),
    ("sendgrid", "SendGridDetector"),
    ("slack", "SlackDetector"),
    ("square_oauth", "SquareOAuthDetector"),
    ("stripe", "StripeDetector"),
    ("telegram_token", "TelegramBotTokenDetector"),
    ("twilio", "TwilioKeyDetector"),
)
"""Module and class of detect-secrets. Those that guess by entropy or by a name beside the value are left out."""


class Found(NamedTuple):
    """Personal data at text[start:end]."""

    start: int
    end: int
    kind: PersonalData


def find(text: str, kinds: Collection[PersonalData]) -> list[Found]:
    """What the text holds of these kinds, in order and without overlap; the longer one counts."""
    found = [*_by_datafog(text, kinds)]
    if PersonalData.IBAN in kinds:
        found += _ibans(text)
    if PersonalData.SECRET in kinds:
        found += _secrets(text)
    apart: list[Found] = []
    for one in sorted(found, key=lambda f: f.start - f.end):
        if all(one.end <= other.start or other.end <= one.start for other in apart):
            apart.append(one)
    return sorted(apart)


def redact(text: str, found: list[Found]) -> str:
    """The text with a mark in place of each."""
    parts, at = [], 0
    for start, end, kind in found:
        parts += [text[at:start], MARKS[kind]]
        at = end
    return "".join([*parts, text[at:]])


def _by_datafog(text: str, kinds: Collection[PersonalData]) -> Iterator[Found]:
    from datafog_core import scan

    names = [name for name, kind in _BY_DATAFOG.items() if kind in kinds]
    if not names:
        return
    for finding in scan(text, {"entities": names}):
        kind = _BY_DATAFOG[finding.entity_type]
        if kind != PersonalData.IP_ADDRESS or _is_public(finding.matched_text):
            yield Found(finding.codepoint_range.start, finding.codepoint_range.end, kind)


def _is_public(address: str) -> bool:
    """Private and special addresses tell nothing of a person; `a::b` in code is an address, too, but none in use."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return parsed.is_global and (parsed.version == 4 or parsed in _GLOBAL_UNICAST)


def _ibans(text: str) -> Iterator[Found]:
    for match in _IBAN.finditer(text):
        # A word of capitals after the number looks like more of it.
        for end in range(match.end(), match.start() + _SHORTEST_IBAN - 1, -1):
            if _is_iban(text[match.start() : end]):
                yield Found(match.start(), end, PersonalData.IBAN)
                break


def _is_iban(text: str) -> bool:
    from schwifty import IBAN
    from schwifty.exceptions import SchwiftyException

    try:
        IBAN(text)
    except SchwiftyException:
        return False
    return text == text.rstrip()


def _secrets(text: str) -> Iterator[Found]:
    if "PRIVATE KEY" in text:
        yield from (Found(*match.span(), PersonalData.SECRET) for match in _KEY_BLOCK.finditer(text))
    if not _MAY_BE_SECRET.search(text):
        return
    for pattern in _key_patterns():
        for match in pattern.finditer(text):
            yield Found(*_whole_key(text, *match.span(match.lastindex or 0)), PersonalData.SECRET)


def _whole_key(text: str, start: int, end: int) -> tuple[int, int]:
    """Some patterns match only a part of the key, e.g. its prefix."""
    while start and text[start - 1] in _NAME:
        start -= 1
    while end < len(text) and text[end] in _BASE64:
        end += 1
    return start, end


@cache
def _key_patterns() -> list[re.Pattern[str]]:
    from importlib import import_module

    detectors = [getattr(import_module(f"detect_secrets.plugins.{module}"), name)() for module, name in _DETECTORS]
    return [pattern for detector in detectors for pattern in detector.denylist]
