"""Metrics, read from the cache at scrape time."""
