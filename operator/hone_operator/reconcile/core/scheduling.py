"""Translates kube-scheduler's messages about a pod without a node into plain English; unknown ones pass unchanged.

The strings are those of Kubernetes 1.29 to 1.34 (pkg/scheduler/framework: FitError and the plugins' reasons).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_RAW = 300
WHO = "{who}"
_HEAD = re.compile(r"0/(\d+) nodes are available: ?(.*)", re.DOTALL)
_COUNTED = re.compile(r"(\d+) (\D.*)", re.DOTALL)
_NEXT = re.compile(r", (?=\d+ [A-Za-z])")
KUEUE = "kueue.x-k8s.io/"
TOPOLOGY_GATE = f"{KUEUE}topology"
_NAMES = {"cpu": "CPU", "memory": "memory", "ephemeral-storage": "ephemeral storage"}


@dataclass(frozen=True)
class Needs:
    """What a pod needs, as far as the scheduler's reasons are about it."""

    requests: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    claims: tuple[str, ...] = ()
    """Messages about each unbound volume claim."""

    @classmethod
    def of(cls, pod: Mapping[str, Any], claims: tuple[str, ...] = ()) -> "Needs":
        """From a Pod in the cache."""
        spec = pod.get("spec") or {}
        requests: dict[str, str] = {}
        for container in spec.get("containers") or ():
            requests |= (container.get("resources") or {}).get("requests") or {}
        return cls(requests, spec.get("nodeSelector") or {}, claims)


def explain(message: str, needs: Needs) -> str:
    """The message in plain English, then the scheduler's own words, shortened; an unknown message is returned
    unchanged."""
    head = _HEAD.match(message)
    if head is None:
        return message
    total, words = int(head[1]), _filtered(head[2])
    translated, phrases = False, list[str]()
    for reason in _NEXT.split(words):
        counted = _COUNTED.fullmatch(reason)
        count, text = (int(counted[1]), counted[2]) if counted else (total, reason)
        phrase = _translate(text, needs)
        translated = translated or phrase is not None
        if phrase is None or not phrase.alone:
            phrases.append(f"{_nodes(count, total)}: {phrase.text if phrase else text}")
        else:
            phrases.append(phrase.text.replace(WHO, _who(count, total)))
    if not translated:
        return message
    plain = "; ".join(dict.fromkeys(phrases))
    return f"{plain[0].upper()}{plain[1:]}. (kube-scheduler: {_short(f'0/{total} nodes are available: {words}')})"


def scheduling_gate(pod: Mapping[str, Any]) -> str | None:
    """Why the scheduler does not look at a pod yet; None if it has no scheduling gates."""
    gates = [gate["name"] for gate in (pod.get("spec") or {}).get("schedulingGates") or ()]
    if not gates:
        return None
    words = f"the scheduler waits until the scheduling gate{'s' if gates[1:] else ''} {', '.join(gates)} of the pod "
    words += "are removed" if gates[1:] else "is removed"
    if TOPOLOGY_GATE in gates:
        words += f". Kueue removes {TOPOLOGY_GATE} once it has chosen nodes in the topology"
    if others := [gate for gate in gates if not gate.startswith(KUEUE)]:
        words += f". Something else in this cluster set {', '.join(others)} and must remove it"
    return words


def _filtered(words: str) -> str:
    """The message without what PostFilter plugins add about preemption."""
    end = words.find(". ")
    return (words if end < 0 else words[:end]).rstrip(".")


def _short(words: str) -> str:
    return words if len(words) <= MAX_RAW else f"{words[: MAX_RAW - 1]}…"


def _nodes(count: int, total: int) -> str:
    return ("the only node" if total == 1 else "every node") if count >= total else f"{count} of {total} nodes"


def _who(count: int, total: int) -> str:
    return "no node has" if count >= total else f"{count} of {total} nodes do not have"


@dataclass(frozen=True)
class _Phrase:
    text: str
    alone: bool = False
    """Whether it is a complete sentence that contains WHO; otherwise it follows a number of nodes."""


def _translate(reason: str, needs: Needs) -> _Phrase | None:
    for pattern, make in TABLE:
        if match := re.fullmatch(pattern, reason, re.DOTALL):
            return make(match, needs)
    return None


def _insufficient(match: re.Match[str], needs: Needs) -> _Phrase:
    resource = match[1]
    amount = needs.requests.get(resource, "")
    name = _NAMES.get(resource, resource)
    if resource.endswith("/gpu"):
        name = f"GPU{'' if amount == '1' else 's'} ({resource})"
    return _Phrase(f"the pod needs {f'{amount} {name}'.strip()}; {WHO} that free", alone=True)


def _selector(_: re.Match[str], needs: Needs) -> _Phrase:
    labels = ", ".join(f"{k}={v}" for k, v in sorted(needs.node_selector.items()))
    return _Phrase(
        f"without the labels of scheduling.nodeSelector: {labels}" if labels else "outside the node affinity"
    )


def _claims(_: re.Match[str], needs: Needs) -> _Phrase:
    words = "; ".join(needs.claims) or "a PersistentVolumeClaim of the pod is not bound to a volume"
    return _Phrase(words, alone=True)


def _says(text: str, alone: bool = False) -> Callable[[re.Match[str], Needs], _Phrase]:
    def phrase(match: re.Match[str], _: Needs) -> _Phrase:
        return _Phrase(match.expand(text), alone)

    return phrase


TABLE: tuple[tuple[str, Callable[[re.Match[str], Needs], _Phrase]], ...] = (
    (r"Insufficient (\S+)", _insufficient),
    (r"Too many pods", _says("run as many pods as they may")),
    (r"node\(s\) had untolerated taint \{(.*?)(?:: )?\}", _says(r"with taint \1, which scheduling.tolerations lacks")),
    (r"node\(s\) had untolerated taint\(s\)", _says("with taints that scheduling.tolerations lacks")),
    (r"node\(s\) had taints that the pod didn't tolerate", _says("with taints that scheduling.tolerations lacks")),
    (r"node\(s\) were unschedulable", _says("cordoned: `kubectl uncordon NODE`")),
    (r"node\(s\) didn't match Pod's node affinity/selector", _selector),
    (
        r"node\(s\) didn't match scheduler-enforced node affinity",
        _says("excluded by the scheduler's own configuration"),
    ),
    (r"node\(s\) didn't match pod affinity rules", _says("without the pods that this pod must be near")),
    (r"node\(s\) didn't match pod anti-affinity rules", _says("with pods that this pod must be away from")),
    (r"node\(s\) didn't satisfy existing pods anti-affinity rules", _says("with pods that must be away from this pod")),
    (r"node\(s\) didn't match pod topology spread constraints.*", _says("would break the topology spread")),
    (r"node\(s\) didn't have free ports for the requested pod ports", _says("with the pod's ports in use")),
    (r"node\(s\) had volume node affinity conflict", _says("cannot reach a volume of the pod")),
    (r"node\(s\) didn't match PersistentVolume's node affinity", _says("cannot reach a volume of the pod")),
    (r"node\(s\) had no available volume zone", _says("in another zone than a volume of the pod")),
    (r"node\(s\) didn't find available persistent volumes to bind", _claims),
    (r"pod has unbound immediate PersistentVolumeClaims", _claims),
    (r"node\(s\) did not have enough free storage", _says("with too little free storage for a volume of the pod")),
    (r"node\(s\) exceed max volume count", _says("with as many volumes as they may have")),
    (r"node\(s\) had no available disk", _says("with a disk of the pod in use by another pod")),
    (
        r"node\(s\) unavailable due to one or more pvc\(s\) bound to non-existent pv\(s\)",
        _says("a PersistentVolume of the pod was deleted: its claim must be made again", alone=True),
    ),
    (
        r"node\(s\) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by .*",
        _says("another pod uses a ReadWriteOncePod claim of this pod: the store needs ReadWriteMany", alone=True),
    ),
    (
        r'persistentvolumeclaim "([^"]+)" not found',
        _says(r"PersistentVolumeClaim \1 does not exist in this namespace: create it", alone=True),
    ),
    (
        r'persistentvolumeclaim "([^"]+)" is being deleted',
        _says(r"PersistentVolumeClaim \1 is being deleted", alone=True),
    ),
    (
        r'persistentvolumeclaim "([^"]+)" bound to non-existent persistentvolume "([^"]+)"',
        _says(r"PersistentVolumeClaim \1 is bound to PersistentVolume \2, which does not exist", alone=True),
    ),
)
"""Reason of a plugin -> what so many nodes do, or a complete sentence."""


def unbound(claim: Mapping[str, Any], event: str | None) -> str:
    """Message about a claim without a volume: its name, its class, and the provisioner's last event."""
    meta, spec = claim["metadata"], claim.get("spec") or {}
    class_ = spec.get("storageClassName")
    of = f"storage class {class_}" if class_ else "no storage class, and the cluster has no default one"
    latest = f": {event}" if event else ""
    return (
        f"PersistentVolumeClaim {meta['name']} ({of}, {', '.join(spec.get('accessModes') or ())}) has no volume{latest}"
    )
