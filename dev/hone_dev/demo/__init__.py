"""`make demo`: from nothing to a first fine-tuned model."""
