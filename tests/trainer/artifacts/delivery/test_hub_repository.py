"""hf:// targets against the local hub, by the real huggingface_hub client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, constants

from hone_api.plan import DeliverPlan
from hone_dev import hub, objectstore
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
