"""Which rows are in a batch, in which order, and how they are put together."""
