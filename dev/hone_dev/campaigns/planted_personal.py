"""Texts with planted personal data in English, German, Spanish and French, and harmless ones that look alike.

Every value is made from a seed: no key here was ever issued, and none is stored in a file. Phone numbers are of the
form that people of a country write; a few are of ranges that regulators keep for fiction, the others may be somebody's.
"""

from __future__ import annotations

import base64
import json
import random
import re
import string
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from faker import Faker

from hone_api.dataset.curation import PersonalData

_LETTERS, _DIGITS, _HEX = string.ascii_letters, string.digits, "0123456789abcdef"
_ALNUM = _LETTERS + _DIGITS
_URL_SAFE = _ALNUM + "-_"
_UPPER = string.ascii_uppercase + _DIGITS
_BESIDE = re.compile("«[^»]*»")

SENTENCES = {
    "en": ("For the account of {name}, note {value}.", "{name} wrote: {value}, and asked for a reply."),
    "de": ("Für das Konto von {name} gilt {value}.", "{name} schrieb: {value}, und bat um Antwort."),
    "es": ("Para la cuenta de {name}, anote {value}.", "{name} escribió: {value}, y pidió respuesta."),
    "fr": ("Pour le compte de {name}, notez {value}.", "{name} a écrit : {value}, et attend une réponse."),
}
_LOCALES = {"en": "en_US", "de": "de_DE", "es": "es_ES", "fr": "fr_FR"}


class PlantedText(NamedTuple):
    """A text, and the personal data in it; kind is None for a harmless text."""

    text: str
    form: str
    value: str
    kind: PersonalData | None = None


class Span(NamedTuple):
    """Personal data at text[start:end], as a detector reports it."""

    start: int
    end: int
    kind: PersonalData


@dataclass(frozen=True)
class DetectionScore:
    """How much of what was planted is found, and how much of what is found was planted."""

    recall: dict[str, tuple[int, int]]
    """By form: values that spans of their kind cover completely, and all values."""
    touched: dict[str, int]
    """By form: values that are found in part, as by a scanner that reports positions and redacts nothing."""
    right: int
    """Spans over a planted value of their kind."""
    wrong: dict[str, int]
    """Other spans, by the form of the text."""

    @property
    def precision(self) -> float:
        """Share of the spans that are right."""
        found = self.right + sum(self.wrong.values())
        return self.right / found if found else 1.0

    def recall_of(self, forms: Iterable[str]) -> float:
        """Share of the values of these forms that are found."""
        counts = [self.recall[form] for form in forms]
        return sum(found for found, _ in counts) / sum(planted for _, planted in counts)


def samples(seed: int = 0, each: int = 24) -> list[PlantedText]:
    """So many texts of each form, spread over the four languages."""
    rng = random.Random(seed)
    Faker.seed(seed)
    fakers = {language: Faker(locale) for language, locale in _LOCALES.items()}
    made: list[PlantedText] = []
    for form, (kind, make) in _forms(rng, fakers).items():
        made += (_sample(rng, fakers, form, make(), kind) for _ in range(each))
    for form, harmless in _harmless(rng, fakers["en"]).items():
        made += (_sample(rng, fakers, form, harmless(), None) for _ in range(each))
    return made


def key(rng: random.Random) -> str:
    """A key of some service."""
    return _written(rng.choice(list(_keys(rng).values()))())


def score(planted: Sequence[PlantedText], find: Callable[[str], Iterable[Span]]) -> DetectionScore:
    """What `find` makes of the texts."""
    recall: dict[str, list[bool]] = defaultdict(list)
    touched: dict[str, int] = defaultdict(int)
    wrong: dict[str, int] = defaultdict(int)
    right = 0
    for sample in planted:
        start = sample.text.index(sample.value)
        end, covered = start + len(sample.value), set[int]()
        for span in find(sample.text):
            if span.kind == sample.kind and span.start < end and start < span.end:
                covered.update(range(span.start, span.end))
                right += 1
            else:
                wrong[sample.form] += 1
        if sample.kind is not None:
            recall[sample.form].append(covered.issuperset(range(start, end)))
            touched[sample.form] += bool(covered)
    return DetectionScore(
        {form: (sum(all_), len(all_)) for form, all_ in recall.items()}, dict(touched), right, dict(wrong)
    )


def _sample(
    rng: random.Random, fakers: dict[str, Faker], form: str, made: str, kind: PersonalData | None
) -> PlantedText:
    """The value in a sentence; text in « » surrounds the value and is not personal."""
    language = rng.choice(sorted(SENTENCES))
    text = rng.choice(SENTENCES[language]).format(name=fakers[language].first_name(), value=_written(made))
    return PlantedText(text, form, _BESIDE.sub("", made), kind)


def _written(made: str) -> str:
    return made.replace("«", "").replace("»", "")


Form = tuple[PersonalData, Callable[[], str]]


def _forms(rng: random.Random, fakers: dict[str, Faker]) -> dict[str, Form]:
    kinds: dict[PersonalData, dict[str, Callable[[], str]]] = {
        PersonalData.EMAIL: _emails(rng, fakers),
        PersonalData.PHONE: _phones(rng),
        PersonalData.IBAN: _ibans(rng),
        PersonalData.CREDIT_CARD: _cards(rng, fakers["en"]),
        PersonalData.SSN: {"us": fakers["en"].ssn},
        PersonalData.IP_ADDRESS: {"v4": fakers["en"].ipv4_public, "v6": lambda: _ipv6(rng)},
        PersonalData.SECRET: {**_keys(rng), **_named(rng)},
    }
    made = {f"{kind}/{form}": (kind, make) for kind, forms in kinds.items() for form, make in forms.items()}
    phone, address = PersonalData.PHONE, PersonalData.IP_ADDRESS
    made |= {f"{phone}/{form}": (phone, make) for form, make in _touching(rng).items()}
    return made | {f"{address}/after a colon": (address, lambda: f"«ip:»{fakers['en'].ipv4_public()}")}


def _text(rng: random.Random, count: int, letters: str = _ALNUM) -> str:
    return "".join(rng.choices(letters, k=count))


def _emails(rng: random.Random, fakers: dict[str, Faker]) -> dict[str, Callable[[], str]]:
    def address() -> str:
        return str(fakers[rng.choice(sorted(fakers))].ascii_safe_email())

    return {
        "plain": address,
        "tag": lambda: address().replace("@", "+news@").title(),
        "mailto": lambda: "«mailto:»" + address(),
        "utf-8 local part": lambda: rng.choice("äéñü") + address(),
        "idn domain": lambda: f"{fakers['de'].user_name()}@{rng.choice(('uni-köln', 'müller', 'peña', 'café'))}.de",
        "angle brackets": lambda: f"«<»{address()}",
        "spelled": lambda: address().replace("@", rng.choice((" (at) ", "(at)", " [at] ", "{at}", " (arroba) "))),
        "html": lambda: address().replace("@", rng.choice(("&#64;", "&#x40;", "&commat;"))),
        "quoted": lambda: f'"{fakers["en"].first_name()} {fakers["en"].last_name()}"@example.org',
        "at an address": lambda: f"{fakers['en'].user_name()}@[{fakers['en'].ipv4_public()}]",
        "spelled dot": lambda: " (at) ".join(address().replace(".", " (dot) ").split("@")),
    }


def _phones(rng: random.Random) -> dict[str, Callable[[], str]]:
    forms = {
        "us": ("(212) 555-01##", "415-555-01##", "212.555.01##", "+1 650 555 01##"),
        "international": (
            "+44 20 7946 09##",
            "+49 30 23125 1##",
            "+33 1 99 00 12 ##",
            "+34 612 34 56 ##",
            "+491711234###",
        ),
        "de mobile": ("0171/23456##", "0171 23456##", "0171-23456##", "0160 98765##", "01712345###"),
        "de landline": ("030 2312 51##", "030/231251##", "(030) 231251##", "089 12345##"),
        "de 00": ("0049 171 23456##", "0049 30 231251##"),
        "es": ("612 345 6##", "612 34 56 ##", "91 123 45 ##", "912 345 6##", "+34 91 123 45 ##"),
        "fr": ("06 12 34 56 ##", "06.12.34.56.##", "06-12-34-56-##", "01 42 68 53 ##", "06123456##"),
        "gb": ("07911 1234##", "07911 123 4##", "020 7946 09##", "(020) 7946 09##", "0161 496 0###"),
        "named": ("«tel. »6123456##", "«móvil »6123456##", "«Handy: »01712345###", "«phone: »21255501##"),
        "nbsp": ("06\u00a012\u00a034\u00a056\u00a0##", "+49\u00a030\u00a023125\u00a01##", "0171\u202f23456##"),
    }
    return _filled(rng, forms)


def _touching(rng: random.Random) -> dict[str, Callable[[], str]]:
    """Phone numbers that touch a sign."""
    forms = {
        "in brackets": ("«(»0171/23456##«)»", "«(»030 231251##«)»", "«(»06 12 34 56 ##«)»", "«(»612 345 6##«)»"),
        "after a colon": ("«Tel.:»0171/23456##", "«Fax:»030/231251##", "«Tél.:»06 12 34 56 ##", "«tel:»+34612345###"),
    }
    return _filled(rng, forms)


def _filled(rng: random.Random, forms: Mapping[str, tuple[str, ...]]) -> dict[str, Callable[[], str]]:
    def filled(patterns: tuple[str, ...]) -> str:
        pattern = rng.choice(patterns)
        return "".join(rng.choice("23456789") if sign == "#" else sign for sign in pattern)

    return {name: partial(filled, patterns) for name, patterns in forms.items()}


def _ibans(rng: random.Random) -> dict[str, Callable[[], str]]:
    fakers = [Faker(locale) for locale in ("de_DE", "es_ES", "fr_FR", "en_GB")]

    def compact() -> str:
        return str(rng.choice(fakers).iban())

    def apart(by: str) -> str:
        text = compact()
        return by.join(text[at : at + 4] for at in range(0, len(text), 4))

    return {
        "compact": compact,
        "spaced": lambda: apart(" "),
        "lower case": lambda: rng.choice((compact(), apart(" "))).lower(),
        "dashes": lambda: apart("-"),
        "nbsp": lambda: apart("\u00a0"),
    }


def _cards(rng: random.Random, fake: Faker) -> dict[str, Callable[[], str]]:
    def apart(by: str) -> str:
        digits = fake.credit_card_number(rng.choice(("visa16", "mastercard", "discover")))
        return by.join(digits[at : at + 4] for at in range(0, 16, 4))

    return {
        "plain": lambda: fake.credit_card_number(rng.choice(("visa16", "mastercard", "amex", "discover"))),
        "spaced": lambda: apart(" "),
        "dashes": lambda: apart("-"),
        "nbsp": lambda: apart("\u00a0"),
        "non-breaking hyphens": lambda: apart("\u2011"),
    }


_SENTRY = b'{"iat":1700000000.1,"url":"https://sentry.io","region_url":"https://us.sentry.io","org":"web"}'
_SEED_PHRASES = (
    "legal winner thank year wave sausage worth useful legal winner thank yellow",
    "letter advice cage absurd amount doctor acoustic avoid letter advice cage above",
    "void come effort suffer camp survey warrior heavy shoot primary clutch crush open amazing screen patrol group"
    " space point ten exist slush involve unfold",
)
"""Of the test vectors of BIP 39."""


def _ipv6(rng: random.Random) -> str:
    groups = [f"{rng.randrange(0x2001, 0x2F00):x}", *(f"{rng.randrange(1, 2**16):x}" for _ in range(7))]
    return ":".join(groups)


def _keys(rng: random.Random) -> dict[str, Callable[[], str]]:
    """Keys whose form shows their service."""

    def text(count: int, letters: str = _ALNUM) -> str:
        return _text(rng, count, letters)

    def jwt() -> str:
        parts = ({"alg": "HS256", "typ": "JWT"}, {"sub": text(10), "iat": rng.randrange(10**9)})
        coded = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
        return ".".join([*coded, text(43, _URL_SAFE)])

    def block(name: str) -> str:
        lines = "\n".join(text(64, _ALNUM + "+/") for _ in range(4))
        return f"-----BEGIN {name} PRIVATE KEY-----\n{lines}\n-----END {name} PRIVATE KEY-----"

    return {
        "hugging face": lambda: "hf_" + text(34, _LETTERS),
        "hugging face, digits": lambda: "hf_" + text(34),
        "anthropic": lambda: "sk-ant-api03-" + text(93, _URL_SAFE) + "AA",
        "openai project": lambda: "sk-proj-" + text(74, _URL_SAFE) + "T3BlbkFJ" + text(74, _URL_SAFE),
        "openai, short": lambda: "sk-proj-" + text(48),
        "openai, old": lambda: "sk-" + text(20) + "T3BlbkFJ" + text(20),
        "github fine-grained": lambda: "github_pat_" + text(22) + "_" + text(59),
        "github": lambda: rng.choice(("ghp_", "gho_", "ghs_")) + text(36),
        "google api": lambda: "AIza" + text(35, _URL_SAFE),
        "google oauth": lambda: "GOCSPX-" + text(28, _URL_SAFE),
        "npm": lambda: "npm_" + text(36),
        "databricks": lambda: "dapi" + text(32, _HEX),
        "groq": lambda: "gsk_" + text(52),
        "digitalocean": lambda: "dop_v1_" + text(64, _HEX),
        "aws id": lambda: "AKIA" + text(16, string.ascii_uppercase + "234567"),
        "gitlab": lambda: "glpat-" + text(20, _URL_SAFE),
        "slack": lambda: f"xoxb-{text(12, '123456789')}-{text(12, '123456789')}-{text(24)}",
        "slack hook": lambda: f"https://hooks.slack.com/services/T{text(8, _UPPER)}/B{text(8, _UPPER)}/{text(24)}",
        "stripe": lambda: "sk_live_" + text(24),
        "pypi": lambda: "pypi-AgEIcHlwaS5vcmc" + text(72, _URL_SAFE),
        "sendgrid": lambda: f"SG.{text(22)}.{text(43)}",
        "twilio": lambda: "SK" + text(32, _HEX),
        "telegram": lambda: f"{text(10, '123456789')}:AA{text(33, _URL_SAFE)}",
        "discord": lambda: f"M{text(23)}.{text(6)}.{text(27)}",
        "azure storage": lambda: f"«AccountName=web;AccountKey=»{text(86)}==",
        "url password": lambda: f"«postgres://app:»{text(12)}«@db.example.com/app»",
        "jwt": jwt,
        "google, for an hour": lambda: "ya29.a0" + text(120, _URL_SAFE),
        "mailgun": lambda: "key-" + text(32, _HEX),
        "entra": lambda: text(3) + rng.choice("78") + "Q~" + text(34),
        "heroku": lambda: "HRKU-" + str(uuid.UUID(int=rng.getrandbits(128))),
        "planetscale": lambda: "pscale_tkn_" + text(43, _URL_SAFE),
        "new relic": lambda: "NRAK-" + text(27, _UPPER),
        "tailscale": lambda: f"tskey-auth-k{text(11)}CNTRL-{text(32)}",
        "stripe, test": lambda: rng.choice(("sk_test_", "rk_test_")) + text(24),
        "fly": lambda: "fm2_" + text(100),
        "notion": lambda: "ntn_" + text(11, _DIGITS) + text(35),
        "sentry": lambda: f"sntrys_{base64.b64encode(_SENTRY).decode().rstrip('=')}_{text(43)}",
        "kubeconfig": lambda: "«client-key-data: »" + base64.b64encode(block("RSA").encode()).decode(),
        "seed phrase": lambda: f"«mnemonic: »{rng.choice(_SEED_PHRASES)}«.»",
        "rsa block": lambda: block("RSA"),
        "openssh block": lambda: block("OPENSSH"),
    }


def _named(rng: random.Random) -> dict[str, Callable[[], str]]:
    """Secrets that only the name next to them reveals."""

    def password() -> str:
        return _text(rng, 10) + rng.choice(_DIGITS) + rng.choice("!#$%")

    return {
        "aws_secret_access_key =": lambda: "«aws_secret_access_key = »" + _text(rng, 40, _ALNUM + "+/"),
        "password =": lambda: f"«{rng.choice(('password', 'DB_PASSWORD', 'passwd', 'pwd'))} = »" + password(),
        "password:": lambda: f"«{rng.choice(('password', 'Passwort', 'contraseña', 'mot de passe'))}: »" + password(),
        "json": lambda: f'«{{"user": "app", "password": "»{password()}«"}}»',
        "api_key": lambda: f'«{rng.choice(("api_key", "apiKey", "API-KEY"))}: "»' + _text(rng, 32),
        "export": lambda: f"«export {rng.choice(('OPENAI_API_KEY', 'WANDB_API_KEY'))}=»" + _text(rng, 40, _HEX),
        "token": lambda: "«token: »" + _text(rng, 32),
        "client_secret": lambda: "«client_secret=»" + _text(rng, 32),
        "bearer": lambda: "«Authorization: Bearer »" + _text(rng, 40),
    }


def _harmless(rng: random.Random, fake: Faker) -> dict[str, Callable[[], str]]:
    def number(low: int, high: int) -> int:
        return rng.randrange(low, high)

    groups: dict[str, Callable[[], str]] = {
        "scp address": lambda: f"git@{rng.choice(('github.com', 'gitlab.com'))}:{fake.word()}/{fake.word()}.git",
        "password of a variable": lambda: f"https://x-token-auth:${{_GIT_PASS}}@bitbucket.org/{fake.word()}/app.git",
        "variable before @": lambda: f"${{_GIT_PASS}}@bitbucket.org/{fake.word()}",
        "package": lambda: f"{fake.word()}@{number(0, 20)}.{number(0, 20)}.{number(0, 20)}",
        "version": lambda: f"version {number(1, 20)}.{number(0, 20)}.{number(0, 30)}.{number(0, 30)}",
        "chart version": lambda: f"release {number(1, 20)}.{number(0, 20)}.{number(0, 30)}.{number(0, 30)}",
        "section": lambda: f"section {number(1, 20)}.{number(1, 20)}.{number(1, 20)}.{number(1, 20)}",
        "browser": lambda: f"Chrome/{number(90, 120)}.0.{number(1000, 6000)}.{number(10, 200)}",
        "private address": fake.ipv4_private,
        "scope": lambda: f"std::{fake.word()} and a::b",
        "thousands": lambda: f"{number(1, 10)} {number(100, 999)} {number(100, 999)} {number(100, 999)}",
        "subtraction": lambda: f"{number(200, 999)} - {number(200, 999)} - {number(1000, 9999)}",
        "decimals": lambda: f"{number(200, 999)}.{number(10, 99)} {number(200, 999)}.{number(10, 99)}",
        "log columns": lambda: f"{number(10**5, 10**6)}    {number(1000, 9999)} kubelet",
        "table": lambda: f"{number(100, 999)}  {number(1000, 9999)}  {number(100, 999)}  {number(10, 99)}",
        "time": fake.iso8601,
        "date and time": lambda: (
            f"2024-0{number(1, 9)}-{number(10, 28)} {number(10, 23)}:{number(10, 59)}:{number(10, 59)}"
        ),
        "date": lambda: f"{number(10, 28)}.0{number(1, 9)}.20{number(10, 26)}",
        "epoch": lambda: str(number(1_600_000_000, 1_800_000_000)),
        "order": lambda: f"order {number(10**9, 10**10)}",
        "isbn": fake.isbn13,
        "isbn 10": lambda: "ISBN " + fake.isbn10().replace("-", ""),
        "price": lambda: f"{number(1, 999)}.{number(100, 999)}.{number(100, 999)},{number(10, 99)} €",
        "coordinate": lambda: f"{rng.uniform(-90, 90):.6f}, {rng.uniform(-180, 180):.6f}",
        "uuid": fake.uuid4,
        "sha-256": lambda: fake.sha256(),
        "image digest": lambda: f"docker.io/{fake.word()}@sha256:{fake.sha256()}",
        "wrong IBAN": lambda: f"DE00 3704 0044 0532 0130 {number(10, 99)}",
        "wrong card": lambda: f"4111 1111 1111 {rng.choice((1112, 1113, 1114))}",
        "pages": lambda: f"pages {number(100, 199)}-{number(200, 299)} of {number(300, 999)}",
        "ip range of docs": lambda: f"10.{number(0, 255)}.0.0/16",
        "pod name": lambda: (
            f"{fake.word()}-{_text(rng, 10, 'bcdfghjklmnpqrstvwxz2456789')}-{_text(rng, 5, 'bcdfghjkl2456789')}"
        ),
        "model id": lambda: f"meta-llama/Llama-3.{number(1, 4)}-{number(1, 90)}B-Instruct",
        "beginning": lambda: rng.choice(
            ("key-value store", "pscale_token_name", "sk_test_mode_enabled", "Is it 1Q~2Q~3Q?", "HRKU-like keys"),
        ),
        "words": lambda: (
            "recovery phrase: "
            + " ".join(rng.choices(("write", "down", "twelve", "words", "from", "paper", "abandon"), k=12))
        ),
        "certificate": lambda: "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t" + _text(rng, 40),
        "function": lambda: rng.choice(
            ("hf_hub_download", "npm_config_registry", "sk_learn_estimator_html", "gsk_cipher_suite_list")
        ),
    }
    touching: dict[str, Callable[[], str]] = {
        "count in brackets": lambda: f"({number(600, 799)} {number(100, 999)} {number(100, 999)} rows)",
        "port and path": lambda: f"localhost:{number(5000, 9999)}/0171{number(10**6, 10**7)}",
        "key of digits": lambda: f"key:0171{number(10**6, 10**7)}, id=0160{number(10**6, 10**7)}",
    }
    fixed = {text: (lambda text=text: text) for text in (*_placeholders(), *_code())}
    return {f"harmless/{name}": make for name, make in {**groups, **fixed, **touching}.items()}


def _placeholders() -> Iterator[str]:
    yield from (
        "password: ********",
        "password = <your-password>",
        'api_key = "YOUR_API_KEY_HERE"',
        "password=${DB_PASSWORD}",
    )
    yield from (
        "password = changeme",
        "API_KEY=xxxxxxxxxxxxxxxxxxxxxxxx",
        'token: "{{ .Values.token }}"',
        "secret: $(SECRET)",
    )


def _code() -> Iterator[str]:
    yield from ("password: str | None = None", 'password = os.environ["PASSWORD_1"]', "password = getpass.getpass()")
    yield from ("token = tokenizer.convert_ids_to_tokens(id2)", "secretName: web-tls", "max_tokens: 1024, pad_token: 0")
    yield from ("the password is required", "kubectl get secret db-password -o yaml", "passwordSecretRef: mysql-root")
