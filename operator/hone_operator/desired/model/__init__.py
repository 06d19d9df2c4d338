"""A Model, the Jobs that import and register versions, and what servers may load."""
