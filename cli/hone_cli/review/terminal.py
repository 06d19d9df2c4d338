"""The review in a terminal: one key for each decision, and no mouse."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Label, Static, TextArea

from hone_api.dataset.review import Row, Verdict
from hone_api.dataset.synthesis import SyntheticRows
from hone_cli.errors import CommandError
from hone_cli.review.reviews import BatchState, Reviews, after, edited, texts, words


class Edit(ModalScreen[Row | None]):
    """Edits the texts of a row."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "save", "Save", priority=True),
        Binding("escape", "cancel", "Cancel", priority=True),
        # Before the field sees it: the next keys must go to the next field.
        Binding("tab", "app.focus_next", "Next field", priority=True),
    ]
    AUTO_FOCUS = "TextArea"
    CSS = "Edit { background: $surface; } TextArea { height: auto; min-height: 5; max-height: 20; margin-bottom: 1; }"

    def __init__(self, row: Row) -> None:
        super().__init__()
        self._row = row

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            for name, value in texts(self._row).items():
                yield Label(Text(name, "bold"))
                yield TextArea(visible(value), id=f"field-{name}", tab_behavior="focus", soft_wrap=True)
            yield Label("", id="problem")
        yield Footer()

    def action_save(self) -> None:
        now = {str(area.id).removeprefix("field-"): area.text for area in self.query(TextArea)}
        changes = {name: text for name, text in now.items() if text != visible(self._row[name])}
        try:
            self.dismiss(edited(self._row, changes))
        except CommandError as error:
            self.query_one("#problem", Label).update(Text(str(error), "red"))

    def action_cancel(self) -> None:
        self.dismiss(None)


class Terminal(App[SyntheticRows]):
    """Shows a row, takes a decision, shows the next. Returns the last counts."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "decide('Accept')", "Accept"),
        Binding("e", "edit", "Edit"),
        Binding("r", "decide('Reject')", "Reject"),
        Binding("s", "skip", "Skip"),
        Binding("u", "undo", "Undo"),
        Binding("c", "conflict", "Next conflict"),
        Binding("q", "leave", "Quit"),
        Binding("ctrl+c", "leave", show=False, priority=True),
    ]
    CSS = """
    #counts { dock: top; padding: 0 1; background: $panel; }
    #message { height: auto; padding: 0 1; }
    #row { padding: 1; }
    """
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, reviews: Reviews, row: str | None = None) -> None:
        super().__init__()
        self._reviews, self._first = reviews, row
        self._skipped: set[str] = set()
        self._state: BatchState | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="counts")
        with VerticalScroll(id="scroll"):
            yield Static(id="row")
        yield Static(id="message")
        yield Footer()

    def on_mount(self) -> None:
        self._next(self._first)
        self.query_one("#scroll").focus()

    def action_decide(self, verdict: str) -> None:
        if self._state and self._state.candidate:
            self._decide(Verdict(verdict))

    def action_edit(self) -> None:
        if self._state and self._state.candidate:
            self.push_screen(Edit(self._state.candidate.row), self._edited)

    def _edited(self, row: Row | None) -> None:
        if row is not None:
            self._decide(Verdict.EDIT, row)

    def action_skip(self) -> None:
        if self._state and self._state.candidate:
            self._skipped.add(self._state.candidate.id)
        self._next()

    def action_undo(self) -> None:
        try:
            id = self._reviews.undo()
        except CommandError as error:
            return self._show_message(str(error))
        if id is None:
            return self._show_message("There is nothing to undo.")
        self._skipped.discard(id)
        self._next(id)

    def action_conflict(self) -> None:
        disputed = list(self._state.disputed) if self._state else []
        if not disputed:
            return self._show_message("Nobody disagrees.")
        self._next(after(disputed, self._state.candidate.id if self._state and self._state.candidate else None))

    def action_leave(self) -> None:
        self.exit(self._state.counts if self._state else None)

    def _decide(self, verdict: Verdict, row: Row | None = None) -> None:
        candidate = self._state.candidate if self._state else None
        assert candidate is not None
        try:
            self._reviews.decide(candidate.id, verdict, row)
        except CommandError as error:
            return self._show_message(str(error))
        self._next()

    def _next(self, row: str | None = None) -> None:
        try:
            state = self._reviews.state(self._skipped, row)
            if state.candidate is None and self._skipped:  # all skipped rows come again
                self._skipped.clear()
                state = self._reviews.state()
        except CommandError as error:
            return self._show_message(str(error))
        self._state = state
        self._show(state)

    def _show(self, state: BatchState) -> None:
        title = Text.assemble((f"{state.dataset} {state.template}", "bold"), f" · {words(state.counts)}")
        self.query_one("#counts", Static).update(title)
        self.query_one("#row", Static).update(_page(state))
        self.query_one("#scroll", VerticalScroll).scroll_home(animate=False)
        self._show_message(", ".join(f"{d.reviewer}: {d.verdict}" for d in state.others))

    def _show_message(self, text: str) -> None:
        self.query_one("#message", Static).update(Text(visible(text), "yellow"))


def _page(state: BatchState) -> Text:
    """The row and its context, as plain text: no part of a row is markup."""
    if state.candidate is None:
        return Text("Nothing is left to decide on. Press q.")
    page = Text()
    for name, value in state.candidate.row.items():
        shown = value if isinstance(value, str) else "\n---\n".join(map(str, value))
        page.append(f"{name}\n", "bold cyan").append(f"{visible(shown)}\n\n")
    page.append("what the model was shown\n", "bold dim").append(visible(state.candidate.context), "dim")
    return page


def visible(text: str) -> str:
    """Replace control characters by visible symbols, so that a row cannot control the terminal."""
    return text.translate(_SIGNS)


_SIGNS = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {0x7F: "\u2421"}
_SIGNS |= {code: "\ufffd" for code in range(0x80, 0xA0)}
