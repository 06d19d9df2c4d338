"""What a worker of the sandbox cannot do even if it runs foreign code natively, as any user and without privileges."""

from __future__ import annotations

import platform
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
    "limits its parent": "import os, resource; resource.prlimit(os.getppid(), 4, (0, 0))",
    "moves its parent": "import os; os.sched_setaffinity(os.getppid(), os.sched_getaffinity(0))",
    "slows its parent": "import os; os.setpriority(0, os.getppid(), 1)",
    "signals its parent by a file": "import fcntl, os; fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())",
    "opens a secret to others": "import os; os.chmod('SECRET', 0o644)",
    "dates a secret": "import os; os.utime('SECRET')",
    "marks a secret": "import os; os.setxattr('SECRET', 'user.x', b'1')",
    "forks": "import os; os.fork() or os._exit(0)",
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


EVERY = """
import ctypes, sys
sys.path[:0] = {path!r}
from hone_trainer.sandbox import confinement
numbers = {{call.split()[1 + {column}] for call in confinement.ALLOWED.split(",")}}
bounded = {{rule[0][{column}]: rule[1:] for rule in confinement.ALLOWED_WITH.values()}}
arguments = [*range(256), 1024, 1025, 1026, *range(0x5400, 0x5500), 0x8901, 0x8902]
arguments += [0x3D0F00 | 1 << bit for bit in range(32)] + [1 << bit for bit in range(32)] + [2**32 - 1]
calls = [(number + x32, [-1] * 6) for x32 in (0, 0x40000000) for number in range(1024)]
calls = [(number, given) for number, given in calls if str(number) not in numbers and number not in bounded]
calls = [call for call in calls if call[0] not in (335, 336)]  # uprobes: past filters, and fatal
for number, (position, values) in bounded.items():
    calls += [(number, [-1] * position + [value]) for value in {{*arguments}} - values]
assert confinement.confine() == []
libc = ctypes.CDLL(None, use_errno=True)
def passes(number, given):
    ctypes.set_errno(0)
    return libc.syscall(number, *map(ctypes.c_long, given)) != -1 or ctypes.get_errno() != 38
print(len(calls), [each for each in calls if passes(*each)])
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


@pytest.mark.attack("sandbox")
@pytest.mark.outside
def test_a_worker_makes_no_other_system_call() -> None:
    column = ["x86_64", "aarch64"].index(platform.machine())
    program = EVERY.format(path=[entry for entry in sys.path if entry], column=column)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    tried, passed = ended.stdout.split(" ", 1)
    assert passed == "[]\n", ended.stderr
    page = (Path(__file__).parents[3] / "docs/outside.md").read_text()
    assert column or f"sandbox](guides/methods/rewards.md) allows | {int(tried):,} | {int(tried):,} |" in page
