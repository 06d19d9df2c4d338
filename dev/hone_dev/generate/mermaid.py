"""The program that draws the diagrams of the documentation, of the major version that the site loads."""

from pathlib import Path

from hone_dev.tools import npm

VERSION = "12.3.0"
SHA256 = "be0684e8d20bfc874df12c0f04927a5c482f57f2200eec54cca52a4583fd4040"


def script() -> Path:
    """The path of mermaid.min.js."""
    return npm.file_of("mermaid", VERSION, SHA256, "package/dist/mermaid.min.js")
