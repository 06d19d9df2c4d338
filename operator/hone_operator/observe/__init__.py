"""Reads what a decision depends on: one module for each kind, from the cache and, where that is not enough, live."""
