"""The progress server: what running pods report, over TLS, each in the name of its own pod only."""
