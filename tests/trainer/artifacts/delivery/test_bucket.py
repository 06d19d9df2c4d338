"""s3:// targets against a real S3 server."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

from hone_api.contract.manifest import Entry
from hone_api.dataset.source import S3
from hone_api.plan import DeliverPlan
from hone_dev.cluster import objectstore
from hone_trainer.artifacts.delivery import bucket, deliver
from hone_trainer.artifacts.delivery.original import Original
from hone_trainer.endpoints import s3
from hone_trainer.endpoints.addresses import AllowedNetwork
from hone_trainer.endpoints.http import resolve
from hone_trainer.errors import TrainerError

from .conftest import Model, Stopped, Stopping, read, secret

pytestmark = pytest.mark.trainer
SIZE = 500_017


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[objectstore.ObjectStore]:
    with objectstore.serve(tmp_path_factory.mktemp("s3")) as store:
        yield store


class Place:
    """A bucket of its own for a test."""

    def __init__(self, store: objectstore.ObjectStore, tmp_path: Path) -> None:
        self.store = store
        self.name = f"models-{abs(hash(str(tmp_path)))}"
        self.folder = store.bucket(self.name)
        self.keys = secret(tmp_path / "keys", **{s3.KEY: store.access_key, s3.SECRET: store.secret_key})
        self.client = s3.client(
            self.target["s3"], s3.credentials(self.keys), s3.Carrier(AllowedNetwork(allow_private=True))
        )

    @property
    def target(self) -> dict[str, Any]:
        return {"s3": S3(endpoint=self.store.endpoint), "secretName": "keys"}

    def plan(self, model: Model, path: str = "team", **fields: Any) -> DeliverPlan:
        target = {**self.target, **fields.pop("target", {})}
        return model.plan(f"s3://{self.name}/{path}", target=target, secretPath=self.keys, **fields)


@pytest.fixture
def place(store: objectstore.ObjectStore, tmp_path: Path) -> Place:
    return Place(store, tmp_path)


def code(plan: DeliverPlan) -> str:
    with pytest.raises(TrainerError) as caught:
        deliver.run(plan)
    return str(caught.value.code)


def stopped(plan: DeliverPlan, model: Model, after: int) -> None:
    with pytest.raises(Stopped):
        bucket.deliver(plan, Original.of(model.folder, model.digest), Stopping(after), math.inf, resolve)


def test_every_byte_is_below_the_name_of_the_version(place: Place, model: Model) -> None:
    result = deliver.run(place.plan(model))
    assert result.location == f"s3://{place.name}/team/tutor-v3"
    assert (result.digest, result.size_bytes, result.uploaded_bytes) == (model.digest, SIZE, SIZE)
    assert read(place.folder / "team" / "tutor-v3") == model.files()
    assert deliver.run(place.plan(model)).uploaded_bytes == 0, "it is there"


def test_the_bucket_itself_is_a_target(place: Place, model: Model) -> None:
    assert deliver.run(place.plan(model, path="")).location == f"s3://{place.name}/tutor-v3"


def test_a_killed_upload_has_no_manifest_and_goes_on(place: Place, model: Model) -> None:
    stopped(place.plan(model), model, 300_000)
    assert not (place.folder / "team" / "tutor-v3" / "manifest.json").exists()
    assert 0 < deliver.run(place.plan(model)).uploaded_bytes < SIZE
    assert read(place.folder / "team" / "tutor-v3") == model.files()


def test_parts_of_a_killed_upload_are_used(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = 5 * 2**20
    monkeypatch.setattr(bucket, "PART", part)
    model = Model(tmp_path / "large", weights=3 * part + 1000)
    stopped(place.plan(model), model, 2 * part + 100)
    result = deliver.run(place.plan(model))
    assert result.uploaded_bytes <= result.size_bytes - 2 * part
    assert read(place.folder / "team" / "tutor-v3") == model.files()
    assert deliver.run(place.plan(model)).uploaded_bytes == 0, "the hash of its parts is known"


def test_an_object_of_the_same_size_and_other_content_is_replaced(place: Place, model: Model) -> None:
    deliver.run(place.plan(model))
    place.client.put_object(Bucket=place.name, Key="team/tutor-v3/tokenizer.json", Body=bytes(200_000))
    assert deliver.run(place.plan(model)).uploaded_bytes == 200_000
    assert read(place.folder / "team" / "tutor-v3") == model.files()


def test_what_others_have_there_is_left_alone(place: Place, model: Model, tmp_path: Path) -> None:
    other = Model(tmp_path / "other", seed=2)
    deliver.run(place.plan(other))
    assert code(place.plan(model)) == "DestinationOccupied"
    place.client.put_object(Bucket=place.name, Key="notes/tutor-v3/mine.txt", Body=b"mine")
    assert code(place.plan(model, path="notes")) == "DestinationOccupied"
    assert read(place.folder / "notes") == {"tutor-v3/mine.txt": b"mine"}
    assert read(place.folder / "team" / "tutor-v3") == other.files()


@pytest.mark.parametrize(
    "content", [b"somebody else's tokenizer", bytes(200_000)], ids=["another size", "the same size"]
)
def test_an_object_of_others_under_the_name_of_a_file_is_left_alone(place: Place, model: Model, content: bytes) -> None:
    key = "team/tutor-v3/tokenizer.json"
    place.client.put_object(Bucket=place.name, Key=key, Body=content)
    assert code(place.plan(model)) == "DestinationOccupied"
    assert read(place.folder / "team") == {"tutor-v3/tokenizer.json": content}, "nothing was sent either"


def test_a_model_that_was_signed_again_replaces_the_signature_of_a_killed_upload(place: Place, model: Model) -> None:
    original = Original.of(model.folder, model.digest)
    added = model.folder / "model.sig"
    added.write_text("a signature that no longer counts")
    plan = place.plan(model)

    def signed() -> Original:
        text = added.read_bytes()
        entry = Entry(path=added.name, size=len(text), sha256=sha256(text).hexdigest())
        return replace(original, files=(*original.files, entry))

    with pytest.raises(Stopped):
        bucket.deliver(plan, signed(), Stopping(SIZE + added.stat().st_size), math.inf, resolve)
    there = place.folder / "team" / "tutor-v3"
    assert (there / "model.sig").exists()
    added.write_text("a newer one")
    bucket.deliver(plan, signed(), lambda count: None, math.inf, resolve)
    assert read(there) == model.files()


def test_a_signature_of_others_is_left_alone(place: Place, model: Model) -> None:
    original = Original.of(model.folder, model.digest)
    entry = Entry(path="model.sig", size=4, sha256=sha256(b"ours").hexdigest())
    (model.folder / "model.sig").write_bytes(b"ours")
    place.client.put_object(Bucket=place.name, Key="team/tutor-v3/model.sig", Body=b"theirs")
    signed = replace(original, files=(*original.files, entry))
    with pytest.raises(TrainerError, match=r"e\.g\. model\.sig"):
        bucket.deliver(place.plan(model), signed, lambda count: None, math.inf, resolve)
    assert read(place.folder / "team") == {"tutor-v3/model.sig": b"theirs"}


def test_each_cause_has_its_code(place: Place, model: Model, tmp_path: Path) -> None:
    wrong = secret(tmp_path / "wrong", **{s3.KEY: place.store.access_key, s3.SECRET: "not-the-secret-key"})
    gone = {"s3": {"endpoint": f"http://127.0.0.1:{objectstore.free_port('127.0.0.1')}"}}
    assert code(model.plan(f"s3://{place.name}/x", target=place.target, secretPath=wrong)) == "DestinationDenied"
    assert code(model.plan("s3://absent-bucket/x", target=place.target, secretPath=place.keys)) == "DestinationRefused"
    assert code(place.plan(model, target=gone)) == "DestinationUnreachable"
    assert code(place.plan(model, limits={})) == "DestinationRefused", "a private address"
    assert code(model.plan("s3://b-b/x", target=place.target, secretPath=str(tmp_path / "no"))) == "SecretNotFound"


PART = 5 * 2**20


def hooked(monkeypatch: pytest.MonkeyPatch, **handlers: Any) -> None:
    """Every client of a delivery has these handlers of botocore's events."""
    make = s3.client

    def client(*arguments: Any) -> Any:
        made = make(*arguments)
        for event, handler in handlers.items():
            made.meta.events.register_first(f"{event.replace('_', '-')}.s3", handler)
        return made

    monkeypatch.setattr(s3, "client", client)


@pytest.mark.parametrize("knows", [True, False], ids=["a server of today", "a server without checksums"])
def test_the_servers_own_hashes_are_compared_and_what_has_none_is_read_back(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knows: bool
) -> None:
    read_back: list[str] = []

    def strip(model: Any, params: dict[str, Any], **_: Any) -> None:
        if model.name == "GetObject" and not params["url_path"].endswith("manifest.json"):
            read_back.append(params["url_path"])
        if not knows:
            for name in [n for n in params["headers"] if n.lower().startswith("x-amz-checksum")]:
                del params["headers"][name]

    def forget(parsed: dict[str, Any], **_: Any) -> None:
        for answer in () if knows else (parsed, *parsed.get("Uploads", ()), *parsed.get("Parts", ())):
            for name in ("ChecksumSHA256", "ChecksumAlgorithm", "ChecksumType"):
                answer.pop(name, None)

    hooked(monkeypatch, before_call=strip, after_call=forget)
    monkeypatch.setattr(bucket, "PART", PART)
    model = Model(tmp_path / "large", weights=2 * PART + 1000)
    stopped(place.plan(model), model, PART + 100)
    assert 0 < deliver.run(place.plan(model)).uploaded_bytes < 3 * PART
    assert read(place.folder / "team" / "tutor-v3") == model.files()
    assert deliver.run(place.plan(model)).uploaded_bytes == 0
    assert (read_back == []) is knows
    uploads = place.client.list_multipart_uploads(Bucket=place.name).get("Uploads", ())
    assert list(uploads) == [], "none is left behind"


def test_a_server_that_takes_no_sha256_is_refused(place: Place, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: Any, **_: Any) -> Any:
        return refusal("NotImplemented", 501) if model.name == "PutObject" else None

    hooked(monkeypatch, before_call=refuse)
    assert code(place.plan(model)) == "DestinationRefused"


@pytest.mark.faults("D4")
@pytest.mark.parametrize("weights", [300_000, 2 * PART], ids=["an object", "a part"])
def test_bytes_that_changed_on_the_way_are_refused_by_the_server(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: int
) -> None:
    def damage(request: Any, **_: Any) -> None:
        content = request.body.read() if hasattr(request.body, "read") else request.body
        if request.method == "PUT" and len(content or b"") > 250_000:
            content = content[:-1] + bytes([content[-1] ^ 1])
        request.body = content

    hooked(monkeypatch, before_send=damage)
    monkeypatch.setattr(bucket, "PART", PART)
    model = Model(tmp_path / "large", weights=weights)
    assert code(place.plan(model)) == "DeliveryDamaged"
    there = place.folder / "team" / "tutor-v3"
    assert not (there / "adapter_model.safetensors").exists()
    assert not (there / "manifest.json").exists()


def meanwhile(monkeypatch: pytest.MonkeyPatch, event: str, happens: Callable[[], object]) -> None:
    """This happens once, directly before the first such request of the next delivery."""
    begun: list[str] = []

    def before(model: Any, **_: Any) -> None:
        if model.name == event and not begun:
            begun.append(event)
            happens()

    hooked(monkeypatch, before_call=before)


def refusal(answer: str, status: int) -> tuple[AWSResponse, dict[str, Any]]:
    """A server's, for a handler of `before-call`."""
    error = {"Code": answer, "Message": "A header you provided implies functionality that is not implemented"}
    return AWSResponse("", status, {}, None), {"Error": error, "ResponseMetadata": {"HTTPStatusCode": status}}


def refuse_conditions(monkeypatch: pytest.MonkeyPatch, answer: str = "NotImplemented", status: int = 501) -> list[str]:
    """As servers do that know none; the requests that had one."""
    refused: list[str] = []

    def refuse(model: Any, params: dict[str, Any], **_: Any) -> Any:
        if "If-None-Match" not in params["headers"]:
            return None
        refused.append(model.name)
        return refusal(answer, status)

    hooked(monkeypatch, before_call=refuse)
    return refused


def test_of_two_deliveries_to_one_place_one_wins_and_is_whole(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (Model(tmp_path / str(seed), seed=seed) for seed in (1, 2))
    meanwhile(monkeypatch, "PutObject", lambda: deliver.run(place.plan(second)))
    assert code(place.plan(first)) == "DestinationOccupied"
    assert read(place.folder / "team" / "tutor-v3") == second.files()


def test_a_large_object_that_appears_meanwhile_is_left_alone(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "PART", PART)
    model = Model(tmp_path / "large", weights=2 * PART)
    theirs = {"Bucket": place.name, "Key": "team/tutor-v3/adapter_model.safetensors", "Body": bytes(2 * PART)}
    meanwhile(monkeypatch, "CompleteMultipartUpload", lambda: place.client.put_object(**theirs))
    assert code(place.plan(model)) == "DestinationOccupied"
    assert read(place.folder / "team" / "tutor-v3")["adapter_model.safetensors"] == bytes(2 * PART)
    assert not place.client.list_multipart_uploads(Bucket=place.name).get("Uploads"), "nothing of ours stays"


@pytest.mark.parametrize("path", ["adapter_model.safetensors", "manifest.json"])
def test_an_object_that_appears_meanwhile_is_left_alone(
    place: Place, model: Model, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    theirs = {"Bucket": place.name, "Key": f"team/tutor-v3/{path}", "Body": b"{}"}
    meanwhile(monkeypatch, "PutObject", lambda: place.client.put_object(**theirs))
    assert code(place.plan(model)) == "DestinationOccupied"
    there = read(place.folder / "team" / "tutor-v3")
    assert there[path] == b"{}"
    assert path == "manifest.json" or "manifest.json" not in there


@pytest.mark.parametrize("weights", [300_000, 2 * PART], ids=["objects", "parts"])
def test_two_attempts_at_one_delivery_both_end_well(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: int
) -> None:
    monkeypatch.setattr(bucket, "PART", PART)
    model = Model(tmp_path / "large", weights=weights)
    event = "PutObject" if weights < PART else "CreateMultipartUpload"
    meanwhile(monkeypatch, event, lambda: deliver.run(place.plan(model)))
    assert deliver.run(place.plan(model)).digest == model.digest
    assert read(place.folder / "team" / "tutor-v3") == model.files()


def test_an_upload_that_another_attempt_completed_is_complete(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "PART", PART)
    model = Model(tmp_path / "large", weights=2 * PART)
    meanwhile(monkeypatch, "CompleteMultipartUpload", lambda: deliver.run(place.plan(model)))
    assert deliver.run(place.plan(model)).digest == model.digest
    assert read(place.folder / "team" / "tutor-v3") == model.files()


@pytest.mark.parametrize(("answer", "status"), [("NoSuchUpload", 404), ("ConditionalRequestConflict", 409)])
def test_what_another_attempt_writes_at_the_same_time_is_tried_again(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, status: int
) -> None:
    def refuse(model: Any, **_: Any) -> Any:
        return refusal(answer, status) if model.name == "CompleteMultipartUpload" else None

    monkeypatch.setattr(bucket, "PART", PART)
    model = Model(tmp_path / "large", weights=2 * PART)
    with monkeypatch.context() as once:
        hooked(once, before_call=refuse)
        assert code(place.plan(model)) == "DestinationUnreachable"
    assert deliver.run(place.plan(model)).uploaded_bytes < 2 * PART
    assert read(place.folder / "team" / "tutor-v3") == model.files()


@pytest.mark.parametrize(("answer", "status"), [("NotImplemented", 501), ("501", 501), ("InvalidArgument", 400)])
def test_a_server_that_knows_no_condition_is_asked_without_it(
    place: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    answer: str,
    status: int,
) -> None:
    refused = refuse_conditions(monkeypatch, answer, status)
    monkeypatch.setattr(bucket, "PART", PART)
    model = Model(tmp_path / "large", weights=2 * PART)
    deliver.run(place.plan(model))
    assert read(place.folder / "team" / "tutor-v3") == model.files()
    assert len(refused) == 1, "it is asked once"
    assert [r.message for r in caplog.records if "If-None-Match" in r.message] == [
        f"s3://{place.name}: the server knows no If-None-Match ({answer}): "
        "a delivery to this place at the same time is not noticed"
    ]
