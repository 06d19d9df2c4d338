"""What the texts of rows are: their language, length, pitfalls, statistics."""
