"""What a version may do: be promoted, be loaded by a server."""
