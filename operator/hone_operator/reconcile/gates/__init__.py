"""What a run waits for before its first attempt."""
