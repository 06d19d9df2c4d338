"""Class F, bad addresses, before a real API server: none of those that the schema and the rules refuse is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.apiserver

CORPUS: dict[str, list[str]] = yaml.safe_load((Path(__file__).parents[1] / "corpus" / "uris.yaml").read_text())


def test_no_bad_address_is_stored(api: Any, manifest: Any) -> None:
    stored = []
    for uri in (*CORPUS["api"], *CORPUS["rules"]):
        answer = api.create(manifest("Dataset", {"spec.source.uri": uri}))
        if answer.code != 422 or "spec.source.uri" not in answer.message:
            stored.append((uri, answer.code, answer.message))
    assert stored == []
