"""Runs of the trainer: plans for every method, and processes that are forked for them."""
