"""Decisions, without I/O: what the observed objects mean, and what should exist."""
