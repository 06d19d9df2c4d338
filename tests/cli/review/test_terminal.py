"""`hone dataset review` under a real terminal, by keys alone."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.trainer


def shown(text: str) -> int | None:
    """Number of the row on the screen; the head of the screen is there a moment before its row."""
    found = re.search(r"question (\d+)", text)
    return int(found[1]) if found else None


def row_under(screen, head: str, *before: int) -> int:
    """Number of the row under this head, once it is not one of those before."""
    return shown(screen.until(lambda text: head in text and shown(text) not in (None, *before)))


def test_rows_are_accepted_rejected_and_edited_by_keys(make_batch, terminal):
    batch = make_batch(3)
    screen = terminal("dataset", "review", "answers", "--path", str(batch.folder), "--reviewer", "ann")
    first = row_under(screen, "3 wait")
    screen.press("a")
    second = row_under(screen, "1 accepted · 0 rejected · 2 wait", first)
    screen.press("r")
    third = row_under(screen, "1 accepted · 1 rejected · 1 wait", first, second)
    screen.press("e")
    screen.until("Save")
    screen.press("my ")
    screen.until(f"my question {third}")
    screen.press("\t")  # to the next field
    screen.press("the ")
    screen.until(f"the answer {third}")
    screen.press("\x13")  # Ctrl-S
    screen.until("Nothing is left to decide on")
    screen.press("q")
    assert screen.end() == 0
    assert "The review is complete." in screen.text
    assert {first, second, third} == {0, 1, 2}
    found = {batch.ids.index(d.id): d for d in batch.decisions()}
    assert [found[n].verdict for n in (first, second, third)] == ["Accept", "Reject", "Edit"]
    assert found[third].row == {"prompt": f"my question {third}", "completion": f"the answer {third}"}
    assert {d.reviewer for d in found.values()} == {"ann"}


def test_undo_skip_and_going_on_later(make_batch, terminal):
    batch = make_batch(3)
    command = ("dataset", "review", "answers", "--path", str(batch.folder), "--reviewer", "ann")
    screen = terminal(*command)
    first = row_under(screen, "3 wait")
    screen.press("a")
    screen.until("1 accepted")
    screen.press("u")
    screen.until(lambda text: "0 accepted" in text and shown(text) == first)
    screen.press("s")
    second = row_under(screen, "0 accepted", first)
    screen.press("r")
    screen.until("1 rejected")
    screen.press("q")
    assert screen.end() == 0
    again = terminal(*command)
    assert row_under(again, "1 rejected · 2 wait") != second
    again.press("\x03")  # Ctrl-C also leaves
    assert again.end() == 0


def test_what_a_row_holds_is_shown_as_it_is(make_batch, terminal):
    row = {"prompt": "[bold red]not markup[/] \x1b]0;title\x07", "completion": "ünï 漢字"}
    screen = terminal("dataset", "review", "answers", "--path", str(make_batch(rows=[row]).folder))
    screen.until("[bold red]not markup[/]")
    screen.until("ünï")
    screen.press("q")
    assert screen.end() == 0


def test_a_folder_that_is_not_a_batch_is_reported_in_one_line(tmp_path, terminal):
    screen = terminal("dataset", "review", "answers", "--path", str(tmp_path))
    assert screen.end() == 1
    assert "is neither a batch" in screen.text
    assert "Traceback" not in screen.text


def test_two_reviewers_at_once_and_a_row_on_which_they_disagree(make_batch, terminal):
    batch = make_batch(1)
    command = ("dataset", "review", "answers", "--path", str(batch.folder), "--reviewer")
    ann = terminal(*command, "ann")
    bob = terminal(*command, "bob")
    ann.until("1 wait")
    bob.until("1 wait")
    ann.press("a")
    ann.until("Nothing is left to decide on")
    bob.press("r")  # who already had the row on the screen also decides
    bob.until("1 rejected · 0 wait · 1 in conflict")
    bob.press("c")
    bob.until("ann: Accept")
    bob.press("a")
    bob.until("1 accepted · 0 rejected · 0 wait")
    for screen in (ann, bob):
        screen.press("q")
        assert screen.end() == 0
    assert sorted(d.reviewer for d in batch.decisions()) == ["ann", "bob", "bob"]


def test_a_sample_that_passes_ends_the_review_with_its_confidence(make_batch, terminal):
    batch = make_batch(40, sampling={"size": 3})
    screen = terminal("dataset", "review", "answers", "--path", str(batch.folder), "--reviewer", "ann")
    for left in (3, 2, 1):
        screen.until(f"{left} of 3 sampled rows wait" if left < 3 else "3 wait")
        screen.press("a")
    screen.until("Nothing is left to decide on")
    screen.press("q")
    assert screen.end() == 0
    assert "40 accepted" in screen.text
    assert "with 95% confidence at most" in " ".join(screen.text.split())
    assert "The review is complete." in screen.text


def test_ctrl_c_ends_the_page_and_says_how_far_the_review_is(make_batch, terminal):
    screen = terminal("dataset", "review", "answers", "--path", str(make_batch(2).folder), "--web")
    screen.until("Ctrl-C ends it")
    screen.press("\x03")
    assert screen.end() == 0
    assert "0 accepted · 0 rejected · 2 wait" in screen.text
