"""Runs from a manifest to their end: planned, applied, watched, changed, compared."""
