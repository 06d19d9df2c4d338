"""Base models and adapters: fetching, reading without weights, loading, quantising, merging, sampling."""
