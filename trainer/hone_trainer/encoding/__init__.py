"""Rows to token ids and labels, or a refusal: conversations, preferences, prompts and plain text."""
