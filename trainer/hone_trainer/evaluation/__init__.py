"""Base and tuned model compared: the baseline before the first step, the final evaluation, loss spikes."""
