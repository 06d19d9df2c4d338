"""Manifests for servers that load recorded models. Pure; one module for each server."""
