"""Two teams share a small quota on real pods with Kueue: what they queue, what is observed, and the verdict."""
