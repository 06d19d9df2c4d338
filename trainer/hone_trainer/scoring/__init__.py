"""Scores of a model on held-out rows, and what they lead to: comparisons, probes, early stopping."""
