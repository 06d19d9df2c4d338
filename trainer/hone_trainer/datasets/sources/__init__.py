"""Which files a source has, and what its card says of them."""
