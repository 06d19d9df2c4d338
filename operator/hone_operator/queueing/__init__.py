"""Which keys a change concerns, and the queue that runs them."""
