"""Base models and adapters: fetched, read without weights, loaded, quantised, merged, sampled from."""
