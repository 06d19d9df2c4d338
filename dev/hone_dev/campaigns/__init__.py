"""The tiers of tests, campaigns of faults and attacks, and the data that they plant."""
