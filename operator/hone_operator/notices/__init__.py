"""News about models, sent to a receiver outside the cluster."""
