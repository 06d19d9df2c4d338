"""A release as files in one folder, and as a chart and images in a registry: `make release`."""
