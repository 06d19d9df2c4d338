"""Which versions of a model a promotion may take: those whose gates passed and that a person approved. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from hone_api.contract.status_json import PromotionCandidateJson
from hone_api.kinds.model import MAX_CANDIDATES, ModelSpec, Promotion
from hone_api.verdicts.gates import InUse, verdict
from hone_api.words.states import ApprovalState, GateResult
from hone_operator.reconcile.model.aliases import Promotable, unusable

Body = Mapping[str, Any]
MAX_MESSAGE = 1024


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


def promotable(
    promotion: Promotion | None, versions: Mapping[int, Body], in_use: InUse, promoted: Collection[int] = ()
) -> Promotable:
    """The versions to which an alias of the promotion may point.

    Args:
        promoted: numbers of those to which its aliases point. Gates decide which version is next. What is in use stays
            until a person withdraws it, or a newer one passes: it may have been measured on other rows than older ones.
    """
    if promotion is None or in_use.awaited:
        return Promotable(awaited=in_use.awaited)
    approved = [n for n in sorted(versions, reverse=True) if _is_approved(versions[n])]
    passed = {n for n in approved if verdict(promotion, versions[n], in_use).result == GateResult.PASSED}
    problems = {n: unusable(n, versions[n]) for n in approved}
    kept = {n for n, problem in problems.items() if problem is None or problem.passing}
    return Promotable(
        eligible=[n for n in approved if n in passed and problems[n] is None],
        stay=[n for n in approved if n in kept & (passed | {*promoted})],
    )


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
