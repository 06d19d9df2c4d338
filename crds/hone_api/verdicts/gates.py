"""What the gates of a Model's promotion say of a version, for the operator and for people. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError

from hone_api.base.meta import alias_of
from hone_api.base.reading import read_known
from hone_api.kinds.model import Promotion, PromotionGate
from hone_api.kinds.modelversion import EvaluationNumber
from hone_api.kinds.plan_record import values_of
from hone_api.words.states import AnyReason, GateResult

Body = Mapping[str, Any]
AGAINST = "Against"
"""Value of a gate: compared with the version in use."""


class Unusable(NamedTuple):
    """Why nothing may point to a version."""

    reason: AnyReason
    message: str
    final: bool = False
    """Only a person can change it."""
    passing: bool = False
    """The version exists and may be Ready again by itself, e.g. once it is signed with a new key: what points to it
    stays, and whoever reads its files refuses it meanwhile."""


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
    asked = values_of(spec.get("lineage") or {}).get("evaluation")
    against = asked.get("against") if isinstance(asked, dict) else None
    alias = alias_of(against) if isinstance(against, str) else None
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
    about = [n for n in numbers if n.name == gate.metric and gate.dataset in ("", n.dataset)]
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
