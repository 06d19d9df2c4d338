"""A file of a server as a seekable file, against a file of the disk."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator

import pytest

from hone_trainer.errors import SourceError
from hone_trainer.store import ranged
from hone_trainer.store.ranged import BrokenOffError, RangedFile

pytestmark = pytest.mark.trainer
CONTENT = random.Random(0).randbytes(3_000_000)


class Origin:
    """Gives bytes of CONTENT, in pieces; breaks off at random, or always at a byte."""

    def __init__(self, seed: int, chance: float, wall: int | None = None) -> None:
        self._random, self._chance, self._wall = random.Random(seed), chance, wall
        self.sent: list[tuple[int, int]] = []
        self.most = 0

    def get(self, begin: int, end: int, seconds: float) -> Iterator[bytes]:
        self.most = max(self.most, end - begin)
        at = begin
        while at < end:
            if at == self._wall or self._random.random() < self._chance:
                raise BrokenOffError("it broke off")
            size = min(self._random.randint(1, 50_000), end - at, (self._wall or end) - at)
            self.sent.append((at, at + size))
            yield CONTENT[at : at + size]
            at += size


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranged.time, "sleep", lambda _: None)


@pytest.mark.parametrize("seed", range(8))
def test_it_reads_as_a_file_of_the_disk(seed: int) -> None:
    chosen, origin = random.Random(seed), Origin(seed, 0.2)
    theirs = io.BytesIO(CONTENT)
    ours = io.BufferedReader(RangedFile("x", len(CONTENT), origin.get, 10**6), 2**16)
    for _ in range(200):
        match chosen.choice(("seek", "end", "read", "line", "rest", "peek")):
            case "seek":
                at = chosen.randrange(len(CONTENT) + 10)
                assert ours.seek(at) == theirs.seek(at)
            case "end":
                back = -chosen.randrange(100)
                assert ours.seek(back, io.SEEK_END) == theirs.seek(back, io.SEEK_END)
            case "read":
                size = chosen.choice((1, 8, 4096, 100_000, 700_000))
                assert ours.read(size) == theirs.read(size)
            case "line":
                assert ours.readline() == theirs.readline()
            case "rest" if chosen.random() < 0.1:
                assert ours.read() == theirs.read()
            case "peek":
                assert theirs.getvalue()[theirs.tell() :].startswith(ours.peek(100)[:100])
        assert ours.tell() == theirs.tell()
    assert len(origin.sent) > 200


def test_of_a_file_that_is_read_once_each_byte_comes_once_however_often_it_breaks_off() -> None:
    origin = Origin(1, 0.3)
    assert io.BufferedReader(RangedFile("x", len(CONTENT), origin.get, 10**6), 2**16).read() == CONTENT
    assert [begin for begin, _ in origin.sent] == [0, *(end for _, end in origin.sent[:-1])]


def test_memory_is_bounded_and_nothing_is_read_ahead_past_the_end_of_a_piece() -> None:
    origin = Origin(2, 0)
    file = io.BufferedReader(RangedFile("x", len(CONTENT), origin.get, 60, end=1_000_000), 2**16)
    while file.tell() < 900_000:
        file.read(10_000)
    assert max(end for _, end in origin.sent) == 1_000_000
    assert origin.most <= 2**20


def test_a_byte_that_never_comes_ends_the_file_with_its_place() -> None:
    file = RangedFile("s3://data/x", len(CONTENT), Origin(3, 0, wall=1_000_000).get, 60)
    with pytest.raises(SourceError, match="s3://data/x, at byte 1000000: it broke off") as caught:
        io.BufferedReader(file).read()
    assert caught.value.code == "SourceUnreachable"


def test_a_server_that_sends_a_byte_now_and_then_does_not_hold_a_file_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**6, 5))
    monkeypatch.setattr(ranged.time, "monotonic", lambda: next(clock))

    def drip(begin: int, end: int, seconds: float) -> Iterator[bytes]:
        yield CONTENT[begin : begin + 1]
        raise BrokenOffError("too slow")

    with pytest.raises(SourceError, match="too slow"):
        io.BufferedReader(RangedFile("x", len(CONTENT), drip, 60)).read()


@pytest.mark.parametrize(
    ("after", "seconds"), [("0", 0), ("7", 7), ("9999", 60), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("soon", None)]
)
def test_the_pause_that_a_server_asks_for(after: str, seconds: float | None) -> None:
    pause = ranged.pause_after(after, 1)
    assert pause == seconds if seconds is not None else 1.6 <= pause <= 2.4
