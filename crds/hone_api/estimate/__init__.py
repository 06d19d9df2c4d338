"""Estimates for a run: memory of a rank, micro batch, cost, cheaper settings, and advice."""
