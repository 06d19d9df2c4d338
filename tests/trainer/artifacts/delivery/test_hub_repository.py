"""hf:// targets against the local hub, by the real huggingface_hub client."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, constants

from hone_api.plan import DeliverPlan
from hone_dev import hub
from hone_dev.cluster import objectstore
from hone_trainer.artifacts.delivery import deliver
from hone_trainer.errors import StoreError, TrainerError
from hone_trainer.store import manifest

from .conftest import Model, read, secret

pytestmark = pytest.mark.trainer
TOKEN = "hf_writerWriterWriter42"
CARD = "---\nlicense: apache-2.0\nbase_model: acme/base\nbase_model_relation: adapter\n---\n# Tutor\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with hub.serve(folder, writers=frozenset({TOKEN})) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        yield folder


@pytest.fixture
def keys(tmp_path: Path) -> str:
    return secret(tmp_path / "keys", HF_TOKEN=TOKEN)


@pytest.fixture
def carded(model: Model) -> Model:
    (model.folder / "README.md").write_text(CARD)
    (model.folder / "manifest.json").unlink()
    model.digest = manifest.write(model.folder)
    return model


def code(plan: DeliverPlan) -> str:
    with pytest.raises((TrainerError, StoreError)) as caught:
        deliver.run(plan)
    assert TOKEN not in caught.value.message
    return str(caught.value.code)


def at(root: Path, revision: str, name: str = "tutor") -> dict[str, bytes]:
    return read(root / "models" / "team" / name / revision)


def cut_before_the_commit(monkeypatch: pytest.MonkeyPatch, meanwhile: Any = None) -> None:
    """The connection breaks, or something happens, when the large files have arrived and the commit has not begun."""
    upload = HfApi.preupload_lfs_files

    def cut(api: HfApi, *args: Any, **options: Any) -> None:
        upload(api, *args, **options)
        if meanwhile is None:
            raise ConnectionError("cut")
        meanwhile()

    monkeypatch.setattr(HfApi, "preupload_lfs_files", cut)


def test_every_file_is_on_main_and_at_the_tag_of_the_version(root: Path, carded: Model, keys: str) -> None:
    plan = carded.plan("hf://team/tutor", secretPath=keys)
    result = deliver.run(plan)
    assert (result.location, result.digest) == ("hf://team/tutor@v3", carded.digest)
    assert at(root, "main") == at(root, "v3") == carded.files()
    assert result.uploaded_bytes == result.size_bytes
    info = HfApi(endpoint=constants.ENDPOINT, token=TOKEN).model_info("team/tutor", revision="v3")
    assert info.private, "nobody else reads what was not published on purpose"
    again = deliver.run(plan)
    assert (again.uploaded_bytes, again.location) == (0, result.location)


def test_a_second_version_sends_what_differs_and_leaves_the_first(
    root: Path, carded: Model, keys: str, tmp_path: Path
) -> None:
    first = deliver.run(carded.plan("hf://team/tutor", secretPath=keys))
    second = Model(tmp_path / "second", seed=2)
    result = deliver.run(second.plan("hf://team/tutor", "tutor-v4", 4, secretPath=keys))
    assert at(root, "main") == at(root, "v4") == second.files(), "README.md is gone with the version that had it"
    assert at(root, "v3") == carded.files()
    assert first.uploaded_bytes - result.uploaded_bytes >= 200_000, "the tokenizer is the same"


def test_a_push_that_was_cut_shows_nothing_and_goes_on(
    root: Path, carded: Model, keys: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = carded.plan("hf://team/tutor", secretPath=keys)
    with monkeypatch.context() as patch:
        cut_before_the_commit(patch)
        assert code(plan) == "DestinationUnreachable"
    assert at(root, "main") == {}
    assert not (root / "models" / "team" / "tutor" / "v3").exists()
    assert deliver.run(plan).uploaded_bytes < 300_000, "the weights had arrived"
    assert at(root, "v3") == carded.files()


def test_a_commit_without_a_tag_is_only_tagged(
    root: Path, carded: Model, keys: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = carded.plan("hf://team/tutor", secretPath=keys)
    with monkeypatch.context() as patch:
        patch.setattr(HfApi, "create_tag", lambda *args, **options: (_ for _ in ()).throw(ConnectionError("cut")))
        assert code(plan) == "DestinationUnreachable"
    assert at(root, "main") == carded.files()
    assert deliver.run(plan).uploaded_bytes == 0
    assert at(root, "v3") == carded.files()


def test_who_writes_at_the_same_time_is_not_overwritten(
    root: Path, carded: Model, keys: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = root / "models" / "team" / "tutor" / "main"
    cut_before_the_commit(monkeypatch, lambda: (main / "theirs.txt").write_text("theirs"))
    assert code(carded.plan("hf://team/tutor", secretPath=keys)) == "DestinationUnreachable"
    assert at(root, "main") == {"theirs.txt": b"theirs"}


@pytest.mark.parametrize("place", ["main", "v3"])
def test_what_others_put_there_is_left_alone(root: Path, carded: Model, keys: str, place: str) -> None:
    for revision in {"main", place}:
        folder = root / "models" / "team" / "tutor" / revision
        folder.mkdir(parents=True)
        (folder / ".gitattributes").write_text("*.safetensors filter=lfs")
    (root / "models" / "team" / "tutor" / place / "config.json").write_text("{}")
    assert code(carded.plan("hf://team/tutor", secretPath=keys)) == "DestinationOccupied"
    assert at(root, place).keys() == {".gitattributes", "config.json"}


def rival(tmp_path: Path) -> Model:
    return Model(tmp_path / "rival", seed=7)


def test_the_repository_of_another_model_is_left_alone(root: Path, carded: Model, keys: str, tmp_path: Path) -> None:
    deliver.run(carded.plan("hf://team/tutor", secretPath=keys))
    assert code(rival(tmp_path).plan("hf://team/tutor", "rival-v4", 4, secretPath=keys)) == "DestinationOccupied"
    named = {"org.opencontainers.image.title": "rival"}
    assert code(rival(tmp_path / "x").plan("hf://team/tutor", "tutor-v4", 4, secretPath=keys, labels=named)) == (
        "DestinationOccupied"
    )
    assert at(root, "main") == at(root, "v3") == carded.files()
    assert not (root / "models" / "team" / "tutor" / "v4").exists()


@pytest.mark.parametrize("path", ["theirs.txt", "config.json"], ids=["a new name", "a name of the next version"])
def test_files_that_a_person_added_to_main_are_left_alone(
    root: Path, carded: Model, keys: str, tmp_path: Path, path: str
) -> None:
    deliver.run(carded.plan("hf://team/tutor", secretPath=keys))
    (root / "models" / "team" / "tutor" / "main" / path).write_text("theirs")
    second = Model(tmp_path / "second", seed=2)
    (second.folder / "config.json").write_text("{}")
    (second.folder / "manifest.json").unlink()
    second.digest = manifest.write(second.folder)
    assert code(second.plan("hf://team/tutor", "tutor-v4", 4, secretPath=keys)) == "DestinationOccupied"
    assert at(root, "main") == {**carded.files(), path: b"theirs"}


def test_the_signature_of_the_version_before_goes_with_it(root: Path, carded: Model, keys: str, tmp_path: Path) -> None:
    deliver.run(carded.plan("hf://team/tutor", secretPath=keys))
    (root / "models" / "team" / "tutor" / "main" / "model.sig").write_text("no manifest lists it")
    second = Model(tmp_path / "second", seed=2)
    deliver.run(second.plan("hf://team/tutor", "tutor-v4", 4, secretPath=keys))
    assert at(root, "main") == second.files()


def test_a_manifest_that_no_delivery_put_there_makes_no_repository_ours(
    root: Path, carded: Model, keys: str, tmp_path: Path
) -> None:
    folder = root / "models" / "team" / "tutor" / "main"
    folder.parent.mkdir(parents=True)
    theirs = rival(tmp_path)
    shutil.copytree(theirs.folder, folder)
    assert code(carded.plan("hf://team/tutor", secretPath=keys)) == "DestinationOccupied"
    assert at(root, "main") == theirs.files()


def test_main_stays_at_the_highest_version(
    root: Path, carded: Model, keys: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = Model(tmp_path / "second", seed=2)
    deliver.run(second.plan("hf://team/tutor", "tutor-v4", 4, secretPath=keys))
    plan = carded.plan("hf://team/tutor", secretPath=keys)
    with monkeypatch.context() as patch:
        cut_before_the_commit(patch)
        assert code(plan) == "DestinationUnreachable"
    with monkeypatch.context() as patch:
        patch.setattr(HfApi, "delete_branch", lambda *args, **options: (_ for _ in ()).throw(ConnectionError("cut")))
        assert code(plan) == "DestinationUnreachable"
    result = deliver.run(plan)
    assert (result.location, result.uploaded_bytes) == ("hf://team/tutor@v3", 0)
    assert at(root, "main") == at(root, "v4") == second.files()
    assert at(root, "v3") == carded.files()
    branches = HfApi(endpoint=constants.ENDPOINT, token=TOKEN).list_repo_refs("team/tutor").branches
    assert {branch.name for branch in branches} == {"main", "v3", "v4"}, "the branch is gone"
    third = Model(tmp_path / "third", seed=3)
    deliver.run(third.plan("hf://team/tutor", "tutor-v5", 5, secretPath=keys))
    assert at(root, "main") == third.files()


def test_a_repository_that_was_cleared_takes_another_model(
    root: Path, carded: Model, keys: str, tmp_path: Path
) -> None:
    deliver.run(carded.plan("hf://team/tutor", secretPath=keys))
    for path in carded.files():
        (root / "models" / "team" / "tutor" / "main" / path).unlink()
    other = rival(tmp_path)
    deliver.run(other.plan("hf://team/tutor", "rival-v2", 2, secretPath=keys))
    assert at(root, "main") == at(root, "v2") == other.files()


def test_each_cause_has_its_code(
    root: Path, carded: Model, keys: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = secret(tmp_path / "other", HF_TOKEN="hf_readerReaderReader42")
    assert code(carded.plan("hf://team/tutor", secretPath=other)) == "DestinationDenied"
    assert code(carded.plan("hf://team/tutor")) == "DestinationDenied"
    assert code(carded.plan("hf://team/tutor", secretPath=secret(tmp_path / "empty", other="x"))) == "SecretKeyNotFound"
    assert not (root / "models").exists()
    (carded.folder / "README.md").write_text(CARD.replace("acme/base", "pvc://claim/base"))
    (carded.folder / "manifest.json").unlink()
    carded.digest = manifest.write(carded.folder)
    assert code(carded.plan("hf://team/tutor", secretPath=keys)) == "DestinationRefused"
    assert at(root, "main") == {}
    with open(carded.folder / "adapter_model.safetensors", "r+b") as file:
        file.write(b"altered")
    assert code(carded.plan("hf://team/tutor", secretPath=keys)) == "ManifestMismatch"
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{objectstore.free_port('127.0.0.1')}")
    (carded.folder / "manifest.json").unlink()
    carded.digest = manifest.write(carded.folder)
    assert code(carded.plan("hf://team/tutor", secretPath=keys)) == "DestinationUnreachable"
