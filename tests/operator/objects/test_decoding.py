"""Every field of every definition, filled with what no reader can take: it is skipped by itself, and named."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from hone_api.generate import KINDS
from hone_api.schema.schema import crd
from hone_operator.apiserver.cluster import Cluster
from hone_operator.apiserver.reflector import ExpiredError, Reflector
from hone_operator.objects import decoding
from hone_operator.objects.cache import Cache, strip
from hone_operator.objects.decoding import (
    MAX_BYTES,
    MAX_DEPTH,
    Skipped,
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
class Watched:
    """A watch without an API server, and what it took."""

    kind: str
    is_known: Callable[[str, Mapping[str, Any]], bool] = lambda kind, body: False
    fails: bool = False
    noted: list[tuple[str, Skipped]] = field(default_factory=list)
    taken: list[tuple[str, Mapping[str, Any], bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        no_cluster, compare = cast("Cluster", None), cast("Any", None)
        self.reflector = Reflector(
            no_cluster,
            self.kind,
            None,
            "",
            self._take,
            self.is_known,
            compare,
            lambda *told: self.noted.append(told),
            "1",
        )

    def _take(self, kind: str, body: Mapping[str, Any], is_deleted: bool) -> None:
        if self.fails:
            raise AttributeError
        self.taken.append((kind, body, is_deleted))

    def receive(self, event: str, body: Mapping[str, Any]) -> None:
        self.reflector.receive(json.dumps({"type": event, "object": body}).encode())


@pytest.mark.attack("objects at the API server")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KIND)
def test_an_event_that_no_reader_can_take_is_noted_and_passed_over(kind: str, shape: str) -> None:
    watched = Watched(kind)
    watched.reflector.receive(b'{"type":"MODIFIED","object":' + hostile(kind, "spec.model", SHAPES[shape]) + b"}")
    assert [(told[0], told[1].reason, told[1].metadata) for told in watched.noted] == [(kind, REASON[shape], WHO)]
    assert watched.taken == []
    assert watched.reflector.version == "7", "the next watch begins after it"


def test_an_event_about_a_known_version_of_an_object_is_not_taken() -> None:
    """The event reports our own write. A deletion is reported whatever the cache has."""
    meta = {"name": "rows", "namespace": "a", "uid": "u", "resourceVersion": "7"}
    body = {"apiVersion": "hone.dev/v1alpha1", "kind": "Dataset", "metadata": meta, "spec": {}, "status": {}}
    cache = Cache()
    assert cache.put("Dataset", body)
    watched = Watched("Dataset", cache.has)
    watched.receive("MODIFIED", body)
    watched.receive("ADDED", body)
    assert (watched.taken, watched.reflector.version) == ([], "7")
    watched.receive("DELETED", body)
    others: list[dict[str, str]] = [{"resourceVersion": "8"}, {"uid": "v"}, {"name": "other"}]
    for changed in others:
        watched.receive("MODIFIED", {**body, "metadata": meta | changed})
    assert [(taken["metadata"], is_deleted) for _, taken, is_deleted in watched.taken] == [
        (meta, True),
        *((meta | changed, False) for changed in others),
    ]


def test_an_event_about_an_object_without_a_namespace_is_taken() -> None:
    """As of a namespace that opts in: else only the comparison of each minute would see it."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "uid": "u", "resourceVersion": "7"}}
    watched = Watched("Namespace", Cache().has)
    for event in ("ADDED", "MODIFIED", "DELETED"):
        watched.receive(event, body)
    assert [(taken["metadata"]["name"], is_deleted) for _, taken, is_deleted in watched.taken] == [
        ("a", False),
        ("a", False),
        ("a", True),
    ]


def test_a_bookmark_moves_the_version_alone() -> None:
    watched = Watched("Dataset")
    watched.receive("BOOKMARK", {"kind": "Dataset", "metadata": {"resourceVersion": "9"}})
    assert (watched.reflector.version, watched.taken, watched.noted) == ("9", [], [])


def test_an_error_about_one_event_does_not_end_the_watch(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched("Dataset", fails=True)
    for event in ("ADDED", "MODIFIED", "DELETED"):
        watched.receive(event, json.loads(GOOD) | {"kind": "Dataset"})
    assert [record.getMessage() for record in caplog.records] == ["an event about a Dataset is lost"] * 3


@pytest.mark.attack("objects at the API server")
@pytest.mark.parametrize(
    "line",
    [b"null", b"[]", b"{", b"", b"\xff\xfe", b'{"type":"ADDED"}', b'{"type":"ADDED","object":{"metadata":null}}', b"7"],
)
def test_what_is_not_an_event_is_passed_over(line: bytes) -> None:
    watched = Watched("Dataset")
    watched.reflector.receive(line)
    assert [told[1].reason for told in watched.noted] == ["Malformed"]
    assert (watched.taken, watched.reflector.version) == ([], "1")


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
def test_an_error_in_a_watch_begins_it_again(status: dict[str, Any]) -> None:
    with pytest.raises(ExpiredError):
        Watched("Dataset").receive("ERROR", {"kind": "Status", **status})


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
