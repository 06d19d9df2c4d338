"""Rows of Datasets, and what is counted of them."""
