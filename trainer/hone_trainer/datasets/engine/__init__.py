"""The rows of a Dataset as columns: parts in Parquet that any process makes, and SQL over all of them."""
