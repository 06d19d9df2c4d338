"""Small models, and servers for them."""
