"""The kind Dataset: spec, status, and the blocks that only it has."""
