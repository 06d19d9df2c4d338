"""Blocks of specs that several kinds share, or that are a subject of their own."""
