"""How a command reaches the cluster and the files in it, with a person's own rights."""
