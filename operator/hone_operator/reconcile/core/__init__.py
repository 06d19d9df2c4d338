"""What every decision is made of: outcome, conditions, refusals, pods, failures."""
