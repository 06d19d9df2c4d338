"""The pause image that holds a pod's namespaces: a static C program, packed here."""

import hashlib
import io
import json
import tarfile
import tempfile
from pathlib import Path

from hone_dev.cluster.node import PAUSE
from hone_dev.tools import paths
from hone_dev.tools.shell import run

# Upstream's pause in short: reap orphans, end on a signal.
SOURCE = """\
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int signal_number) { (void)signal_number; _exit(0); }
static void reap(int signal_number) { (void)signal_number; while (waitpid(-1, NULL, WNOHANG) > 0); }
int main(void) {
  struct sigaction ending = {.sa_handler = end}, reaping = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
  if (sigaction(SIGINT, &ending, NULL) || sigaction(SIGTERM, &ending, NULL) || sigaction(SIGCHLD, &reaping, NULL))
    return 1;
  for (;;) pause();
}
"""


def archive() -> Path:
    """The image as a file that `ctr images import` reads, made if absent."""
    path = paths.cache("bin") / f"pause-{hashlib.sha256(SOURCE.encode()).hexdigest()[:12]}.tar"
    if not path.exists():
        with tempfile.TemporaryDirectory() as folder:
            program, source = Path(folder, "pause"), Path(folder, "pause.c")
            source.write_text(SOURCE)
            run("gcc", "-Os", "-static", "-o", program, source)
            _pack(program.read_bytes(), path)
    return path


def _tar(files: dict[str, bytes], mode: int = 0o644) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _pack(program: bytes, path: Path) -> None:
    layer = _tar({"pause": program}, 0o755)
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[run("uname", "-m").strip()],
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE], "Layers": ["layer.tar"]}]
    files = {"manifest.json": manifest, "config.json": config}
    content = {name: json.dumps(value).encode() for name, value in files.items()}
    partial = path.with_suffix(".partial")
    partial.write_bytes(_tar({**content, "layer.tar": layer}))
    partial.rename(path)
