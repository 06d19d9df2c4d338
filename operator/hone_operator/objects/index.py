"""Which objects have something in common: a key, and the references of the objects that have it."""

from collections.abc import Hashable

Ref = tuple[str, str]
"""(namespace, name)"""


class KeyIndex(dict[Hashable, Ref | dict[Ref, None]]):
    """References by key. Most keys have one: a set for each of them would take more memory than a finished object."""

    def add(self, key: Hashable, ref: Ref) -> None:
        """Note that the object has this key."""
        known = self.get(key)
        if known is None:
            self[key] = ref
        elif isinstance(known, dict):
            known[ref] = None
        elif known != ref:
            self[key] = {known: None, ref: None}

    def discard(self, key: Hashable, ref: Ref) -> None:
        """Forget that the object has this key, if it has."""
        known = self.get(key)
        if isinstance(known, dict):
            known.pop(ref, None)
        if not known or known == ref:
            self.pop(key, None)

    def refs(self, key: Hashable) -> list[Ref]:
        """The objects with this key, in the order in which they came."""
        known = self.get(key)
        if known is None:
            return []
        return list(known) if isinstance(known, dict) else [known]
