"""A large source that no disk of this machine holds: a server on loopback makes its rows up as they are asked for.

    sudo .venv/bin/python bench/dataset_remote.py --gigabytes 20 --ignored 18000 --disk 6144 --folder /var/tmp
    .venv/bin/python bench/dataset_remote.py --objects 1000000 --until-read 1000
    .venv/bin/python bench/dataset_remote.py --gigabytes 1 --break-every 10000000
    .venv/bin/python bench/dataset_remote.py --gigabytes 1 --change-after 500000000

One file of JSON Lines over https, or with --objects so many files of one row each in a bucket of S3, is materialized by
`python -m hone_trainer materialize` with exact duplicates removed; --ignored is the size of a column of each row that
spec.ignoreColumns leaves out. All that is written is on a file system of --disk MiB, if it is given. Printed are bytes
that the server sent, the most that the disk held, CPU time and memory of the first process.

Exit code 1 when a row is missing, a byte was sent much more than once, or, with --change-after, rows of both versions
were published. No two rows are the same.
"""

from __future__ import annotations

import argparse
import hashlib
import http.server
import json
import os
import random
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dataset_steps import COLUMNS, QUIET

from hone_dev.cluster.pki import Authority

WORDS = ["".join(random.Random(n).choices("abcdefghijklmnopqrstuvwxyz", k=5)) for n in range(256)]
ASKED, ANSWERED = 20, 140
"""Words of a row."""
PAGE = 1000
"""Objects of a page of a listing."""


@dataclass
class Source:
    """What the server has: one large file of JSON Lines at /rows.jsonl, or a bucket of many that have a row each."""

    rows: int
    ignored: int = 0
    """Bytes of each row in a column `page`."""
    change_after: int | None = None
    """Bytes that are sent until the file is another one."""
    break_every: int | None = None
    """Bytes after which connections break."""
    sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._filler = random.Random(0).randbytes(max(1, self.ignored)).hex().encode()
        self.row_bytes = len(self.row(0))

    def row(self, number: int) -> bytes:
        """One row, of as many bytes as all others."""
        words = [WORDS[at] for at in hashlib.shake_128(b"%d" % number).digest(ASKED + ANSWERED)]
        page = self._filler[number % (self.ignored + 1) :][: self.ignored]
        page += self._filler[: self.ignored - len(page)]
        asked, answered = " ".join(words[:ASKED]), " ".join(words[ASKED:])
        head = f'{{"question": "{asked} {number:012}?", "answer": "{answered}.", "page": "'
        return head.encode() + page + b'"}\n'

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.rows * self.row_bytes

    @property
    def mark(self) -> str:
        """Of the version of the file."""
        return '"2"' if self.change_after is not None and self.sent > self.change_after else '"1"'

    def bytes(self, begin: int, end: int) -> Iterator[bytes]:
        """[begin, end) of the file, some at a time."""
        for first in range(begin // self.row_bytes, -(-end // self.row_bytes), 256):
            last = min(first + 256, self.rows)
            data, at = b"".join(map(self.row, range(first, last))), first * self.row_bytes
            yield data[max(0, begin - at) : end - at]
            if at + len(data) >= end:
                return

    def listed(self, token: str) -> str:
        """A page of the objects of the bucket, from the one after a token."""
        start = int(token or 0)
        end = min(start + PAGE, self.rows)
        entries = "".join(
            f"<Contents><Key>rows/{n:07}.jsonl</Key><Size>{self.row_bytes}</Size><ETag>&quot;{n}&quot;</ETag></Contents>"
            for n in range(start, end)
        )
        more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < self.rows else ""
        is_cut = str(end < self.rows).lower()
        return (
            '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>made-up</Name>'
            f"<KeyCount>{end - start}</KeyCount><IsTruncated>{is_cut}</IsTruncated>{more}{entries}</ListBucketResult>"
        )


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers of a `Source`."""

    protocol_version = "HTTP/1.1"
    source: Source

    def do_GET(self) -> None:
        """Lists, objects, and the file."""
        url, source = urlsplit(self.path), self.source
        if url.path == "/made-up":
            token = parse_qs(url.query).get("continuation-token", [""])[0]
            self._send(200, {"Content-Type": "application/xml"}, [source.listed(token).encode()])
        elif url.path.startswith("/made-up/rows/"):
            number = int(Path(url.path).stem)
            at = number * source.row_bytes
            self._send_range(source.row_bytes, at, f'"{number}"')
        elif url.path == "/rows.jsonl":
            self._send_range(source.size, 0, source.mark)
        else:
            self._send(404, {}, [])

    def _send_range(self, size: int, at: int, mark: str) -> None:
        begin, _, last = self.headers.get("Range", f"bytes=0-{size - 1}").removeprefix("bytes=").partition("-")
        start, end = int(begin), min(int(last) + 1, size)
        if self.headers.get("If-Match", mark) != mark:
            self._send(412, {}, [])
            return
        headers = {"ETag": mark, "Accept-Ranges": "bytes", "Content-Range": f"bytes {start}-{end - 1}/{size}"}
        self._send(206, headers, self.source.bytes(at + start, at + end), end - start)

    def _send(self, status: int, headers: dict[str, str], body: Any, size: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(sum(map(len, body)) if size is None else size)}.items():
            self.send_header(name, value)
        self.end_headers()
        source = self.source
        try:
            for data in body:
                self.wfile.write(data)
                with source.lock:
                    before, source.sent = source.sent, source.sent + len(data)
                if (every := source.break_every) and before // every < source.sent // every:
                    self.close_connection = True
                    return
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def serve(source: Source, folder: Path) -> Iterator[tuple[str, Path]]:
    """The server's address, and the certificate of who signed its own."""
    authority = Authority(folder / "authority")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server", "localhost", hosts=("localhost",)))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"source": source}))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"https://localhost:{server.server_address[1]}", authority.certificate
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def disk_of(mib: int, folder: Path) -> Iterator[Path]:
    """A folder on a file system of this size."""
    image, place = folder / "disk.ext4", folder / "disk"
    place.mkdir()
    with open(image, "wb") as file:
        file.truncate(mib * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
        image.unlink()


def materialize(source: Source, options: argparse.Namespace, folder: Path, place: Path) -> list[str]:
    """Prints what it took; gives what is wrong."""
    kept, store, path = place / "kept", place / "store", folder / "plan.json"
    kept.mkdir()
    with serve(source, folder) as (address, certificate), open(folder / "log", "wb") as log:
        there = {"uri": "s3://made-up/rows", "s3": {"endpoint": address}}
        plan = {
            "kind": "Materialize",
            "name": "bench",
            "store": str(store),
            "source": there if options.objects else {"uri": f"{address}/rows.jsonl"},
            "columns": COLUMNS,
            "ignoreColumns": ["page"],
            "splits": {"validation": "1%"},
            "curation": {"deduplicate": "Exact"},
            "limits": {"maxSourceBytes": 10**12, "allowPrivateAddresses": True},
            "downloadsPath": str(kept),
        }
        path.write_text(json.dumps(plan))
        environment = {**os.environ, **QUIET, "SSL_CERT_FILE": str(certificate)}
        command = [sys.executable, "-m", "hone_trainer", "materialize", str(path)]
        begun, first, most = time.monotonic(), 0.0, 0
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        while True:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            most = max(most, _used(place))
            parts = sum(1 for _ in kept.glob("checked/*.parquet"))
            if parts and not first:
                first = time.monotonic() - begun
            if options.until_read and parts * 1000 >= options.until_read:
                process.send_signal(signal.SIGKILL)
            time.sleep(0.1)
    code = process.returncode = os.waitstatus_to_exitcode(status)
    clock, cpu = time.monotonic() - begun, usage.ru_utime + usage.ru_stime
    print(f"ended with {code} after {clock:,.1f} s, {cpu:,.1f} CPU s; the first rows were checked after {first:,.1f} s")
    print(f"sent {source.sent / 1e6:,.0f} MB; the disk held at most {most / 1e6:,.0f} MB", end="; ")
    print(f"the largest process had {usage.ru_maxrss / 1024:,.0f} MiB", flush=True)
    print((folder / "log").read_text()[-600:])
    published = [*store.glob("datasets/[0-9a-f]*")]
    if code:
        return [f"ended with {code}, and published rows"] if published else []
    rows = sum(_lines(file) for file in published[0].glob("*.jsonl"))
    size = sum(file.stat().st_size for file in published[0].iterdir())
    print(f"{rows:,} rows in {size / 1e6:,.0f} MB; nothing else is left: {not any(kept.iterdir())}")
    wrong = [] if rows == source.rows else [f"{source.rows:,} rows came, {rows:,} were written"]
    return wrong + ([] if source.sent < 1.1 * source.size + 10**7 else ["bytes were sent more than once"])


def _used(place: Path) -> int:
    about = os.statvfs(place)
    return (about.f_blocks - about.f_bfree) * about.f_frsize


def _lines(path: Path) -> int:
    with open(path, "rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="A source that is larger than the disk.")
    parser.add_argument("--gigabytes", type=float, default=1)
    parser.add_argument("--objects", type=int, default=0, help="files of one row each, instead of a large one")
    parser.add_argument("--ignored", type=int, default=0, metavar="BYTES", help="of each row, in a column of their own")
    parser.add_argument("--disk", type=int, default=0, metavar="MIB", help="of the file system that is written to")
    parser.add_argument("--until-read", type=int, default=0, metavar="FILES", help="end when so many are checked")
    parser.add_argument("--break-every", type=int, metavar="BYTES", help="after which a connection breaks")
    parser.add_argument("--change-after", type=int, metavar="BYTES", help="after which the file is another one")
    parser.add_argument("--folder", type=Path, help="default: temporary")
    options = parser.parse_args()
    row = Source(1, options.ignored).row_bytes
    rows = options.objects or int(options.gigabytes * 1e9 / row)
    source = Source(rows, options.ignored, options.change_after, options.break_every)
    print(f"{source.size / 1e6:,.0f} MB, {rows:,} rows of {row:,} bytes", flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-remote-") as name:
        folder = Path(name)
        with disk_of(options.disk, folder) if options.disk else nullcontext(folder) as place:
            wrong = materialize(source, options, folder, place)
    print("".join(f"MISSED: {bound}\n" for bound in wrong) or "all bounds are held")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
