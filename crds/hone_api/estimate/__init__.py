"""What a run will need: memory of a rank, micro batch, cost, cheaper settings, and what looks wrong."""
