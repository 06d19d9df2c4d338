"""A ModelVersion: delivered and signed."""
