"""Text: a document; every token counts."""

from __future__ import annotations

from hone_trainer.datasets.formats.base import RowFormat
from hone_trainer.datasets.readers.rows import text_of

TEXT = RowFormat(
    name="Text",
    required=("text",),
    optional=(),
    convert=lambda fields: {"text": text_of(fields["text"], "text")},
    recognises=lambda fields: isinstance(fields.get("text"), str),
    why="a text",
)
