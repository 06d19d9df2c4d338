"""Datasets: rows from a source, read one by one, validated, split and written once into the store.

source (sources) -> files -> raw rows (read) -> normalised records (formats, detect) -> splits -> store (materialize)
"""
