"""What a worker of the sandbox cannot do even if it runs foreign code natively, as any user and without privileges."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.trainer

# Each may only raise OSError; anything else, an end without one included, is an escape.
ESCAPES = {
    "connects by TCP": "import socket; socket.create_connection(('127.0.0.1', PORT), 5)",
    "sends a datagram": "import socket; socket.socket(2, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
    "opens a Unix socket": "import socket; socket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')",
    "opens a packet socket": "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "asks netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "listens": "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()",
    "looks a host up": "import socket; socket.getaddrinfo('localhost', 80)",
    "fetches an address": "import urllib.request; urllib.request.urlopen('http://127.0.0.1:PORT/', timeout=5)",
    "fetches a file": "import urllib.request; urllib.request.urlopen('file:///etc/passwd')",
    "reads the users": "open('/etc/passwd')",
    "reads a mounted secret": "open('SECRET')",
    "lists the root": "import os; os.listdir('/')",
    "reads an environment": "import os; open(f'/proc/{os.getppid()}/environ', 'rb').read(1)",
    "reads a memory": "open('/proc/self/mem', 'rb')",
    "writes a file": "open('/tmp/escaped', 'w')",
    "writes where Python is": "import os; open(os.path.dirname(os.__file__) + '/escaped.py', 'w')",
    "makes a link": "import os; os.symlink('/etc/passwd', 'FOLDER/link'); open('FOLDER/link')",
    "renames the secret": "import os; os.rename('SECRET', 'FOLDER/mine')",
    "removes the secret": "import os; os.unlink('SECRET')",
    "starts a program": "import os; os.execv('/bin/true', ['true'])",
    "starts a child": "import subprocess; subprocess.run(['/bin/true'])",
    "runs a shell": "import os; assert os.system('true') == 0 or exec('raise OSError')",
    "kills its parent": "import os; os.kill(os.getppid(), 9)",
    "unshares": ("import ctypes, os; ctypes.CDLL(None, use_errno=True).unshare(0x10000000) and exec('raise OSError')"),
    "traces its parent": (
        "import ctypes, os; ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) and exec('raise OSError')"
    ),
    "makes a ring": "import ctypes; ctypes.CDLL(None).syscall(425, 8, bytes(120)) == -1 and exec('raise OSError')",
}
PROGRAM = """
import sys
sys.path[:0] = {path!r}
from hone_trainer.sandbox.confinement import confine
missing = confine()
assert not missing, missing
try:
    {attack}
except OSError:
    print("held")
"""


@pytest.fixture(scope="module")
def server() -> Iterator[socket.socket]:
    """Takes connections that nobody may make."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.mark.attack("sandbox")
@pytest.mark.parametrize("what", ESCAPES)
def test_native_code_in_a_worker_that(tmp_path: Path, server: socket.socket, what: str) -> None:
    secret = tmp_path / "API_KEY"
    secret.write_text("canary")
    attack = ESCAPES[what]
    for name, value in {"PORT": server.getsockname()[1], "SECRET": secret, "FOLDER": tmp_path}.items():
        attack = attack.replace(name, str(value))
    program = PROGRAM.format(path=[entry for entry in sys.path if entry], attack=attack)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert ended.stdout == "held\n", ended.stderr
    assert secret.read_text() == "canary"
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.accept()


def test_python_goes_on_to_load_what_it_is_made_of() -> None:
    program = PROGRAM.format(path=[entry for entry in sys.path if entry], attack="import sympy, sqlite3; open('/no')")
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert ended.stdout == "held\n", ended.stderr
