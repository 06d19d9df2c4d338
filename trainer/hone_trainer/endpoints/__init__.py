"""Servers outside the pod: which addresses may be reached, HTTP with limits, OpenAI-compatible clients."""
