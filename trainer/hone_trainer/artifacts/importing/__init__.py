"""A foreign model into the store: fetched, checked, and completed to what a run would have left."""
