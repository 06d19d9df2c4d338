"""A ModelVersion: its record, its papers, and the Jobs that copy, sign and verify it."""
