"""A finished model to a registry, a bucket or another volume: complete there, or not there."""
