"""A FineTuneJob from acceptance to its end: attempts, waits, adjustments, progress."""
