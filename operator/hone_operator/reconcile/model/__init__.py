"""A Model: its aliases, promotion, retention, registries."""
