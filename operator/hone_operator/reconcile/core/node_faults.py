"""Faults of nodes that others have found: NVSentinel, the node problem detector, node agents of clouds, the kubelet.

They publish conditions of the node. Hone detects no fault itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_FAULT_IF_TRUE = re.compile(
    r"Gpu\w+Watch|SysLogs\w+Error|SysLogsGPUFallenOff|DCGMError|CSPMaintenance"  # NVSentinel
    r"|KernelDeadlock|ReadonlyFilesystem|XfsShutdown|CperHardwareErrorFatal"  # node problem detector
)
_FAULT_UNLESS_TRUE = re.compile(r"Ready|(AcceleratedHardware|Kernel|Networking|Storage|ContainerRuntime)Ready")
"""The kubelet's, and those of the node agents of clouds."""
MAX_AVOIDED = 16
_MAX_MESSAGE = 200


class NodeTrouble(NamedTuple):
    """What is wrong with a node on which a pod ran."""

    node: str
    sentence: str
    faulty: bool
    """Whether it has a fault; False: it is only cordoned."""


def troubles_of(node: Mapping[str, Any]) -> list[NodeTrouble]:
    """One for each condition that says that the node is faulty; if there is none, one if it is cordoned.

    Args:
        node: as the API server has it.
    """
    name = node["metadata"]["name"]
    conditions = (node.get("status") or {}).get("conditions") or ()
    faults = [NodeTrouble(name, _sentence(name, c), True) for c in conditions if _is_fault(c)]
    if not faults and (node.get("spec") or {}).get("unschedulable"):
        return [NodeTrouble(name, f"Node {name} is cordoned.", False)]
    return faults


def nodes_to_avoid(faulty: Sequence[Sequence[str]]) -> list[str]:
    """The nodes that the next attempt avoids: the newest MAX_AVOIDED.

    Args:
        faulty: the faulty nodes of each attempt, oldest attempt first.
    """
    newest_first = dict.fromkeys(node for nodes in reversed(faulty) for node in nodes)
    return list(newest_first)[:MAX_AVOIDED]


def _is_fault(condition: Mapping[str, Any]) -> bool:
    kind, status = condition.get("type", ""), condition.get("status")
    if _FAULT_UNLESS_TRUE.fullmatch(kind):
        return status == "False" or (kind == "Ready" and status == "Unknown")
    return status == "True" and bool(_FAULT_IF_TRUE.fullmatch(kind))


def _sentence(name: str, condition: Mapping[str, Any]) -> str:
    said = condition.get("message") or condition.get("reason") or ""
    short = said if len(said) <= _MAX_MESSAGE else f"{said[:_MAX_MESSAGE]}…"
    return f"Node {name} has {condition['type']}={condition['status']}: {short.rstrip('. ')}."
