"""Which versions of a model a promotion may take: those whose gates passed and that a person approved. Pure."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from pydantic import ValidationError

from hone_api.meta import alias_of
from hone_api.model import MAX_CANDIDATES, ModelSpec, Promotion, PromotionGate
from hone_api.modelversion import EvaluationNumber
from hone_api.reading import read_known
from hone_api.states import ApprovalState, GateResult
from hone_api.status_json import PromotionCandidateJson
from hone_operator.reconcile.aliases import Promotable, Unusable, unusable

Body = Mapping[str, Any]
MAX_MESSAGE = 1024
AGAINST = "Against"
"""Value of a gate: compared with the version in use."""


class GateVerdict(NamedTuple):
    """What a gate says of a version."""

    result: GateResult
    message: str = ""
    """Why it did not pass."""


@dataclass(frozen=True)
class InUse:
    """What the aliases of a Model point to, and pointed to before."""

    now: frozenset[str] = frozenset()
    """Names of ModelVersions."""
    ever: frozenset[int] = frozenset()
    """Numbers of versions, as far as the history goes."""
    awaited: Unusable | None = None
    """Why the version in use is not Ready yet; an older one must not take its place meanwhile."""


def find_in_use(spec: ModelSpec, versions: Mapping[int, Body], names: Collection[str], ever: Collection[int]) -> InUse:
    """What is in use, by status.aliases; if no alias points anywhere, by the records.

    A Model that is restored from a backup has no status. An empty one would let every gate against the version in use
    pass, and older versions be used while newer ones are verified again.

    Args:
        names: ModelVersions to which aliases point.
        ever: numbers of versions to which aliases ever pointed; empty: the status is new, or lost.
    """
    if names or spec.promotion is None:
        return InUse(frozenset(names), frozenset(ever))
    pinned = {entry.version for entry in spec.aliases or ()} & versions.keys()
    replayed = _replayed(spec.promotion, versions, frozenset(pinned))
    return replace(replayed, ever=replayed.ever | {*ever}, awaited=None if ever else replayed.awaited)


def _replayed(promotion: Promotion, versions: Mapping[int, Body], pinned: frozenset[int]) -> InUse:
    """What would be in use if the versions had been approved in the order of their numbers."""
    names = frozenset(versions[number]["metadata"]["name"] for number in pinned)
    in_use = InUse(names, pinned)
    for number in sorted(versions):
        body, problem = versions[number], unusable(number, versions[number])
        gone = problem is not None and not problem.passing
        if gone or not _is_approved(body) or verdict(promotion, body, in_use).result != GateResult.PASSED:
            continue
        in_use = InUse(names | {body["metadata"]["name"]}, in_use.ever | {number}, problem)
    return in_use


def promotable(promotion: Promotion | None, versions: Mapping[int, Body], in_use: InUse) -> Promotable:
    """The versions to which an alias of the promotion may point."""
    if promotion is None or in_use.awaited:
        return Promotable(awaited=in_use.awaited)
    passed = [n for n in sorted(versions, reverse=True) if _has_passed(promotion, versions[n], in_use)]
    problems = {number: unusable(number, versions[number]) for number in passed}
    return Promotable(
        eligible=[number for number, problem in problems.items() if problem is None],
        unready=[number for number, problem in problems.items() if problem and problem.passing],
    )


def _has_passed(promotion: Promotion, body: Body, in_use: InUse) -> bool:
    return _is_approved(body) and verdict(promotion, body, in_use).result == GateResult.PASSED


def _is_approved(body: Body) -> bool:
    return bool((body["spec"].get("approval") or {}).get("state") == ApprovalState.APPROVED)


def candidates(promotion: Promotion, versions: Mapping[int, Body], in_use: InUse) -> list[PromotionCandidateJson]:
    """What keeps the newest versions from being promoted, newest first."""
    out: list[PromotionCandidateJson] = []
    for number in sorted(versions, reverse=True)[:MAX_CANDIDATES]:
        body = versions[number]
        gates = verdict(promotion, body, in_use)
        approval = (body["spec"].get("approval") or {}).get("state", ApprovalState.CANDIDATE)
        words = [gates.message] if gates.message else []
        if problem := unusable(number, body):
            words.append(problem.message)
        elif approval != ApprovalState.APPROVED:
            words.append("nobody has approved it")
        entry: PromotionCandidateJson = {
            "version": number,
            "modelVersion": body["metadata"]["name"],
            "gates": gates.result,
            "approval": approval,
        }
        out.append({**entry, "message": "; ".join(words)[:MAX_MESSAGE]} if words else entry)
    return out


def verdict(promotion: Promotion, body: Body, in_use: InUse) -> GateVerdict:
    """All gates together: failed if one failed, else inconclusive if one is, else passed."""
    evaluation = body["spec"].get("evaluation") or {}
    numbers = _numbers(evaluation.get("numbers") or ())
    stale = _is_outdated(body, in_use)
    gates = [gate for gate in promotion.gates or () if gate.value != AGAINST]
    against = [gate for gate in promotion.gates or () if gate.value == AGAINST]
    if evaluation.get("against") != "" and not stale:  # empty: there was no other model, nothing to be better than
        gates += against
    verdicts = [_judge(gate, number) for gate in gates for number in _of(gate, numbers)]
    if against and stale:
        verdicts.append(GateVerdict(GateResult.INCONCLUSIVE, stale))
    for result in (GateResult.FAILED, GateResult.INCONCLUSIVE):
        if words := [v.message for v in verdicts if v.result == result]:
            return GateVerdict(result, "; ".join(words))
    return GateVerdict(GateResult.PASSED)


def _is_outdated(body: Body, in_use: InUse) -> str:
    """Why what a version was compared with says nothing about the one in use now; empty if it does.

    A version that was in use once was better than the one before it, and stays eligible for a rollback.
    """
    spec = body["spec"]
    compared = (spec.get("evaluation") or {}).get("against")
    if compared is None or not in_use.now or compared in in_use.now or spec.get("version") in in_use.ever:
        return ""
    asked = ((spec.get("lineage") or {}).get("hyperParameters") or {}).get("evaluation") or {}
    alias = alias_of(asked.get("against"))
    if compared and alias and alias[0] != spec.get("modelName"):
        return ""  # with another model than this one
    was = f"compared with {compared}" if compared else "compared with no other version"
    now = ", ".join(sorted(in_use.now))
    if in_use.awaited:
        return f"it was {was}, and {now} is approved and not Ready yet: wait for that, or reject it"
    return f"it was {was}, and in use is {now}: train again to compare it with that"


def _numbers(listed: Iterable[Any]) -> list[EvaluationNumber]:
    """The numbers of a record; one that another version of Hone wrote in another form is as if it were absent."""
    out = []
    for each in listed:
        try:
            out.append(read_known(EvaluationNumber, each)[0])
        except ValidationError:
            continue
    return out


def _of(gate: PromotionGate, numbers: Iterable[EvaluationNumber]) -> list[EvaluationNumber | None]:
    """The numbers that a gate is about; [None] if there is none."""
    about = [n for n in numbers if n.name == gate.metric and gate.dataset in (None, n.dataset)]
    return [*about] or [None]


def _judge(gate: PromotionGate, number: EvaluationNumber | None) -> GateVerdict:
    what = gate.metric + (f" of {gate.dataset}" if gate.dataset else "")
    if number is None:
        return GateVerdict(GateResult.INCONCLUSIVE, f"{what} was not measured")
    interval = _interval(gate, number)
    if interval is None:
        return GateVerdict(GateResult.INCONCLUSIVE, f"{what} has no number for {gate.value}")
    low, high = interval
    least = float(gate.at_least) if gate.at_least is not None else -math.inf
    most = float(gate.at_most) if gate.at_most is not None else math.inf
    shown = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    limits = " and ".join(f"{w} {v}" for w, v in (("at least", gate.at_least), ("at most", gate.at_most)) if v)
    if least <= low and high <= most:
        return GateVerdict(GateResult.PASSED)
    if high < least or most < low:
        return GateVerdict(GateResult.FAILED, f"{what} is {shown}, and must be {limits}")
    return GateVerdict(
        GateResult.INCONCLUSIVE, f"{what} is {shown}, which spans its limit ({limits}): measure more rows"
    )


def _interval(gate: PromotionGate, number: EvaluationNumber) -> tuple[float, float] | None:
    """Both ends of the 95 % interval; without one the value itself, twice. None: there is no such number."""
    tuned, base, other = _float(number.tuned), _float(number.base), _float(number.against)
    if gate.value == "Tuned":
        value, low, high = tuned, _float(number.low), _float(number.high)
    elif gate.value == AGAINST:
        value = tuned - other if tuned is not None and other is not None else None
        low, high = _float(number.against_low), _float(number.against_high)
    else:
        value = tuned - base if tuned is not None and base is not None else None
        low, high = _float(number.change_low), _float(number.change_high)
    if low is not None and high is not None:
        return low, high
    return (value, value) if value is not None else None


def _float(text: str | None) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
