"""Requests through a real gateway, shared out over two versions as `hone serve` prints it."""
