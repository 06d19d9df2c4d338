"""The objects of an attempt of a FineTuneJob."""
