"""The store of a namespace, and the Job that sweeps it."""
