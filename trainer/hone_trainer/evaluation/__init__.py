"""Comparison of base and tuned model: the baseline before the first step, the final evaluation, loss spikes."""
