"""Keeps a running vLLM on the adapters that the aliases of Models mean now. It is not a server: vLLM answers."""
