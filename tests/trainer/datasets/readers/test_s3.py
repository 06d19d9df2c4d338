"""s3:// sources against a real S3 server: keys, prefixes, globs, credentials, and what cannot be had."""

from __future__ import annotations

import gzip
import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hone_api.plan import Limits, MaterializePlan
from hone_dev.cluster import objectstore
from hone_trainer.datasets import materialize
from hone_trainer.datasets.readers import s3
from hone_trainer.endpoints import s3 as endpoint_s3
from hone_trainer.endpoints.addresses import Resolution
from hone_trainer.errors import SourceError
from hone_trainer.secrets import scrub

pytestmark = pytest.mark.trainer
LOCAL = Limits(allow_private_addresses=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[objectstore.ObjectStore]:
    """A server with the bucket `data`."""
    with objectstore.serve(tmp_path_factory.mktemp("s3")) as store:
        bucket = store.bucket("data")
        (bucket / "chat").mkdir()
        (bucket / "chat" / "b.jsonl").write_text(rows("b", 30))
        (bucket / "chat" / "a.jsonl.gz").write_bytes(gzip.compress(rows("a", 20).encode()))
        (bucket / "chat" / "notes.txt").write_text("not among the globs\n")
        (bucket / "chat-other.jsonl").write_text(rows("other", 5))
        (bucket / "chat" / "naïve name +%2F&.jsonl").write_text(rows("odd", 10))
        yield store


def rows(name: str, count: int) -> str:
    return "".join(json.dumps({"text": f"{name} {i}"}) + "\n" for i in range(count))


@pytest.fixture
def make(store: objectstore.ObjectStore, tmp_path: Path) -> Any:
    """Makes a plan; keyword arguments are fields of the source."""

    def make(uri: str, secret: str | None = None, limits: Limits = LOCAL, **source: Any) -> MaterializePlan:
        folder = tmp_path / "secret"
        folder.mkdir(exist_ok=True)
        (folder / endpoint_s3.KEY).write_text(store.access_key)
        (folder / endpoint_s3.SECRET).write_text(secret or store.secret_key)
        place = {"endpoint": store.endpoint, **source.pop("s3", {})}
        return MaterializePlan.model_validate(
            {
                "name": "rows",
                "source": {"uri": uri, "s3": place, "secretName": "keys", **source},
                "secretPath": str(folder),
                "store": str(tmp_path / "store"),
                "limits": limits.to_json(),
            }
        )

    return make


def texts(plan: MaterializePlan) -> set[str]:
    result = materialize.run(plan)
    folder = Path(plan.store) / str(result.path)
    return {json.loads(line)["text"] for file in folder.glob("[tv]*.jsonl") for line in file.read_text().splitlines()}


def refusal(plan: MaterializePlan) -> SourceError:
    with pytest.raises(SourceError) as caught:
        materialize.run(plan)
    assert not any((Path(plan.store) / "datasets").iterdir())
    return caught.value


def expected(**counts: int) -> set[str]:
    return {f"{name} {i}" for name, count in counts.items() for i in range(count)}


@pytest.mark.parametrize(
    ("uri", "files", "found"),
    [
        ("s3://data/chat", ["*.jsonl*"], {"a": 20, "b": 30, "odd": 10}),
        ("s3://data/chat/", ["*.jsonl*"], {"a": 20, "b": 30, "odd": 10}),
        ("s3://data/chat", ["b.jsonl", "a.jsonl.gz"], {"a": 20, "b": 30}),
        ("s3://data", ["chat*.jsonl"], {"b": 30, "odd": 10, "other": 5}),
        ("s3://data/chat/b.jsonl", None, {"b": 30}),
        ("s3://data/chat", ["naïve*"], {"odd": 10}),
    ],
)
def test_keys_prefixes_and_globs(make: Any, uri: str, files: list[str] | None, found: dict[str, int]) -> None:
    assert texts(make(uri, files=files)) == expected(**found)


CARD = """---
configs:
- config_name: default
  data_files:
  - {split: train, path: a.jsonl}
  - {split: test, path: b.jsonl}
---
"""


def test_a_card_and_a_list_of_files_count_in_a_bucket(store: objectstore.ObjectStore, make: Any) -> None:
    (card := store.bucket("data") / "card").mkdir()
    (card / "README.md").write_text(CARD)
    (saved := store.bucket("data") / "saved").mkdir()
    (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": "a.jsonl"}]}))
    for folder in (card, saved):
        (folder / "a.jsonl").write_text(rows("a", 20))
        (folder / "b.jsonl").write_text(rows("b", 5))
    assert texts(make("s3://data/card")) == texts(make("s3://data/saved/")) == expected(a=20)
    reasons = [
        [one.reason for one in materialize.run(make(f"s3://data/{name}")).not_read] for name in ("card", "saved")
    ]
    assert reasons == [["Description", "OtherSplit"], ["Description", "NotListed"]]


def test_an_object_that_is_named_itself_is_read_whatever_it_is_called(
    store: objectstore.ObjectStore, make: Any
) -> None:
    (store.bucket("data") / "plain").write_text(rows("p", 20))
    assert texts(make("s3://data/plain")) == expected(p=20)


def test_the_order_of_files_is_that_of_their_names(make: Any) -> None:
    plan = make("s3://data/chat", files=["b.jsonl", "a.jsonl.gz"])
    result = materialize.run(plan)
    train = (Path(plan.store) / str(result.path) / "train.jsonl").read_text().splitlines()
    names = [json.loads(line)["text"][0] for line in train]
    assert names == sorted(names)


def test_one_object_is_pinned_by_its_sha256(make: Any) -> None:
    assert refusal(make("s3://data/chat/b.jsonl", sha256="0" * 64)).code == "ChecksumMismatch"
    sha = hashlib.sha256(rows("b", 30).encode()).hexdigest()
    assert materialize.run(make("s3://data/chat/b.jsonl", sha256=sha)).revision == sha


@pytest.mark.parametrize(
    ("uri", "code", "words"),
    [
        ("s3://data/none", "SourceNotFound", "no such object or folder"),
        ("s3://data/cha", "SourceNotFound", "no such object or folder"),
        ("s3://absent-bucket/x", "SourceNotFound", "NoSuchBucket"),
    ],
)
def test_what_does_not_exist_is_reported(make: Any, uri: str, code: str, words: str) -> None:
    error = refusal(make(uri))
    assert (error.code, words in error.message) == (code, True), error.message


def test_a_glob_without_a_match_is_reported(make: Any) -> None:
    error = refusal(make("s3://data/chat", files=["*.parquet"]))
    assert (error.code, "no file matches *.parquet" in error.message) == ("SourceNotFound", True)


def test_wrong_keys_are_reported_and_not_shown(make: Any) -> None:
    error = refusal(make("s3://data/chat", secret="wrong-secret-key-of-ours"))
    assert (error.code, "the credentials do not open it" in error.message) == ("SourceNotFound", True)
    assert "wrong-secret-key-of-ours" not in error.message
    assert "wrong-secret-key-of-ours" not in scrub("a log line with wrong-secret-key-of-ours")


def test_no_secret_is_anonymous(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9")  # never asked
    plan = make("s3://data/chat")
    error = refusal(plan.model_copy(update={"secret_path": None}))
    assert (error.code, "AccessDenied" in error.message) == ("SourceNotFound", True)


def test_a_secret_without_a_key_is_reported(make: Any) -> None:
    plan = make("s3://data/chat")
    (Path(plan.secret_path) / endpoint_s3.SECRET).unlink()
    error = refusal(plan)
    assert (error.code, endpoint_s3.SECRET in error.message) == ("SecretKeyNotFound", True)


def test_more_than_the_limit_is_not_begun(make: Any) -> None:
    error = refusal(
        make("s3://data/chat", files=["*.jsonl"], limits=Limits(allow_private_addresses=True, max_source_bytes=99))
    )
    assert error.code == "SourceTooLarge"


def test_an_object_that_changes_meanwhile_is_reported(
    make: Any, store: objectstore.ObjectStore, tmp_path: Path
) -> None:
    moving = store.bucket("data") / "moving.jsonl"
    moving.write_text(rows("first", 3))
    bucket = s3.Bucket.of(make("s3://data/moving.jsonl"))
    listed = bucket.list("moving.jsonl")["moving.jsonl"]
    bucket.client.put_object(Bucket="data", Key="moving.jsonl", Body=rows("second", 3).encode())
    with pytest.raises(SourceError, match="changed while it was read") as caught:
        bucket.download(listed, tmp_path / "target", float("inf"), lambda _: None)
    assert caught.value.code == "SourceUnreachable"


@pytest.mark.parametrize(
    ("host", "limits", "code"),
    [
        ("127.0.0.1", Limits(), "SourceRefused"),
        ("169.254.169.254", LOCAL, "SourceRefused"),
        ("[::ffff:169.254.169.254]", LOCAL, "SourceRefused"),
        ("2852039166", LOCAL, "SourceRefused"),
        ("2130706433", Limits(), "SourceRefused"),
    ],
)
def test_an_endpoint_is_checked_as_every_address(make: Any, host: str, limits: Limits, code: str) -> None:
    """Nothing listens to what it must not reach: a packet would give another code."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        port = listener.getsockname()[1]
        for scheme in ("http", "https"):
            error = refusal(make("s3://data/x", limits=limits, s3={"endpoint": f"{scheme}://{host}:{port}"}))
            assert error.code == code, error.message
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_service_of_the_cluster_may_be_private(make: Any, store: objectstore.ObjectStore) -> None:
    port = store.endpoint.rpartition(":")[2]
    plan = make("s3://data/chat", s3={"endpoint": f"http://minio.storage.svc:{port}"})
    bucket = s3.Bucket.of(plan, resolver=lambda *_: Resolution(["127.0.0.1"]))
    assert {"a.jsonl.gz", "b.jsonl"} <= set(bucket.list("chat"))


def test_other_hosts_are_never_spoken_to(make: Any) -> None:
    plan = make("s3://data/chat", limits=Limits(), s3={"endpoint": "http://storage.example.org"})
    bucket = s3.Bucket.of(plan, resolver=lambda *_: Resolution(["127.0.0.1"]))
    with pytest.raises(SourceError, match="only https:// is fetched"):
        bucket.list("chat")
