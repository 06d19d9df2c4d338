"""What a server does about each name that it serves by an alias."""

from __future__ import annotations

import pytest

from hone_api.contract.served import ServedAdapter, ServedAlias, ServedAliases
from hone_trainer.artifacts.serving.wanted import Followed, decide

pytestmark = pytest.mark.pure
BASE = "pvc://store/base-models/b"
OLD, NEW = ("sha256:" + digit * 64 for digit in "12")


def model(digest: str | None, base: str = BASE, approved: tuple[str, ...] = ()) -> ServedAliases:
    adapter = digest and ServedAdapter(uri="pvc://store/models/r/1/adapter", digest=digest, base=base, rank=16)
    alias = ServedAlias(name="champion", version=2, model_version="bot-v2", adapter=adapter or None)
    if not digest:
        alias.why = "ModelVersion bot-v2 is not approved"
    return ServedAliases(aliases=[alias], approved=list(approved))


@pytest.mark.parametrize(
    ("models", "loaded", "digest", "why", "may_stay"),
    [
        ({"bot": model(NEW, approved=(NEW, OLD))}, {"bot": OLD}, NEW, "", True),
        ({"bot": model(NEW, approved=(NEW,))}, {"bot": OLD}, NEW, "", False),
        ({"bot": model(NEW)}, {}, NEW, "", False),
        ({"bot": model(None, approved=(OLD,))}, {"bot": OLD}, None, "bot-v2 is not approved", True),
        ({"bot": model(None, approved=(NEW,))}, {"bot": OLD}, None, "bot-v2 is not approved", False),
        ({"bot": ServedAliases(approved=[OLD])}, {"bot": OLD}, None, "points nowhere", False),
        ({}, {"bot": OLD}, None, "points nowhere", False),
        ({"bot": None}, {"bot": OLD}, None, "bot.json of ConfigMap hone-served cannot be read", False),
        ({"bot": model(NEW, "pvc://a/b", approved=(OLD,))}, {"bot": OLD}, None, "trained on another base", True),
        ({"bot": model(NEW, base="pvc://store/base-models/other")}, {}, None, "another base", False),
    ],
)
def test_only_what_is_approved_and_fits_the_base_is_wanted(models, loaded, digest, why, may_stay):
    [wanted] = decide([Followed.of("bot=bot@champion")], models, loaded, BASE)
    assert (wanted.adapter.digest if wanted.adapter else None) == digest
    assert why in wanted.why
    assert wanted.may_stay is may_stay


def test_a_name_that_is_not_followed_is_unloaded():
    wanted = decide([Followed.of("bot=bot@champion")], {"bot": model(NEW)}, {"bot": NEW, "other": ""}, BASE)
    assert [(w.name, w.adapter is None) for w in wanted] == [("bot", False), ("other", True)]


@pytest.mark.parametrize("text", ["bot", "bot=bot", "=bot@a", "bot=@a", "bot=../x@a", "bot=bot@"])
def test_what_is_not_an_alias_is_refused(text):
    with pytest.raises(ValueError, match="is not name=model@alias"):
        Followed.of(text)


def test_a_name_may_have_the_alias_in_it():
    assert Followed.of("bot@a=bot@a") == Followed("bot@a", "bot", "a")
