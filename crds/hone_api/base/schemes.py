"""Schemes of addresses, a record each: what they may be, how they are written, and the keys of their Secret.

Patterns, messages and descriptions of the API, labels of metrics and what the trainer reads and writes follow from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

REST = r"[^\x00-\x20\x7f]"
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
REPOSITORY = rf"{_PART}(/{_PART})*"
_NAME = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
_REPOSITORY_OF_HUB = r"hf://[A-Za-z0-9][-A-Za-z0-9._]*/[A-Za-z0-9][-A-Za-z0-9._]*"
_HUB = rf"{_REPOSITORY_OF_HUB}(@[-A-Za-z0-9._/]+)?"
_BUCKET = r"s3://[a-z0-9][-a-z0-9.]{1,61}[a-z0-9]"
_IMAGE = (
    rf"oci://([^/?#]*@)?[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{{1,5}})?/{REPOSITORY}"
    r"(:[A-Za-z0-9_][-A-Za-z0-9._]*)?"
)
"""With or without a tag, and without a digest."""
_DOMAIN = r"[A-Za-z0-9][-A-Za-z0-9]*"
_PINNED_IMAGE = (
    rf"oci://({_DOMAIN}(\.{_DOMAIN})+(:[0-9]{{1,5}})?|{_DOMAIN}:[0-9]{{1,5}})/{REPOSITORY}@sha256:[0-9a-f]{{64}}"
)
"""The host has a dot or a port: the kubelet would take another first part for a folder of Docker Hub."""
_VOLUME = rf"pvc://{_NAME}"


class Use(Enum):
    """What an address is for."""

    ROWS = auto()
    BASE = auto()
    """The base model of a run."""
    LATER = auto()
    """The same: described, and refused until it is built."""
    IMPORT = auto()
    IMPORT_BASE = auto()
    """The base of an adapter that is imported."""
    DELIVERY = auto()


@dataclass(frozen=True)
class Form:
    """How an address is written."""

    pattern: str
    words: str
    """For people."""


@dataclass(frozen=True)
class Scheme:
    """What is before `://`."""

    name: str
    uses: Mapping[Use, Form]
    keys: str = ""
    """Keys of its Secret, in words; none: it needs no credentials."""
    has_host: bool = False
    """Whether a server or a bucket follows, where people write a user and a password."""
    is_registered: bool = False
    """Whether MLflow reads models from there."""


_ON_HUB = Form(_HUB, "hf://owner/name[@revision]")
_AT_REVISION = Form(_HUB, "hf://owner/name, hf://owner/name@revision")
_FOLDER = Form(rf"{_VOLUME}(/{REST}*)?", "pvc://claim/path")

SCHEMES: tuple[Scheme, ...] = (
    Scheme(
        "hf",
        {
            Use.ROWS: _AT_REVISION,
            Use.BASE: _AT_REVISION,
            Use.IMPORT: _ON_HUB,
            Use.IMPORT_BASE: _ON_HUB,
            Use.DELIVERY: Form(_REPOSITORY_OF_HUB, "hf://owner/name without a revision"),
        },
        keys="HF_TOKEN",
    ),
    Scheme(
        "oci",
        {
            Use.BASE: Form(_PINNED_IMAGE, "oci://host.example/name@sha256:…"),
            Use.IMPORT: Form(rf"{_IMAGE}(@sha256:[0-9a-f]{{64}})?", "oci://registry/repository[:tag][@sha256:…]"),
            Use.DELIVERY: Form(_IMAGE, "oci://registry/repository[:tag] with a repository in lower case"),
        },
        keys="username and password, or .dockerconfigjson,",
        has_host=True,
    ),
    Scheme(
        "s3",
        {
            Use.ROWS: Form(f"s3://{REST}+", "s3://bucket/path"),
            Use.LATER: Form(f"s3://{REST}+", "s3://"),
            Use.IMPORT: Form(f"{_BUCKET}/{REST}+", "s3://bucket/path"),
            Use.DELIVERY: Form(f"{_BUCKET}(/{REST}*)?", "s3://bucket/path"),
        },
        keys="AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if needed, AWS_SESSION_TOKEN",
        has_host=True,
        is_registered=True,
    ),
    Scheme(
        "https",
        {Use.ROWS: Form(f"https://{REST}+", "https://…"), Use.LATER: Form(f"https://{REST}+", "https://")},
        keys="AUTHORIZATION",
        has_host=True,
    ),
    Scheme(
        "pvc",
        {
            Use.ROWS: Form(rf"{_VOLUME}/{REST}+", "pvc://claim/path"),
            Use.BASE: Form(rf"{_VOLUME}/{REST}+", "pvc://claim/path"),
            Use.IMPORT: _FOLDER,
            Use.IMPORT_BASE: _FOLDER,
            Use.DELIVERY: _FOLDER,
        },
    ),
    Scheme("configmap", {Use.ROWS: Form(rf"configmap://{_NAME}/[-._a-zA-Z0-9]+", "configmap://name/key")}),
)
WITH_HOST = "|".join(scheme.name for scheme in SCHEMES if scheme.has_host)


def schemes(*uses: Use) -> list[Scheme]:
    """Schemes that may be one of these, in the order of the table."""
    return [scheme for scheme in SCHEMES if any(use in scheme.uses for use in uses)]


def pattern_for(*uses: Use, others: str = "") -> str:
    """A pattern of every address that may be one of these.

    Args:
        others: a pattern of addresses without a scheme of the table.
    """
    forms = [scheme.uses[use].pattern for use in uses for scheme in schemes(use)]
    return f"^({'|'.join([*forms, *filter(None, [others])])})$"


def in_words(use: Use) -> str:
    """How addresses for this use are written, e.g. "s3://bucket/path or pvc://claim/path"."""
    *others, last = (scheme.uses[use].words for scheme in schemes(use))
    return f"{', '.join(others)} or {last}"


def secret_in_words(use: Use) -> str:
    """The description of the field with the name of a Secret."""
    keys = [f"{s.keys} for {s.name}://" for s in schemes(use) if s.keys]
    return f"Secret in this namespace; {'; '.join(keys)}."


def scheme_of(uri: str) -> str:
    """What is before `://`."""
    return uri.partition("://")[0]


def image_of(uri: str) -> str | None:
    """The image of `oci://image`; None: another address."""
    scheme, _, rest = uri.partition("://")
    return rest if scheme == "oci" else None


def claim_of(uri: str) -> str | None:
    """The claim of `pvc://claim/path`; None: another address."""
    scheme, _, rest = uri.partition("://")
    return rest.partition("/")[0] if scheme == "pvc" else None
