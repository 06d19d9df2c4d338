"""What operator, trainer and servers tell each other, besides the plan."""
