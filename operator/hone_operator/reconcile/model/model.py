"""Model: the aliases of a name, as they follow from its spec and its ModelVersions."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from hone_api.base.meta import MAX_COUNT
from hone_api.combinations import rule_problems
from hone_api.contract.served import CONFIG_MAP
from hone_api.contract.status_json import AliasStatusJson, FormerAliasJson
from hone_api.kinds.model import ModelSpec
from hone_api.verdicts.gates import InUse
from hone_api.words.failures import FailureCode
from hone_api.words.states import ConditionType, Reason
from hone_operator.reconcile.core.outcome import Outcome, Refusal
from hone_operator.reconcile.core.outcome_builder import ModelBuilder
from hone_operator.reconcile.core.validation import accept, read_spec, spec_problems
from hone_operator.reconcile.model import aliases, promotion, retention
from hone_operator.reconcile.model.aliases import Aliases
from hone_operator.reconcile.model.importing import ObservedForImports, decide_imports
from hone_operator.reconcile.model.registering import ObservedForRegistry, decide_registration
from hone_operator.reconcile.retrain.retraining import ObservedForRetraining, decide_retraining
from hone_operator.reconcile.staging.entry_jobs import retry_request

MAX_SUMMARY = 253


@dataclass(frozen=True)
class ObservedForModel:
    """Everything that the decision depends on in addition to the Model itself."""

    versions: Sequence[Mapping[str, Any]] = ()
    """ModelVersions of its namespace, of whatever model."""
    in_use: frozenset[str] = frozenset()
    """Names of those that other objects need; only with retention."""
    retraining: ObservedForRetraining = field(default_factory=ObservedForRetraining)
    """Only with retrain."""
    registry: ObservedForRegistry = field(default_factory=ObservedForRegistry)
    imports: ObservedForImports = field(default_factory=ObservedForImports)
    not_handed_over: str = ""
    """Why servers of the namespace do not learn what aliases mean."""

    def after(self, refusals: Sequence[Refusal]) -> "ObservedForModel":
        """The same, with what the API server refused a moment ago."""
        return replace(
            self,
            retraining=self.retraining.after(refusals),
            registry=replace(self.registry, refusals=refusals),
            imports=replace(self.imports, refusals=refusals),
        )


def reconcile(model: Mapping[str, Any], seen: ObservedForModel, now: datetime) -> Outcome:
    """The next step of this Model. Pure."""
    if model["metadata"].get("deletionTimestamp"):
        return Outcome()
    builder = ModelBuilder(model, now)
    try:
        spec, unknown = read_spec(ModelSpec, model)
    except ValidationError as error:
        return _refuse(builder, FailureCode.INVALID_VALUE, spec_problems(error))
    if broken := list(rule_problems(spec, "spec")):
        return _refuse(builder, broken[0].code, "; ".join(problem.message for problem in broken))
    accept(builder, unknown)
    versions = aliases.by_number(model["metadata"]["name"], seen.versions)
    builder.put(versions=min(len(versions), MAX_COUNT), latest=max(versions, default=None))
    builder.put(lastVersion=max([*versions, builder.old.get("lastVersion") or 0]) or None)
    in_use, may, decided = _decide_aliases(spec, versions, builder.old, builder.time)
    builder.put(aliases=decided.entries or None, formerAliases=decided.former or None, summary=_summary(decided))
    builder.put(
        promotable=next(iter(may.eligible), None),
        candidates=(promotion.candidates(spec.promotion, versions, in_use) or None) if spec.promotion else None,
    )
    _report(builder, spec, decided)
    if seen.not_handed_over and (decided.entries or decided.lost):
        words = (
            f"Servers keep what ConfigMap {CONFIG_MAP} says, since it cannot be written: {seen.not_handed_over}. If it "
            "is immutable, whoever has the verb attest on ModelVersions deletes it, and the operator makes it again."
        )
        builder.ready(False, Reason.NOT_HANDED_OVER, words, reconciling=True)
        builder.add_event_if_changed(ConditionType.READY, warning=True)
    decide_retraining(builder, spec.retrain, seen.retraining)
    decide_registration(builder, spec, versions, seen.registry)
    decide_imports(builder, spec, seen.versions, seen.imports)
    builder.put(retried=retry_request(builder))
    for body in retention.surplus(spec, builder.status, versions):
        if body["metadata"]["name"] not in seen.in_use:
            builder.delete.append(body)
            builder.add_event(Reason.VERSION_EXPIRED, retention.words_of(body, spec.retention))
    return builder.outcome()


def _decide_aliases(
    spec: ModelSpec, versions: Mapping[int, Mapping[str, Any]], status: Mapping[str, Any], now: str
) -> tuple[InUse, aliases.Promotable, Aliases]:
    """What is in use, what may be promoted, and where each alias points.

    Gates compare with what is in use, and that follows from the gates: it is decided again until nothing moves, so that
    no alias points nowhere meanwhile. It ends: an alias that may stay where it is only moves to newer versions.
    """
    before: Sequence[AliasStatusJson] = status.get("aliases") or ()
    former: Sequence[FormerAliasJson] = status.get("formerAliases") or ()
    wanted = {pinned.name for pinned in spec.aliases or ()} | {*(spec.promotion.aliases if spec.promotion else ())}
    present = [entry for entry in before if entry["name"] in wanted]
    left = {t["version"] for e in (*present, *former) if e["name"] in wanted for t in e.get("history") or ()}
    left |= {entry["version"] for entry in present}
    swapped = aliases.swapped_versions(versions, before, former)
    versions = {number: body for number, body in versions.items() if number not in swapped}
    points, names = {e["name"]: e["version"] for e in present}, {e["modelVersion"] for e in present}
    promoted = {e["version"] for e in present if e["writer"] == "Promotion"}
    while True:
        in_use = promotion.find_in_use(spec, versions, names, left | {*points.values()})
        may = promotion.promotable(spec.promotion, versions, in_use, promoted)
        aimed = aliases.aim(spec, versions, points, may)
        if aimed.points == points:
            aimed.problems.update((p.name, swapped[p.version]) for p in spec.aliases or () if p.version in swapped)
            return in_use, may, aliases.decide(aimed, versions, before, former, now)
        points, names = aimed.points, {versions[number]["metadata"]["name"] for number in aimed.points.values()}


def moves_alias(model: Mapping[str, Any], versions: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the next reconcile of this Model changes where one of its aliases points. Pure.

    Args:
        versions: ModelVersions of its namespace.
    """
    if model["metadata"].get("deletionTimestamp"):
        return False
    try:
        spec, _ = read_spec(ModelSpec, model)
        status = model.get("status") or {}
        if any(rule_problems(spec, "spec")):
            return False
        by_number = aliases.by_number(model["metadata"]["name"], versions)
        decided = _decide_aliases(spec, by_number, status, "")[2]
        return _points(decided.entries) != _points(status.get("aliases") or ())
    except (ValidationError, KeyError, TypeError):  # of another version of Hone: such a Model moves nothing
        return False


def _points(entries: Sequence[AliasStatusJson]) -> set[tuple[str, str]]:
    return {(entry["name"], entry["modelVersion"]) for entry in entries}


def _refuse(builder: ModelBuilder, code: FailureCode, message: str) -> Outcome:
    """Another version of Hone accepted the spec: the aliases stay where they are."""
    builder.conditions.set(ConditionType.ACCEPTED, False, code, message)
    builder.ready(False, code, message, stalled=True)
    builder.add_event_if_changed(ConditionType.READY, warning=True)
    return builder.outcome()


def _summary(decided: Aliases) -> str | None:
    text = ",".join(f"{entry['name']}=v{entry['version']}" for entry in decided.entries)
    return (text if len(text) <= MAX_SUMMARY else text[: MAX_SUMMARY - 1] + "…") or None


def _report(builder: ModelBuilder, spec: ModelSpec, decided: Aliases) -> None:
    points = {entry["name"]: entry["modelVersion"] for entry in decided.entries}
    for message in decided.moved:
        builder.add_event(Reason.ALIAS_MOVED, message)
    for message in decided.lost:
        builder.add_event(Reason.ALIAS_LOST, message, warning=True)
    if not decided.problems:
        builder.ready(True, Reason.RESOLVED, _resolved(spec, points.keys()))
        return
    words = [
        f"Alias {name}: {problem.message}; it points to {points.get(name, 'nothing')}"
        for name, problem in decided.problems.items()
    ]
    stuck = all(problem.final for problem in decided.problems.values())
    reason = next(iter(decided.problems.values())).reason
    builder.ready(False, reason, "; ".join(words) + ".", reconciling=not stuck, stalled=stuck)
    builder.add_event_if_changed(ConditionType.READY, warning=True)


def _resolved(spec: ModelSpec, pointing: Collection[str]) -> str:
    """Where nothing keeps an alias from its version: whether each has one."""
    nowhere = [name for name in (spec.promotion.aliases if spec.promotion else ()) if name not in pointing]
    if spec.promotion is None or not nowhere:
        return "Every alias points where it should."
    words = f"No version may be promoted yet, so these aliases point nowhere: {', '.join(nowhere)}."
    if spec.promotion.policy == "Automatic":
        return f"{words} status.candidates says what each version lacks."
    return (
        f"spec.promotion.policy is Manual, which moves no alias, so these point nowhere: {', '.join(nowhere)}. Set the "
        "policy to Automatic, or move the alias from spec.promotion.aliases to spec.aliases, with a version."
    )
