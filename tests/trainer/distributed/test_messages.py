"""What ranks send each other: JSON and tensors."""

from __future__ import annotations

import ast
import io
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

import hone_trainer
from hone_trainer.distributed import messages

pytestmark = pytest.mark.trainer
OBJECTS = {
    "all_gather_object",
    "broadcast_object_list",
    "gather_object",
    "recv_object_list",
    "scatter_object_list",
    "send_object_list",
}
TWO_RANKS = """
import os, sys, tempfile
import torch.distributed as dist
from hone_trainer import ranks
from hone_trainer.distributed import messages
messages.speak_json()
os.environ.update(RANK=sys.argv[1], WORLD_SIZE="2", GLOO_SOCKET_IFNAME="lo")
rank = int(sys.argv[1])
dist.init_process_group("gloo", store=dist.FileStore(sys.argv[2], 2), rank=rank, world_size=2)
def gather(value):  # as accelerate's gather_object
    out = [None, None]
    dist.all_gather_object(out, value)
    return [x for y in out for x in y]
texts = gather([f"text \\u00e9 of {rank}", {"name": rank}])
assert texts == ["text \\u00e9 of 0", {"name": 0}, "text \\u00e9 of 1", {"name": 1}], texts
assert ranks.text_of_first("n\\u00e4me" if rank == 0 else "") == "n\\u00e4me"
assert ranks.text_of_first("") == ""
class Evil:
    def __reduce__(self):
        return (open, (sys.argv[3], "w"))
if rank == 1:  # a peer that does not play by the rules
    import pickle
    dist.distributed_c10d._pickler = pickle.Pickler
try:
    gather([Evil()] if rank == 1 else ["honest"])
except ValueError as error:
    print("refused:", type(error).__name__, flush=True)
os._exit(0)  # as our ranks do: a thread of gloo may outlive the interpreter
"""


@pytest.mark.attack("rendezvous")
@pytest.mark.parametrize("file", sorted(Path(hone_trainer.__file__).parent.rglob("*.py")), ids=lambda file: file.stem)
def test_our_code_calls_no_object_collective(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None
        assert name not in OBJECTS, f"{file.name}:{node.lineno}: tensors, or ranks.text_of_first"


@pytest.mark.attack("rendezvous")
def test_a_pickled_object_of_a_peer_runs_nothing(tmp_path: Path) -> None:
    canary, store = tmp_path / "canary", tmp_path / "store"
    command = [sys.executable, "-c", TWO_RANKS]
    ranks = [
        subprocess.Popen([*command, str(rank), str(store), str(canary)], stdout=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    said = [rank.communicate()[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    assert "refused: UnicodeDecodeError" in said[0] or "refused: JSONDecodeError" in said[0]
    assert not canary.exists()


@pytest.mark.attack("rendezvous")
@pytest.mark.parametrize("value", [{1, 2}, b"bytes", object(), Path("/")], ids=lambda value: type(value).__name__)
def test_what_json_cannot_hold_is_refused_with_its_type(value: object) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        messages.Writer(io.BytesIO()).dump([value])


@pytest.mark.attack("rendezvous")
@pytest.mark.parametrize("value", [{1: "one"}, {None: 1}, [{"deep": {True: 1}}]], ids=str)
def test_a_key_that_would_become_text_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="whose keys are text"):
        messages.Writer(io.BytesIO()).dump(value)


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        (["text", None, True, 1, 1.5, {"role": "user", "parts": [{}]}],) * 2,
        ((1, ("a", None)), [1, ["a", None]]),
        ([numpy.float32(0.5), numpy.int64(2**40), numpy.bool_(True)], [0.5, 2**40, True]),
        ([float("inf"), -0.0], [float("inf"), -0.0]),
        ("lone surrogate \ud800", "lone surrogate \ud800"),
    ],
    ids=["plain", "tuples", "NumPy", "infinity", "surrogate"],
)
def test_what_libraries_gather_arrives(sent: object, arrives: object) -> None:
    file = io.BytesIO()
    messages.Writer(file).dump(sent)
    file.seek(0)
    assert messages.Reader(file).load() == arrives


@pytest.mark.attack("rendezvous")
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_pickle_is_read(protocol: int) -> None:
    with pytest.raises((UnicodeDecodeError, json.JSONDecodeError)):
        messages.Reader(io.BytesIO(pickle.dumps(["x"], protocol))).load()
