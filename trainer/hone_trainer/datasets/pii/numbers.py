"""Card numbers, US social security numbers and IP addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator

import re2

from hone_api.dataset.curation import PersonalData
from hone_trainer.datasets.pii.span import PersonalSpan, Places

_LONGEST_CARD, _UNION_PAY = 16, "62"
_RUN = re.compile(
    r"(?<![0-9A-Za-z])(?!(?<=[0-9]\.)[0-9]{14})(?=(?P<number>[0-9](?:[ -]?[0-9]){13,18}+)(?![0-9A-Za-z]))"
)
"""From each beginning of a number as far as it may reach. Digits after a point are a fraction."""
_CARD = re.compile(
    r"(?<![\w.,-])"
    r"(?:\d{4}(?P<a>[ .-])\d{4}(?P=a)\d{4}(?P=a)\d{4}|\d{4}(?P<b>[ -])\d{6}(?P=b)\d{4,5}|\d{14,16})"
    r"(?![\w-]|[.,]\d)"
)
"""Next to other numbers, such as 12/27 and 123 after it, `_RUN` reads one number that is too long."""
_ISSUERS = re.compile(
    # Visa, Mastercard, American Express, Discover
    r"4|5[1-5]|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)|3[47]|6011|64[4-9]|65"
    r"|622(?:12[6-9]|1[3-9]\d|[2-8]\d\d|9[01]\d|92[0-5])"
    # JCB, Diners Club, UnionPay, Maestro
    r"|35(?:2[89]|[3-8]\d)\d{12}$|3(?:0[0-5]|[68]\d)\d{11}$|62\d{14}$|(?:5018|5020|5038|5893|6304|67\d\d)\d{12}$"
)
_SSN = re.compile(r"(?<![0-9A-Za-z])(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}(?![0-9A-Za-z])")
"""Numbers that the Social Security Administration gives out, as it writes them."""
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
    """Card numbers of issuers that are known, with a right check digit, and US social security numbers."""
    places = [(start, end) for start, end in places if end - start >= _SHORTEST_SSN]
    if PersonalData.SSN in kinds and places:
        yield from (PersonalSpan(*match.span(), PersonalData.SSN) for match in _SSN.finditer(text))
    if PersonalData.CREDIT_CARD in kinds and places:
        runs = (match.span("number") for match in _RUN.finditer(text))
        apart = (match.span() for start, end in places for match in _CARD.finditer(text, start, end + 2))
        for start, end in {*runs, *apart}:
            if _is_card(text[start:end]):
                yield PersonalSpan(start, end, PersonalData.CREDIT_CARD)


def _is_card(number: str) -> bool:
    """Whether length, issuer and check digit (Luhn) are those of a card.

    Only UnionPay's are longer than 16: one in ten of other numbers, such as those of articles, has a right check digit.
    """
    digits = "".join(filter(str.isdigit, number))
    if not _ISSUERS.match(digits) or (len(digits) > _LONGEST_CARD and not digits.startswith(_UNION_PAY)):
        return False
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


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
