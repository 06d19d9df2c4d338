"""What the gates of a Model's promotion say of a version, for the operator and for people. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError

from hone_api.base.meta import alias_of
from hone_api.base.reading import read_known
from hone_api.kinds.model import Promotion, PromotionGate
from hone_api.kinds.modelversion import PARITY, EvaluationNumber
from hone_api.kinds.plan_record import values_of
from hone_api.words.states import AnyReason, GateResult

Body = Mapping[str, Any]
LEAST_ROWS = 100
"""Fewer rows than this, and fewer than before: then a number that was measured again does not replace another."""
UNSEEN = 3.0
"""Of equal rows each resample is the same, so the interval has no width. What n rows do not show is a share of at most
3 / n (95 %)."""
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


class MeasuredNumber(NamedTuple):
    """A number of a version, and how it came about."""

    number: EvaluationNumber | None
    against: str | None = None
    """ModelVersion that was compared with; empty: there was none. None: none was asked for."""
    other_model: bool = False
    """Whether that is a version of another model, as the job asked for it: no entry can choose an easier rival."""
    at: str = ""
    """When it was measured again, RFC 3339; empty: with the version itself."""


def measured_numbers(body: Body) -> list[MeasuredNumber]:
    """All numbers of a version: of its job or import, and then those that were measured again, oldest first."""
    spec = body["spec"]
    evaluation = spec.get("evaluation") or {}
    asked = values_of(spec.get("lineage") or {}).get("evaluation")
    against = asked.get("against") if isinstance(asked, dict) else None
    other = _is_of_another_model(against, spec)
    first = [MeasuredNumber(n, evaluation.get("against"), other) for n in _numbers(evaluation.get("numbers") or ())]
    entries = {(e.get("dataset"), e.get("split", "validation")): e for e in spec.get("evaluations") or ()}
    later = []
    for entry in (body.get("status") or {}).get("evaluations") or ():
        wanted = entries.get((entry.get("dataset"), entry.get("split")), {})
        rival, at = other and _is_of_another_model(wanted.get("against"), spec), entry.get("evaluatedAt") or ""
        later += [MeasuredNumber(n, entry.get("against"), rival, at) for n in _numbers(entry.get("numbers") or ())]
    return [*first, *sorted(later, key=lambda each: each.at)]


def newest(
    numbers: Iterable[MeasuredNumber], counts: Callable[[MeasuredNumber], bool] = lambda each: True
) -> list[MeasuredNumber]:
    """Of each metric and dataset the newest that counts, else the newest; in the order of the first."""
    out: dict[tuple[str, str | None], MeasuredNumber] = {}
    for each in numbers:
        key = (each.number.name, each.number.dataset) if each.number else ("", None)
        before = out.get(key)
        if before is None or (_has_rows(each, before) and (counts(each) or not counts(before))):
            out[key] = each
    return [*out.values()]


def _has_rows(each: MeasuredNumber, before: MeasuredNumber) -> bool:
    """Whether enough rows were measured to take the place of a number."""
    rows, rows_before = (m.number.rows if m.number else None for m in (each, before))
    return rows is None or rows_before is None or rows >= min(rows_before, LEAST_ROWS)


def verdict(promotion: Promotion, body: Body, in_use: InUse) -> GateVerdict:
    """All gates together: failed if one failed, else inconclusive if one is, else passed."""
    numbers = measured_numbers(body)
    verdicts = [v for gate in promotion.gates or () for v in _judge_all(gate, numbers, body, in_use)]
    for result in (GateResult.FAILED, GateResult.INCONCLUSIVE):
        if words := dict.fromkeys(v.message for v in verdicts if v.result == result):
            return GateVerdict(result, "; ".join(words))
    return GateVerdict(GateResult.PASSED)


def _judge_all(
    gate: PromotionGate, numbers: Iterable[MeasuredNumber], body: Body, in_use: InUse
) -> Iterator[GateVerdict]:
    """What a gate says of each number that it is about."""
    about = [m for m in numbers if (n := m.number) and n.name == gate.metric and gate.dataset in ("", n.dataset)]
    about = about or [MeasuredNumber(None, (body["spec"].get("evaluation") or {}).get("against"))]
    if gate.value != AGAINST or gate.metric.startswith(PARITY):  # recorded answers stay what they are
        yield from (_judge(gate, each.number) for each in newest(about, lambda each: _has(gate.value, each)))
        return
    for each in newest(about, lambda each: _is_comparison(each, body, in_use)):
        if stale := _is_outdated(body, each, in_use):
            yield GateVerdict(GateResult.INCONCLUSIVE, stale)
        elif each.against != "":  # empty: there was no other model, nothing to be better than
            yield _judge(gate, each.number)


def _has(value: str, each: MeasuredNumber) -> bool:
    return each.number is not None and _interval(value, each.number) is not None


def _is_comparison(each: MeasuredNumber, body: Body, in_use: InUse) -> bool:
    """Whether it says if a version may replace the one in use, or may be used again. A comparison with a newer version
    says neither."""
    prefix = f"{body['spec'].get('modelName')}-v"
    number = (each.against or "").removeprefix(prefix)
    newer = (each.against or "").startswith(prefix) and number.isdecimal() and int(number) > body["spec"]["version"]
    return each.against is not None and not newer and not _is_outdated(body, each, in_use)


def _is_of_another_model(against: Any, spec: Mapping[str, Any]) -> bool:
    """Whether `against` of a job or an entry names an alias of another model."""
    alias = alias_of(against) if isinstance(against, str) else None
    return alias is not None and alias[0] != spec.get("modelName")


def _is_outdated(body: Body, each: MeasuredNumber, in_use: InUse) -> str:
    """Why what a version was compared with says nothing about the one in use now; empty if it does.

    A version that was in use once was better than the one before it, and stays eligible for a rollback.
    """
    compared = each.against
    if compared is None or not in_use.now or compared in in_use.now or body["spec"].get("version") in in_use.ever:
        return ""
    if compared and each.other_model:
        return ""
    was = f"compared with {compared}" if compared else "compared with no other version"
    now = ", ".join(sorted(in_use.now))
    if in_use.awaited:
        return f"it was {was}, and {now} is approved and not Ready yet: wait for that, or reject it"
    return f"it was {was}, and in use is {now}: compare it with that in spec.evaluations, or train again"


def _numbers(listed: Iterable[Any]) -> list[EvaluationNumber]:
    """The numbers of a record; one that another version of Hone wrote in another form is as if it were absent."""
    out = []
    for each in listed:
        try:
            out.append(read_known(EvaluationNumber, each)[0])
        except ValidationError:
            continue
    return out


def _judge(gate: PromotionGate, number: EvaluationNumber | None) -> GateVerdict:
    what = gate.metric + (f" of {gate.dataset}" if gate.dataset else "")
    if number is None:
        return GateVerdict(GateResult.INCONCLUSIVE, f"{what} was not measured")
    interval = _interval(gate.value, number)
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


def _interval(value: str, number: EvaluationNumber) -> tuple[float, float] | None:
    """The ends of the 95 % interval. Without an interval, both are the value; None if the number is missing."""
    tuned, base, other = _float(number.tuned), _float(number.base), _float(number.against)
    if value == "Tuned":
        middle, low, high = tuned, _float(number.low), _float(number.high)
    elif value == AGAINST:
        middle = tuned - other if tuned is not None and other is not None else None
        low, high = _float(number.against_low), _float(number.against_high)
    else:
        middle = tuned - base if tuned is not None and base is not None else None
        low, high = _float(number.change_low), _float(number.change_high)
    if low is not None and high is not None:
        unseen = _unseen(number) if low == high else 0.0
        return low - unseen, high + unseen
    return (middle, middle) if middle is not None else None


def _unseen(number: EvaluationNumber) -> float:
    """What other rows can change, where all measured ones are alike: of scores from 0 to 1 (parity), or of one row."""
    rows = number.rows or 1
    return UNSEEN / rows if rows == 1 or number.name.startswith(PARITY) else 0.0


def _float(text: str | None) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
