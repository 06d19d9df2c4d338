"""Sources that are read where they are: no copy on the disk, each byte once, and never rows of two versions."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import logging
import multiprocessing
import pickle
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
from support.servers import tls_server

from hone_api.plan import Limits, MaterializePlan
from hone_dev import hub
from hone_dev.cluster import objectstore
from hone_trainer.datasets import materialize
from hone_trainer.datasets.readers import read, s3
from hone_trainer.datasets.readers.read import DataFile
from hone_trainer.datasets.sources import sources
from hone_trainer.datasets.sources.sources import Fetched
from hone_trainer.endpoints import addresses
from hone_trainer.endpoints import http as https
from hone_trainer.endpoints import s3 as endpoint_s3
from hone_trainer.endpoints.addresses import Resolution
from hone_trainer.errors import SourceError
from hone_trainer.reporting.task import TaskProgress
from hone_trainer.store import ranged

pytestmark = pytest.mark.trainer
PRIVATE_OK = Limits(allow_private_addresses=True)
ROWS = [{"text": f"row {number} {random.Random(number).randbytes(300).hex()}"} for number in range(4000)]
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


def _written(write: Callable[[Any], Any]) -> bytes:
    sink = io.BytesIO()
    write(sink)
    return sink.getvalue()


TABLE = pyarrow.Table.from_pylist(ROWS)
FILES = {
    "rows.jsonl": LINES,
    "rows.json": json.dumps(ROWS).encode(),
    "rows.csv": _written(lambda sink: pyarrow.csv.write_csv(TABLE, sink)),
    "rows.parquet": _written(lambda sink: pyarrow.parquet.write_table(TABLE, sink, row_group_size=500)),
    "rows.arrow": _written(lambda sink: pyarrow.feather.write_feather(TABLE, sink, compression="uncompressed")),
    "rows.jsonl.gz": gzip.compress(LINES),
    "rows.jsonl.bz2": bz2.compress(LINES),
    "rows.parquet.gz": gzip.compress(_written(lambda sink: pyarrow.parquet.write_table(TABLE, sink))),
}


@pytest.fixture(autouse=True)
def small_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranged, "_FIRST", 50_000)
    monkeypatch.setattr(ranged, "_MOST", 400_000)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tls_server.certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def server(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tls_server.Server]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with tls_server.serve(certificate) as found:
        yield found


Plan = Callable[..., MaterializePlan]


@pytest.fixture
def plan(server: tls_server.Server, tmp_path: Path) -> Plan:
    def make(path: str, **source: Any) -> MaterializePlan:
        source = {"uri": f"https://localhost:{server.port}{path}", **source}
        fields = {"name": "rows", "source": source, "store": str(tmp_path / "store")}
        limits = {"allowPrivateAddresses": True}
        return MaterializePlan.model_validate({**fields, "limits": limits, "splits": {"validation": "0%"}})

    return make


def _fetched(plan: MaterializePlan, folder: Path) -> Fetched:
    folder.mkdir(exist_ok=True)
    with TaskProgress("rows") as progress:
        return sources.fetch(plan, folder, progress)


def _left(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_is_read_by_ranges(name: str, server: tls_server.Server, plan: Plan, tmp_path: Path) -> None:
    server.answers[f"/{name}"] = (200, {"Accept-Ranges": "bytes", "ETag": '"1"'}, FILES[name])
    fetched = _fetched(plan(f"/{name}"), tmp_path / "copies")
    server.trouble += [random.Random(name).randrange(100, 40_000) for _ in range(8)]
    rows = list(read.read_rows(fetched.files, 2**30))
    assert [row.value for row in rows] == ROWS, [row.error for row in rows if row.error][:1]
    assert not _left(tmp_path / "copies")
    assert max(size for _, size in server.ranges) <= 400_000


def test_a_connection_that_breaks_goes_on_at_its_byte(server: tls_server.Server, plan: Plan, tmp_path: Path) -> None:
    server.answers["/rows.jsonl"] = (200, {"Accept-Ranges": "bytes", "ETag": '"1"'}, LINES)
    server.trouble += [17, "0", 40_000, 1, "0", "0"]
    (file,) = _fetched(plan("/rows.jsonl"), tmp_path / "copies").files
    server.ranges.clear()
    with file.open() as stream:
        assert stream.read() == LINES
    ends = [begin + size for begin, size in server.ranges]
    assert [begin for begin, _ in server.ranges] == [0, *ends[:-1]]
    assert ends[-1] == len(LINES)


def test_a_busy_server_is_asked_again_when_it_wants(
    server: tls_server.Server, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(ranged.time, "sleep", pauses.append)
    server.answers["/rows.jsonl"] = (200, {"Accept-Ranges": "bytes", "ETag": '"1"'}, LINES)
    server.trouble += ["7", "3"]
    (file,) = _fetched(plan("/rows.jsonl"), tmp_path / "copies").files
    assert file.open().read(10) == LINES[:10]
    assert [pause for pause in pauses if pause] == [7, 3]
    server.answers["/never"] = (503, {"Retry-After": "11"}, b"")
    pauses.clear()
    with pytest.raises(SourceError, match="answers 503"):
        _fetched(plan("/never"), tmp_path / "copies")
    assert pauses == [11] * 5


def test_a_file_that_changes_in_the_middle_is_one_error(server: tls_server.Server, plan: Plan, tmp_path: Path) -> None:
    answer = (200, {"Accept-Ranges": "bytes", "ETag": '"1"'}, LINES)
    server.answers["/rows.jsonl"] = answer
    asked = plan("/rows.jsonl")
    (file,) = _fetched(asked, tmp_path / "copies").files
    for other in (
        (200, {"Accept-Ranges": "bytes", "ETag": '"2"'}, LINES),
        (200, {"Accept-Ranges": "bytes", "ETag": '"1"'}, LINES + b"\n"),
        (200, {"ETag": '"2"'}, LINES),
        (200, {"Accept-Ranges": "bytes"}, LINES),
        (200, {"Accept-Ranges": "bytes", "ETag": '"1"', "Content-Encoding": "gzip"}, LINES),
    ):
        with file.open() as stream:
            stream.read(1000)
            server.answers["/rows.jsonl"] = other
            with pytest.raises(SourceError, match=r"rows\.jsonl changed while it was read") as caught:
                stream.read()
            assert caught.value.code == "SourceUnreachable"
        server.answers["/rows.jsonl"] = answer


def test_rows_of_a_file_that_changes_are_not_published(
    server: tls_server.Server, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/rows.jsonl"] = (200, {"Accept-Ranges": "bytes", "ETag": '"1"'}, LINES)
    give = https.Client.read
    reads = []

    def changing(*args: Any) -> Any:
        reads.append(args)
        if len(reads) == 4:
            server.answers["/rows.jsonl"] = (200, {"Accept-Ranges": "bytes", "ETag": '"2"'}, LINES)
        return give(*args)

    monkeypatch.setattr(https.Client, "read", changing)
    with pytest.raises(SourceError, match="changed while it was read"):
        materialize.run(plan("/rows.jsonl"))
    assert not list((tmp_path / "store" / "datasets").iterdir())
    assert materialize.run(plan("/rows.jsonl")).rows == len(ROWS)


def test_credentials_that_expire_in_the_middle_are_named(server: tls_server.Server, plan: Plan, tmp_path: Path) -> None:
    server.answers["/rows.jsonl"] = (200, {"Accept-Ranges": "bytes", "ETag": '"1"'}, LINES)
    (file,) = _fetched(plan("/rows.jsonl"), tmp_path / "copies").files
    with file.open() as stream:
        stream.read(1000)
        server.answers["/rows.jsonl"] = (403, {}, b"expired")
        with pytest.raises(SourceError, match=r"answers 403 .*credentials"):
            stream.read()


def test_more_than_was_asked_for_is_not_held(server: tls_server.Server, plan: Plan, tmp_path: Path) -> None:
    sent = []

    def endless(begin: int, end: int, seconds: float) -> Iterator[bytes]:
        for _ in range(1000):
            sent.append(begin)
            yield bytes(1000)

    assert ranged.RangedFile("rows.jsonl", 5000, endless, 60).read(3500) == bytes(3500)
    assert len(sent) <= 5
    server.answers["/rows.jsonl"] = (206, {"Content-Range": "bytes 0-0/\u00b2", "ETag": '"1"'}, LINES)
    (file,) = _fetched(plan("/rows.jsonl"), tmp_path / "copies").files
    assert file.origin is None


def test_without_ranges_or_a_mark_it_is_copied(server: tls_server.Server, plan: Plan, tmp_path: Path) -> None:
    for headers in ({"ETag": '"1"'}, {"Accept-Ranges": "bytes"}, {"Accept-Ranges": "bytes", "ETag": 'W/"1"'}):
        server.answers["/rows.jsonl"] = (200, headers, LINES)
        (file,) = _fetched(plan("/rows.jsonl"), tmp_path / "copies").files
        assert (file.origin, file.path.read_bytes() == LINES) == (None, True)


def test_a_copy_that_may_have_been_cut_is_said(
    server: tls_server.Server, plan: Plan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for headers, is_said in (({"X-No-Length": "1"}, True), ({}, False)):
        server.answers["/rows.jsonl"] = (200, headers, LINES)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            _fetched(plan("/rows.jsonl"), tmp_path / "copies")
        assert ("does not say how long" in caplog.text) == is_said


@pytest.mark.attack("redirects")
def test_each_range_is_checked_like_the_first(
    server: tls_server.Server, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = addresses._allowed
    monkeypatch.setattr(addresses, "_allowed", lambda a, *may: str(a) == "127.0.0.2" or real(a, *may))
    server.answers["/rows.jsonl"] = (200, {"Accept-Ranges": "bytes", "ETag": '"1"'}, LINES)
    url = f"https://data.test:{server.port}/rows.jsonl"
    with tls_server.also_at("127.0.0.2", server, certificate):

        def resolver(host: str, port: int) -> Resolution:
            return Resolution(["127.0.0.2" if host == "data.test" else "127.0.0.1"])

        client = https.Client(Limits(), "Bearer canary-secret", resolver)
        found = client.find(url, tmp_path / "copy")
        assert isinstance(found, https.Ranged)
        assert b"".join(client.read(url, found, 5, 100, 60)) == LINES[5:100]
        server.requests.clear()
        for place in ("other.test", "127.0.0.1", "169.254.169.254", "localhost"):
            location = f"https://{place}:{server.port}/rows.jsonl"
            server.answers["/rows.jsonl"] = (302, {"Location": location}, b"")
            with pytest.raises(SourceError) as caught:
                list(client.read(url, found, 100, 200, 60))
            assert caught.value.code == "SourceRefused"
    assert {local for _, _, local, _ in server.requests} == {"127.0.0.2"}


def test_the_name_is_that_which_the_server_gives(server: tls_server.Server, plan: Plan, tmp_path: Path) -> None:
    for shown, name in (
        ('attachment; filename="rows.csv"', "rows.csv"),
        ("attachment; filename*=UTF-8''na%C3%AFve.csv", "naïve.csv"),
        ('attachment; filename="../../etc/rows.csv"', "rows.csv"),
        ("attachment", "get"),
    ):
        for more in ({}, {"Accept-Ranges": "bytes", "ETag": '"1"'}):
            headers = {"Content-Disposition": shown, **more}
            server.answers["/get?id=7"] = (200, headers, FILES["rows.csv"])
            (file,) = _fetched(plan("/get?id=7"), tmp_path / "copies").files
            assert file.name == name


def test_a_file_of_a_promised_sha256_is_read_by_ranges_too(
    server: tls_server.Server, plan: Plan, tmp_path: Path
) -> None:
    server.answers["/rows.jsonl"] = (200, {"Accept-Ranges": "bytes", "ETag": '"1"'}, LINES)
    sha = hashlib.sha256(LINES).hexdigest()
    fetched = _fetched(plan("/rows.jsonl", sha256=sha), tmp_path / "copies")
    assert (fetched.revision, fetched.files[0].version) == (sha, sha)
    with pytest.raises(SourceError, match=sha):
        _fetched(plan("/rows.jsonl", sha256="0" * 64), tmp_path / "copies")
    assert not _left(tmp_path / "copies")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[objectstore.ObjectStore]:
    with objectstore.serve(tmp_path_factory.mktemp("s3")) as store:
        folder = store.bucket("data") / "all"
        folder.mkdir()
        for name, content in FILES.items():
            (folder / name).write_bytes(content)
        yield store


@pytest.fixture
def bucket(store: objectstore.ObjectStore, tmp_path: Path) -> MaterializePlan:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / endpoint_s3.KEY).write_text(store.access_key)
    (secret / endpoint_s3.SECRET).write_text(store.secret_key)
    source = {"uri": "s3://data/all", "s3": {"endpoint": store.endpoint}, "secretName": "keys", "files": ["*"]}
    return MaterializePlan.model_validate(
        {
            "name": "rows",
            "store": str(tmp_path / "store"),
            "source": source,
            "secretPath": str(secret),
            "limits": PRIVATE_OK.to_json(),
            "downloadsPath": str(tmp_path / "kept"),
        }
    )


def test_objects_are_read_where_they_are(bucket: MaterializePlan, tmp_path: Path) -> None:
    fetched = _fetched(bucket, tmp_path / "copies")
    assert [file.name for file in fetched.files] == sorted(FILES)
    rows = list(read.read_rows(fetched.files, 2**30))
    assert [row.value for row in rows] == ROWS * len(FILES)
    assert not _left(tmp_path / "copies")
    again = _fetched(bucket, tmp_path / "copies")
    assert [(file.version, fetched.revision) for file in again.files] == [
        (file.version, again.revision) for file in fetched.files
    ]


def test_an_object_that_is_replaced_in_the_middle_is_one_error(
    store: objectstore.ObjectStore, bucket: MaterializePlan, tmp_path: Path
) -> None:
    (store.bucket("data") / "moving").mkdir(exist_ok=True)
    client = s3.Bucket.of(bucket).client
    client.put_object(Bucket="data", Key="moving/rows.jsonl", Body=LINES)
    source = bucket.source.model_copy(update={"uri": "s3://data/moving"})
    (file,) = _fetched(bucket.model_copy(update={"source": source}), tmp_path / "copies").files
    with file.open() as stream:
        assert stream.read(1000) == LINES[:1000]
        client.put_object(Bucket="data", Key="moving/rows.jsonl", Body=LINES.replace(b"row", b"wor"))
        with pytest.raises(SourceError, match="changed while it was read") as caught:
            stream.read()
    assert caught.value.code == "SourceUnreachable"


def _digest_of(file: DataFile, sink: Any) -> None:
    with file.open() as stream:
        sink.put(stream.read() == FILES[file.name])


def test_other_processes_open_a_file_and_get_no_secret_with_it(
    store: objectstore.ObjectStore, bucket: MaterializePlan, tmp_path: Path
) -> None:
    files = _fetched(bucket, tmp_path / "copies").files
    assert files[0].open().read(1)  # there is a client now
    content = pickle.dumps(files)
    assert store.secret_key.encode() not in content
    context = multiprocessing.get_context("fork")
    sink = context.Queue()
    started = [context.Process(target=_digest_of, args=(file, sink)) for file in files[:3]]
    for process in started:
        process.start()
    assert all(sink.get(timeout=120) for _ in started)
    for process in started:
        process.join()
    assert pickle.loads(content)[0].open().read() == FILES[files[0].name]


def test_the_hub_is_read_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    folder = tmp_path / "hub" / "datasets" / "acme" / "rows" / "main"
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    with hub.serve(tmp_path / "hub") as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        fields = {"name": "rows", "source": {"uri": "hf://acme/rows"}, "store": str(tmp_path / "store")}
        fetched = _fetched(MaterializePlan.model_validate(fields), tmp_path / "copies")
        assert [row.value for row in read.read_rows(fetched.files, 2**30)] == ROWS * len(FILES)
        assert not _left(tmp_path / "copies")
        (first, *_) = fetched.files
        other = first._replace(key=first.key._replace(digest="0" * len(first.key.digest)))
        with pytest.raises(SourceError, match="is not the file that the hub lists") as caught:
            other.open().read()
        assert caught.value.code == "ChecksumMismatch"


def test_what_an_earlier_version_kept_of_a_source_goes(bucket: MaterializePlan) -> None:
    kept = Path(str(bucket.downloads_path))
    (kept / "0123").mkdir(parents=True)
    (kept / "0123" / "left").write_text("x")
    with pytest.raises(SourceError):
        materialize.run(bucket.model_copy(update={"secret_path": None}))
    assert not (kept / "0123").exists()
