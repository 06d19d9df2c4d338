"""Personal data in a text: where it is and of what kind.

datafog-core finds e-mail addresses, card numbers (Luhn), US social security numbers and IP addresses; phonenumbers
knows which phone numbers there are, in international or North American form; schwifty checks IBANs; detect-secrets
knows the keys of common services. Bare runs of digits count only as cards: order numbers and times look like the rest.
Names and addresses of people are not found: that takes a language model, and misses many all the same.
"""

from __future__ import annotations

import ipaddress
import re
import string
from collections.abc import Callable, Collection, Iterator
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
    "CREDIT_CARD": PersonalData.CREDIT_CARD,
    "IP_ADDRESS": PersonalData.IP_ADDRESS,
    "SSN": PersonalData.SSN,
}
_SHORTEST_CARD = 14
_VERSION = re.compile(r"(?:\w/|\bv)\Z")
"""What comes before four numbers with points that are a version, e.g. Chrome/96.0.4664.110."""
_MAY_BE_PHONE = re.compile(r"\d[\d\s().\-/]{5,}\d")
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
    """What the text holds of these kinds, in order and without overlap: a secret counts first, then the longer one."""
    found = [*_by_datafog(text, kinds)]
    if PersonalData.PHONE in kinds:
        found += _phones(text)
    if PersonalData.IBAN in kinds:
        found += _ibans(text)
    if PersonalData.SECRET in kinds:
        found += _secrets(text)
    apart: list[Found] = []
    for one in sorted(found, key=lambda f: (f.kind != PersonalData.SECRET, f.start - f.end)):
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
        start, end = finding.codepoint_range.start, finding.codepoint_range.end
        kind = _BY_DATAFOG[finding.entity_type]
        if kind not in _DOUBTS or _DOUBTS[kind](text, start, end):
            yield Found(start, end, kind)


def _is_long_card(text: str, start: int, end: int) -> bool:
    """Cards of 13 digits are no longer issued; one in ten article numbers looks like one."""
    return sum(map(str.isdigit, text[start:end])) >= _SHORTEST_CARD


def _is_written_ssn(text: str, start: int, end: int) -> bool:
    return not text[start:end].isdigit()


def _is_public_address(text: str, start: int, end: int) -> bool:
    """Private and special addresses tell nothing of a person; `a::b` in code is an address, too, but none in use."""
    if _VERSION.search(text[max(0, start - 2) : start]):
        return False
    try:
        address = ipaddress.ip_address(text[start:end])
    except ValueError:
        return False
    return address.is_global and (address.version == 4 or address in _GLOBAL_UNICAST)


_DOUBTS: dict[PersonalData, Callable[[str, int, int], bool]] = {
    PersonalData.CREDIT_CARD: _is_long_card,
    PersonalData.SSN: _is_written_ssn,
    PersonalData.IP_ADDRESS: _is_public_address,
}
"""Whether text[start:end] is what it looks like."""


def _phones(text: str) -> Iterator[Found]:
    from phonenumbers import Leniency, PhoneNumberMatcher

    if not _MAY_BE_PHONE.search(text):
        return
    for match in PhoneNumberMatcher(text, "US", leniency=Leniency.VALID):
        if not match.raw_string.isdigit():
            yield Found(match.start, match.end, PersonalData.PHONE)


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
