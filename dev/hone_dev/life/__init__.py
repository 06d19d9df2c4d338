"""The whole life of a model on real pods, with the files of example 13: stages, people, registry, bucket and server."""
