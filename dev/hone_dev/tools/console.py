"""What a command shows while it works: each step with its time, on a terminal and in a log alike."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

# stderr, so that the output of a command (a path, a reference) can be captured.
console = Console(stderr=True, highlight=False, soft_wrap=True)
_live = False  # rich shows one spinner at a time; steps inside a step print plain lines


class HoneDevError(Exception):
    """A failure the user can act on: one sentence of what happened, one of what to do."""

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.hint = hint


def show_error(error: HoneDevError) -> None:
    """Print the failure and, below it, what to do."""
    console.print(f"error: {error}", style="bold red", markup=False)
    if error.hint:
        console.print(f"hint:  {error.hint}", style="yellow", markup=False)


def note(text: str) -> None:
    """Print one line that belongs to no step."""
    console.print(text, markup=False)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Show that `title` is being done, then how long it took; a failure passes through."""
    global _live
    started = time.monotonic()
    mark, style = "✗", "red"
    spinner = console.status(title) if console.is_terminal and not _live else None
    if spinner:
        _live = True
        spinner.start()
    elif not console.is_terminal:
        console.print(f"… {title}", markup=False)
    try:
        yield
        mark, style = "✓", "green"
    finally:
        if spinner:
            spinner.stop()
            _live = False
        took = time.monotonic() - started
        console.print(f"[{style}]{mark}[/] {escape(title)} [dim]({took:.1f} s)[/]")
        sys.stderr.flush()


@contextmanager
def waiting() -> Iterator[Callable[[str, bool], None]]:
    """A spinner for work in several threads; the lines of their steps appear above it.

    Yields a function `show(text, line)` that updates the spinner. Without a terminal it prints the text if `line` is
    true, and does nothing otherwise.
    """
    global _live
    if not console.is_terminal or _live:
        yield lambda text, line: console.print(f"… {text}", markup=False) if line else None
        return
    with console.status("") as status:
        _live = True
        try:
            yield lambda text, line: status.update(escape(text))
        finally:
            _live = False
