"""The Helm chart's values: one model, from which values.yaml, its schema and the README's table are written."""
