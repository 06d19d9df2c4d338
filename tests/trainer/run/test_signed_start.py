"""A run that starts from a ModelVersion of a platform that signs: the signature is compared before anything is read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.servers.signing_key import Key

from hone_api.plan import ArtifactInput, ModelInput
from hone_api.words.failures import FAILURES, FailureCode
from hone_trainer.datasets.curation.classifier import Classifier
from hone_trainer.errors import StoreError
from hone_trainer.models import merge_base
from hone_trainer.run import encode
from hone_trainer.store import manifest

pytestmark = pytest.mark.trainer


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Key, Key]:
    """The platform's, and somebody else's."""
    folder = tmp_path_factory.mktemp("keys")
    return Key(folder / "ours"), Key(folder / "theirs")


@pytest.fixture
def version(tiny_model: Path, tmp_path: Path, keys: tuple[Key, Key]) -> ModelInput:
    """A ModelVersion whose files the platform has signed."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "version"))
    digest = manifest.write(folder)
    keys[0].sign(folder, digest)
    return ModelInput(path=str(folder), digest=digest, trusted=[keys[0].public])


def sign_again(version: ModelInput, key: Key) -> None:
    (Path(version.path) / "model.sig").unlink()
    key.sign(Path(version.path), str(version.digest))


def append(name: str) -> Callable[[ModelInput, tuple[Key, Key]], None]:
    def change(version: ModelInput, keys: tuple[Key, Key]) -> None:
        with open(Path(version.path) / name, "ab") as file:
            file.write(b" ")

    return change


FAULTS: dict[str, tuple[Callable[[ModelInput, tuple[Key, Key]], None], FailureCode]] = {
    "missing": (
        lambda version, keys: (Path(version.path) / "model.sig").unlink(),
        FailureCode.SIGNATURE_MISSING,
    ),
    "of another key": (lambda version, keys: sign_again(version, keys[1]), FailureCode.SIGNATURE_INVALID),
    "over another statement": (append("provenance.json"), FailureCode.SIGNATURE_INVALID),
    "over other files": (append("config.json"), FailureCode.MANIFEST_MISMATCH),
}


@pytest.mark.faults("D5")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_does_not_start_from_it(
    fault: str, version: ModelInput, keys: tuple[Key, Key], make_plan: Any, runs: Any
) -> None:
    change, code = FAULTS[fault]
    change(version, keys)
    plan = make_plan(modelPath=version.path, modelDigest=version.digest, modelTrusted=version.trusted)
    outcome = runs.wait(plan, runs.start(plan), exit_code=FAILURES[code].exit_code)
    assert outcome.failure.code == code
    assert not any(Path(plan.work_path).glob("checkpoints/*")), "no step was taken"
    assert not (Path(plan.output_path) / "adapter").exists()


READERS: dict[str, Callable[[Any, ModelInput, Path], object]] = {
    "the base, before its rows are encoded": lambda make, v, room: encode.run(
        make(modelPath=v.path, modelDigest=v.digest, modelTrusted=v.trusted, encodedPath=str(room))
    ),
    "the adapter to start from": lambda make, v, room: merge_base.prepare(
        make(modelAdapter=ArtifactInput(path=v.path, digest=str(v.digest), trusted=v.trusted)), first=True
    ),
    "a reward model or a teacher": lambda make, v, room: merge_base.prepare(make(models={"judge-v1": v}), first=True),
    "the version to compare with": lambda make, v, room: merge_base.prepare(
        make(comparedWith="tiny-v1", comparedModel=v), first=True
    ),
    "a classifier of rows": lambda make, v, room: Classifier(v, None, room),
}


@pytest.mark.faults("D5")
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("fault", FAULTS)
def test_nobody_reads_it(
    fault: str, reader: str, version: ModelInput, keys: tuple[Key, Key], make_plan: Any, tmp_path: Path
) -> None:
    change, code = FAULTS[fault]
    change(version, keys)
    with pytest.raises(StoreError) as caught:
        READERS[reader](make_plan, version, tmp_path / "room")
    assert caught.value.code == code
    assert str(version.path) in caught.value.message


def test_a_run_starts_from_one_that_the_platform_signed(version: ModelInput, make_plan: Any) -> None:
    plan = make_plan(modelPath=version.path, modelDigest=version.digest, modelTrusted=version.trusted)
    assert merge_base.prepare(plan, first=True) == plan
