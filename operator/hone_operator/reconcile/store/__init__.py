"""What a store may lose."""
