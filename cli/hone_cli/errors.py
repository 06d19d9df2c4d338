"""The error of the command line."""


class CommandError(Exception):
    """An error for the person at the terminal: one sentence, with the way out. Nothing was half done."""
