"""One run, from its plan to its result: preflight checks, rows, resolved settings, ranks, and the pipeline."""
