"""The routes of the Hugging Face Hub by which huggingface_hub writes models: repositories, Git LFS, commits, branches,
tags.

A commit is a new folder that takes the place of the old one by rename: readers see all of it or nothing.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from aiohttp import web

from hone_dev.hub.repository import DEFAULT, LFS_BYTES, Commit, Repository, remember

LARGE = (".safetensors", ".gguf", ".bin")
HUB_ID = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]*/[A-Za-z0-9][-A-Za-z0-9._]*")
_OBJECTS = ".lfs"
_HISTORY = "history.json"
"""By branch, the commits that were pushed, newest first."""


class Objects:
    """Large files by their SHA-256."""

    def __init__(self, root: Path) -> None:
        self.folder = root / _OBJECTS

    def path(self, oid: str) -> Path:
        return self.folder / oid

    async def receive(self, oid: str, content: Any) -> bool:
        """Keep a file unless its SHA-256 is another one; half a file is never kept."""
        self.folder.mkdir(exist_ok=True)
        fresh, hasher = self.folder / f"{oid}.{uuid.uuid4().hex}", hashlib.sha256()
        try:
            with fresh.open("wb") as file:
                async for piece in content.iter_chunked(2**20):
                    hasher.update(piece)
                    file.write(piece)
            if hasher.hexdigest() != oid:
                return False
            fresh.replace(self.path(oid))
            remember(self.path(oid), oid)
            return True
        finally:
            fresh.unlink(missing_ok=True)


def create(root: Path, name: str, private: bool, token: str) -> bool:
    """Make an empty repository; False: there is one of this name."""
    folder = root / "models" / name
    if folder.is_dir():
        return False
    (folder / DEFAULT).mkdir(parents=True)
    if private:
        (folder / "hub.json").write_text(json.dumps({"private": True, "tokens": [token]}))
    return True


def problems_of_card(text: str) -> list[str]:
    """What the Hub refuses in the front matter of a model card."""
    front = re.match(r"^---\n(.*?)\n---\n", text, re.S)
    if front is None:
        return []
    try:
        card = yaml.safe_load(front[1])
    except yaml.YAMLError as error:
        return [f"invalid YAML: {error}"]
    if not isinstance(card, dict):
        return ["metadata must be a mapping"]
    bases = card.get("base_model", [])
    problems = [
        f'"base_model" with value "{base}" is not valid. Use a model id from https://hf.co/models.'
        for base in (bases if isinstance(bases, list) else [bases])
        if not isinstance(base, str) or not HUB_ID.fullmatch(base)
    ]
    if card.get("base_model_relation") not in (None, "adapter", "finetune", "merge", "quantized"):
        problems.append('"base_model_relation" must be one of [finetune, adapter, merge, quantized]')
    if not isinstance(card.get("license", ""), str):
        problems.append('"license" must be a string')
    return problems


def upload_mode(path: str, size: int) -> str:
    """As a repository's .gitattributes and the Hub's limit decide."""
    return "lfs" if path.endswith(LARGE) or size >= LFS_BYTES else "regular"


def batch(objects: Objects, asked: list[dict[str, Any]], url: str) -> dict[str, Any]:
    """Git LFS: where to upload each object that is not there."""
    answers = []
    for each in asked:
        answer: dict[str, Any] = {"oid": each["oid"], "size": each["size"], "authenticated": True}
        if not objects.path(each["oid"]).is_file():
            answer["actions"] = {"upload": {"href": f"{url}/{each['oid']}"}}
        answers.append(answer)
    return {"transfer": "basic", "objects": answers}


class RefusedCommitError(Exception):
    """An answer to a commit that changes nothing."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def commit(repository: Repository, objects: Objects, branch: str, lines: list[Mapping[str, Any]]) -> Commit:
    """Apply the lines of a commit to a branch.

    Raises:
        RefusedCommitError: the branch has moved, a large file was not uploaded, or a path leaves the repository.
    """
    head = _folder(repository, branch)
    before = repository.commit(branch)
    fresh = _fresh(repository)
    try:
        shutil.copytree(head, fresh, copy_function=os.link)
        for line in lines:
            _apply(fresh, objects, line["key"], line["value"], before)
        old = fresh.with_name(f"{fresh.name}-old")
        head.rename(old)
        fresh.rename(head)
        shutil.rmtree(old)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    made = repository.commit(branch)
    assert made is not None
    titles = [line["value"]["summary"] for line in lines if line["key"] == "header"]
    _remember(
        repository, {branch: [*({"id": made.sha, "title": title} for title in titles), *pushed(repository, branch)]}
    )
    return made


def pushed(repository: Repository, branch: str) -> list[dict[str, str]]:
    """Id and title of each commit that was pushed to a branch, newest first. Files that a test put into its folder
    have none."""
    return list(_history(repository).get(branch, ()))


def create_branch(repository: Repository, name: str, start: str) -> int:
    """Make a branch at a commit. Returns the status of the answer."""
    here, status = _revision_at(repository, start), tag(repository, name, start)
    if here is not None and status == 200:
        _remember(repository, {name: pushed(repository, here)})
    return status


def delete_branch(repository: Repository, name: str) -> int:
    """Remove a branch; tags keep its commits. Returns the status of the answer."""
    folder = _folder(repository, name)
    if name == DEFAULT:
        return 403
    if not folder.is_dir():
        return 404
    shutil.rmtree(folder)
    _remember(repository, {name: []})
    return 200


def _history(repository: Repository) -> dict[str, list[dict[str, str]]]:
    file = repository.folder / _HISTORY
    return json.loads(file.read_text()) if file.exists() else {}


def _remember(repository: Repository, commits: Mapping[str, list[dict[str, str]]]) -> None:
    (repository.folder / _HISTORY).write_text(json.dumps({**_history(repository), **commits}))


def _folder(repository: Repository, revision: str) -> Path:
    return repository.folder / quote(revision, safe="")


def _fresh(repository: Repository) -> Path:
    return repository.folder.parent / f".{repository.folder.name}-{uuid.uuid4().hex}"


def _revision_at(repository: Repository, sha: str) -> str | None:
    """A branch or tag at this commit."""
    return next((one for one in repository.revisions() if (c := repository.commit(one)) and c.sha == sha), None)


def _copy(repository: Repository, revision: str, folder: Path) -> None:
    fresh = _fresh(repository)
    shutil.copytree(_folder(repository, revision), fresh, copy_function=os.link)
    fresh.rename(folder)


def _apply(folder: Path, objects: Objects, key: str, value: Mapping[str, Any], before: Commit | None) -> None:
    if key == "header":
        parent = value.get("parentCommit")
        if parent and before and parent != before.sha:
            raise RefusedCommitError(412, "A commit has happened since. Please refresh and try again.")
        return
    target = folder / value["path"]
    if not target.resolve().is_relative_to(folder.resolve()):
        raise RefusedCommitError(400, f"invalid path {value['path']}")
    target.unlink(missing_ok=True)  # a link to the file of an earlier commit
    if key == "deletedFile":
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if key == "file":
        target.write_bytes(base64.b64decode(value["content"]))
    elif not objects.path(value["oid"]).is_file():
        raise RefusedCommitError(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
    else:
        os.link(objects.path(value["oid"]), target)


def tag(repository: Repository, name: str, sha: str) -> int:
    """Name a commit. Returns the status of the answer."""
    folder, here = _folder(repository, name), _revision_at(repository, sha)
    if folder.exists():
        return 409
    if here is None:
        return 404
    _copy(repository, here, folder)
    return 200


async def lines_of(request: web.Request) -> list[Mapping[str, Any]]:
    """The lines of a commit, as JSON."""
    text = await request.read()
    return await asyncio.to_thread(lambda: [json.loads(line) for line in text.splitlines() if line.strip()])
