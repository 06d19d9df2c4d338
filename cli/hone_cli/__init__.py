"""The command `hone`: what people do with their own hands, beside kubectl."""
