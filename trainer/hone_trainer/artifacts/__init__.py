"""What a run leaves: exported weights, model card, report page, plots."""
