"""The error of the command line."""


class CommandError(Exception):
    """An error for the person at the terminal: one sentence, with the way out. Nothing was half done."""


def printable(text: str) -> str:
    """The text on one line, without control characters: it can quote a pod's log, and a terminal would execute them."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
