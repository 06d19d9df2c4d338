"""Deciding, without I/O: what the observed objects mean, and what should be."""
