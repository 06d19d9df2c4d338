"""The content of a store: what nothing refers to any more is removed."""
