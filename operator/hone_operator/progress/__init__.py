"""The progress server: takes reports from running pods over TLS, each for its own pod only."""
