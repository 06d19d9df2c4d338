"""CEL rules that the API server checks: what a schema alone cannot say about one field or several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hone_api.base.cel import evaluate

VALIDATIONS = "x-kubernetes-validations"
UNQUOTED = "FieldValueForbidden"
"""Reason of a rule whose refusal does not quote the value: a URI may hold a password. Since Kubernetes 1.35 all others
quote the value of a field, unless it is an object or a list."""


@dataclass(frozen=True)
class Rule:
    """One CEL rule (`x-kubernetes-validations`); the message says what is wrong and the way out."""

    rule: str
    message: str
    field_path: str | None = None
    reason: str | None = None
    optional_old_self: bool = False
    """Whether `oldSelf` is optional and empty for a new object; otherwise a rule with it applies only to changes."""
    of: str | None = None
    """JSON name of the field whose schema gets the rule; there `self` is the field's value. The rule is skipped if the
    field is absent, and costs the API server much less than a rule on the parent: see `Immutable`."""
    one_field: bool = False
    """Whether one value is wrong by itself, and not only together with others."""

    def holds(self, value: Mapping[str, Any]) -> bool:
        """Whether a new object satisfies the rule, by our own evaluation: for plans that no API server has seen.

        Args:
            value: the object that has the rule, as JSON.
        """
        subject = value if self.of is None else value.get(self.of)
        return subject is None or evaluate(self.rule, subject)

    def at_creation(self) -> Rule:
        """The same rule, checked only when an object is created.

        For fields that never change: otherwise every status write would check it again, also of an object that was
        stored before the rule existed.
        """
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

    The API server checks every rule at each status write. Each time a rule reads a field of an object, it builds a map
    of the schemas of all fields of that object (`Structural.Properties` of apiextensions-apiserver). So the value is
    compared by a rule on the field itself, which does not touch the parent; only the appearance or disappearance of a
    field needs a rule on the parent.
    """

    path: str
    """The object, e.g. spec.scheduling."""
    names: tuple[str, ...]
    way_out: str
    """What to do instead."""
    same: Mapping[str, str] = field(default_factory=dict)
    """By field: the rule that holds if its value is the same, where that is more than being equal."""

    def rules(self, schema: dict[str, Any]) -> Iterator[Rule]:
        """No value changes, and no optional field appears or disappears; one with a default is always there."""
        for name in self.names:
            message = f"{self.path}.{name} is immutable: {self.way_out}"
            yield Rule(self.same.get(name, "self == oldSelf"), message, of=name, reason=UNQUOTED)
            if name not in schema.get("required", ()) and schema["properties"][name].get("default") is None:
                same = f"has(self.{name}) == has(oldSelf.{name})"
                yield Rule(same, message, field_path=f".{name}", reason=UNQUOTED)
