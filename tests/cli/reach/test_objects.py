"""Objects by name: one of them, and never all; and what is sent for them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from hone_cli.errors import CommandError
from hone_cli.reach.kube import _as_yaml
from hone_cli.reach.objects import Objects

pytestmark = pytest.mark.pure


class NoCluster:
    """Fails the test that asks it for anything."""

    namespace = "team"

    def call(self, *asked: Any, **more: Any) -> Any:
        raise AssertionError(asked)


@pytest.mark.parametrize(
    "name", ["", "/", "..", "../datasets/rows", "a/b", "a b", "A", "a?x=1", "a%2Fb", "-a", "a" * 254]
)
def test_a_name_that_no_object_has_reaches_no_server(name: str) -> None:
    """An empty name would mean all objects, and `..` another kind."""
    objects = Objects(NoCluster())
    for call in (
        lambda: objects.get("FineTuneJob", name),
        lambda: objects.find("FineTuneJob", name),
        lambda: objects.merge("FineTuneJob", name, {}),
        lambda: objects.delete("FineTuneJob", name, "uid"),
    ):
        with pytest.raises(CommandError, match="is not the name of a FineTuneJob"):
            call()


def test_what_is_applied_reads_the_same_as_yaml_and_as_json() -> None:
    """The API server reads server-side apply as YAML, where half a surrogate pair is an error and NEL a line break."""
    text = "".join(map(chr, [*range(0x20, 0x100), 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0x1F600])) + "\t\n\r"
    sent = _as_yaml({"data": {"rows.jsonl": text}}).decode()
    assert "\\ud" not in sent
    assert json.loads(sent) == yaml.safe_load(sent) == {"data": {"rows.jsonl": text}}
