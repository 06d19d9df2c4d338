"""The API of Hone: custom resources, and the contract between operator and trainer.

Everything here is data. Nothing here imports Kubernetes clients or training libraries.
"""

GROUP = "hone.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

RELEASE = "0.1.0"
"""The release of Hone that contains this file."""
