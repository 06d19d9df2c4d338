"""Card numbers, US social security numbers and IP addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator

import re2

from hone_api.dataset.curation import PersonalData
from hone_trainer.datasets.pii.span import PersonalSpan, Places

_BY_DATAFOG = {"CREDIT_CARD": PersonalData.CREDIT_CARD, "SSN": PersonalData.SSN}
_CARD_DIGITS, _UNION_PAY = (14, 15, 16), "62"
_CARD = re.compile(
    r"(?<![\w.,-])"
    r"(?:\d{4}(?P<a>[ .-])\d{4}(?P=a)\d{4}(?P=a)\d{4}|\d{4}(?P<b>[ -])\d{6}(?P=b)\d{4,5}|\d{14,16})"
    r"(?![\w-]|[.,]\d)"
)
"""Next to other numbers, such as 12/27 and 123 after it, datafog-core reads one number that is too long."""
_OTHER_ISSUERS = re.compile(
    r"35(?:2[89]|[3-8]\d)\d{12}$|3(?:0[0-5]|[68]\d)\d{11}$|62\d{14}$|(?:5018|5020|5038|5893|6304|67\d\d)\d{12}$"
)
"""JCB, Diners Club, UnionPay, Maestro."""
_SHORTEST_SSN = len("123-45-6789")
_V4 = re.compile(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?!\.?[0-9A-Za-z_\u00c0-\u04ff]|[+-]\w|\.\*)")
_V6 = re.compile(r"(?<![\w.:])(?:[0-9A-Fa-f]{1,4}::?){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_MAY_BE_V6 = re2.compile(r"\b[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{0,4}:")
_HOST = re.compile(
    r"\b(?:ip|ipv4|inet|dns|ping|hosts?|server|gateway|client|remote|peer|addr\w*|adress\w*|direcci\w+)\b", re.I
)
"""What comes before four small numbers that are an address."""
_NAMED = re.compile(r"\b(?:ip|ipv4|ipv6|inet|addr|address|host|server|client|remote|peer)[:=]\Z", re.IGNORECASE)
_LONGER = re.compile(r"[0-9A-Za-z_\u00c0-\u04ff.:]\Z")
_VERSION = re.compile(
    r"(?:\w/|\bv|\b(?:version|versión|ver|release|rel|revision|build|chart|tag)\.?[\s:=\"'v]{0,4}|[=<>~!]=\s?)\Z",
    re.IGNORECASE,
)
"""What comes before four numbers with points that are a version, e.g. Chrome/96.0.4664.110."""
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")


def cards_and_ssns(text: str, places: Places, kinds: Collection[PersonalData]) -> Iterator[PersonalSpan]:
    """What datafog-core finds, but what is doubtful."""
    names = [name for name, kind in _BY_DATAFOG.items() if kind in kinds]
    if not names or all(end - start < _SHORTEST_SSN for start, end in places):
        return
    from datafog_core import scan

    for finding in scan(text, {"entities": names}):
        start, end = finding.codepoint_range.start, finding.codepoint_range.end
        kind, digits = _BY_DATAFOG[finding.entity_type], "".join(filter(str.isdigit, text[start:end]))
        if _is_card(digits) if kind == PersonalData.CREDIT_CARD else len(digits) < end - start:
            yield PersonalSpan(start, end, kind)
    if PersonalData.CREDIT_CARD in kinds:
        for match in (match for start, end in places for match in _CARD.finditer(text, start, end + 2)):
            if _is_of_other_issuer(match[0]) or scan(match[0].replace(".", ""), {"entities": ["CREDIT_CARD"]}):
                yield PersonalSpan(*match.span(), PersonalData.CREDIT_CARD)


def _is_card(digits: str) -> bool:
    """Whether it is as long as cards are: one in ten of other numbers, such as those of articles, looks like one."""
    return len(digits) in _CARD_DIGITS or (len(digits) > max(_CARD_DIGITS) and digits.startswith(_UNION_PAY))


def _is_of_other_issuer(number: str) -> bool:
    """Whether it is a card of an issuer that datafog-core does not know, with a right check digit (Luhn)."""
    digits = [int(digit) for digit in number if digit.isdigit()]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return bool(_OTHER_ISSUERS.match("".join(map(str, digits)))) and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def addresses(text: str, places: Places) -> Iterator[PersonalSpan]:
    """Public IP addresses: private and special ones do not identify a person.

    `a::b` in code is also an address, but an unused one.
    """
    matches = [match for start, end in places for match in _V4.finditer(text, start, end + 3)]
    if text.count(":") > 1 and _MAY_BE_V6.search(text):
        matches += _V6.finditer(text)
    for match in matches:
        start, end = match.span()
        before = text[max(0, start - 16) : start]
        if (_LONGER.search(before) and not _NAMED.search(before)) or _VERSION.search(before) or match[0].endswith(".0"):
            continue
        if _is_small(match[0]) and not _HOST.search(before):
            continue
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            continue
        if address.is_global and not address.is_multicast and (address.version == 4 or address in _GLOBAL_UNICAST):
            yield PersonalSpan(start, end, PersonalData.IP_ADDRESS)


def _is_small(address: str) -> bool:
    """Whether it rather is a version, or the number of a section, such as 1.8.1.2: of addresses one in 4,000 is."""
    octets = address.split(".")
    return len(octets) == 4 and len(set(octets)) > 1 and all(int(octet) < 32 for octet in octets)
