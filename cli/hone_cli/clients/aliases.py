"""An alias of a model that people move: to another version, or back."""

from __future__ import annotations

from hone_api.words.states import ApprovalState
from hone_cli.errors import CommandError
from hone_cli.reach.objects import Objects


def point(objects: Objects, model: str, alias: str, version: int, *, dry_run: bool) -> str:
    """Let an alias of `spec.aliases` point to a version; what was done, or would be, in a sentence.

    Raises:
        CommandError: the API server refuses, another writer moves this alias, or the version cannot be used.
    """
    body = objects.get("Model", model)
    spec = body.get("spec") or {}
    if alias in (spec.get("promotion") or {}).get("aliases", ()):
        raise CommandError(
            f"spec.promotion of Model {model} moves {alias}: reject the version that it points to, and it goes back"
        )
    _check(objects, model, version)
    pinned = spec.get("aliases") or []
    before = next((each["version"] for each in pinned if each["name"] == alias), None)
    if before == version:
        return f"{alias} points to v{version} already."
    wanted = [each for each in pinned if each["name"] != alias] + [{"name": alias, "version": version}]
    # Who changed the Model meanwhile is not overwritten.
    change = {"metadata": {"resourceVersion": body["metadata"]["resourceVersion"]}, "spec": {"aliases": wanted}}
    objects.merge("Model", model, change, dry_run=dry_run)
    change_words = f"from v{before} to v{version}" if before else f"to v{version}"
    return f"{alias} of {model} {'would move' if dry_run else 'moves'} {change_words}; servers that follow it change."


def _check(objects: Objects, model: str, version: int) -> None:
    found = [
        each["spec"]
        for each in objects.list("ModelVersion")
        if (each["spec"]["modelName"], each["spec"]["version"]) == (model, version)
    ]
    if not found:
        raise CommandError(f"Model {model} has no version {version}")
    if (found[0].get("approval") or {}).get("state") == ApprovalState.REJECTED:
        raise CommandError(f"v{version} of {model} was rejected: approve it first")
