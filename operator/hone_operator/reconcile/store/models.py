"""Models in a namespace's store, at models/<run>/<attempt>: which are deleted with their ModelVersion, which stay.
Pure.

A folder is deleted if every ModelVersion that had it said `deletionPolicy: Delete`, all of them are gone, and no object
refers to it by its address. The ledger remembers that it is to be deleted, because no ModelVersion is left to say so.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from hone_api.words.states import ConditionType
from hone_operator.reconcile.core.conditions import is_true
from hone_operator.reconcile.core.references import addresses, folders_named_whole, needs_run, run_of

FOLDER = "models"
KEY = "model."
PATTERN = r"model\.[-_a-zA-Z0-9]{1,120}\.[-_a-zA-Z0-9]{1,120}"
"""Prefix of the ledger's keys."""
_KEY = re.compile(PATTERN)
Pairs = Iterable[tuple[str, Mapping[str, Any]]]
"""Kinds and bodies of the objects in a namespace."""


def is_key(content: str) -> bool:
    """Whether a key of the ledger is about a model."""
    return content.startswith(KEY)


def key_of(place: str) -> str | None:
    """The ledger's key for <run>/<attempt>; None: none of our runs made a folder of this name."""
    run, _, attempt = place.partition("/")
    key = f"{KEY}{run}.{attempt}"
    return key if _KEY.fullmatch(key) else None


def place_of(key: str) -> str:
    """<run>/<attempt> from the ledger's key."""
    return key.removeprefix(KEY).replace(".", "/")


def claimed_folders(objects: Pairs, claim: str) -> dict[str, bool]:
    """Keys of the folders that ModelVersions have in the store `claim`, and whether the folders are deleted with
    them."""
    deletable: dict[str, bool] = {}
    for kind, body in objects:
        if kind == "ModelVersion":
            goes = body["spec"].get("deletionPolicy") == "Delete"
            own = named_models([(kind, {"spec": {"artifacts": body["spec"].get("artifacts")}})], claim)
            for key in filter(None, map(key_of, own)):
                deletable[key] = goes and deletable.get(key, True)
    return deletable


def tracked(ledger: Mapping[str, str], claims: Mapping[str, bool]) -> dict[str, str]:
    """The ledger with models that are to be deleted, and without those that a ModelVersion keeps."""
    others = {key: since for key, since in ledger.items() if claims.get(key, True)}
    return dict.fromkeys((key for key, goes in claims.items() if goes), "") | others


def named_models(objects: Pairs, claim: str) -> set[str]:
    """<run>/<attempt> of every model in the store that an object refers to by address; <run> if it says no more."""
    paths = (path for kind, body in objects for path in addresses(kind, body, claim))
    return {place for path in paths if (place := place_in(path))}


def place_in(path: tuple[str, ...]) -> str | None:
    """<run>/<attempt>, or <run>, for a path in the store; None: not the path of a model."""
    return "/".join(path[1:3]) if len(path) > 1 and path[0] == FOLDER else None


def that_stay(objects: Pairs, claim: str, orphaned: set[str] | None) -> set[str] | None:
    """What stays below models/, whatever else is deleted: `named_models` and `not_over`; None: everything.

    Args:
        orphaned: uids of runs that pods without a label write; None: unknown.
    """
    pairs = list(objects)
    if orphaned is None or FOLDER in folders_named_whole(pairs, claim):
        return None
    return named_models(pairs, claim) | not_over(pairs) | orphaned


def stays(place: str, exports: set[str] | None) -> bool:
    """Whether <run>/<attempt> is among `that_stay`."""
    return exports is None or place in exports or place.partition("/")[0] in exports


def not_over(objects: Pairs) -> set[str]:
    """uids of the unfinished runs, and of those that a Job or pod may still write."""
    return {uid for kind, body in objects if (uid := run_of(kind, body)) and _writes(kind, body)}


def _writes(kind: str, body: Mapping[str, Any]) -> bool:
    return not is_true(body, ConditionType.FINISHED) if kind == "FineTuneJob" else needs_run(kind, body)
