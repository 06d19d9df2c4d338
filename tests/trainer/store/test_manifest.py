"""Manifests: complete when there, and every difference is named."""

import hashlib
import json
import os
import resource

import pytest

from hone_api.plan import VerifyPlan
from hone_api.words.failures import ExitCode
from hone_trainer.__main__ import main
from hone_trainer.errors import StoreError
from hone_trainer.store import folders, manifest, verify

pytestmark = pytest.mark.pure


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "folder"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text("one")
    (root / "sub" / "b.bin").write_bytes(bytes(range(256)) * 100)
    (root / "empty").write_bytes(b"")
    yield root
    folders.remove(root)


def mismatch(folder, digest=None) -> str:
    with pytest.raises(StoreError) as caught:
        manifest.verify(folder, digest)
    assert caught.value.code == "ManifestMismatch"
    return caught.value.message


def test_what_was_written_verifies(folder):
    digest = manifest.write(folder)
    found = manifest.verify(folder, digest)
    assert (found.digest, found.files, found.size_bytes) == (digest, 3, 25603)
    text = (folder / "manifest.json").read_bytes()
    assert digest == "sha256:" + hashlib.sha256(text).hexdigest() == manifest.digest_of(folder)
    listed = json.loads(text)["files"]
    assert [entry["path"] for entry in listed] == ["a.txt", "empty", "sub/b.bin"]
    assert listed[0] == {"path": "a.txt", "size": 3, "sha256": hashlib.sha256(b"one").hexdigest()}
    assert manifest.size_of(folder) == 25603


def test_the_digest_depends_on_the_content_alone(folder, tmp_path):
    first = manifest.write(folder)
    os.utime(folder / "a.txt", (1, 1))
    assert manifest.write(folder) == first
    (folder / "a.txt").write_text("two")
    assert manifest.write(folder) != first


def test_complete_means_that_the_manifest_is_there(folder):
    assert not manifest.is_complete(folder)
    assert "manifest.json: missing" in mismatch(folder)
    manifest.write(folder)
    assert manifest.is_complete(folder)


def test_each_difference_is_named(folder):
    digest = manifest.write(folder)
    (folder / "a.txt").write_text("two")
    assert "a.txt: SHA-256 is" in mismatch(folder, digest)
    (folder / "a.txt").write_text("longer")
    assert "a.txt: 6 bytes, expected 3" in mismatch(folder, digest)
    (folder / "sub" / "b.bin").unlink()
    message = mismatch(folder, digest)
    assert "sub/b.bin: missing" in message
    assert "a.txt: 6 bytes" in message, "all of them at once"


def test_a_file_that_is_not_listed_is_a_difference(folder):
    digest = manifest.write(folder)
    (folder / "sub" / "modeling.py").write_text("raise SystemExit")
    assert "sub/modeling.py: not in the manifest" in mismatch(folder, digest)


def test_another_manifest_is_a_difference(folder):
    digest = manifest.write(folder)
    (folder / "a.txt").write_text("two")
    manifest.write(folder)
    assert f"expected {digest}" in mismatch(folder, digest)


@pytest.mark.parametrize("path", ["../outside", "/etc/hostname", "sub/../../outside", "", "a\0b"])
def test_a_path_that_leaves_the_folder_is_not_followed(folder, path):
    (folder.parent / "outside").write_text("x")
    entry = {"path": path, "size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    (folder / "manifest.json").write_text(json.dumps({"version": 1, "files": [entry]}))
    assert "not a path inside the folder" in mismatch(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"version": 2, "files": []}', '{"files": [{"path": "a"}]}', '{"x": 1}']
)
def test_what_is_not_a_manifest(folder, text):
    (folder / "manifest.json").write_text(text)
    assert "is not a manifest" in mismatch(folder)


@pytest.mark.parametrize("kind", ["file", "folder", "pipe", "manifest"])
def test_links_and_devices_are_refused(folder, kind):
    if kind != "manifest":
        manifest.write(folder)
    if kind == "pipe":
        os.mkfifo(folder / "x")
    elif kind == "manifest":
        (folder / "manifest.json").symlink_to(folder / "a.txt")
    else:
        (folder / "x").symlink_to(folder / ("a.txt" if kind == "file" else "sub"))
    mismatch(folder)
    if kind != "manifest":
        with pytest.raises(StoreError, match="links are refused"):
            manifest.write(folder)


def test_an_interrupted_write_leaves_no_manifest(folder, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(manifest.os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        manifest.write(folder)
    assert not manifest.is_complete(folder)


def plan(*artifacts) -> VerifyPlan:
    listed = [{"path": str(path), "digest": digest} for path, digest in artifacts]
    return VerifyPlan.model_validate({"name": "m", "artifacts": listed})


def test_verify_counts_all_artifacts_and_names_every_one_that_differs(folder):
    digest = manifest.write(folder)
    result = verify.run(plan((folder, digest), (folder, digest)))
    assert (result.files, result.size_bytes) == (6, 2 * 25603)
    wrong = "sha256:" + "0" * 64
    with pytest.raises(StoreError) as caught:
        verify.run(plan((folder, wrong), (folder, digest), (folder / "absent", digest)))
    assert wrong in caught.value.message
    assert f"{folder / 'absent'}: manifest.json: missing" in caught.value.message


def test_folders_are_verified_without_a_plan(folder, capsys):
    digest = manifest.write(folder)
    asked = ["verify", "--folder", f"{folder}={digest}"]
    assert main([*asked, "--folder", f"{folder}={digest}"]) == 0
    (folder / "a.txt").write_text("two")
    assert main(asked) == ExitCode.IO
    assert "a.txt: SHA-256 is" in capsys.readouterr().err
    (folder / "a.txt").write_text("one")
    manifest.write(folder)
    assert main(asked) == 0
    (folder / "sub" / "b.bin").unlink()
    manifest.write(folder)
    assert main(asked) == ExitCode.IO, "a manifest that was written again has another digest"


@pytest.mark.parametrize(
    "words", [[], ["plan.json", "--folder", "/a=b"], ["--folder", "/a"], ["--folder", "/a=sha256:0"]]
)
def test_a_folder_without_a_digest_is_refused(words):
    assert main(["verify", *words]) == ExitCode.CONFIG


@pytest.mark.attack("manifests")
@pytest.mark.parametrize("levels", [1500, 2100])
def test_folders_nested_deeper_than_python_may_recurse_are_a_difference(folder, levels):
    manifest.write(folder)
    at = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(os.open("x", os.O_CREAT, dir_fd=at))
    os.close(at)
    message = mismatch(folder)
    assert ("not in the manifest" if levels == 1500 else "nested too deeply") in message


@pytest.mark.attack("manifests")
@pytest.mark.parametrize(
    "text",
    [
        '{"files": [' + " " * manifest.MAX_BYTES + "]}",
        '{"files": [' + "{}," * (manifest.MAX_BYTES // 3) + "{}]}",
        " " * (2 * manifest.MAX_BYTES),
    ],
    ids=["spaces", "entries", "nothing"],
)
def test_a_manifest_that_is_too_large_is_not_read(folder, text, monkeypatch):
    (folder / "manifest.json").write_text(text)
    monkeypatch.setattr(manifest.Manifest, "model_validate_json", lambda text: pytest.fail("it was parsed"))
    assert "bytes, more than" in mismatch(folder)
    with pytest.raises(StoreError, match="more than"):
        manifest.digest_of(folder)


@pytest.mark.attack("manifests")
def test_the_largest_manifest_of_empty_entries_is_refused_within_memory(folder):
    text = b'{"files": [' + b",".join([b"{}"] * ((manifest.MAX_BYTES - 20) // 3)) + b"]}"
    (folder / "manifest.json").write_bytes(text)
    before = peak()
    assert "is not a manifest" in mismatch(folder)
    assert peak() - before < 256 * 2**20


def test_a_folder_with_too_many_files_for_a_manifest_is_not_written(folder, monkeypatch):
    monkeypatch.setattr(manifest, "MAX_BYTES", 300)
    with pytest.raises(StoreError, match="too many files"):
        manifest.write(folder)
    assert not (folder / "manifest.json").exists()


def peak() -> int:
    """The most that this process had in memory so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
