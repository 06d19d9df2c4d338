"""Rules of the API server in CEL: what a schema alone cannot say of a field, or of several together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

VALIDATIONS = "x-kubernetes-validations"


@dataclass(frozen=True)
class Rule:
    """One CEL rule (`x-kubernetes-validations`); the message says what is wrong and the way out."""

    rule: str
    message: str
    field_path: str | None = None
    reason: str | None = None
    optional_old_self: bool = False
    """Whether `oldSelf` is optional and empty for a new object; otherwise a rule with it applies only to changes."""
    holds: Callable[[Any], bool] | None = None
    """The same in Python, of the model that has the rule: for plans that no API server has seen. Of a rule of a kind:
    of the object's name."""
    of: str | None = None
    """JSON name of the field in whose schema the rule stands: `self` is its value there. Such a rule is asked if the
    field is there, and costs the API server much less than one of the parent, see `Immutable`."""
    one_field: bool = False
    """Whether one value is wrong by itself, and not only together with others."""

    def at_creation(self) -> Rule:
        """The same, asked of new objects only: for fields that never change, which each write of a status would ask
        again, and of objects that were stored before there was the rule."""
        return replace(self, rule=f"oldSelf.hasValue() || ({self.rule})", optional_old_self=True)

    def to_json(self) -> dict[str, str | bool]:
        out: dict[str, str | bool] = {"rule": self.rule, "message": self.message}
        if self.reason:
            out["reason"] = self.reason
        if self.field_path:
            out["fieldPath"] = self.field_path
        if self.optional_old_self:
            out["optionalOldSelf"] = True
        return out


@dataclass(frozen=True)
class Immutable:
    """Fields that never change once the object exists.

    The API server asks every rule at each write of a status, and each field that a rule reads of an object costs it a
    list of all fields of that object. So a field is compared by a rule on the field itself, which reads none; only that
    a field appears or disappears must be seen from the parent.
    """

    path: str
    """The object, e.g. spec.scheduling."""
    names: tuple[str, ...]
    way_out: str
    """What to do instead."""

    def rules(self, schema: dict[str, Any]) -> Iterator[Rule]:
        """No value changes, and no optional field appears or disappears; one with a default is always there."""
        reason = "FieldValueForbidden"
        for name in self.names:
            message = f"{self.path}.{name} is immutable: {self.way_out}"
            yield Rule("self == oldSelf", message, of=name, reason=reason)
            if name not in schema.get("required", ()) and schema["properties"][name].get("default") is None:
                same = f"has(self.{name}) == has(oldSelf.{name})"
                yield Rule(same, message, field_path=f".{name}", reason=reason)
