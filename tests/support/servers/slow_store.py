"""A store that is slow: a file system in user space over a folder, with a pause in each request of the kernel.

It speaks the kernel's FUSE protocol (linux/fuse.h, 7.31) itself, so it needs /dev/fuse and root, and nothing else. All
that a process does with files meets it: system calls, mapped files, writes of libraries in C++ and Rust. One request is
served at a time, as by a server at its limit. As a program: the options of `Slowness` as JSON, and the three paths.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

DEVICE, NUMBER = "/dev/fuse", os.makedev(10, 229)
MOST = 1 << 20
"""Bytes of one write."""
_IN, _OUT = struct.Struct("<IIQQIII4x"), struct.Struct("<IiQ")
_ATTR, _ENTRY = struct.Struct("<6Q10I"), struct.Struct("<4Q2I")
_SETATTR, _READ_WRITE = struct.Struct("<II6Q8I"), struct.Struct("<QQIIQII")
_NAMES = {
    **{1: "lookup", 2: "forget", 3: "getattr", 4: "setattr", 5: "readlink", 6: "symlink", 9: "mkdir", 10: "unlink"},
    **{11: "rmdir", 12: "rename", 13: "link", 14: "open", 15: "read", 16: "write", 17: "statfs", 18: "release"},
    **{20: "fsync", 25: "flush", 26: "init", 27: "opendir", 28: "readdir", 29: "releasedir", 30: "fsyncdir"},
    **{34: "access", 35: "create", 36: "interrupt", 42: "batch_forget", 45: "rename2"},
}
SLOW = {
    "setattr",
    "mkdir",
    "unlink",
    "rmdir",
    "rename",
    "rename2",
    "open",
    "read",
    "write",
    "fsync",
    "fsyncdir",
    "create",
}
_SECONDS = 1
"""For which the kernel may keep attributes and names."""


@dataclass(frozen=True)
class Stall:
    """The first request of this kind to a path that ends so takes long."""

    request: str
    """A name of `SLOW`."""
    path: str
    seconds: float


@dataclass(frozen=True)
class Slowness:
    """What each request costs."""

    latency: float
    """Seconds of each request in `SLOW`."""
    bytes_per_second: float
    """Of reads and writes, in addition."""
    stalls: list[Stall] = field(default_factory=list)


@dataclass(frozen=True)
class SlowStore:
    """A store while it is mounted."""

    folder: Path
    _log: Path

    def stalled(self) -> list[str]:
        """The stalls that have begun, as `request path`."""
        return [f"{line['request']} {line['path']}" for line in self._lines() if line["stall"]]

    def seconds(self) -> float:
        """What the store has made its users wait, without the stalls."""
        return sum(line["seconds"] for line in self._lines() if not line["stall"])

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]


@contextmanager
def slow_store(folder: Path, slowness: Slowness) -> Iterator[SlowStore]:
    """A new folder that is a slow store for the block. Only root may mount it."""
    below, above, log = folder / "below", folder / "store", folder / "slow.jsonl"
    for each in (below, above):
        each.mkdir(parents=True)
    log.touch()
    command = [sys.executable, __file__, json.dumps(asdict(slowness)), str(below), str(above), str(log)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert server.stdout
        assert server.stdout.readline() == b"mounted\n", "the slow store cannot be mounted: see its error above"
        yield SlowStore(above, log)
    finally:
        subprocess.run(["umount", "-l", str(above)], check=False)
        server.kill()
        server.wait()


class _Server:
    """Nodes are descriptors (O_PATH) of what is below, by inode: a rename changes nothing."""

    def __init__(self, slowness: Slowness, below: str, log: str) -> None:
        self._slowness, self._log, self._below = slowness, Path(log), below
        self._left = list(slowness.stalls)
        self._nodes = {1: os.open(below, os.O_PATH)}
        self._known = {1: 1}
        self._listed: dict[int, list[bytes]] = {}

    def serve(self, device: int) -> None:
        """Answer the kernel until the store is unmounted."""
        while True:
            try:
                request = os.read(device, MOST + (1 << 16))
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR):  # the request was interrupted meanwhile
                    continue
                return
            _, code, unique, node, *_ = _IN.unpack_from(request)
            name, body = _NAMES.get(code, ""), request[_IN.size :]
            act: Callable[[int, bytes], bytes] | None = getattr(self, name, None)
            failed, answer = 0, b""
            try:
                self._pause(name, node, body)
                answer = act(node, body) if act else b""
                failed = 0 if act else errno.ENOSYS
            except OSError as error:
                failed = error.errno or errno.EIO
            if name not in ("forget", "batch_forget", "interrupt"):
                with suppress(FileNotFoundError):  # whoever asked was killed
                    os.write(device, _OUT.pack(_OUT.size + len(answer), -failed, unique) + answer)

    def _pause(self, name: str, node: int, body: bytes) -> None:
        if name not in SLOW:
            return
        path = str(Path(self._at(node)).readlink())
        if name in ("mkdir", "unlink", "rmdir", "create", "rename", "rename2"):
            start = {"mkdir": 8, "create": 16, "rename": 8, "rename2": 16}.get(name, 0)
            path += "/" + body[start:].split(b"\0")[0].decode()
        path = path.removeprefix(self._below + "/")
        moved = _READ_WRITE.unpack_from(body)[2] if name in ("read", "write") else 0
        self._wait(name, path, self._slowness.latency + moved / self._slowness.bytes_per_second)
        for stall in self._left:
            if stall.request == name and path.endswith(stall.path):
                self._left.remove(stall)
                self._wait(name, path, stall.seconds, stall=True)
                break

    def _wait(self, request: str, path: str, seconds: float, stall: bool = False) -> None:
        with self._log.open("a") as log:
            log.write(json.dumps({"request": request, "path": path, "seconds": seconds, "stall": stall}) + "\n")
        time.sleep(seconds)

    def _at(self, node: int) -> str:
        return f"/proc/self/fd/{self._nodes[node]}"

    def _attr(self, s: os.stat_result) -> bytes:
        times = [(ns // 10**9, ns % 10**9) for ns in (s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns)]
        wide = (s.st_ino, s.st_size, s.st_blocks, *(t for t, _ in times))
        rest = (s.st_mode, s.st_nlink, s.st_uid, s.st_gid, s.st_rdev, s.st_blksize, 0)
        return _ATTR.pack(*wide, *(ns for _, ns in times), *rest)

    def _attr_out(self, node: int) -> bytes:
        return struct.pack("<QII", _SECONDS, 0, 0) + self._attr(os.fstat(self._nodes[node]))

    def _entry(self, parent: int, name: str) -> bytes:
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=self._nodes[parent])
        state = os.fstat(handle)
        node = state.st_ino
        if node in self._nodes:
            os.close(handle)
        else:
            self._nodes[node] = handle
        self._known[node] = self._known.get(node, 0) + 1
        return _ENTRY.pack(node, 0, _SECONDS, _SECONDS, 0, 0) + self._attr(state)

    def _forget(self, node: int, times: int) -> None:
        self._known[node] = self._known.get(node, 0) - times
        if node != 1 and self._known[node] <= 0 and node in self._nodes:
            os.close(self._nodes.pop(node))
            del self._known[node]

    # One method for each request: its body in, the answer out

    def init(self, _: int, body: bytes) -> bytes:
        major, minor, ahead, flags = struct.unpack_from("<IIII", body)
        wanted = flags & (1 << 3 | 1 << 5 | 1 << 22)  # O_TRUNC in open, big writes, many pages
        values = (major, min(minor, 31), ahead, wanted, 12, 10, MOST, 1, MOST // 4096, 0, 0, 0)
        return struct.pack("<IIIIHHIIHHII24x", *values)

    def lookup(self, node: int, body: bytes) -> bytes:
        return self._entry(node, _name(body))

    def forget(self, node: int, body: bytes) -> bytes:
        self._forget(node, *struct.unpack("<Q", body))
        return b""

    def batch_forget(self, _: int, body: bytes) -> bytes:
        for node, times in struct.iter_unpack("<QQ", body[8:]):
            self._forget(node, times)
        return b""

    def interrupt(self, _node: int, _body: bytes) -> bytes:
        return b""

    def getattr(self, node: int, _: bytes) -> bytes:
        return self._attr_out(node)

    def setattr(self, node: int, body: bytes) -> bytes:
        valid, _, _, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _ = _SETATTR.unpack(body)
        at = self._at(node)
        if valid & 1:
            Path(at).chmod(stat.S_IMODE(mode))
        if valid & 6:
            os.chown(at, uid if valid & 2 else -1, gid if valid & 4 else -1)
        if valid & 8:
            os.truncate(at, size)
        if valid & 48:
            now, state = time.time_ns(), os.fstat(self._nodes[node])
            times = ((16, 128, atime * 10**9 + atime_ns, state.st_atime_ns),)
            times += ((32, 256, mtime * 10**9 + mtime_ns, state.st_mtime_ns),)
            os.utime(at, ns=tuple(now if valid & b else new if valid & a else old for a, b, new, old in times))
        return self._attr_out(node)

    def readlink(self, node: int, _: bytes) -> bytes:
        return os.readlink("", dir_fd=self._nodes[node]).encode()

    def symlink(self, node: int, body: bytes) -> bytes:
        name, target = body.split(b"\0")[:2]
        os.symlink(target, name, dir_fd=self._nodes[node])
        return self._entry(node, name.decode())

    def mkdir(self, node: int, body: bytes) -> bytes:
        mode, umask = struct.unpack_from("<II", body)
        os.mkdir(_name(body[8:]), mode & ~umask, dir_fd=self._nodes[node])
        return self._entry(node, _name(body[8:]))

    def unlink(self, node: int, body: bytes) -> bytes:
        os.unlink(_name(body), dir_fd=self._nodes[node])
        return b""

    def rmdir(self, node: int, body: bytes) -> bytes:
        os.rmdir(_name(body), dir_fd=self._nodes[node])
        return b""

    def rename(self, node: int, body: bytes, names: int = 8) -> bytes:
        (target,) = struct.unpack_from("<Q", body)
        old, new = body[names:].split(b"\0")[:2]
        os.rename(old, new, src_dir_fd=self._nodes[node], dst_dir_fd=self._nodes[target])
        return b""

    def rename2(self, node: int, body: bytes) -> bytes:
        if struct.unpack_from("<I", body, 8)[0]:
            raise OSError(errno.EINVAL, "no flags")
        return self.rename(node, body, names=16)

    def link(self, node: int, body: bytes) -> bytes:
        (source,) = struct.unpack_from("<Q", body)
        os.link(self._at(source), _name(body[8:]), dst_dir_fd=self._nodes[node], follow_symlinks=True)
        return self._entry(node, _name(body[8:]))

    def open(self, node: int, body: bytes) -> bytes:
        (flags,) = struct.unpack_from("<I", body)
        handle = os.open(self._at(node), flags & ~(os.O_NOFOLLOW | os.O_APPEND))  # the kernel appends
        return struct.pack("<QII", handle, 0, 0)

    def create(self, node: int, body: bytes) -> bytes:
        flags, mode, umask, _ = struct.unpack_from("<IIII", body)
        flags = (flags | os.O_CREAT) & ~os.O_APPEND
        handle = os.open(_name(body[16:]), flags, mode & ~umask, dir_fd=self._nodes[node])
        return self._entry(node, _name(body[16:])) + struct.pack("<QII", handle, 0, 0)

    def read(self, _: int, body: bytes) -> bytes:
        handle, offset, size, *_rest = _READ_WRITE.unpack_from(body)
        return os.pread(handle, size, offset)

    def write(self, _: int, body: bytes) -> bytes:
        handle, offset, size, *_rest = _READ_WRITE.unpack_from(body)
        return struct.pack("<II", os.pwrite(handle, body[_READ_WRITE.size :][:size], offset), 0)

    def statfs(self, node: int, _: bytes) -> bytes:
        s = os.statvfs(self._below)
        sizes = (s.f_blocks, s.f_bfree, s.f_bavail, s.f_files, s.f_ffree, s.f_bsize, s.f_namemax, s.f_frsize)
        return struct.pack("<5Q3I28x", *sizes)

    def flush(self, _node: int, _body: bytes) -> bytes:
        return b""

    def fsync(self, _: int, body: bytes) -> bytes:
        os.fsync(struct.unpack_from("<Q", body)[0])
        return b""

    def fsyncdir(self, _node: int, _body: bytes) -> bytes:
        return b""

    def release(self, _: int, body: bytes) -> bytes:
        os.close(struct.unpack_from("<Q", body)[0])
        return b""

    def access(self, _node: int, _body: bytes) -> bytes:
        return b""

    def opendir(self, node: int, _: bytes) -> bytes:
        handle = max(self._listed, default=0) + 1
        found = [(e.inode(), e.name, e.is_dir(follow_symlinks=False)) for e in os.scandir(self._at(node))]
        self._listed[handle] = [
            struct.pack("<QQII", inode, number + 1, len(os.fsencode(name)), 4 if is_folder else 0) + os.fsencode(name)
            for number, (inode, name, is_folder) in enumerate(found)
        ]
        return struct.pack("<QII", handle, 0, 0)

    def readdir(self, _: int, body: bytes) -> bytes:
        handle, offset, size, *_rest = _READ_WRITE.unpack_from(body)
        answer = b""
        for entry in self._listed[handle][offset:]:
            padded = entry + bytes(-len(entry) % 8)
            if len(answer) + len(padded) > size:
                break
            answer += padded
        return answer

    def releasedir(self, _: int, body: bytes) -> bytes:
        self._listed.pop(struct.unpack_from("<Q", body)[0], None)
        return b""


def _name(body: bytes) -> str:
    return os.fsdecode(body.split(b"\0")[0])


def _opened(folder: str) -> int:
    """The device; where /dev has none, another file for it."""
    device = Path(DEVICE)
    if not device.exists():
        device = Path(f"{folder}.fuse")
        os.mknod(device, stat.S_IFCHR | 0o600, NUMBER)
    return os.open(device, os.O_RDWR)


def main(slowness: str, below: str, above: str, log: str) -> None:
    """Mount the folder `below` at `above`, and serve it."""
    options = json.loads(slowness)
    stalls = [Stall(**stall) for stall in options.pop("stalls")]
    device = _opened(below)
    data = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"slow-store", above.encode(), b"fuse", 2 | 4, data.encode()):  # MS_NOSUID, MS_NODEV
        raise OSError(ctypes.get_errno(), f"cannot mount {above}: {os.strerror(ctypes.get_errno())}")
    print("mounted", flush=True)
    _Server(Slowness(**options, stalls=stalls), below, log).serve(device)


if __name__ == "__main__":
    main(*sys.argv[1:])
