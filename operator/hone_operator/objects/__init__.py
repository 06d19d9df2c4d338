"""Watched objects: read within limits, cut to known fields, kept in one cache."""
