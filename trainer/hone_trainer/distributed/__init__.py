"""Ranks that talk to each other: rendezvous on loopback, JSON messages."""
