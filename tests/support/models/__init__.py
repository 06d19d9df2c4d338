"""Tiny models, tokenizers and chat templates of the families."""
