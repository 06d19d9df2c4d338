"""Lives of objects, from creation to deletion, in memory and on a real API server."""
