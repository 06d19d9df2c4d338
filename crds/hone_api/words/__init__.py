"""Closed lists of words: states and reasons, failure codes, codes of rows, phases, numbers of progress."""
