"""The operator as one process of several: leadership, probes."""
