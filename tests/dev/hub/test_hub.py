"""The hub, read by the real huggingface_hub client."""

import hashlib
import http.client
import json
import os
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hone_dev import hub

pytestmark = pytest.mark.trainer

WEIGHTS = os.urandom(300_000)


@pytest.fixture
def root(tmp_path):
    main = tmp_path / "hub" / "models" / "acme" / "tiny" / "main"
    (main / "sub").mkdir(parents=True)
    (main / "config.json").write_text('{"model_type": "llama"}')
    (main / "sub" / "notes.txt").write_text("notes")
    (main / "model.safetensors").write_bytes(WEIGHTS)
    rows = tmp_path / "hub" / "datasets" / "acme" / "rows" / "main"
    rows.mkdir(parents=True)
    (rows / "train.jsonl").write_text('{"text": "a"}\n')
    return tmp_path / "hub"


@pytest.fixture
def api(root, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with hub.serve(root) as url:
        yield HfApi(endpoint=url)


def settings(root, **values):
    (root / "models" / "acme" / "tiny" / "hub.json").write_text(json.dumps(values))


def test_a_snapshot_has_every_file_and_the_commit_in_its_path(api, tmp_path):
    folder = api.snapshot_download("acme/tiny", cache_dir=tmp_path / "cache")
    info = api.model_info("acme/tiny")
    assert folder.endswith(info.sha)
    assert len(info.sha) == 40
    assert {s.rfilename for s in info.siblings} == {"config.json", "sub/notes.txt", "model.safetensors"}
    with open(f"{folder}/model.safetensors", "rb") as file:
        assert file.read() == WEIGHTS
    with open(f"{folder}/sub/notes.txt") as file:
        assert file.read() == "notes"


def test_patterns_choose_files(api, tmp_path):
    folder = api.snapshot_download("acme/tiny", allow_patterns=["*.json"], cache_dir=tmp_path / "cache")
    assert [path.name for path in Path(folder).iterdir()] == ["config.json"]


def test_the_commit_is_the_content(api, root, tmp_path):
    before = api.model_info("acme/tiny").sha
    assert api.model_info("acme/tiny", revision=before).sha == before
    (root / "models" / "acme" / "tiny" / "main" / "config.json").write_text("{}")
    after = api.model_info("acme/tiny").sha
    assert after != before
    (root / "models" / "acme" / "tiny" / "main" / "config.json").write_text('{"model_type": "llama"}')
    assert api.model_info("acme/tiny").sha == before


def test_branches_and_their_commits(api, root):
    branch = root / "models" / "acme" / "tiny" / "feature%2Fx"
    branch.mkdir()
    (branch / "config.json").write_text("{}")
    info = api.model_info("acme/tiny", revision="feature/x")
    assert [s.rfilename for s in info.siblings] == ["config.json"]
    assert {b.name: b.target_commit for b in api.list_repo_refs("acme/tiny").branches} == {
        "main": api.model_info("acme/tiny").sha,
        "feature/x": info.sha,
    }
    assert api.model_info("acme/tiny", revision=info.sha).sha == info.sha


def test_datasets_have_their_own_names(api, tmp_path):
    path = api.hf_hub_download("acme/rows", "train.jsonl", repo_type="dataset", cache_dir=tmp_path / "cache")
    with open(path) as file:
        assert file.read() == '{"text": "a"}\n'
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("acme/rows")


def test_metadata_of_a_large_file_carries_its_sha256(api):
    entries = {e.path: e for e in api.list_repo_tree("acme/tiny", recursive=True)}
    assert entries["model.safetensors"].lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert entries["model.safetensors"].size == len(WEIGHTS)
    assert entries["config.json"].lfs is None
    assert {e.path for e in api.list_repo_tree("acme/tiny")} == {"config.json", "sub", "model.safetensors"}
    assert [i.path for i in api.get_paths_info("acme/tiny", ["config.json", "none"])] == ["config.json"]


def test_a_range_of_a_file(api):
    url = f"{api.endpoint}/acme/tiny/resolve/main/model.safetensors"
    part = httpx2.get(url, headers={"Range": "bytes=1000-1999"})
    assert part.status_code == 206
    assert part.content == WEIGHTS[1000:2000]
    head = httpx2.head(url)
    assert head.headers["Content-Length"] == str(len(WEIGHTS))
    assert head.headers["ETag"] == f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    assert head.headers["X-Repo-Commit"] == api.model_info("acme/tiny").sha


@pytest.mark.parametrize(
    ("action", "error"),
    [
        (lambda api: api.model_info("acme/none"), RepositoryNotFoundError),
        (lambda api: api.model_info("acme/tiny", token="hf_any", revision="none"), RevisionNotFoundError),
        (lambda api: api.model_info("acme/tiny", revision="0" * 40), RevisionNotFoundError),
        (lambda api: api.hf_hub_download("acme/tiny", "none.json"), RemoteEntryNotFoundError),
    ],
)
def test_what_is_not_there_has_its_own_error(api, root, action, error):
    settings(root, tokens=["hf_secret"])
    with pytest.raises(error):
        action(api)


@pytest.mark.parametrize(
    "path",
    [
        "/acme/tiny/resolve/main/..%2Fhub.json",
        "/acme/tiny/resolve/..%2F..%2Facme/config.json",
        "/acme/tiny/resolve/%2E%2E/hub.json",
        "/%2E%2E/models/resolve/acme/hub.json",
        "/api/models/acme/%2E%2E",
    ],
)
def test_nothing_next_to_the_revisions_can_be_read(api, root, path):
    settings(root, tokens=["hf_secret"])
    host, port = api.endpoint.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=600)  # sends the path as it is
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status in (401, 404)
    assert b"hf_secret" not in answer.read()
    connection.close()


def test_a_gated_repository_shows_itself_but_not_its_files(api, root, tmp_path):
    settings(root, gated=True, tokens=["hf_secret"])
    assert api.model_info("acme/tiny").gated
    for token in (False, "hf_wrong"):
        with pytest.raises(GatedRepoError):
            api.snapshot_download("acme/tiny", token=token, cache_dir=tmp_path / "cache")
        with pytest.raises(GatedRepoError):
            api.auth_check("acme/tiny", token=token)
    api.auth_check("acme/tiny", token="hf_secret")
    assert api.snapshot_download("acme/tiny", token="hf_secret", cache_dir=tmp_path / "cache")


def test_a_private_repository_looks_absent(api, root):
    settings(root, private=True, tokens=["hf_secret"])
    for token in (False, "hf_wrong"):
        with pytest.raises(RepositoryNotFoundError) as caught:
            api.model_info("acme/tiny", token=token)
        assert not isinstance(caught.value, GatedRepoError)
    assert api.model_info("acme/tiny", token="hf_secret").private


def test_access_can_be_given_while_it_serves(api, root):
    settings(root, gated=True, tokens=[])
    with pytest.raises(GatedRepoError):
        api.auth_check("acme/tiny", token="hf_new")
    settings(root, gated=True, tokens=["hf_new"])
    api.auth_check("acme/tiny", token="hf_new")


def test_branches_are_made_take_commits_and_go(root, tmp_path):
    with hub.serve(root, writers=frozenset({"hf_writer"})) as url:
        api = HfApi(endpoint=url, token="hf_writer")
        start = api.model_info("acme/tiny").sha
        api.create_branch("acme/tiny", branch="side", revision=start)
        api.create_branch("acme/tiny", branch="side", revision=start, exist_ok=True)
        add = CommitOperationAdd("more.txt", b"more")
        made = api.create_commit("acme/tiny", [add], commit_message="Add more", revision="side")
        assert [(c.commit_id, c.title) for c in api.list_repo_commits("acme/tiny", revision="side")] == [
            (made.oid, "Add more")
        ]
        assert api.list_repo_commits("acme/tiny") == []
        assert api.model_info("acme/tiny").sha == start
        api.create_tag("acme/tiny", tag="v1", revision=made.oid)
        api.delete_branch("acme/tiny", branch="side")
        assert api.model_info("acme/tiny", revision="v1").sha == made.oid
        with pytest.raises(HfHubHTTPError, match="404"):
            api.delete_branch("acme/tiny", branch="side")
        with pytest.raises(HfHubHTTPError, match="403"):
            api.delete_branch("acme/tiny", branch="main")
