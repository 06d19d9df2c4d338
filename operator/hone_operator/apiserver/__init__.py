"""The API server: calls, lists and guarded watches. Nothing else talks to it."""
