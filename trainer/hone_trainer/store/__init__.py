"""The store on disk: folders that are complete or absent, manifests, digests, hub downloads."""
