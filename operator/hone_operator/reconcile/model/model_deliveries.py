"""Deliveries that a Model asks for, as those of one of its ModelVersions."""

from collections.abc import Mapping
from typing import Any

from hone_api.words.states import ApprovalState, DeliveryState
from hone_operator.reconcile.model import aliases


def of_model(model: Mapping[str, Any] | None, version: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Entries of spec.deliveries of the Model that apply to this ModelVersion and that it does not have itself.

    What was delivered stays in the status as long as the Model has the entry, e.g. when an alias has moved on.

    Args:
        model: the Model of its name; None: there is none.
        version: the ModelVersion.
    """
    own = {entry.get("uri") for entry in version["spec"].get("deliveries") or ()}
    shown = (version.get("status") or {}).get("deliveries") or ()
    delivered = {entry.get("uri") for entry in shown if entry.get("state") == DeliveryState.DELIVERED}
    wanted = ((model or {}).get("spec") or {}).get("deliveries") or ()
    return [
        {name: value for name, value in entry.items() if name != "when"}
        for entry in wanted
        if entry.get("uri") not in own
        and (entry.get("uri") in delivered or _applies(entry.get("when", "Approved"), model, version))
    ]


def _applies(when: str, model: Mapping[str, Any] | None, version: Mapping[str, Any]) -> bool:
    """Whether it is Ready is another question: nothing is delivered before."""
    if when == "Aliased":
        return aliases.at(model, version["metadata"]["name"]) is not None
    return when == "Ready" or (version["spec"].get("approval") or {}).get("state") == ApprovalState.APPROVED


def differ(model: Mapping[str, Any] | None, version: Mapping[str, Any]) -> bool:
    """Whether the status of a ModelVersion shows other deliveries than it should have."""
    asked = [*(version["spec"].get("deliveries") or ()), *of_model(model, version)]
    shown = (version.get("status") or {}).get("deliveries") or ()
    return {entry.get("uri") for entry in asked} != {entry.get("uri") for entry in shown}
