"""The kinds FineTuneJob, ModelVersion and Model: spec and status."""
