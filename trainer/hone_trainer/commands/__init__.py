"""Commands for people and pods that are not a run: evaluate an artifact again, export a checkpoint."""
