"""The training loop that every method shares: settings, callbacks, checkpoints, batches and their kernels."""
