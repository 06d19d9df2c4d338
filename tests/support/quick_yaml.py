"""YAML by the C parser, which reads the definitions in a tenth of the time of PyYAML's own."""

from typing import Any

import yaml


def documents(text: str) -> list[Any]:
    """All documents of a text but the empty ones."""
    return [document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document]


def document(text: str) -> Any:
    """The only document of a text."""
    return yaml.load(text, Loader=yaml.CSafeLoader)
