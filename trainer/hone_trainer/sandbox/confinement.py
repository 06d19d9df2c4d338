"""Kernel limits for a worker: no network, no other programs, and no file that is not part of Python.

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
_KILL_PROCESS, _ALLOW, _DENY = 0x80000000, 0x7FFF0000, 0x00050000 | errno.EPERM
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF instructions
_X32 = 0x40000000
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
_DENIED = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "mount": (165, 40),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "pidfd_send_signal": (424, 424),
    "io_uring_setup": (425, 425),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
}


def confine(writable: tuple[Path, ...] = ()) -> list[str]:
    """Permanently give up the network, other programs and all files except Python's own.

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
    column = list(_ARCHITECTURES).index(platform.machine())
    denied = [numbers[column] for numbers in _DENIED.values()]
    allow = 4 + len(denied)  # index of each verdict in the program; jumps count from the next instruction
    deny, kill = allow + 1, allow + 2
    program = [
        (_LOAD, 0, 0, 4),
        # on other architectures the numbers mean other calls
        (_EQUAL, 0, kill - 2, _ARCHITECTURES[platform.machine()]),
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, deny - 4, 0, _X32),
        *((_EQUAL, deny - 5 - index, 0, number) for index, number in enumerate(denied)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _DENY),
        (_RETURN, 0, 0, _KILL_PROCESS),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0) == 0)


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
