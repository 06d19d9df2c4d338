"""Which objects have something in common: a key, and the references of the objects that have it."""

from collections.abc import Hashable

Ref = tuple[str, str]
"""(namespace, name)"""


class KeyIndex(dict[Hashable, Ref | dict[Ref, None]]):
    """References by key. Most keys have one: a set for each of them would take more memory than a finished object."""

    def add(self, key: Hashable, ref: Ref) -> None:
        """Note that the object has this key."""
        entry = self.get(key)
        if entry is None:
            self[key] = ref
        elif isinstance(entry, dict):
            entry[ref] = None
        elif entry != ref:
            self[key] = {entry: None, ref: None}

    def discard(self, key: Hashable, ref: Ref) -> None:
        """Forget that the object has this key, if it has."""
        entry = self.get(key)
        if isinstance(entry, dict):
            entry.pop(ref, None)
        if not entry or entry == ref:
            self.pop(key, None)

    def refs(self, key: Hashable) -> list[Ref]:
        """The objects with this key, in the order in which they came."""
        entry = self.get(key)
        if entry is None:
            return []
        return list(entry) if isinstance(entry, dict) else [entry]
