"""The system calls that we implement ourselves: waiting, clocks, random numbers, reading and writing.

All others are wasmtime's own (`Linker.define_wasi`) without any open folder, so no path leads anywhere.
"""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wasmtime import Caller, Linker, Memory

MODULE = "wasi_snapshot_preview1"
MAX_CALLS = 50_000
MAX_OUTPUT = 8 * 2**20
_MAX_RANDOM = 4096
_BAD_DESCRIPTOR, _INVALID, _NOT_SUPPORTED = 8, 28, 58
_TICK = 1_000_000
_EPOCH = 1_700_000_000 * 10**9


class LimitReachedError(Exception):
    """The program asked the host for too much; ends the program."""


class Calls:
    """The state of one program's calls. Each answer depends only on the calls before it."""

    def __init__(self, content: bytes = b"") -> None:
        """`given` is the content of standard input; it can be read once."""
        self.output = bytearray()
        self._given = memoryview(content)
        self._count = 0
        self._random = random.Random(0)

    def define(self, linker: Linker) -> None:
        """Replace wasmtime's implementations of these calls."""
        from wasmtime import FuncType, ValType

        i32, i64 = ValType.i32(), ValType.i64()
        linker.allow_shadowing = True
        for function, parameters in (
            (self.fd_read, [i32, i32, i32, i32]),
            (self.fd_write, [i32, i32, i32, i32]),
            (self.random_get, [i32, i32]),
            (self.clock_time_get, [i32, i64, i32]),
            (self.poll_oneoff, [i32, i32, i32, i32]),
        ):
            linker.define_func(MODULE, function.__name__, FuncType(parameters, [i32]), function, access_caller=True)

    def fd_read(self, caller: Caller, descriptor: int, vectors: int, count: int, done: int) -> int:
        """Read standard input; other descriptors are refused."""
        self._counted()
        if descriptor != 0:
            return _BAD_DESCRIPTOR
        total = 0
        for index in range(count):
            address, size = struct.unpack("<II", self._read(caller, vectors + 8 * index, 8))
            piece, self._given = self._given[:size], self._given[size:]
            _memory(caller).write(caller, bytes(piece), address)
            total += len(piece)
        return self._answer(caller, done, struct.pack("<I", total))

    def fd_write(self, caller: Caller, descriptor: int, vectors: int, count: int, written: int) -> int:
        """Write standard output or error; both are kept."""
        self._counted()
        if descriptor not in (1, 2):
            return _BAD_DESCRIPTOR
        total = 0
        for index in range(count):
            address, size = struct.unpack("<II", self._read(caller, vectors + 8 * index, 8))
            if len(self.output) + size > MAX_OUTPUT:
                raise LimitReachedError(f"it wrote more than {MAX_OUTPUT} bytes")
            self.output += self._read(caller, address, size)
            total += size
        return self._answer(caller, written, struct.pack("<I", total))

    def random_get(self, caller: Caller, address: int, size: int) -> int:
        """Random bytes: the same sequence for every program."""
        self._counted()
        if size > _MAX_RANDOM:
            return _INVALID
        return self._answer(caller, address, self._random.randbytes(size))

    def clock_time_get(self, caller: Caller, _clock: int, _precision: int, address: int) -> int:
        """A clock that advances by a millisecond on each read."""
        self._counted()
        return self._answer(caller, address, struct.pack("<Q", _EPOCH + self._count * _TICK))

    def poll_oneoff(self, _caller: Caller, _in: int, _out: int, _count: int, _done: int) -> int:
        """Return at once: sleeping would take time without using instructions."""
        self._counted()
        return _NOT_SUPPORTED

    def _counted(self) -> None:
        self._count += 1
        if self._count > MAX_CALLS:
            raise LimitReachedError(f"it made more than {MAX_CALLS} system calls")

    @staticmethod
    def _read(caller: Caller, address: int, size: int) -> bytes:
        return bytes(_memory(caller).read(caller, address, address + size))

    @staticmethod
    def _answer(caller: Caller, address: int, data: bytes) -> int:
        _memory(caller).write(caller, data, address)
        return 0


def _memory(caller: Caller) -> Memory:
    from wasmtime import Memory

    memory = caller["memory"]
    assert isinstance(memory, Memory), "CPython exports its memory by this name"
    return memory
