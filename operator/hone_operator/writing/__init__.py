"""Carrying out decisions: what is written to the API server, and what cannot be written."""
