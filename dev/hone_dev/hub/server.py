"""The routes of the Hugging Face Hub that huggingface_hub 2.4 uses to read and write repositories."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Middleware
from huggingface_hub import metadata_load

from hone_dev.hub import pushing
from hone_dev.hub.repository import DEFAULT, Commit, Repository, find
from hone_dev.tools.threaded import served

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ROOT = web.AppKey("root", Path)
ETAG = web.RequestKey("etag", str)
WRITERS = web.AppKey("writers", frozenset[str])


class HubError(Exception):
    """An answer that huggingface_hub turns into an exception of its own, by X-Error-Code."""

    def __init__(self, status: int, code: str, message: str):
        super().__init__(message)
        self.response = web.json_response(
            {"error": message}, status=status, headers={"X-Error-Code": code, "X-Error-Message": message}
        )


def application(
    root: Path, drip: str | None = None, writers: frozenset[str] = frozenset(), cut: str | None = None
) -> web.Application:
    """The hub that serves the repositories below `root`.

    Args:
        drip: answers whose path contains this are sent byte by byte, without the last byte.
        writers: tokens that may push.
        cut: a connection that asks for a path which contains this is closed in the middle of the answer.
    """
    broken = [*([_dripping(drip)] if drip else []), *([_cutting(cut)] if cut else [])]
    app = web.Application(client_max_size=2**30, middlewares=[_errors, *broken])
    app[ROOT], app[WRITERS] = root, writers
    app.on_response_prepare.append(_set_etag)
    api = "/api/{kind:models|datasets}/{owner}/{name}"
    app.router.add_get(api, _info)
    app.router.add_get(api + "/revision/{revision}", _info)
    app.router.add_get(api + "/tree/{revision}", _tree)
    app.router.add_get(api + "/tree/{revision}/{path:.+}", _tree)
    app.router.add_post(api + "/paths-info/{revision}", _paths_info)
    app.router.add_get(api + "/refs", _refs)
    app.router.add_get(api + "/auth-check", _auth_check)
    app.router.add_get("/api/{kind:datasets}/{owner}/{name}/croissant", _croissant)
    app.router.add_get("/{kind:datasets}/{owner}/{name}/resolve/{revision}/{path:.+}", _resolve)
    app.router.add_get("/{owner}/{name}/resolve/{revision}/{path:.+}", _resolve)
    app.router.add_get("/healthz", _healthz)
    app.router.add_post("/api/repos/create", _create)
    app.router.add_post("/api/validate-yaml", _validate_card)
    models = "/api/{kind:models}/{owner}/{name}"
    app.router.add_post(models + "/preupload/{revision}", _preupload)
    app.router.add_post("/{owner}/{name}.git/info/lfs/objects/batch", _lfs_batch)
    app.router.add_put("/lfs/{owner}/{name}/{oid:[0-9a-f]{64}}", _lfs_object)
    app.router.add_post(models + "/commit/{revision}", _make_commit)
    app.router.add_get(models + "/commits/{revision}", _commits)
    app.router.add_post(models + "/branch/{branch}", _create_branch)
    app.router.add_delete(models + "/branch/{branch}", _delete_branch)
    app.router.add_post(models + "/tag/{revision}", _tag)
    return app


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except HubError as error:
        return error.response


def _dripping(what: str) -> Middleware:
    @web.middleware
    async def drip(request: web.Request, handler: Handler) -> web.StreamResponse:
        if what not in request.path or request.method == "HEAD":
            return await handler(request)
        response = web.StreamResponse(headers={"Content-Length": "1000000"})
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.2)

    return drip


def _cutting(what: str) -> Middleware:
    @web.middleware
    async def cut(request: web.Request, handler: Handler) -> web.StreamResponse:
        if what not in request.path or request.method == "HEAD":
            return await handler(request)
        response = web.StreamResponse(headers={"Content-Length": "1000000"})
        await response.prepare(request)
        await response.write(b" " * 1000)
        assert request.transport
        request.transport.close()
        return response

    return cut


async def _set_etag(request: web.Request, response: web.StreamResponse) -> None:
    """FileResponse computes an ETag of its own from the file's time; the Hub's is the content's digest."""
    if etag := request.get(ETAG):
        response.headers["ETag"] = f'"{etag}"'


def _token(request: web.Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ").strip()


def _repository(request: web.Request) -> Repository:
    """The repository of the request. A private one looks absent to those who may not read it, as on the Hub."""
    route = request.match_info
    repository = find(request.app[ROOT], route.get("kind", "models"), route["owner"], route["name"])
    if repository and (not repository.access.private or _token(request) in repository.access.tokens):
        return repository
    status = 404 if _token(request) else 401
    raise HubError(status, "RepoNotFound", "Repository not found")


def _require_access(request: web.Request, repository: Repository) -> None:
    if repository.access.gated and _token(request) not in repository.access.tokens:
        status = 403 if _token(request) else 401
        raise HubError(status, "GatedRepo", f"Access to {repository.id} is restricted: ask for access on its page")


async def _commit(request: web.Request, repository: Repository) -> Commit:
    revision = request.match_info.get("revision", DEFAULT)
    commit = await asyncio.to_thread(repository.commit, revision)  # hashes large files at first
    if commit is None:
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return commit


async def _info(request: web.Request) -> web.Response:
    repository = _repository(request)
    commit = await _commit(request, repository)
    return web.json_response(
        {
            "_id": commit.sha[:24],
            "id": repository.id,
            "sha": commit.sha,
            "private": repository.access.private,
            "gated": "auto" if repository.access.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": [{"rfilename": file.path} for file in commit.files],
        }
    )


async def _tree(request: web.Request) -> web.Response:
    """Files, with `?recursive=true` also those in folders; folders are listed as the Hub does."""
    commit = await _commit(request, _repository(request))
    below = request.match_info.get("path", "").strip("/")
    prefix = f"{below}/" if below else ""
    files = [file for file in commit.files if file.path.startswith(prefix)]
    if below and not files:
        raise HubError(404, "EntryNotFound", f"{below} does not exist on {commit.sha}")
    folders = {parent.as_posix() for file in files for parent in Path(file.path).parents} - {".", below}
    folders = {folder for folder in folders if folder.startswith(prefix)}
    if request.query.get("recursive", "false").lower() not in ("true", "1"):
        files = [file for file in files if "/" not in file.path.removeprefix(prefix)]
        folders = {folder for folder in folders if "/" not in folder.removeprefix(prefix)}
    entries = [{"type": "directory", "path": folder, "size": 0, "oid": commit.sha} for folder in sorted(folders)]
    return web.json_response(entries + [file.to_json() for file in files])


async def _paths_info(request: web.Request) -> web.Response:
    commit = await _commit(request, _repository(request))
    found = [commit.file(str(path)) for path in (await request.post()).getall("paths", [])]
    return web.json_response([file.to_json() for file in found if file])


async def _refs(request: web.Request) -> web.Response:
    repository = _repository(request)
    branches = []
    for name in repository.revisions():
        if commit := await asyncio.to_thread(repository.commit, name):
            branches.append({"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit.sha})
    return web.json_response({"branches": branches, "converts": [], "tags": []})


async def _auth_check(request: web.Request) -> web.Response:
    _require_access(request, _repository(request))
    return web.json_response({})


async def _croissant(request: web.Request) -> web.Response:
    """Metadata of a data set that the hub can show, as it can those with a licence."""
    repository = _repository(request)
    commit = await _commit(request, repository)
    card = commit.file("README.md")
    card_data = metadata_load(card.local) if card else None
    if not card_data or not card_data.get("license"):
        raise HubError(400, "NoCroissant", "The dataset has no Croissant metadata")
    licence = f"https://choosealicense.com/licenses/{card_data['license']}/"
    page = f"https://huggingface.co/datasets/{repository.id}"
    document = {"@context": {"@vocab": "https://schema.org/"}, "@type": "sc:Dataset", "name": repository.id}
    return web.json_response({**document, "license": licence, "url": page})


async def _resolve(request: web.Request) -> web.StreamResponse:
    """A file, whole or a range of it; HEAD returns commit, ETag and size."""
    repository = _repository(request)
    _require_access(request, repository)
    commit = await _commit(request, repository)
    file = commit.file(request.match_info["path"])
    if file is None:
        raise HubError(404, "EntryNotFound", f"{request.match_info['path']} does not exist on {commit.sha}")
    request[ETAG] = file.etag
    headers = {"X-Repo-Commit": commit.sha, "Content-Type": "application/octet-stream"}
    if file.sha256:
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
    return web.FileResponse(file.local, headers=headers)


def _require_writer(request: web.Request) -> str:
    if not (token := _token(request)):
        raise HubError(401, "Unauthorized", "Invalid username or password.")
    if token not in request.app[WRITERS]:
        raise HubError(403, "Forbidden", "You don't have the rights to write here")
    return token


async def _create(request: web.Request) -> web.Response:
    token, asked = _require_writer(request), await request.json()
    name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
    if asked.get("type", "model") != "model" or not pushing.HUB_ID.fullmatch(name):
        raise HubError(400, "BadRequest", f"cannot create {name}")
    made = pushing.create(request.app[ROOT], name, asked.get("visibility") == "private", token)
    body = {"url": f"{request.url.origin()}/{name}", "name": name, "id": name}
    return web.json_response(body, status=200 if made else 409)


async def _validate_card(request: web.Request) -> web.Response:
    problems = pushing.problems_of_card((await request.json())["content"])
    errors = [{"message": problem} for problem in problems]
    return web.json_response({"errors": errors, "warnings": []}, status=400 if errors else 200)


async def _preupload(request: web.Request) -> web.Response:
    _require_writer(request)
    commit = await _commit(request, _repository(request))
    files = []
    for asked in (await request.json())["files"]:
        there = commit.file(asked["path"])
        mode = pushing.upload_mode(asked["path"], asked["size"])
        files.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": there and there.etag})
    return web.json_response({"files": files})


async def _lfs_batch(request: web.Request) -> web.Response:
    _require_writer(request)
    repository = _repository(request)
    asked = json.loads(await request.read())["objects"]
    url = f"{request.url.origin()}/lfs/{repository.id}"
    return web.json_response(pushing.batch(pushing.Objects(request.app[ROOT]), asked, url))


async def _lfs_object(request: web.Request) -> web.Response:
    """As the signed URL of a bucket: who has it may write what has this SHA-256."""
    kept = await pushing.Objects(request.app[ROOT]).receive(request.match_info["oid"], request.content)
    return web.Response(status=200 if kept else 400)


async def _make_commit(request: web.Request) -> web.Response:
    _require_writer(request)
    repository, branch = _repository(request), request.match_info["revision"]
    await _commit(request, repository)  # answers 404 if the branch does not exist
    lines, objects = await pushing.lines_of(request), pushing.Objects(request.app[ROOT])
    try:
        made = await asyncio.to_thread(pushing.commit, repository, objects, branch, lines)
    except pushing.RefusedCommitError as error:
        raise HubError(error.status, "Refused", error.message) from None
    url = f"{request.url.origin()}/{repository.id}/commit/{made.sha}"
    return web.json_response({"success": True, "commitOid": made.sha, "commitUrl": url, "hookOutput": ""})


async def _commits(request: web.Request) -> web.Response:
    repository = _repository(request)
    await _commit(request, repository)
    more = {"authors": [], "date": "2026-01-02T03:04:05.000Z", "message": ""}
    return web.json_response([more | one for one in pushing.pushed(repository, request.match_info["revision"])])


async def _create_branch(request: web.Request) -> web.Response:
    _require_writer(request)
    repository, start = _repository(request), (await request.json()).get("startingPoint", "")
    status = await asyncio.to_thread(pushing.create_branch, repository, request.match_info["branch"], start)
    return web.json_response({}, status=status)


async def _delete_branch(request: web.Request) -> web.Response:
    _require_writer(request)
    status = await asyncio.to_thread(pushing.delete_branch, _repository(request), request.match_info["branch"])
    return web.json_response({}, status=status)


async def _tag(request: web.Request) -> web.Response:
    _require_writer(request)
    repository = _repository(request)
    commit = await _commit(request, repository)
    status = await asyncio.to_thread(pushing.tag, repository, (await request.json())["tag"], commit.sha)
    return web.json_response({}, status=status)


async def _healthz(request: web.Request) -> web.Response:
    return web.Response(text="ok")


@contextmanager
def serve(
    root: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    drip: str | None = None,
    writers: frozenset[str] = frozenset(),
    cut: str | None = None,
) -> Iterator[str]:
    """Serve `root` from a thread of this process; yields the URL for HF_ENDPOINT. Port 0 takes a free one."""
    with served(application(root, drip, writers, cut), host, port) as url:
        yield url
