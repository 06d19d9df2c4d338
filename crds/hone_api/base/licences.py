"""Licences of base models and data, as cards, Croissant metadata and pages name them."""

from __future__ import annotations

import re

_IDENTIFIERS = """
    AFL-3.0 AGPL-3.0-only Apache-2.0 Artistic-2.0 BSD-2-Clause BSD-3-Clause BSD-3-Clause-Clear BSL-1.0 C-UDA-1.0
    CC-BY-2.0 CC-BY-2.5 CC-BY-3.0 CC-BY-4.0 CC-BY-NC-2.0 CC-BY-NC-3.0 CC-BY-NC-4.0 CC-BY-NC-ND-3.0 CC-BY-NC-ND-4.0
    CC-BY-NC-SA-2.0 CC-BY-NC-SA-3.0 CC-BY-NC-SA-4.0 CC-BY-ND-4.0 CC-BY-SA-3.0 CC-BY-SA-4.0 CC0-1.0
    CDLA-Permissive-1.0 CDLA-Permissive-2.0 CDLA-Sharing-1.0 ECL-2.0 EPL-1.0 EPL-2.0 EUPL-1.1 EUPL-1.2 GPL-2.0-only
    GPL-3.0-only ISC LGPL-2.1-only LGPL-3.0-only MIT MPL-2.0 MS-PL NCSA ODC-By-1.0 ODbL-1.0 OFL-1.1 OSL-3.0 PDDL-1.0
    PostgreSQL Unlicense WTFPL Zlib etalab-2.0
"""
_SPDX = {identifier.lower(): identifier for identifier in _IDENTIFIERS.split()}
_OTHER_NAMES = {
    "agpl-3.0": "AGPL-3.0-only",
    "c-uda": "C-UDA-1.0",
    "gpl-2.0": "GPL-2.0-only",
    "gpl-3.0": "GPL-3.0-only",
    "lgpl-2.1": "LGPL-2.1-only",
    "lgpl-3.0": "LGPL-3.0-only",
    "odbl": "ODbL-1.0",
    "odc-by": "ODC-By-1.0",
    "pddl": "PDDL-1.0",
}
"""Names of the Hugging Face Hub that are not SPDX identifiers."""
_OF_THE_HUB = """
    apple-amlr apple-ascl bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m bsd cc
    creativeml-openrail-m deepfloyd-if-license fair-noncommercial-research-license gemma gfdl gpl grok2-community
    h-research intel-research lgpl lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 open-mdw openrail
    openrail++ unknown
"""
"""What else the Hugging Face Hub takes as `license` of a card."""
_PAGE = re.compile(
    r"^https?://(?:www\.)?([^/\s]+)/(?:.*?/)?licenses?/([^\s?#]+?)/?(?:\.html|\.txt|/legalcode.*)?$", re.I
)
_PUBLIC_DOMAIN = re.compile(r"^https?://creativecommons\.org/publicdomain/zero/1\.0\b", re.I)
_NOT_COMMERCIAL = re.compile(
    r"(?<![a-z])(?:(?:nc|research)(?![a-z])|non[\W_]*commercial|no[tn]?[\W_]+(?:for[\W_]+)?commercial)", re.I
)
"""Words of a name can have any sign between them, or none: NON.COMMERCIAL, nonCommercialUse, not for commercial use."""


def names(text: str | None) -> list[str]:
    """The licences in a text, short: `https://choosealicense.com/licenses/mit/, cc-by-4.0` is mit and cc-by-4.0."""
    return list(dict.fromkeys(_short(part.strip()) for part in (text or "").split(",") if part.strip()))


def spdx(name: str) -> str | None:
    """SPDX identifier of one of `names`; None: SPDX has none, or it is not among the usual ones."""
    key = name.lower()
    return _OTHER_NAMES.get(key) or _SPDX.get(key)


def front_matter(text: str | None) -> dict[str, str]:
    """The fields of a model card of the hub for a licence: `license`, and `license_name` where the hub has none."""
    short = names(text)
    if not short:
        return {}
    one = {identifier.lower(): name for name, identifier in _OTHER_NAMES.items()}.get(
        short[0].lower(), short[0].lower()
    )
    if len(short) == 1 and one in {*_SPDX, *_OTHER_NAMES, *_OF_THE_HUB.split()}:
        return {"license": one}
    return {"license": "other", "license_name": "-".join(map(_slug, short))}


def forbids_commercial_use(name: str) -> bool:
    """Whether a licence says so in its name, e.g. cc-by-nc-4.0 or qwen-research. False: its text may still do."""
    return _NOT_COMMERCIAL.search(name) is not None


def _slug(name: str) -> str:
    """The name as the hub takes it; `unnamed` if it has neither a Latin letter nor a digit."""
    return re.sub(r"[^a-z0-9.+]+", "-", name.lower()).strip("-") or "unnamed"


def _short(text: str) -> str:
    if _PUBLIC_DOMAIN.match(text):
        return "cc0-1.0"
    page = _PAGE.match(text)
    if page is None:
        return text
    if page[1].lower() == "creativecommons.org":
        return "cc-" + page[2].lower().replace("/", "-")
    return page[2].rpartition("/")[2]
