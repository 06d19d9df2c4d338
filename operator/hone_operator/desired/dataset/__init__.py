"""The Job that makes the rows of a Dataset, and what it needs."""
