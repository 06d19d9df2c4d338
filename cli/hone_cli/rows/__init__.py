"""Rows on the way into the cluster: looked at, described by a manifest, uploaded."""
