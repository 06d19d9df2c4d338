"""Artifacts of a run: exported weights, model card, report page, plots."""
