"""Whether an installation works for a person, and what others need in order to help."""
