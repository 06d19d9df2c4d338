"""How much of a run's time counts when hardware fails as often as it did for Llama 3."""
