"""Licences as cards and Croissant metadata name them."""

from __future__ import annotations

import pytest

from hone_api.base import licences

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (None, []),
        ("apache-2.0", ["apache-2.0"]),
        ("https://choosealicense.com/licenses/mit/, cc-by-4.0", ["mit", "cc-by-4.0"]),
        ("https://creativecommons.org/licenses/by-nc-sa/4.0/", ["cc-by-nc-sa-4.0"]),
        ("http://creativecommons.org/licenses/by/4.0/legalcode.en", ["cc-by-4.0"]),
        ("https://creativecommons.org/publicdomain/zero/1.0/", ["cc0-1.0"]),
        ("https://spdx.org/licenses/Apache-2.0.html", ["Apache-2.0"]),
        ("https://example.org/our-terms", ["https://example.org/our-terms"]),
        ("mit, , mit", ["mit"]),
    ],
)
def test_pages_become_the_names_of_their_licences(text: str | None, names: list[str]) -> None:
    assert licences.names(text) == names


@pytest.mark.parametrize(
    ("name", "identifier"),
    [("apache-2.0", "Apache-2.0"), ("odc-by", "ODC-By-1.0"), ("gpl-3.0", "GPL-3.0-only"), ("llama3.1", None)],
)
def test_names_of_the_hub_have_spdx_identifiers(name: str, identifier: str | None) -> None:
    assert licences.spdx(name) == identifier


@pytest.mark.parametrize(
    ("name", "forbidden"),
    [
        ("cc-by-nc-4.0", True),
        ("CC-BY-NC-SA-3.0", True),
        ("fair-noncommercial-research-license", True),
        ("qwen-research", True),
        ("intel-research", True),
        ("Creative Commons Attribution Non Commercial 4.0", True),
        ("Attribution-NonCommercial 4.0 International", True),
        ("our_non_commercial_licence", True),
        ("Non  Commercial", True),
        ("Non\u2011Commercial", True),
        ("cc by non\u2013commercial", True),
        ("NON.COMMERCIAL", True),
        ("non - commercial", True),
        ("nonCommercialUse", True),
        ("Attribution-NonCommercialShareAlike", True),
        ("no-commercial-use", True),
        ("Not for commercial use", True),
        ("nonprofit-commercial", False),
        ("canon-commercial", False),
        ("commercial", False),
        ("for-commercial-use", False),
        ("apache-2.0", False),
        ("cc-by-nd-4.0", False),
        ("ncsa", False),
        ("odc-by", False),
    ],
)
def test_what_a_name_forbids(name: str, forbidden: bool) -> None:
    assert licences.forbids_commercial_use(name) is forbidden


def test_every_identifier_is_one_of_spdx() -> None:
    """By the list in CycloneDX's schema, which refuses all others."""
    import json
    from pathlib import Path

    import cyclonedx.schema

    schema = Path(cyclonedx.schema.__file__).with_name("_res") / "spdx.SNAPSHOT.schema.json"
    known = set(json.loads(schema.read_text())["enum"])
    assert {*licences._SPDX.values(), *licences._OTHER_NAMES.values()} - known == set()


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (None, {}),
        ("apache-2.0", {"license": "apache-2.0"}),
        ("https://spdx.org/licenses/GPL-3.0-only.html", {"license": "gpl-3.0"}),
        ("llama3.1", {"license": "llama3.1"}),
        ("qwen-research", {"license": "other", "license_name": "qwen-research"}),
        ("mit, cc-by-4.0", {"license": "other", "license_name": "mit-cc-by-4.0"}),
        ('x"\n---\nevil: 1', {"license": "other", "license_name": "x-evil-1"}),
        ("独自ライセンス", {"license": "other", "license_name": "unnamed"}),
        ("独自ライセンス, mit", {"license": "other", "license_name": "unnamed-mit"}),
        ("mit, 独自ライセンス, -", {"license": "other", "license_name": "mit-unnamed-unnamed"}),
    ],
)
def test_what_the_card_of_a_model_says(text: str | None, fields: dict[str, str]) -> None:
    assert licences.front_matter(text) == fields
