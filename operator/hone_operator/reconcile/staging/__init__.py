"""Work of one Job that a run waits for: staged once, retried, refused."""
