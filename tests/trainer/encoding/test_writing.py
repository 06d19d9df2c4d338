"""Encoded rows on the disk: the same examples, counts and refusals as one process finds in memory, by any number."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pyarrow
import pytest
from support.models import tiny

from hone_api.estimate.memory import ROW_BYTES
from hone_api.words.failures import FailureCode
from hone_trainer.encoding import chunks, mapped, writing
from hone_trainer.encoding.conversation import Encoder
from hone_trainer.encoding.mapped import Joined, Mapped, Picked
from hone_trainer.encoding.preferences import JudgedEncoder, PairEncoder
from hone_trainer.encoding.prompts import PromptEncoder
from hone_trainer.encoding.row import RowRefusedError
from hone_trainer.encoding.split_file import Policy, encode_split
from hone_trainer.errors import DataError, StoreError, TrainerError, classify
from hone_trainer.methods.dapt import DocumentEncoder
from hone_trainer.store import folders

pytestmark = pytest.mark.trainer
SMALL = 2000
"""Bytes of a chunk here, so that there are many."""
Row = dict[str, Any]


def _turn(role: str, content: str, **more: Any) -> Row:
    return {"role": role, "content": content, **more}


def _chat(n: int) -> Row:
    """Two answers, the first not always trained; every 50th holds a control token."""
    word = "<|im_end|>" if n % 50 == 7 else "near " * (1 + n % 7)
    weight = {"weight": 0} if n % 3 == 0 else {}
    turns = [_turn("user", f"Where is {n}?"), _turn("assistant", word, **weight), _turn("user", "And?")]
    return {"messages": [*turns, _turn("assistant", f"It is {n}.")]}


def _pair(n: int) -> Row:
    between = [_turn("assistant", f"One {n}."), _turn("user", "And?"), _turn("assistant", "Two.")]
    chosen = between if n % 2 else [_turn("assistant", f"Near {n}.")]
    return {"prompt": [_turn("user", f"Where is {n}?")], "chosen": chosen, "rejected": [_turn("assistant", "No.")]}


def _judged(n: int) -> Row:
    if n % 2:
        return _pair(n)
    return {"prompt": f"Where is {n}?", "completion": f"Near {n}.", "label": n % 4 == 0}


def _prompt(n: int) -> Row:
    return {"prompt": f"What is {n} + 1?", "answer": str(n + 1), "tests": ["é", {"a": [1.5, None, True]}]}


def _document(n: int) -> Row:
    return {"text": "The tower is near the river. " * (1 + n % 9)}


CASES: dict[str, tuple[Callable[[int], Row], Callable[[Any], Any]]] = {
    "Row": (_chat, Encoder),
    "Row of last answers": (_chat, lambda tokenizer: Encoder(tokenizer, "LastAssistant")),
    "Document": (_document, lambda tokenizer: DocumentEncoder(tokenizer, 40)),
    "Pair": (_pair, PairEncoder),
    "Judged": (_judged, JudgedEncoder),
    "Prompt": (_prompt, lambda tokenizer: PromptEncoder(tokenizer, 60)),
}


def _file(folder: Path, rows: list[Row]) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def _whole(folder: Path, rows: list[Row], encoder: type[Encoder] = Encoder, workers: int = 2) -> Mapped:
    """The rows, encoded without a bound on their length."""
    return _write(_file(folder, rows), encoder(tiny.tokenizer()), folder / "out", Policy(None), workers)


def _write(file: Path, encoder: Any, target: Path, policy: Policy, workers: int) -> Mapped:
    task = writing.Task(file, encoder, policy, 512, "rows/train")
    writing.write(task, target, chunks.chunks(file, SMALL), lambda lines, tokens: None, workers)
    return Mapped(target)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("policy", [Policy(None), Policy(58, "Truncate"), Policy(58, "Drop")], ids=str)
def test_what_is_read_is_what_was_encoded_by_any_number_of_workers(tmp_path: Path, name: str, policy: Policy) -> None:
    row, encoder = CASES[name]
    file, tokenizer = _file(tmp_path, [row(n) for n in range(120)]), tiny.tokenizer()
    known = encode_split(file, encoder(tokenizer), max_length=policy.max_length, truncation=policy.truncation)
    one, three = (_write(file, encoder(tokenizer), tmp_path / f"by-{n}", policy, n) for n in (1, 3))
    assert len(chunks.chunks(file, SMALL)) > 3
    assert list(one) == known.rows
    assert one.counts == known.counts
    assert one.counts.summary() == known.counts.summary()
    assert one.lengths.tolist() == [max(map(len, row.sequences)) for row in known.rows]
    assert one.tokens.tolist() == [sum(map(len, row.sequences)) for row in known.rows]
    assert mapped.has_masks(one) == mapped.has_masks(known.rows)
    _assert_same(one, three)


@pytest.mark.parametrize("name", CASES)
def test_other_libraries_read_the_same_values(tmp_path: Path, name: str) -> None:
    row, encoder = CASES[name]
    ours = _write(
        _file(tmp_path, [row(n) for n in range(120)]), encoder(tiny.tokenizer()), tmp_path / "out", Policy(None), 2
    )
    path = tmp_path / "out" / mapped.ROWS
    with pyarrow.ipc.open_stream(path) as stream:
        table = stream.read_all()
    known = table.to_pydict()
    ids = next(column for column in table.column_names if column in ("input_ids", "prompt_ids"))
    assert known[ids] == [list(getattr(example, ids)) for example in ours]
    assert datasets.Dataset.from_file(str(path)).to_dict() == known
    assert duckdb.from_arrow(table).to_arrow_table().to_pydict() == known
    frame = table.to_pandas()
    assert [list(some) for some in frame[ids]] == known[ids]
    assert list(frame) == table.column_names


@pytest.mark.parametrize(
    ("line", "broken"),
    [
        (3, b'{"messages": \n'),
        (77, b"[1]\n"),
        (78, b'{"question": "a"}\n'),
        (110, b'{"messages": [{"role": "assistant", "content": null}]}\n'),
    ],
)
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.faults("T7")
def test_a_broken_row_is_named_as_in_memory(tmp_path: Path, line: int, broken: bytes, workers: int) -> None:
    lines = [json.dumps(_chat(n)).encode() + b"\n" for n in range(120)]
    lines[line - 1] = broken
    lines[115] = b"{\n"  # a later one
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"".join(lines))
    with pytest.raises(DataError) as known:
        encode_split(file, Encoder(tiny.tokenizer()), max_length=None)
    with pytest.raises(DataError) as caught:
        _write(file, Encoder(tiny.tokenizer()), tmp_path / "out", Policy(None), workers)
    assert (caught.value.code, caught.value.message) == (known.value.code, known.value.message)
    assert f"line {line}:" in caught.value.message
    assert not (tmp_path / "out").exists()


def test_what_is_not_utf_8_is_named_by_the_line_before(tmp_path: Path) -> None:
    lines = [json.dumps(_chat(n)).encode() + b"\n" for n in range(120)]
    lines[77] = b'{"text": "\xff"}\n'
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"".join(lines))
    with pytest.raises(DataError, match="after line 77: not UTF-8"):
        _write(file, Encoder(tiny.tokenizer()), tmp_path / "out", Policy(None), 2)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("last", [True, False])
def test_lines_are_counted_as_text_has_them(tmp_path: Path, end: bytes, last: bool) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(end.join(json.dumps(_chat(n)).encode() for n in range(60)) + (end if last else b""))
    found = chunks.chunks(file, 700)
    assert sum(chunk.lines for chunk in found) == 60
    numbers = [number for chunk in found for number, _ in chunks.records(file, chunk)]
    assert numbers == list(range(1, 61))
    assert [chunk.line for chunk in found] == [next(chunks.records(file, chunk))[0] for chunk in found]


def test_a_row_for_another_vocabulary_is_refused_once_all_rows_were_read(tmp_path: Path) -> None:
    file = _file(tmp_path, [_chat(n) for n in range(60)])
    task = writing.Task(file, Encoder(tiny.tokenizer()), Policy(None), 100, "rows/train")
    with pytest.raises(DataError, match=r"rows/train, line 1: token id \d+ is outside the model's vocabulary of 100"):
        writing.write(task, tmp_path / "out", chunks.chunks(file, SMALL), lambda *_: None, 2)


class Noting(Encoder):
    """Notes each row that it encodes."""

    def __init__(self, tokenizer: Any, folder: Path) -> None:
        super().__init__(tokenizer)
        self._folder = folder

    def encode(self, record: Row, number: int = 1) -> Any:
        with (self._folder / str(os.getpid())).open("a") as file:
            file.write(f"{number}\n")
        return super().encode(record, number)


class Deadly(Encoder):
    """Kills its own process at a row, as the kernel does when memory runs out."""

    def encode(self, record: Row, number: int = 1) -> Any:
        if number == 90:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(record, number)


def test_an_attempt_goes_on_after_the_worker_of_an_earlier_one_was_killed(tmp_path: Path) -> None:
    file = _file(tmp_path, [_chat(n) for n in range(120)])
    with pytest.raises(TrainerError, match="was killed") as caught:
        _write(file, Deadly(tiny.tokenizer()), tmp_path / "out", Policy(None), 2)
    assert caught.value.code == "OutOfMemory"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".work-out", "rows.jsonl"]
    (notes := tmp_path / "notes").mkdir()
    resumed = _write(file, Noting(tiny.tokenizer(), notes), tmp_path / "out", Policy(None), 1)
    again = (notes / str(os.getpid())).read_text().split()
    assert "90" in again
    assert len(again) < 90
    _assert_same(resumed, _write(file, Encoder(tiny.tokenizer()), tmp_path / "whole", Policy(None), 1))
    assert not (tmp_path / ".work-out").exists()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "it is not whole": lambda data: data[:-4],
    "it is empty": lambda data: b"",
    "zeros after a crash": lambda data: data[:-100] + bytes(100),
    "a number that the disk changed": lambda data: data.replace(b'"longest": ', b'"longest": 9'),
    "a name that the disk changed": lambda data: data.replace(b'"end_marks"', b'"end_maras"'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_part_that_is_not_whole_is_encoded_again(tmp_path: Path, damage: str) -> None:
    file = _file(tmp_path, [_chat(n) for n in range(60)])

    def stop(lines: int, tokens: int) -> None:
        if lines > 30:
            raise TrainerError(FailureCode.INTERRUPTED, "stopped")

    task = writing.Task(file, Encoder(tiny.tokenizer()), Policy(None), 512, "rows/train")
    with pytest.raises(TrainerError, match="stopped"):
        writing.write(task, tmp_path / "out", chunks.chunks(file, SMALL), stop, 1)
    (path,) = (tmp_path / ".work-out").glob("parts/000001-*")
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[damage](whole))
    assert path.read_bytes() != whole
    resumed = _write(file, Encoder(tiny.tokenizer()), tmp_path / "out", Policy(None), 1)
    _assert_same(resumed, _write(file, Encoder(tiny.tokenizer()), tmp_path / "whole", Policy(None), 1))


def test_two_processes_do_not_write_into_one_folder(tmp_path: Path) -> None:
    with folders.resumed_folder(tmp_path / "out") as first, folders.resumed_folder(tmp_path / "out") as second:
        assert first != second
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_encoded_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E.g. Lustre that is mounted without `flock`, and NFS 3 whose server runs no lock manager."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folders.fcntl, "flock", refuse)
    assert len(_whole(tmp_path, [_chat(n) for n in range(7)])) == 7


def _assert_same(one: Mapped, other: Mapped) -> None:
    for file in sorted(one.folder.iterdir()):
        assert file.read_bytes() == (other.folder / file.name).read_bytes(), file.name


@pytest.mark.parametrize("workers", [1, 2])
def test_what_the_disk_cannot_read_is_named_with_its_lines(tmp_path: Path, workers: int) -> None:
    file = tmp_path / "rows.jsonl"
    file.symlink_to("/proc/self/mem")  # its first page cannot be read: EIO
    task = writing.Task(file, Encoder(tiny.tokenizer()), Policy(None), 512, "rows/train")
    pieces = [chunks.Chunk(0, 4096, 1, 20), chunks.Chunk(4096, 8192, 21, 20)]
    with pytest.raises(TrainerError, match=r"rows.jsonl, lines 1 to 20: cannot be read: Input/output error") as caught:
        writing.write(task, tmp_path / "out", pieces, lambda lines, tokens: None, workers)
    assert caught.value.code == "StorageError"
    with pytest.raises(StoreError, match=r"rows.jsonl: cannot be read"):
        chunks.chunks(file)


@pytest.mark.faults("T5")
def test_a_full_disk_ends_with_a_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _file(tmp_path, [_chat(n) for n in range(120)])
    monkeypatch.setattr(mapped, "ROWS", "/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        _write(file, Encoder(tiny.tokenizer()), tmp_path / "out", Policy(None), 1)
    assert classify(caught.value).code == "DiskFull"
    assert not (tmp_path / "out").exists()


class Strict(Encoder):
    """Refuses most rows."""

    def encode(self, record: Row, number: int = 1) -> Any:
        if number % 4:
            raise RowRefusedError("NotProved" if number % 2 else "NoContent", f"row {number}")
        return super().encode(record, number)


def test_the_first_ten_lines_of_a_reason_are_named(tmp_path: Path) -> None:
    found = _write(
        _file(tmp_path, [_chat(n) for n in range(120)]), Strict(tiny.tokenizer()), tmp_path / "out", Policy(None), 3
    )
    refused = found.counts.refused
    assert list(refused)[:2] == ["NotProved", "NoContent"]
    assert refused["NotProved"].lines == list(range(1, 20, 2))
    assert (refused["NotProved"].count, refused["NotProved"].example) == (60, "row 1")


def test_sequences_of_rows_are_picked_and_joined_by_index(tmp_path: Path) -> None:
    rows = _whole(tmp_path, [_document(n) for n in range(40)], workers=1)
    whole = list(rows)
    assert (rows[3], rows[-1], list(rows[5:9])) == (whole[3], whole[39], whole[5:9])
    with pytest.raises(IndexError):
        rows[40]
    some = Picked(rows, mapped.np.array([7, 7, 2]))
    both = Joined([some, rows])
    assert list(both) == [whole[7], whole[7], whole[2], *whole]
    assert both.lengths.tolist() == [len(row.input_ids) for row in both]
    assert list(both[2:4]) == [whole[2], whole[0]]


def test_sums_of_all_rows_are_read_without_their_files(tmp_path: Path) -> None:
    rows = _whole(tmp_path, [_document(n) for n in range(40)], workers=1)
    lengths = [len(row.input_ids) for row in rows]
    few = Picked(rows, mapped.np.array([8, 8, 2]))
    assert (few.total, few.most) == (2 * lengths[8] + lengths[2], lengths[8])
    for name in (mapped.LENGTHS, mapped.TOKENS, mapped.TRAINED, mapped.ROWS):
        (rows.folder / name).write_bytes(b"")  # nothing of it is mapped
    assert (rows.total, rows.most) == (sum(lengths), max(lengths))
    both = Joined([rows, rows[:]])
    assert (both.total, mapped.most(both)) == (2 * sum(lengths), max(lengths))


def _asked(n: int) -> Row:
    """A question of 30 words, with its answer."""
    words = " ".join(WORDS[n * k % len(WORDS)] for k in range(3, 33))
    return {"prompt": f"{words} {n}?", "answer": str(n + 1)}


WORDS = (
    "river",
    "tower",
    "bridge",
    "market",
    "harbour",
    "garden",
    "station",
    "museum",
    "north",
    "south",
    "near",
    "far",
)
SIZED: dict[str, tuple[Callable[[int], Row], Callable[[Any], Any]]] = {
    "chats": (_chat, Encoder),
    "documents": (_document, lambda tokenizer: DocumentEncoder(tokenizer, 2**20)),
    "pairs": (_pair, PairEncoder),
    "judged": (_judged, JudgedEncoder),
    "prompts": (_asked, lambda tokenizer: PromptEncoder(tokenizer, 1000)),
}


@pytest.mark.parametrize("name", SIZED)
def test_short_rows_take_at_most_what_the_estimate_counts(tmp_path: Path, name: str) -> None:
    """Prompts have their row as text as well."""
    row, encoder = SIZED[name]
    file = _file(tmp_path, [row(n) for n in range(1000)])
    found = _write(file, encoder(tiny.tokenizer()), tmp_path / "out", Policy(None), 1)
    size = sum(file.stat().st_size for file in found.folder.iterdir())
    assert size <= ROW_BYTES * found.counts.tokens


def test_records_are_read_in_any_order(tmp_path: Path) -> None:
    """They are compressed together, each is its own."""
    rows = [_prompt(n) for n in range(150)]
    file = _file(tmp_path, rows)
    task = writing.Task(file, PromptEncoder(tiny.tokenizer(), 60), Policy(None), 512, "rows/train")
    writing.write(task, tmp_path / "out", chunks.chunks(file), lambda lines, tokens: None)
    found = Mapped(tmp_path / "out")
    for n in (149, 0, 70, 31, 32, 33, 149, 64):
        assert found[n].record == rows[n]


def test_chunks_are_smaller_where_the_file_is(tmp_path: Path) -> None:
    """So that workers end together, and large files do not have many batches."""
    sizes = {}
    for size in (chunks.LEAST // 2, 3 * chunks.LEAST, 80 * chunks.LEAST):
        file = tmp_path / "rows.jsonl"
        file.write_bytes((b"x" * 1023 + b"\n") * (size // 1024))
        sizes[size] = [chunk.end - chunk.start for chunk in chunks.chunks(file)]
    assert [len(found) for found in sizes.values()] == [1, 3, 64]
    assert all(sum(found) == size for size, found in sizes.items())
