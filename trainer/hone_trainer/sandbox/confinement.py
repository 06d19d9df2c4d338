"""Kernel limits for a worker: no network, no other programs, no other process, and no file that is not part of Python.

Both layers need no privilege, so they work in a pod under the restricted Pod Security Standard: a seccomp filter
(after no_new_privs) and Landlock (Linux 5.13). A worker uses large libraries to parse text that a model or a stranger
wrote. If that text makes a library run foreign code or fetch something, the code reaches nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import struct
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_KILL_PROCESS, _ALLOW, _LACKS = 0x80000000, 0x7FFF0000, 0x00050000 | errno.ENOSYS
"""Verdicts. A call that is not allowed fails as on a kernel that lacks it: libraries then use an older one, e.g. glibc
`clone` for `clone3`, whose flags a filter cannot read."""
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF instructions
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
"""Offsets in what a filter sees of a call; of each argument the kernel uses the first four bytes for these calls."""
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1, 2, 4, 8, 1 << 14
_READ = _READ_FILE | _READ_DIR
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_ALL_FILES = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
"""Rights over files that each version of Landlock's interface knows."""
_NETWORK, _SCOPES = 3, 3
"""TCP bind and connect (version 4); abstract Unix sockets and signals (version 6)."""


_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""Numbers of the audit interface; the call numbers below are in this order."""
ALLOWED = """
openat 257 56, open 2 -, close 3 57, read 0 63, readv 19 65, pread64 17 67, preadv 295 69, write 1 64, writev 20 66,
pwrite64 18 68, lseek 8 62, newfstatat 262 79, fstat 5 80, stat 4 -, lstat 6 -, statx 332 291, statfs 137 43,
fstatfs 138 44, access 21 -, faccessat 269 48, faccessat2 439 439, readlink 89 -, readlinkat 267 78,
getdents64 217 61, getcwd 79 17, mkdir 83 -, mkdirat 258 34, rename 82 -, renameat 264 38, renameat2 316 276,
unlink 87 -, unlinkat 263 35, rmdir 84 -, ftruncate 77 46, fsync 74 82, fdatasync 75 83, flock 73 32, dup 32 23,
dup2 33 -, dup3 292 24, pipe2 293 59, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72, epoll_create1 291 20,
epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, eventfd2 290 19, memfd_create 319 279,
mmap 9 222, munmap 11 215, mprotect 10 226, mremap 25 216, madvise 28 233, brk 12 214, membarrier 324 283,
exit 60 93, exit_group 231 94, futex 202 98, set_robust_list 273 99, rseq 334 293, sched_yield 24 124,
sched_getaffinity 204 123, getcpu 309 168, gettid 186 178, getpid 39 172, getppid 110 173, getuid 102 174,
geteuid 107 175, getgid 104 176, getegid 108 177, uname 63 160, sysinfo 99 179, getrusage 98 165, getrandom 318 278,
rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, sigaltstack 131 132, setitimer 38 103,
getitimer 36 102, restart_syscall 219 128, nanosleep 35 101, clock_nanosleep 230 115, clock_gettime 228 113,
clock_getres 229 114, gettimeofday 96 169
"""
"""System calls that need no look at their arguments, with their numbers: files as far as Landlock lets them, memory,
threads, clocks and the process itself. `-`: the architecture lacks the call, and libraries use its successor."""
ALLOWED_WITH: dict[str, tuple[tuple[int, int], int, frozenset[int]]] = {
    "clone": ((56, 220), 0, frozenset({0x3D0F00})),
    "fcntl": ((72, 25), 1, frozenset({*range(8), *range(36, 39), 1030, 1033, 1034})),
    "ioctl": ((16, 29), 1, frozenset({0x5401, 0x5421, 0x5451})),
    "prlimit64": ((302, 261), 0, frozenset({0})),
}
"""System calls with their numbers, the position of one argument, and the values that it may have: the flags of a thread
as glibc starts it; commands for locks, flags and copies of descriptors, not for signals; whether a descriptor is a
terminal, blocks or is inherited; limits of this process alone."""


def confine(writable: tuple[Path, ...] = ()) -> list[str]:
    """Permanently give up the network, other programs and processes, and all files except Python's own.

    Args:
        writable: folders that may also be changed.

    Returns:
        The layers that this machine lacks, by name; empty if both hold.
    """
    if not sys.platform.startswith("linux"):
        return ["seccomp", "Landlock"]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return ["seccomp", "Landlock"]
    held = {"Landlock": _landlock(libc, writable), "seccomp": _seccomp(libc)}
    return [name for name, holds in held.items() if not holds]


def _seccomp(libc: ctypes.CDLL) -> bool:
    if platform.machine() not in _ARCHITECTURES:
        return False
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        # on other architectures the numbers mean other calls
        (_EQUAL, 1, 0, _ARCHITECTURES[platform.machine()]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
        *_rules(list(_ARCHITECTURES).index(platform.machine())),
        (_RETURN, 0, 0, _LACKS),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0) == 0)


def _rules(column: int) -> Iterator[tuple[int, int, int, int]]:
    """Return the verdict for what is allowed; anything else comes to the end."""
    for call in ALLOWED.split(","):
        number = call.split()[1 + column]
        if number != "-":
            yield from ((_EQUAL, 0, 1, int(number)), (_RETURN, 0, 0, _ALLOW))
    for numbers, position, values in ALLOWED_WITH.values():
        yield from ((_EQUAL, 0, 2 * len(values) + 2, numbers[column]), (_LOAD, 0, 0, _ARGUMENTS + 8 * position))
        for value in sorted(values):
            yield from ((_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW))
        yield (_RETURN, 0, 0, _LACKS)


def _landlock(libc: ctypes.CDLL, writable: tuple[Path, ...]) -> bool:
    version = libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return False
    files = _ALL_FILES[min(version, max(_ALL_FILES))]
    handled = (files, _NETWORK, _SCOPES)[: 1 if version < 4 else 2 if version < 6 else 3]
    attribute = struct.pack(f"={len(handled)}Q", *handled)
    rules = libc.syscall(_CREATE_RULESET, attribute, len(attribute), 0)
    if rules < 0:
        return False
    try:
        for path in _readable():
            _allow(libc, rules, path, _READ & files)
        for path in writable:
            _allow(libc, rules, path, files & ~_EXECUTE)
        return bool(libc.syscall(_RESTRICT_SELF, rules, 0) == 0)
    finally:
        os.close(rules)


def _allow(libc: ctypes.CDLL, rules: int, path: Path, rights: int) -> None:
    with contextlib.suppress(OSError):  # the path does not exist: nothing to allow
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            rights &= -1 if path.is_dir() else _OF_A_FILE
            libc.syscall(_ADD_RULE, rules, 1, struct.pack("=Qi", rights, place), 0)
        finally:
            os.close(place)


def _readable() -> Iterator[Path]:
    """Python, its packages, and the shared libraries that they load."""
    yield from (Path(entry) for entry in sys.path if entry)
    yield from (Path(prefix) for prefix in {sys.prefix, sys.base_prefix})
    yield from (Path(path) for path in sysconfig.get_paths().values())
    for path in ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"):
        yield Path(path)
    yield from (Path(path) for path in ("/dev/null", "/dev/urandom", "/sys/devices/system/cpu"))
