#!/usr/bin/env python3
"""Make questions and answers about the Kubernetes API from the descriptions in its OpenAPI document.

    python examples/02-two-nodes/make_data.py

writes `kubernetes-api.jsonl` next to itself, from which the examples 04 to 07, 09 and 11 make their data, and the
ConfigMap `data.yaml` of the examples 02 and 03. The document comes in the Go module k8s.io/kubernetes
(`go mod download`), so nothing but the Go module proxy is needed. The same module gives the same bytes.

One row a description: a description is kept once, at the place that names it best, and what differs from it in case,
white space or a few words only is dropped. Hence no split of the rows can put the same answer on both sides.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MODULE = "k8s.io/kubernetes@v1.34.4"
DOCUMENT = "api/openapi-spec/swagger.json"
ROWS = "kubernetes-api.jsonl"
EXAMPLES = Path(__file__).resolve().parent.parent
SMALL_ROWS = 160
MAX_CHARACTERS = 300  # of an answer; longer ones end at the last sentence before it
MIN_WORDS = 6
NEAR = 0.8  # Jaccard similarity of the word sets from which two answers are the same
MAX_DEPTH = 7

# Where several places share a description, the kind that people meet first names it.
KINDS = (
    *("Pod", "Deployment", "Service", "ConfigMap", "Secret", "Job", "CronJob", "StatefulSet", "DaemonSet"),
    *("PersistentVolumeClaim", "PersistentVolume", "Ingress", "NetworkPolicy", "Node", "Namespace", "ServiceAccount"),
    *("Role", "RoleBinding", "HorizontalPodAutoscaler", "PodDisruptionBudget", "StorageClass", "Event"),
)
QUESTIONS = {
    "spec": (
        "What does the field `{path}` of {a} {kind} do?",
        "In Kubernetes, what is `{path}` of {a} {kind} for?",
        "Explain the field `{path}` of {a} {kind}.",
        "What do I set with `{path}` in {a} {kind}?",
    ),
    "status": (
        "What does the field `{path}` of {a} {kind} tell?",
        "In Kubernetes, what does `{path}` of {a} {kind} mean?",
        "Explain the field `{path}` of {a} {kind}.",
        "What can I read from `{path}` of {a} {kind}?",
    ),
}
_BOILERPLATE = re.compile(r"deprecated|no longer|not used|placeholder|reserved for future|tombstone", re.I)
_LINK = re.compile(r"https?://|\]\(")
_MORE_INFO = re.compile(
    r"\(?\b(more info(rmation)?|for (more )?(info(rmation)?|details)|read more|see( also)?)\b.*", re.I
)
_SENTENCE = re.compile(r"(?<=[a-z0-9`'\")\]][.!])\s+(?=[A-Z`\"'(])")
_NOT_AN_END = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|ex|approx|resp)|\b[A-Z])\.$")


@dataclass(frozen=True)
class Place:
    """A field of a kind, by its path from the top of the object."""

    kind: str
    version: str
    path: tuple[str, ...]
    description: str
    type: str

    @property
    def rank(self) -> tuple:
        """Sorts the best name of a description first: stable versions, short paths, well-known kinds."""
        stable = not re.search("alpha|beta", self.version)
        known = KINDS.index(self.kind) if self.kind in KINDS else len(KINDS)
        return (not stable, len(self.path), known, self.kind, self.path)


@dataclass(frozen=True)
class Row:
    """One question with its answer."""

    prompt: str
    completion: str


def document() -> dict:
    """The OpenAPI document, from the Go module cache or proxy."""
    command = ["go", "mod", "download", "-json", MODULE]
    folder = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout)["Dir"]
    return json.loads(Path(folder, DOCUMENT).read_text())


def places(definitions: dict) -> Iterator[Place]:
    """Every described field of every kind that one can create."""
    for schema in definitions.values():
        kinds = schema.get("x-kubernetes-group-version-kind", ())
        # Types that belong to every group (DeleteOptions, WatchEvent) and lists are not kinds of their own.
        if len(kinds) != 1 or kinds[0]["kind"].endswith("List") or "metadata" not in schema.get("properties", {}):
            continue
        yield from _walk(definitions, schema, kinds[0]["kind"], kinds[0]["version"], ())


def _walk(definitions: dict, schema: dict, kind: str, version: str, path: tuple[str, ...]) -> Iterator[Place]:
    for field, value in sorted(schema.get("properties", {}).items()):
        if field in ("apiVersion", "kind", "metadata"):
            continue
        inner, suffix = value, ""
        if "items" in value:
            inner, suffix = value["items"], "[]"
        here = (*path, field + suffix)
        if "description" in value and here not in (("spec",), ("status",)):
            yield Place(kind, version, here, value["description"], type_of(value))
        reference = inner.get("$ref", "").removeprefix("#/definitions/")
        if reference and len(here) < MAX_DEPTH and not _recursive(reference):
            yield from _walk(definitions, definitions[reference], kind, version, here)


def _recursive(reference: str) -> bool:
    """JSON schemas describe themselves, and describe the schema language rather than Kubernetes."""
    return "JSONSchemaProps" in reference or "ManagedFields" in reference


def type_of(schema: dict) -> str:
    """E.g. integer, LabelSelector, list of Container, map of string."""
    if "items" in schema:
        return f"list of {type_of(schema['items'])}"
    if "additionalProperties" in schema:
        return f"map of {type_of(schema['additionalProperties'])}"
    return schema["$ref"].rsplit(".", 1)[1] if "$ref" in schema else schema.get("type", "any value")


def sentences(text: str) -> list[str]:
    """Sentences of a text with single spaces; an abbreviation does not end one."""
    found: list[str] = []
    for part in _SENTENCE.split(text):
        if found and _NOT_AN_END.search(found[-1]):
            found[-1] += f" {part}"
        else:
            found.append(part)
    return found


def answer(description: str) -> str | None:
    """The first paragraph without links, ended at a sentence; None where too little is left to learn from."""
    text = re.split(r"\n\s*\n|\n\s*[-*\d]|\s+[-*] [\"`\w]+:", description)[0]
    kept: list[str] = []
    for sentence in sentences(" ".join(text.split())):
        if _LINK.search(sentence):
            sentence = _MORE_INFO.sub("", sentence).strip(" ,;.")
            sentence = "" if _LINK.search(sentence) or len(sentence.split()) < MIN_WORDS else f"{sentence}."
        if kept and len(" ".join([*kept, sentence])) > MAX_CHARACTERS:
            break
        if sentence:
            kept.append(sentence)
    while kept and kept[-1].endswith(":"):  # it announced a list
        kept.pop()
    text = re.sub(r"^\w+ is [Oo]ptional:", "Optional:", " ".join(kept))
    if len(text.split()) < MIN_WORDS or len(text) > MAX_CHARACTERS or _BOILERPLATE.search(text):
        return None
    return text if text[-1] in ".!?" else f"{text}."


def words(text: str) -> frozenset[str]:
    """What is left of a text without case, white space and punctuation."""
    return frozenset(re.findall(r"[a-z0-9]+", text.casefold()))


def distinct(candidates: Iterable[Place]) -> Iterator[tuple[Place, str]]:
    """Places in order of rank with their answers, without those whose answer was nearly there before."""
    by_word: dict[str, list[frozenset[str]]] = defaultdict(list)
    seen: set[frozenset[str] | tuple] = set()
    for place in sorted(candidates, key=lambda place: place.rank):
        text = answer(place.description)
        bag = words(text or "")
        field = (place.kind, place.path)  # older versions of a kind describe it in other words
        if not text or bag in seen or field in seen or "deprecated" in place.path[0]:
            continue
        seen |= {bag, field}
        # A set this near to `bag` holds at least one of any so many words of it: the longest are the rarest.
        probes = sorted(bag, key=lambda word: (-len(word), word))[: len(bag) - int(NEAR * len(bag)) + 1]
        others = {other for probe in probes for other in by_word[probe]}
        if any(len(bag & other) >= NEAR * len(bag | other) for other in others):
            continue
        for word in bag:
            by_word[word].append(bag)
        yield place, text


def question(place: Place) -> str:
    """A question that names field and kind; which wording is drawn by the path."""
    group = "status" if place.path[0] == "status" else "spec"
    path = ".".join(place.path)
    draw = int(hashlib.sha256(f"{place.kind} {path}".encode()).hexdigest(), 16)
    wording = QUESTIONS[group][draw % len(QUESTIONS[group])]
    return wording.format(path=path, kind=place.kind, a="an" if place.kind[0] in "AEIOU" else "a")


def rows() -> list[Row]:
    """All rows, in an order that is neither by kind nor by field."""
    chosen = distinct(places(document()["definitions"]))
    found = [Row(question(place), f"{text} Type: {place.type}.") for place, text in chosen]
    return sorted(found, key=lambda row: hashlib.sha256(row.prompt.encode()).hexdigest())


def json_lines(chosen: list[Row]) -> list[str]:
    """A line for each row."""
    return [json.dumps({"question": row.prompt, "answer": row.completion}, ensure_ascii=False) for row in chosen]


def config_map(name: str, chosen: list[Row]) -> str:
    """A ConfigMap with the rows as JSON Lines, readable as they are."""
    head = (
        f"# {len(chosen)} questions and answers about the Kubernetes API, from {DOCUMENT} of\n"
        f"# {MODULE} (Apache-2.0, see examples/02-two-nodes/NOTICE) by examples/02-two-nodes/make_data.py.\n"
        f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  rows.jsonl: |\n"
    )
    return head + "".join(f"    {line}\n" for line in json_lines(chosen))


def files() -> dict[Path, str]:
    """What is committed, by path."""
    every = rows()
    small = config_map("kubernetes-api-small", every[:SMALL_ROWS])
    return {
        EXAMPLES / "02-two-nodes" / ROWS: "".join(f"{line}\n" for line in json_lines(every)),
        EXAMPLES / "02-two-nodes" / "data.yaml": small,
        EXAMPLES / "03-qlora" / "data.yaml": small,
        EXAMPLES / "12-two-teams" / "data.yaml": small,
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
        print(f"{path.relative_to(EXAMPLES)}: {text.count(chr(10))} lines, {len(text.encode()) // 1000} kB")
