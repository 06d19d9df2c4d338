"""How long steps and ranks take, and when that means that a run hangs."""
