"""Which split a row is in, now and before."""
