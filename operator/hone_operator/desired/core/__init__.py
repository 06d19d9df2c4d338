"""What objects of every subject are made of: names, pods, Jobs, limits, what the platform chose."""
