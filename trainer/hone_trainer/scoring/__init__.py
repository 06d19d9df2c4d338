"""Scores of a model on held-out rows, and what follows from them: comparisons, probes, early stopping."""
