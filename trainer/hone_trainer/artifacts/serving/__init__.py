"""Keeps a running vLLM on the adapters that the aliases of Models mean now. It is no server: vLLM answers."""
