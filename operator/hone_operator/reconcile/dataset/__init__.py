"""A Dataset: materialized, refreshed, reviewed."""
