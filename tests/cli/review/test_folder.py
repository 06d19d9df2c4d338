"""A batch in a folder: several people, each at their own pace, and processes that are killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hone_api.dataset.review import Verdict
from hone_cli.errors import CommandError
from hone_cli.review.folder import Folder, find
from hone_cli.review.reviews import EXCERPT, PAGE, Status

pytestmark = pytest.mark.pure


def person(batch, name: str) -> Folder:
    return Folder(batch.folder, name)


def test_each_begins_elsewhere_and_sees_what_the_others_did(make_batch):
    batch = make_batch(20)
    ann, bob = person(batch, "ann"), person(batch, "bob")
    assert ann.state().candidate.id != bob.state().candidate.id
    chosen = ann.state().candidate.id
    ann.decide(chosen, Verdict.ACCEPT)
    assert (bob.state().counts.accepted, bob.state().counts.pending) == (1, 19)
    seen = bob.state(row=chosen)
    assert [(d.reviewer, d.verdict) for d in seen.others] == [("ann", "Accept")]


def test_two_who_disagree_are_named_and_can_find_the_row(make_batch):
    batch = make_batch(3)
    ann, bob = person(batch, "ann"), person(batch, "bob")
    ann.decide(batch.ids[1], Verdict.ACCEPT)
    bob.decide(batch.ids[1], Verdict.REJECT)
    assert ann.state().disputed == [batch.ids[1]]
    assert (ann.state().counts.conflicts, ann.state().counts.rejected) == (1, 1)
    bob.decide(batch.ids[1], Verdict.ACCEPT)
    assert (ann.state().disputed, ann.state().counts.accepted) == ([], 1)


def test_one_takes_back_only_what_is_ones_own(make_batch):
    batch = make_batch(3)
    ann, bob = person(batch, "ann"), person(batch, "bob")
    ann.decide(batch.ids[0], Verdict.ACCEPT)
    bob.decide(batch.ids[1], Verdict.ACCEPT)
    assert ann.undo() == batch.ids[0]
    assert ann.undo() is None
    assert ann.state().counts.accepted == 1


def test_names_that_look_alike_as_files_stay_apart(make_batch):
    batch = make_batch(2)
    for name in ("a/b", "a b", "../../etc/passwd"):
        person(batch, name).decide(batch.ids[0], Verdict.ACCEPT)
    assert len(list((batch.folder / "decisions").iterdir())) == 3
    assert {d.reviewer for d in batch.decisions()} == {"a/b", "a b", "../../etc/passwd"}


def test_it_goes_on_after_a_process_that_was_killed_in_the_middle_of_a_line(make_batch):
    batch = make_batch(3)
    person(batch, "ann").decide(batch.ids[0], Verdict.ACCEPT)
    (file,) = (batch.folder / "decisions").iterdir()
    with open(file, "ab") as torn:
        torn.write(b'{"id": "' + batch.ids[1].encode()[:8])
    again = person(batch, "ann")
    assert again.state().counts.accepted == 1
    again.decide(batch.ids[2], Verdict.REJECT)
    found = person(batch, "bob").state().counts
    assert (found.accepted, found.rejected, found.pending) == (1, 1, 1)


def test_rows_that_are_generated_meanwhile_come_along(make_batch):
    batch = make_batch(1)
    ann = person(batch, "ann")
    assert ann.state().counts.pending == 1
    with open(batch.folder / "candidates.jsonl", "a") as file:
        line = batch.candidate(1, {"prompt": "new", "completion": "row"}).model_dump_json(by_alias=True)
        file.write(line[:50])
        file.flush()
        assert ann.state().counts.pending == 1, "half a line is none yet"
        file.write(line[50:] + "\n")
    assert ann.state().counts.pending == 2


def test_the_mark_changes_with_the_decisions_and_only_then(make_batch):
    batch = make_batch(2)
    ann = person(batch, "ann")
    marks = [ann.state().mark]
    ann.decide(batch.ids[0], Verdict.ACCEPT)
    marks += [ann.state().mark, person(batch, "bob").state().mark]
    ann.decide(batch.ids[0], Verdict.REJECT)
    marks.append(ann.state().mark)
    assert marks[0] == ""
    assert marks[1] == marks[2]
    assert len(set(marks)) == 3


def test_an_edit_keeps_what_was_not_changed(make_batch):
    batch = make_batch(rows=[{"question": "q", "oracle": ["a document"], "answer": "a"}])
    person(batch, "ann").decide(batch.ids[0], Verdict.EDIT, {"question": "better?", "oracle": [], "answer": "a"})
    (decision,) = batch.decisions()
    assert decision.row == {"question": "better?", "oracle": ["a document"], "answer": "a"}


def test_an_edit_that_changes_nothing_is_an_acceptance(make_batch):
    batch = make_batch(1)
    ann = person(batch, "ann")
    ann.decide(batch.ids[0], Verdict.EDIT, dict(ann.state().candidate.row))
    (decision,) = batch.decisions()
    assert (decision.verdict, decision.row) == ("Accept", None)


@pytest.mark.parametrize(
    ("row", "words"),
    [({"prompt": " "}, "prompt is empty: reject the row instead"), ({"other": "x"}, "other is not a text of this row")],
)
def test_an_invalid_edit_is_reported_and_decides_nothing(make_batch, row, words):
    batch = make_batch(1)
    with pytest.raises(CommandError, match=words):
        person(batch, "ann").decide(batch.ids[0], Verdict.EDIT, row)
    assert batch.decisions() == []


def test_a_missing_row_is_reported(make_batch):
    ann = person(make_batch(1), "ann")
    for wrong in (lambda: ann.decide("0" * 16, Verdict.ACCEPT), lambda: ann.state(row="0" * 16)):
        with pytest.raises(CommandError, match="there is no row 0000000000000000"):
            wrong()


def test_a_batch_is_found_by_itself_and_the_newest_one_in_a_store(make_batch, tmp_path: Path):
    batch = make_batch(1)
    assert find(batch.folder, "answers") == batch.folder
    for age, name in enumerate(("aaaa", "bbbb")):
        folder = tmp_path / "store" / "synthesis" / "answers" / name
        folder.mkdir(parents=True)
        (folder / "review.json").write_text("{}")
        os.utime(folder / "review.json", (1000 + age, 1000 + age))
    assert find(tmp_path / "store", "answers").name == "bbbb"
    with pytest.raises(CommandError, match="is neither a batch"):
        find(tmp_path / "store", "others")


def test_how_far_the_review_is_counts_rows_and_not_decisions(make_batch):
    batch = make_batch(4)
    ann, bob = person(batch, "ann"), person(batch, "bob")
    assert ann.state().decided == 0
    ann.decide(batch.ids[0], Verdict.ACCEPT)
    bob.decide(batch.ids[0], Verdict.REJECT)
    bob.decide(batch.ids[1], Verdict.REJECT)
    found = ann.state()
    assert (found.decided, found.counts.pending) == (2, 2)
    bob.undo()
    assert ann.state().decided == 1


def test_of_a_sample_the_rows_that_wait_are_those_of_the_sample(make_batch):
    batch = make_batch(10, sampling={"size": 3})
    ann = person(batch, "ann")
    ann.decide(ann.state().candidate.id, Verdict.ACCEPT)
    found = ann.state()
    assert (found.decided, found.counts.pending) == (1, 2)


def test_a_list_holds_the_rows_of_a_status_with_their_text_as_edited(make_batch):
    batch = make_batch(5)
    ann, bob = person(batch, "ann"), person(batch, "bob")
    ann.decide(batch.ids[0], Verdict.ACCEPT)
    bob.decide(batch.ids[1], Verdict.REJECT)
    bob.decide(batch.ids[2], Verdict.EDIT, {"prompt": "a better\nquestion", "completion": "answer 2"})
    ann.decide(batch.ids[3], Verdict.ACCEPT)
    bob.decide(batch.ids[3], Verdict.REJECT)
    found = ann.listing()
    assert [entry.status for entry in found.entries] == ["Accepted", "Rejected", "Edited", "Rejected", "Undecided"]
    assert [entry.conflict for entry in found.entries] == [False, False, False, True, False]
    assert found.entries[2].text == "a better question"
    assert found.counts == {"Undecided": 1, "Accepted": 1, "Edited": 1, "Rejected": 2}
    for status in Status:
        listed = ann.listing(status)
        assert {entry.status for entry in listed.entries} == {status}
        assert listed.total == found.counts[status]


def test_a_long_list_has_pages_and_long_texts_are_cut(make_batch):
    rows = [{"prompt": f"{i} " + "x" * 300, "completion": "a"} for i in range(PAGE + 2)]
    ann = person(make_batch(rows=rows), "ann")
    first, second, beyond = (ann.listing(Status.UNDECIDED, offset) for offset in (0, PAGE, 2 * PAGE))
    assert (len(first.entries), len(second.entries), len(beyond.entries)) == (PAGE, 2, 0)
    assert {first.total, second.total, beyond.total} == {PAGE + 2}
    assert len(first.entries[0].text) == EXCERPT
    assert second.entries[0].text.startswith(f"{PAGE} ")
