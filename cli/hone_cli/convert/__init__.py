"""Configurations of other tools become manifests of Hone."""
