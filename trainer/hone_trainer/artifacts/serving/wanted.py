"""What a server should do about each name that it serves by an alias. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hone_api.contract.served import CONFIG_MAP, ServedAdapter, ServedAliases, key_of
from hone_api.words.failures import FixedBy


@dataclass(frozen=True)
class Followed:
    """A name that clients ask for, and the alias that it means."""

    name: str
    model: str
    alias: str

    @classmethod
    def of(cls, text: str) -> Followed:
        """From `name=model@alias`.

        Raises:
            ValueError: it is not of this form.
        """
        name, equals, meaning = text.rpartition("=")
        model, at, alias = meaning.partition("@")
        if not (name and equals and model and at and alias) or "/" in model:
            raise ValueError(f"{text!r} is not name=model@alias")
        return cls(name, model, alias)


@dataclass(frozen=True)
class Wanted:
    """What should be loaded under a name."""

    name: str
    adapter: ServedAdapter | None
    """None: nothing."""
    version: str = ""
    """Name of the ModelVersion of `adapter`."""
    why: str = ""
    """Why nothing."""
    cause: FixedBy = FixedBy.USER
    """Who can change that."""
    may_stay: bool = False
    """What is loaded now is approved: it may stay until `adapter` is loaded, also if there is none that this server
    takes."""
    is_followed: bool = True


def decide(
    followed: Sequence[Followed], models: Mapping[str, ServedAliases | None], loaded: Mapping[str, str], base: str
) -> list[Wanted]:
    """One for each followed name, and one for each other name that is loaded.

    Args:
        models: by name; without those that the operator does not report. None: what it reports cannot be read.
        loaded: digest of the adapter that is loaded, by name; empty if it is not one of ours.
        base: URI of the base that the server has.
    """
    wanted = [_wanted_for(each, models, loaded.get(each.name), base) for each in followed]
    names = {each.name for each in followed}
    return wanted + [
        Wanted(name, None, why="the server does not follow it", is_followed=False)
        for name in loaded
        if name not in names
    ]


def _wanted_for(
    followed: Followed, models: Mapping[str, ServedAliases | None], loaded: str | None, base: str
) -> Wanted:
    name, model = followed.name, models.get(followed.model)
    target = next((alias for alias in model.aliases if alias.name == followed.alias), None) if model else None
    if model is None and followed.model in models:
        why = f"{key_of(followed.model)} of ConfigMap {CONFIG_MAP} cannot be read"
        return Wanted(name, None, why=why, cause=FixedBy.PLATFORM)
    if model is None or target is None:
        return Wanted(name, None, why=f"{followed.model}@{followed.alias} points nowhere")
    may_stay = loaded in model.approved
    if target.adapter is None:
        return Wanted(name, None, why=target.why or "nothing of it may be served", may_stay=may_stay)
    if target.adapter.base.rstrip("/") != base.rstrip("/"):
        why = f"{target.model_version} was trained on another base: {target.adapter.base}, and the server has {base}"
        return Wanted(name, None, why=why, may_stay=may_stay)
    return Wanted(name, target.adapter, version=target.model_version, may_stay=may_stay)
