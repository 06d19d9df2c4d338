"""The Jobs before a run: a base model looked up and fetched, tasks staged, rows encoded."""
