"""What the gates say of a version, and what a decision about it changes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from hone_api.base.reading import read_known
from hone_api.kinds.model import Promotion
from hone_api.kinds.modelversion import ModelVersionSpec
from hone_api.verdicts.gates import InUse, MeasuredNumber, verdict
from hone_api.verdicts.servable import least_lora_rank, verdicts
from hone_api.words.states import ApprovalState, ConditionType, GateResult

Body = Mapping[str, Any]


@dataclass(frozen=True)
class GateOpinion:
    """What the gates of a version say."""

    result: GateResult | None
    """None: not known."""
    message: str

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against an approval."""
        return self.result == GateResult.PASSED


def is_rejected_by_gate(version: Body) -> bool:
    """Whether a gate of the job that made the version rejected it, and no person has decided since."""
    approval = version["spec"].get("approval") or {}
    comment = str(approval.get("comment") or "")
    return bool(approval.get("state") == ApprovalState.REJECTED) and comment.startswith(f"{approval.get('by')}:")


def gates_of(version: Body, model: Body | None) -> GateOpinion:
    """The gate of the job that made the version, and those of spec.promotion."""
    if is_rejected_by_gate(version):
        comment = version["spec"]["approval"]["comment"]
        return GateOpinion(GateResult.FAILED, f"a gate of the job rejected it: {comment}")
    return promotion_gates(version, model)


def promotion_gates(version: Body, model: Body | None) -> GateOpinion:
    """The gates of spec.promotion, as the operator judged them."""
    if not _promotion(model).get("gates"):
        return GateOpinion(GateResult.PASSED, "there are none in spec.promotion of the Model")
    assert model is not None
    status, meta = model.get("status") or {}, model["metadata"]
    if int(status.get("observedGeneration") or 0) < int(meta.get("generation") or 0):
        return GateOpinion(None, "the operator has not judged it by the present spec.promotion yet: try again soon")
    for candidate in status.get("candidates") or ():
        if candidate["modelVersion"] == version["metadata"]["name"]:
            result = GateResult(candidate["gates"])
            return GateOpinion(result, "" if result == GateResult.PASSED else str(candidate.get("message", "")))
    return _judged(version, model)  # status.candidates has the newest alone


def _judged(version: Body, model: Body) -> GateOpinion:
    """What the operator would say of a version that status.candidates does not list."""
    try:
        promotion, _ = read_known(Promotion, model["spec"]["promotion"])
    except ValidationError:
        return GateOpinion(None, "spec.promotion of the Model was written by another version of Hone")
    entries = [*(model["status"].get("aliases") or ()), *(model["status"].get("formerAliases") or ())]
    ever = {target["version"] for entry in entries for target in entry.get("history") or ()}
    ever |= {entry["version"] for entry in entries if "version" in entry}
    return GateOpinion(*verdict(promotion, version, InUse(frozenset(_points(model).values()), frozenset(ever))))


def number_line(each: MeasuredNumber) -> str:
    """A number of a version: before and after, its interval, what it is compared with, when it was measured again."""
    number = each.number
    assert number is not None
    where = f" of {number.dataset}" if number.dataset else ""
    if number.name.startswith("parity_") and number.against:
        difference = f"{number.against_low or '?'} to {number.against_high or '?'}"
        return (
            f"{number.name}{where}: {number.tuned}, recorded answers {number.against}, difference {difference} (95 %)"
        )
    interval = f" (95 %: {number.low} to {number.high})" if number.low and number.high else ""
    other = f", {each.against} has {number.against}" if each.against and number.against else ""
    return (
        f"{number.name}{where}: {number.base or '?'} → {number.tuned}{interval}{other}{f', {each.at}' * bool(each.at)}"
    )


def consequences(
    version: Body, model: Body | None, state: ApprovalState, present: Mapping[str, Body] | None = None
) -> list[str]:
    """What follows from a decision, one sentence for each alias and copy.

    Args:
        present: the ModelVersions to which aliases point, by name.
    """
    change = _approved if state == ApprovalState.APPROVED else _withdrawn
    warnings = _warnings(version, model or {}, present or {}) if state == ApprovalState.APPROVED else ()
    return [*change(version, model or {}, state), *warnings, *_copies(version, model or {}, state)]


def _warnings(version: Body, model: Body, present: Mapping[str, Body]) -> Iterator[str]:
    """What servers that follow an alias cannot load of the version, although they have the one before."""
    aliases = {*_pinned(version, model), *(_promotion(model).get("aliases") or ())}
    for before in sorted({_points(model)[alias] for alias in aliases if alias in _points(model)}):
        if before in present and before != version["metadata"]["name"]:
            yield from _differences(version, present[before])


def _differences(version: Body, before: Body) -> Iterator[str]:
    try:
        new, old = (read_known(ModelVersionSpec, each["spec"])[0] for each in (version, before))
    except ValidationError:
        return
    names = [each["metadata"]["name"] for each in (version, before)]
    ranks = [least_lora_rank(each) for each in (new, old)]
    bases = [each.lineage.base_model.location or each.lineage.base_model.uri for each in (new, old)]
    stay = f"Servers that follow the alias keep {names[1]} while it is approved"
    if ranks[1] is None:
        return
    if ranks[0] is None:
        other = f"serve {names[0]} with manifests of its own"
        yield f"Warning: it has no adapter that they load ({verdicts(new)[0]}). {stay}: {other}."
    elif bases[0] != bases[1]:
        yield f"Warning: its base is {bases[0]}, and that of {names[1]} is {bases[1]}. {stay}: print new manifests."
    elif ranks[0] > ranks[1]:
        yield (
            f"Warning: it needs --max-lora-rank {ranks[0]}, and {names[1]} needs {ranks[1]}. {stay}, if they have less "
            "than that: print new manifests."
        )


def _approved(version: Body, model: Body, _state: ApprovalState) -> Iterator[str]:
    name, promotion = version["metadata"]["name"], _promotion(model)
    for alias in _pinned(version, model):
        yield f"{alias} of spec.aliases: servers that follow it load {name} once it is Ready."
    if not promotion:
        number = version["spec"]["version"]
        yield f"No alias moves by itself: set version {number} for one in spec.aliases of the Model."
        return
    if promotion.get("policy", "Manual") != "Automatic":
        yield "No alias moves by itself: spec.promotion.policy of the Model is Manual."
        return
    gates, newest = promotion_gates(version, model), (model.get("status") or {}).get("promotable")
    for alias in promotion["aliases"]:
        before = _points(model).get(alias)
        if before == name:
            yield f"{alias} points to it already."
        elif newest and newest > version["spec"]["version"]:
            yield f"{alias} does not move to it: version {newest} is newer, and may be promoted."
        elif gates.result is None:
            yield f"{alias} moves to it only if the operator finds that its gates have passed."
        elif not gates.passed:
            yield f"{alias} does not move to it: the gates have not passed."
        else:
            moves = f"moves from {before} to {name}" if before else f"points to {name} from now on"
            yield f"{alias} {moves}{'' if _is_ready(version) else ' as soon as it is Ready'}."


def _withdrawn(version: Body, model: Body, state: ApprovalState) -> Iterator[str]:
    name, promotion, points = version["metadata"]["name"], _promotion(model), _points(model)
    for alias in _pinned(version, model):
        if state == ApprovalState.CANDIDATE:
            yield f"{alias} of spec.aliases may point to it, but servers that follow the alias do not serve it."
        else:
            where = "points nowhere" if points.get(alias, name) == name else f"stays at {points[alias]}"
            yield f"{alias} of spec.aliases {where} until another version is set there."
    for alias in promotion.get("aliases") or ():
        if points.get(alias) == name:
            yield f"{alias} leaves it, and points to {_next_best(name, model)}."
    yield from _expiry(version, model)


def _expiry(version: Body, model: Body) -> Iterator[str]:
    """What spec.retention does with a version that nobody approves any more."""
    spec, number = version["spec"], version["spec"]["version"]
    keep = ((model.get("spec") or {}).get("retention") or {}).get("keep")
    was_approved = (spec.get("approval") or {}).get("state") == ApprovalState.APPROVED
    newest = int((model.get("status") or {}).get("latest") or number)
    if keep is None or not was_approved or newest - number < keep or _pinned(version, model):
        return
    files = " with its files" if spec.get("deletionPolicy") == "Delete" else ""
    yield f"Its approval has kept it: spec.retention of the Model (keep: {keep}) may delete it{files} now."


def _next_best(name: str, model: Body) -> str:
    """Where an alias of spec.promotion goes if this version may not have it."""
    if _promotion(model).get("policy", "Manual") != "Automatic":
        return "nothing"
    status = model.get("status") or {}
    candidates = status.get("candidates") or ()
    ready = (c["modelVersion"] for c in candidates if "message" not in c and c["modelVersion"] != name)
    older = int(status.get("versions") or 0) > len(candidates)
    otherwise = "the newest older version that may be promoted, if there is one" if older else "nothing"
    return str(next(ready, otherwise))


def _copies(version: Body, model: Body, state: ApprovalState) -> Iterator[str]:
    entries = (model.get("spec") or {}).get("deliveries") or ()
    if state == ApprovalState.APPROVED:
        later = {"Approved": "", "Aliased": " as soon as an alias points to it"}
        for entry in entries:
            if (when := entry.get("when", "Approved")) in later:
                yield f"It is copied to {entry['uri']}{later[when]}."
    elif (version.get("status") or {}).get("deliveries"):
        yield "Copies that were delivered stay where they are."


def _promotion(model: Body | None) -> Mapping[str, Any]:
    return ((model or {}).get("spec") or {}).get("promotion") or {}


def _pinned(version: Body, model: Body) -> list[str]:
    """Aliases of spec.aliases that name the version."""
    entries = (model.get("spec") or {}).get("aliases") or ()
    return [entry["name"] for entry in entries if entry["version"] == version["spec"]["version"]]


def _points(model: Body) -> dict[str, str]:
    """The ModelVersion of each alias."""
    return {entry["name"]: entry["modelVersion"] for entry in (model.get("status") or {}).get("aliases") or ()}


def _is_ready(version: Body) -> bool:
    conditions = (version.get("status") or {}).get("conditions") or ()
    return any(c["type"] == ConditionType.READY and c["status"] == "True" for c in conditions)
