"""Every field of every definition, filled with what no reader can take: it is skipped by itself, and named."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import kopf
import pytest
from kopf._cogs.clients import watching

from hone_api.generate import KINDS
from hone_api.schema.schema import crd
from hone_operator.apiserver.watchguard import WatchLines
from hone_operator.objects import decoding
from hone_operator.objects.cache import Cache, strip
from hone_operator.objects.decoding import (
    MAX_BYTES,
    MAX_DEPTH,
    UnreadableError,
    continuation,
    decode_list,
    depth,
    identity,
    is_too_deep,
)

pytestmark = pytest.mark.pure
KIND = {kind.kind: kind for kind in KINDS}


def paths(schema: dict[str, Any], path: str) -> Iterator[str]:
    yield path
    for name, child in schema.get("properties", {}).items():
        yield from paths(child, f"{path}.{name}")
    for key, sign in (("items", "[]"), ("additionalProperties", "{}")):
        if key in schema:
            yield from paths(schema[key], f"{path}{sign}")


def fields() -> list[tuple[str, str]]:
    """(kind, path) of every field of spec and status; those of a plan's copy are those of the job."""
    found = []
    for kind in KINDS:
        properties = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
        found += [(kind.kind, path) for part in ("spec", "status") for path in paths(properties[part], part)]
    return found


def hostile(kind: str, path: str, value: str) -> bytes:
    """An object as the API server writes it, with this JSON text at the path."""
    parts = path.replace("[]", ".[").replace("{}", ".{").split(".")
    text = value
    for part in reversed(parts):
        text = f"[{text}]" if part == "[" else f'{{"key":{text}}}' if part == "{" else f'{{"{part}":{text}}}'
    forged = json.dumps({"name": "other", "uid": "other", "x": '"metadata":{"uid":"other"}'})
    meta = '"name":"tutor","namespace":"team","resourceVersion":"7","uid":"u1"'
    head = f'"apiVersion":"hone.dev/v1alpha1","kind":"{kind}","metadata":{{"annotations":{forged},{meta}}}'
    return f"{{{head},{text[1:]}".encode()


SHAPES = {
    "1000 deep": "[" * 1000 + "]" * 1000,
    "9000 deep": '{"a":' * 9000 + "1" + "}" * 9000,
    "largest": "[" + ",".join(["{}"] * 500_000) + "]",
}
REASON = {"1000 deep": "TooDeep", "9000 deep": "TooDeep", "largest": "TooLarge"}
GOOD = b'{"apiVersion":"hone.dev/v1alpha1","kind":"X","metadata":{"name":"good","namespace":"a","uid":"g"},"spec":{}}'
WHO = {"name": "tutor", "namespace": "team", "resourceVersion": "7", "uid": "u1"}


def deep_fields() -> Iterator[Any]:
    """(kind, path, shape): both shapes right below spec and status. Further down `make test` has one.

    Python's parser gives up at the same level of both; the rest of 9000 is read by a loop, for 20 ms a field.
    """
    for kind, path in fields():
        is_inner = path.count(".") > 1
        yield pytest.param(kind, path, "1000 deep", id=f"{kind}-{path}-1000 deep")
        marks = [pytest.mark.long] if is_inner else []
        yield pytest.param(kind, path, "9000 deep", id=f"{kind}-{path}-9000 deep", marks=marks)


@pytest.mark.attack("objects at the API server")
@pytest.mark.parametrize(("kind", "path", "shape"), deep_fields())
def test_one_field_takes_no_other_object_with_it(kind: str, path: str, shape: str) -> None:
    raw = hostile(kind, path, SHAPES[shape])
    listed = decode_list(
        b'{"items":[' + raw + b"," + GOOD + b'],"metadata":{"continue":"x"}}', lambda b: strip(kind, b)
    )
    assert [item["metadata"]["name"] for item in listed.items] == ["good"]
    assert [(s.reason, s.metadata) for s in listed.skipped] == [(REASON[shape], WHO)]
    assert listed.rest == {"metadata": {"continue": "x"}}


@dataclass
class Reader:
    """What a watch is read for."""

    note: Callable[..., None]
    is_known: Callable[..., bool] = lambda kind, body: False
    takes: Callable[..., bool] = lambda body: False
    taken: list[tuple[str, str, bool]] = field(default_factory=list)

    def take(self, kind: str, body: Mapping[str, Any], *, is_deleted: bool) -> bool:
        self.taken.append((kind, body["metadata"].get("resourceVersion", ""), is_deleted))
        return self.takes(body)

    def filled_at(self, kind: str, namespace: str | None) -> None: ...


@pytest.mark.attack("objects at the API server")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KIND)
def test_an_event_of_a_watch_becomes_a_bookmark(kind: str, shape: str) -> None:
    noted = []
    lines = WatchLines(None, kind, Reader(lambda *told: noted.append(told)))
    line = lines.guarded(b'{"type":"MODIFIED","object":' + hostile(kind, "spec.model", SHAPES[shape]) + b"}")
    assert json.loads(line) == {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "7"}}}
    assert [(told[0], told[1].reason, told[1].metadata) for told in noted] == [(kind, REASON[shape], WHO)]


def test_an_event_about_a_known_version_of_an_object_becomes_a_bookmark() -> None:
    """The event reports our own write. A deletion is reported whatever the cache has."""
    meta = {"name": "rows", "namespace": "a", "uid": "u", "resourceVersion": "7"}
    body = {"apiVersion": "hone.dev/v1alpha1", "kind": "Dataset", "metadata": meta, "spec": {}, "status": {}}
    cache = Cache()
    assert cache.put("Dataset", body)
    lines = WatchLines(None, "Dataset", Reader(lambda *reported: pytest.fail(str(reported)), cache.has))

    def event_of(event: str, **changed: str) -> Any:
        line = {"type": event, "object": {**body, "metadata": meta | changed}}
        return json.loads(lines.guarded(json.dumps(line).encode()))

    known = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "7"}}}
    assert event_of("MODIFIED") == event_of("ADDED") == known
    assert event_of("DELETED") == {"type": "DELETED", "object": body}
    for changed in ({"resourceVersion": "8"}, {"uid": "v"}, {"name": "other"}):
        assert event_of("MODIFIED", **changed) == {"type": "MODIFIED", "object": {**body, "metadata": meta | changed}}


def test_an_event_about_an_object_without_a_namespace_is_passed_on() -> None:
    """As of a namespace that opts in: else only the comparison of each minute would see it."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "uid": "u", "resourceVersion": "7"}}
    lines = WatchLines(None, "Namespace", Reader(lambda *reported: pytest.fail(str(reported)), Cache().has))
    for event in ("ADDED", "MODIFIED", "DELETED"):
        line = {"type": event, "object": body}
        assert json.loads(lines.guarded(json.dumps(line).encode())) == {
            **line,
            "object": {**body, "spec": {}, "status": {}},
        }
    listed = decode_list(json.dumps({"items": [body]}).encode(), is_known=lambda item: Cache().has("Namespace", item))
    assert (listed.items, listed.skipped) == ([body], [])


def lines_of(body: dict[str, Any]) -> Iterator[bytes]:
    for event in ("ADDED", "MODIFIED", "DELETED"):
        yield json.dumps({"type": event, "object": body}).encode()


def test_what_is_taken_becomes_a_bookmark_with_its_version() -> None:
    reader = Reader(lambda *reported: pytest.fail(str(reported)), takes=lambda body: True)
    lines = WatchLines(None, "FineTuneJob", reader)
    read = [json.loads(lines.guarded(line)) for line in lines_of(json.loads(hostile("FineTuneJob", "spec.model", "1")))]
    assert read == [{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "7"}}}] * 3
    assert reader.taken == [("FineTuneJob", "7", False), ("FineTuneJob", "7", False), ("FineTuneJob", "7", True)]


def test_an_error_about_one_event_does_not_end_the_watch(caplog: pytest.LogCaptureFixture) -> None:
    def fails(body: Any) -> bool:
        raise AttributeError

    lines = WatchLines(None, "Dataset", Reader(lambda *reported: pytest.fail(str(reported)), takes=fails))
    read = [json.loads(lines.guarded(line))["type"] for line in lines_of(json.loads(GOOD) | {"kind": "Dataset"})]
    assert read == ["BOOKMARK"] * 3
    assert [record.getMessage() for record in caplog.records] == ["an event about a Dataset is lost"] * 3


@pytest.mark.attack("objects at the API server")
@pytest.mark.parametrize(
    "line",
    [b"null", b"[]", b"{", b"", b"\xff\xfe", b'{"type":"ADDED"}', b'{"type":"ADDED","object":{"metadata":null}}', b"7"],
)
def test_what_is_not_an_event_is_passed_over(line: bytes) -> None:
    noted: list[Any] = []
    guarded = WatchLines(None, "Dataset", Reader(lambda *told: noted.append(told))).guarded(line)
    assert json.loads(guarded)["type"] == "BOOKMARK"
    assert [told[1].reason for told in noted] == ["Malformed"]


@pytest.mark.attack("objects at the API server")
@pytest.mark.parametrize(
    "status",
    [
        {"code": 410, "reason": "Expired", "message": "too old resource version"},
        {"code": 500, "reason": "InternalError", "message": "etcdserver: no leader"},
        {"code": 504, "reason": "Timeout", "message": "too large resource version"},
        {"reason": "Unknown"},
        {},
    ],
)
async def test_an_error_in_a_watch_begins_it_again(status: dict[str, Any]) -> None:
    """kopf ends the whole operator at an error that is not 410 Gone."""
    line = json.dumps({"type": "ERROR", "object": {"kind": "Status", **status}}).encode()
    guarded = WatchLines(None, "Dataset", Reader(lambda *told: None)).guarded(line)

    async def stream(**_: Any) -> AsyncIterator[Any]:
        yield json.loads(guarded)

    async def objects(**_: Any) -> AsyncIterator[Any]:
        yield [], "7"

    never = asyncio.get_running_loop().create_future()
    where = {"settings": kopf.OperatorSettings(), "resource": None, "namespace": None}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watching, "watch_objs", stream)
        patch.setattr(watching.fetching, "fetch_objs", objects)
        seen = [e async for e in watching.continuous_watch(**where, operator_pause_waiter=never)]
    assert seen == [watching.Bookmark.LISTED], "it returns to its caller, which lists again"


@pytest.mark.attack("objects at the API server")
@pytest.mark.parametrize("item", [b"null", b"7", b'"x"', b"[]", b"{}", b'{"metadata":7}', b'{"metadata":{"labels":7}}'])
def test_what_is_not_an_object_is_skipped(item: bytes) -> None:
    listed = decode_list(b'{"items":[' + item + b"," + GOOD + b"]}", lambda b: strip("Dataset", b))
    assert [i["metadata"]["name"] for i in listed.items] == ["good"]
    assert [s.reason for s in listed.skipped] == ["Malformed"]


@pytest.mark.attack("objects at the API server")
@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"nul", b'{"items":[{]}', b'{"items":[{"a":1}', b"\xff", b"[" * 2000]
)
def test_a_broken_list_is_one_error(text: bytes) -> None:
    with pytest.raises(UnreadableError):
        decode_list(text)


@pytest.mark.attack("objects at the API server")
@pytest.mark.parametrize(
    "metadata",
    [
        {"managedFields": [{"name": "other", "uid": "other"}], **WHO},
        {"annotations": {"uid": "other", "resourceVersion": "0", "name": '{"uid":"other"}'}, **WHO},
        {"ownerReferences": [{"uid": "other", "name": "other"}], **WHO},
        {"labels": {"namespace": "other", "x": '\\","uid":"other'}, **WHO},
    ],
)
def test_nobody_forges_the_name_of_an_object_that_is_not_parsed(metadata: dict[str, Any]) -> None:
    body = {"apiVersion": "v1", "metadata": metadata, "spec": {"metadata": {"uid": "other"}, "uid": "other"}}
    assert identity(json.dumps(body).encode()) == WHO
    assert identity(json.dumps({"type": "ADDED", "object": body}).encode()) == WHO


def test_a_text_that_was_cut_within_a_string_forges_nothing() -> None:
    body = json.dumps({"metadata": {"annotations": {"a": "x" * 99 + '},"uid":"other"'}, **WHO}})
    for length in range(len(body)):
        found = identity(body[:length].encode())
        assert found.items() <= WHO.items()


def test_spaces_and_empty_lists_are_read() -> None:
    assert decode_list(b' { "items" : [ ] , "metadata" : { } } ').items == []
    assert decode_list(b'{"items":null}').rest == {"items": None}
    assert decode_list(b'{"items":[ {"a":[1,"]}"]} , 2 ],"kind":"L"}').items == [{"a": [1, "]}"]}, 2]


def test_an_object_of_the_largest_size_is_read_and_one_byte_more_is_not() -> None:
    fill = MAX_BYTES - len(GOOD) - 7
    body = GOOD[:-1] + b',"a":"' + b"x" * fill + b'"}'
    assert len(body) == MAX_BYTES
    assert decoding.decode(body)["metadata"]["name"] == "good"
    with pytest.raises(UnreadableError, match="more than"):
        decoding.decode(body + b" ")


@pytest.mark.attack("objects at the API server")
@pytest.mark.parametrize("kind", KIND)
def test_what_this_version_does_not_know_takes_no_memory(kind: str) -> None:
    """A definition that keeps unknown fields: 200,000 empty objects a body are parsed, and not kept."""
    raw = hostile(kind, "spec.podOverrides", "[" + ",".join(["{}"] * 200_000) + "]")
    cache = Cache()
    tracemalloc.start()
    for number in range(2):  # tracing makes each of the objects slow to parse
        body = strip(kind, decoding.decode(raw))
        body["metadata"] |= {"name": f"n{number}", "uid": f"u{number}", "namespace": "team"}
        cache.put(kind, body)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(cache.items(kind)) == 2
    assert kept < 200_000
    assert cache.get(kind, "team", "n1")["metadata"]["unknownFields"] == ["spec.podOverrides"]


@pytest.mark.parametrize("levels", [1, 2, MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 300])
@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}"), ('[1,{"b":2,"a":', "}]")])
def test_the_depth_of_a_value_is_that_of_its_text(levels: int, begin: str, end: str) -> None:
    times = levels // (begin.count("[") + begin.count("{"))
    text = begin * times + '"]]}{["' + end * times
    assert is_too_deep(json.loads(text)) == (depth(text.encode()) > MAX_DEPTH)


FORGED = json.dumps('],"kind":"x","metadata":{"continue":"forged"}}')
ITEM = (
    f'{{"metadata":{{"name":"a","annotations":{{"continue":{FORGED}}}}},"spec":{{"metadata":{{"continue":"forged"}}}}}}'
)


@pytest.mark.attack("objects at the API server")
@pytest.mark.parametrize("token", ["", "eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ"])
@pytest.mark.parametrize("items", ["", ITEM, f"{ITEM},{ITEM}"])
@pytest.mark.parametrize(
    "form",
    [
        '{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7","continue":"%s"},"items":[%s]}\n',
        '{"metadata":{"continue":"%s","remainingItemCount":7},"items":[%s]}',
        '{"apiVersion":"hone.dev/v1alpha1","items":[%s],"kind":"XList","metadata":{"continue":"%s","a":"7"}}\n',
        '{"items":[%s],"metadata":{"continue":"%s"}}',
        '{ "items": [%s], "metadata": {"continue": "%s", "nested": {"continue": "forged"}}}',
    ],
)
def test_the_next_page_is_known_before_the_items_are_parsed(form: str, items: str, token: str) -> None:
    raw = form % ((token, items) if form.index("continue") < form.index("items") else (items, token))
    assert continuation(raw.encode()) == token


def test_a_list_without_an_end_has_no_next_page() -> None:
    with pytest.raises(UnreadableError, match="the list is not JSON"):
        continuation(b'{"items":[')


def test_what_is_known_is_left_out_of_a_list_and_nothing_else_is() -> None:
    def item(name: str, version: str, uid: str = "u") -> dict[str, Any]:
        meta = {"name": name, "namespace": "a", "uid": uid, "resourceVersion": version}
        return {"apiVersion": "hone.dev/v1alpha1", "kind": "Dataset", "metadata": meta, "spec": {}}

    cache = Cache()
    for known in (item("same", "7"), item("older", "7"), item("replaced", "7")):
        assert cache.put("Dataset", known)
    items = [item("same", "7"), item("older", "8"), item("replaced", "7", "v"), item("new", "7"), {"metadata": 7}]
    raw = json.dumps({"items": items, "metadata": {}}).encode()
    listed = decode_list(raw, lambda body: strip("Dataset", body), lambda body: cache.has("Dataset", body))
    assert [body["metadata"]["name"] for body in listed.items] == ["older", "replaced", "new"]
    assert [skipped.reason for skipped in listed.skipped] == ["Malformed"]
