"""Class F, bad addresses: each has its code, nothing is sent where it must not go, nothing is written outside."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from support.servers import tls_server

from hone_api.contract.termination import TerminationMessage
from hone_api.dataset.source import Source
from hone_api.plan import MaterializePlan
from hone_api.words.failures import FAILURES
from hone_operator.desired.core import names
from hone_trainer.datasets import materialize
from hone_trainer.endpoints import addresses
from hone_trainer.endpoints.addresses import is_allowed
from hone_trainer.errors import to_outcome

pytestmark = pytest.mark.trainer

CORPUS: dict[str, list[Any]] = yaml.safe_load(Path(__file__).with_name("uris.yaml").read_text())
GOOD = "".join(f'{{"text": "row {i}"}}\n' for i in range(20))
PUBLIC = "127.0.0.2"
"""Stands for a public address: there is no other that a test can serve at."""


def test_the_corpus_is_whole() -> None:
    assert sum(map(len, CORPUS.values())) >= 160
    codes = {entry["code"] for entry in (*CORPUS["pod"], *CORPUS["volumes"])}
    assert codes <= {"Ready", *FAILURES} - {"TrainerError"}


@pytest.mark.parametrize("uri", CORPUS["api"])
def test_a_plan_does_not_take_it(uri: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Source(uri=uri)
    assert [error["loc"] for error in caught.value.errors()] == [("uri",)]


@pytest.mark.parametrize("uri", CORPUS["operator"])
def test_the_operator_does_not_mount_it(uri: str) -> None:
    with pytest.raises(names.InvalidReferenceError, match="the path must stay below pvc://claim/"):
        names.split_uri(Source(uri=uri).uri)


class Wire:
    """What goes out: names that are looked up, addresses that are connected to. Only PUBLIC answers."""

    def __init__(self, known: dict[str, list[str]]):
        self.known = {name: list(answers) for name, answers in known.items()}
        self.reached: list[Any] = []

    def look_up(self, host: str, port: int, *family: Any, **options: Any) -> Any:
        """In the place of the name server; what is a number is also one for the real resolver."""
        if answers := self.known.get(host):
            given = (answers.pop(0) if len(answers) > 1 else answers[0]).split()
            return [entry for address in given for entry in _look_up(address, port, *family, **options)]
        return _look_up(host, port, *family, **{**options, "flags": socket.AI_NUMERICHOST})

    def connect(self, connection: socket.socket, address: Any) -> Any:
        self.reached.append(address[0])
        if address[0] != PUBLIC:
            raise ConnectionRefusedError(f"the test lets nothing out to {address}")
        return _connect(connection, address)


_look_up, _connect = socket.getaddrinfo, socket.socket.connect


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, list[str]]], Wire]:
    def make(known: dict[str, list[str]]) -> Wire:
        made = Wire(known)
        monkeypatch.setattr(socket, "getaddrinfo", made.look_up)
        monkeypatch.setattr(socket.socket, "connect", lambda self, address: made.connect(self, address))
        return made

    return make


def materialise(tmp_path: Path, uri: str, **fields: Any) -> TerminationMessage:
    """As a pod does; the outcome after its way through the termination message."""
    body = {"name": "rows", "format": "Text", "store": str(tmp_path / "store"), "source": {"uri": uri}, **fields}
    try:
        outcome = TerminationMessage(result=materialize.run(MaterializePlan.model_validate(body)))
    except Exception as error:
        outcome = to_outcome(error)
    found = TerminationMessage.model_validate_json(outcome.to_termination_message())
    left = {path.name for path in (tmp_path / "store").iterdir()} if (tmp_path / "store").exists() else set()
    assert left <= {"datasets", "reports"}
    assert found.failure is None or not list((tmp_path / "store" / "datasets").iterdir())
    return found


def code_of(outcome: TerminationMessage) -> str:
    return outcome.failure.code if outcome.failure else "Ready"


@pytest.mark.parametrize("entry", CORPUS["pod"], ids=lambda entry: entry["uri"])
@pytest.mark.parametrize("private", [False, True], ids=["", "private allowed"])
def test_nothing_is_sent_to_it(entry: dict[str, Any], private: bool, wire: Any, tmp_path: Path) -> None:
    """Where the platform allows private addresses, those are tried, and link-local ones still never."""
    out = wire(entry.get("names", {}))
    outcome = materialise(tmp_path, entry["uri"], limits={"allowPrivateAddresses": private})
    if private and not entry.get("never") and code_of(outcome) == "SourceUnreachable":
        assert all(is_allowed(address, True) for address in out.reached)
    else:
        assert (code_of(outcome), out.reached) == (entry["code"], []), outcome.failure


@pytest.fixture
def public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tls_server.Server]:
    """A server at PUBLIC, and what must not be reached at 127.0.0.1 with the same port."""
    certificate = tls_server.certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    real = addresses._allowed
    monkeypatch.setattr(addresses, "_allowed", lambda address, *may: str(address) == PUBLIC or real(address, *may))
    with tls_server.serve(certificate) as inner:
        inner.answers["/rows.jsonl"] = (200, {}, GOOD.encode())
        with tls_server.also_at(PUBLIC, inner, certificate):
            yield inner


NAMES = {
    "data.test": [PUBLIC],
    "localhost": ["127.0.0.1"],
    "inner.test": ["10.0.0.1"],
    "metadata.google.internal": ["169.254.169.254"],
}


@pytest.mark.parametrize("target", CORPUS["redirects"])
def test_a_redirect_leads_to_no_other_host(target: str, public: Any, wire: Any, tmp_path: Path) -> None:
    out = wire(NAMES)
    public.answers["/go"] = (302, {"Location": target.format(port=public.port)}, b"")
    outcome = materialise(tmp_path / "pod", f"https://data.test:{public.port}/go")
    assert code_of(outcome) == "SourceRefused", outcome.failure
    assert "hunter2" not in str(outcome.failure)
    assert out.reached == [PUBLIC]
    assert [path for path, *_ in public.requests] == ["/go"]


def test_a_name_server_that_changes_its_mind_leads_nowhere_else(public: Any, wire: Any, tmp_path: Path) -> None:
    """The first answer is checked and used, by redirects to the same name as well: the second one reaches nobody."""
    out = wire({"data.test": [PUBLIC, "127.0.0.1"]})
    assert code_of(materialise(tmp_path / "pod", f"https://data.test:{public.port}/rows.jsonl")) == "Ready"
    assert set(out.reached) == {PUBLIC}
    out = wire({"data.test": [PUBLIC, "127.0.0.1"]})
    public.answers["/go"] = (307, {"Location": "/rows.jsonl"}, b"")
    outcome = materialise(tmp_path / "second", f"https://data.test:{public.port}/go")
    assert (code_of(outcome), set(out.reached)) == ("Ready", {PUBLIC})


def archive(path: Path, *members: tuple[str, str]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = (tarfile.SYMTYPE, link) if link else (tarfile.REGTYPE, "")
            info.size = 0 if link else len(GOOD)
            tar.addfile(info, None if link else io.BytesIO(GOOD.encode()))


def lay(lies: str, volume: Path, place: Path) -> None:
    """Put what `lies` says at the place in the volume; good rows are next to the volume, and in another one."""
    outside, other = volume.parent / "outside.jsonl", volume.parent / "other" / "rows.jsonl"
    other.parent.mkdir()
    for file in (outside, other):
        file.write_text(GOOD)
    place.parent.mkdir(parents=True, exist_ok=True)
    match lies:
        case "link to a file outside":
            place.symlink_to(outside)
        case "link to a file of another volume":
            place.symlink_to(other)
        case "link up and out":
            place.symlink_to(os.path.relpath(outside, place.parent))
        case "link to a link to outside":
            (volume / "second.jsonl").symlink_to(outside)
            place.symlink_to(volume / "second.jsonl")
        case "link to /dev/zero":
            place.symlink_to("/dev/zero")
        case "link to itself":
            place.symlink_to(place)
        case "link to nothing":
            place.symlink_to(volume / "absent.jsonl")
        case "link inside":
            (volume / "real.jsonl").write_text(GOOD)
            place.symlink_to("real.jsonl")
        case "pipe":
            os.mkfifo(place)
        case "socket":
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(os.path.relpath(place))
        case "folder behind a link to outside":
            place.parent.rmdir()
            place.parent.symlink_to(other.parent)
        case "folder behind a link inside it":
            (place.parent / "more").symlink_to(other.parent)
        case "hidden files alone":
            (place.parent / ".rows.jsonl").write_text(GOOD)
        case "name with a line end":
            (place.parent / "a\nb.jsonl").write_text(GOOD)
        case "name that is not UTF-8":
            (Path(os.fsdecode(os.fsencode(place.parent) + b"/\xff.jsonl"))).write_text(GOOD)
        case "archive with a path out":
            archive(place, ("../../escaped.jsonl", ""), ("/escaped.jsonl", ""))
        case "archive with a link out":
            archive(place, ("rows", str(volume.parent)), ("rows/escaped.jsonl", ""))
        case "percent-encoded dots" | "nothing":
            pass
        case _:
            raise KeyError(lies)


@pytest.mark.parametrize("entry", CORPUS["volumes"], ids=lambda entry: f"{entry['lies']} at {entry['path']}")
def test_a_volume_is_not_left(entry: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    monkeypatch.chdir(tmp_path)
    path = entry["path"]
    lay(entry["lies"], volume, volume / path / "rows.jsonl" if path == "rows" else volume / path)
    before = sorted(tmp_path.rglob("*"))
    outcome = materialise(tmp_path / "pod", f"pvc://claim/{path}", sourcePath=str(volume / path))
    assert code_of(outcome) == entry["code"], outcome.failure
    after = [place for place in sorted(tmp_path.rglob("*")) if not place.is_relative_to(tmp_path / "pod")]
    assert after == before


@pytest.mark.parametrize("name", CORPUS["hub"])
def test_a_hub_that_names_files_outside_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import DatasetInfo, RepoFile

    listed = [RepoFile(path=path, size=len(GOOD), oid="0" * 40) for path in ("rows.jsonl", name)]
    info = DatasetInfo(id="acme/rows", sha="0" * 40, tags=[], private=False, downloads=0, likes=0)
    monkeypatch.setattr(HfApi, "repo_info", lambda *args, **options: info)
    monkeypatch.setattr(HfApi, "list_repo_tree", lambda *args, **options: listed)
    outcome = materialise(tmp_path, "hf://acme/rows")
    assert code_of(outcome) == "SourceRefused", outcome.failure
    assert {path.name for path in tmp_path.iterdir()} == {"store"}
