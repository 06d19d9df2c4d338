"""Communication between ranks: rendezvous on loopback, JSON messages."""
