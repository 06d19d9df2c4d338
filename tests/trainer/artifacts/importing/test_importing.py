"""Foreign adapters and models into the store, from a volume, the local hub and a real S3 server."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from support.models import tiny
from support.models.import_place import CARD, Place, refused
from support.runs.forks import Forks, without_hub

from hone_api.blocks.imports import ImportBase
from hone_api.contract.report import ImportResult
from hone_api.contract.termination import TerminationMessage, parse_outcome
from hone_api.dataset.source import S3
from hone_api.plan import ImportPlan, ModelInput
from hone_dev import hub
from hone_dev.cluster import objectstore
from hone_trainer.artifacts.importing import importing
from hone_trainer.artifacts.importing.card import write_card
from hone_trainer.commands import import_model
from hone_trainer.commands.evaluate import recompute
from hone_trainer.endpoints import s3
from hone_trainer.errors import TrainerError
from hone_trainer.models import merge_base
from hone_trainer.store import hub_card, manifest
from hone_trainer.store.contents import UNKNOWN

pytestmark = pytest.mark.trainer


def test_an_adapter_becomes_what_a_run_would_have_left(place: Place, adapter: Path) -> None:
    result = importing.run(place.plan())
    folder = place.stored / "adapter"
    assert (result.artifact.format, result.artifact.uri) == ("Adapter", "adapter")
    assert manifest.verify(folder, result.artifact.digest).size_bytes == result.artifact.size_bytes
    assert (result.adapter_type, result.adapter_rank, result.license) == ("LoRA", 4, "apache-2.0")
    assert (result.left_out, result.left_out_count) == (["training_args.bin"], 1)
    assert result.base is not None
    assert result.base.shape is not None
    assert (folder / "adapter_model.safetensors").read_bytes() == (adapter / "adapter_model.safetensors").read_bytes()
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "/base"
    assert (folder / "tokenizer.json").is_file()
    assert [path.name for path in place.stored.iterdir()] == ["adapter"], "nothing else is left"


def test_a_later_stage_starts_from_an_imported_adapter(place: Place) -> None:
    result = importing.run(place.plan())
    artifact = {"path": str(place.stored / "adapter"), "digest": result.artifact.digest}
    model = ModelInput.model_validate({"path": str(place.base), "adapter": artifact})
    merge_base.merge(model.path, artifact["path"], str(place.folder / "merged"))
    before = load_file(place.base / "model.safetensors")
    after = load_file(place.folder / "merged" / "model.safetensors")
    changed = {name.split(".")[-2] for name, tensor in before.items() if not tensor.float().equal(after[name].float())}
    assert changed == {"q_proj", "v_proj"}


def test_an_imported_adapter_is_scored_like_one_of_a_run(place: Place, rows_files: tuple[Path, Path]) -> None:
    importing.run(place.plan())
    numbers = {n.name: n for n in recompute(place.stored / "adapter", rows_files[1], place.base)}
    assert float(numbers["loss"].tuned) != float(numbers["loss"].base or 0)
    with pytest.raises(TrainerError, match="name its folder with --base") as caught:
        recompute(place.stored / "adapter", rows_files[1])
    assert caught.value.code == "FileNotFound"


def test_a_model_is_scored_where_that_is_asked_for(place: Place, rows_files: tuple[Path, Path]) -> None:
    rows = {"name": "faq", "split": "validation", "path": str(rows_files[1]), "digest": UNKNOWN}
    result = import_model.run(place.plan(source={"evaluation": {"dataset": "faq", "maxRows": 3}}, rows=rows))
    (loss,) = [number for number in result.numbers if number.name == "loss"]
    assert (loss.dataset, loss.rows) == ("faq/validation", 3)
    assert loss.tuned != loss.base
    assert import_model.run(place.plan()).numbers == []


def test_a_second_import_reads_nothing_and_says_the_same(place: Place) -> None:
    first = importing.run(place.plan())
    inode = (place.stored / "adapter" / "adapter_model.safetensors").stat().st_ino
    shutil.rmtree(place.volume)
    assert importing.run(place.plan()) == first
    assert (place.stored / "adapter" / "adapter_model.safetensors").stat().st_ino == inode


def test_a_killed_import_goes_on_and_leaves_nothing_that_looks_complete(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(importing, "_digest", killed)
        with pytest.raises(KilledError):
            importing.run(place.plan())
    assert place.nothing_appeared()
    [incoming] = place.stored.iterdir()
    weights = (incoming / "adapter_model.safetensors").stat().st_ino
    (incoming / "README.md").unlink()
    (incoming / "README.md.part").write_text("---\nlicen")
    importing.run(place.plan())
    assert (place.stored / "adapter" / "adapter_model.safetensors").stat().st_ino == weights, "it was not read again"
    assert (place.stored / "adapter" / "ORIGINAL.md").read_text() == CARD


def test_what_changed_at_the_source_is_not_mixed_with_what_arrived(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(importing, "_digest", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            importing.run(place.plan())
    (place.model / "README.md").write_text(CARD.replace("apache-2.0", "mit"))
    assert importing.run(place.plan()).license == "mit"


def test_a_card_names_the_base_as_hubs_do_and_keeps_the_one_that_came(place: Place) -> None:
    theirs = "---\nbase_model: ~/.cache/models/base\nlicense: llama3.1\n---\n# Model Card for Model ID\n"
    (place.model / "README.md").write_text(theirs)
    plan = place.plan()
    assert importing.run(plan).license == "llama3.1"
    folder = place.stored / "adapter"
    assert (folder / "ORIGINAL.md").read_text() == theirs
    card = hub_card.read(folder / "README.md")
    assert card == {"license": "llama3.1", "library_name": "peft", "tags": ["hone", "lora"]}
    hub_base = plan.model_copy(
        update={"source": plan.source.model_copy(update={"base": ImportBase(uri="hf://a/b@v1")})}
    )
    (folder / "ORIGINAL.md").replace(folder / "README.md")
    assert write_card(folder, hub_base, "Adapter", "c" * 40) == "llama3.1"
    assert hub_card.read(folder / "README.md")["base_model"] == "a/b"


def test_a_model_without_a_tokenizer_is_refused_without_a_path_of_the_pod(whole: Place) -> None:
    for file in [*whole.model.glob("tokenizer*"), *whole.model.glob("special_tokens*")]:
        file.unlink()
    code, message = refused(whole.plan(base=None))
    words = "pvc://files/model: it has no tokenizer: add one to the folder with tokenizer.save_pretrained"
    assert (code, message) == ("UnsupportedModel", words)


def test_a_whole_model_is_a_full_one(whole: Place) -> None:
    (whole.model / "modeling_evil.py").write_text("raise SystemExit")
    config = json.loads((whole.model / "config.json").read_text())
    (whole.model / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))
    result = importing.run(whole.plan(base=None))
    assert (result.artifact.format, result.artifact.uri, result.base) == ("Full", "full", None)
    assert result.shape is not None
    assert result.left_out == ["modeling_evil.py"]
    assert "auto_map" not in (whole.stored / "full" / "config.json").read_text()


def _without_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.self_attn.q_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _with_a_cut_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"][:3].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _with_weights_of_another(folder: Path) -> None:
    """An index that leads to files outside the model, which no digest of it covers."""
    shutil.copytree(folder, folder.parent / "other")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    index = {"metadata": {}, "weight_map": {"x": "../other/model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.attack("files of a source")
@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (_without_a_weight, "UnsupportedModel", "model.layers.1.self_attn.q_proj.weight is missing"),
        (_with_a_cut_weight, "UnsupportedModel", "model.norm.weight has the size (3,), not ("),
        (
            _with_weights_of_another,
            "UnsafeModel",
            "names what is not a safetensors file next to it: ../other/model.saf",
        ),
    ],
)
def test_a_whole_model_has_each_of_its_weights(
    whole: Place, change: Callable[[Path], None], code: str, words: str
) -> None:
    change(whole.model)
    seen, message = refused(whole.plan(base=None))
    assert (seen, words in message) == (code, True), message
    assert whole.nothing_appeared()


def test_layers_that_are_named_by_a_regular_expression_are_listed(place: Place) -> None:
    """By the weights: the expression could take any time."""
    place.edit(target_modules=r"(\w+\.?)+(q|v)_proj", exclude_modules="(a+)+b")
    importing.run(place.plan())
    config = json.loads((place.stored / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"][0] == "model.layers.0.self_attn.q_proj"
    assert (len(config["target_modules"]), config["exclude_modules"]) == (4, None)


def test_a_file_name_that_is_not_text_is_skipped(place: Place) -> None:
    (place.model / os.fsdecode(b"caf\xe9.bin")).write_bytes(b"x")
    assert any(name.startswith("caf") for name in importing.run(place.plan()).left_out)


def test_the_base_must_be_there_for_an_adapter_and_not_for_a_whole_model(place: Place, tmp_path: Path) -> None:
    assert refused(place.plan(base=None)) == (
        "ConflictingFields",
        "pvc://files/model: it is an adapter: name the model that it was trained on in base",
    )
    whole = Place(tmp_path / "whole", place.base, place.base)
    code, message = refused(whole.plan())
    assert (code, "remove base" in message) == ("ConflictingFields", True)
    assert place.nothing_appeared()
    assert whole.nothing_appeared()


def _pickled(place: Place) -> None:
    (place.model / "adapter_model.safetensors").rename(place.model / "adapter_model.bin")


def _damaged(place: Place) -> None:
    (place.model / "adapter_model.safetensors").write_bytes(b"not safetensors")


def _of_other_layers(place: Place) -> None:
    place.edit(target_modules=["c_attn"])


def _with_tokens_of_a_resized_base(place: Place) -> None:
    own = tiny.tokenizer()
    size = json.loads((place.base / "config.json").read_text())["vocab_size"]
    own.add_tokens([f"<extra_{number}>" for number in range(size - len(own) + 1)])
    own.save_pretrained(place.model)


def _of_another_size(place: Place) -> None:
    file = place.model / "adapter_model.safetensors"
    save_file({name: tensor[:, :8].contiguous() for name, tensor in load_file(file).items()}, file)


def _without_a_scale(place: Place) -> None:
    place.edit(lora_alpha=1e30)


def _no_json(place: Place) -> None:
    config = place.model / "adapter_config.json"
    config.write_text(config.read_text().replace('"r": 4', '"r": 4, "lora_dropout": NaN'))


def _endless_pattern(place: Place) -> None:
    place.edit(alpha_pattern={r"(\w+\.?)+!": 8})


def _another_manifest(place: Place) -> None:
    manifest.write(place.model)
    (place.model / "README.md").write_text("changed")


def _link_to_this_pod(place: Place) -> None:
    (place.folder / "token").write_text("secret")
    (place.model / "LICENSE").symlink_to(place.folder / "token")


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (_pickled, "UnsafeModel", "pickles (adapter_model.bin, training_args.bin)"),
        (_damaged, "UnsafeModel", "adapter_model.safetensors is not a safetensors file"),
        (_of_other_layers, "BaseMismatch", "does not fit pvc://bases/base"),
        (_of_another_size, "BaseMismatch", "PEFT expects"),
        (_with_tokens_of_a_resized_base, "BaseMismatch", "no embedding of: '<extra_"),
        (_without_a_scale, "UnsupportedModel", "lora_alpha is 1e+30, not a scale"),
        (_no_json, "UnsafeModel", "adapter_config.json is not a JSON object"),
        (_endless_pattern, "UnsupportedModel", "name layers as they are called"),
        (_another_manifest, "ManifestMismatch", "README.md: not what manifest.json next to it lists"),
        (_link_to_this_pod, "SourceRefused", "LICENSE is a link that leaves the volume"),
    ],
)
def test_what_is_not_safe_or_not_right_is_refused(
    place: Place, change: Callable[[Place], None], code: str, words: str
) -> None:
    change(place)
    seen, message = refused(place.plan())
    assert (seen, words in message) == (code, True), message
    assert place.nothing_appeared()


def test_a_model_above_the_limit_is_refused_before_it_is_read(place: Place) -> None:
    code, message = refused(place.plan(limits={"maxSourceBytes": 100}))
    assert (code, "limit 100" in message) == ("SourceTooLarge", True)
    assert not place.stored.exists()


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Callable[[ImportPlan], TerminationMessage]]:
    """`python -m hone_trainer import`, with the local hub: huggingface_hub reads its settings when it is imported."""
    (tmp_path / "hub").mkdir()
    forks = Forks("hone_trainer.artifacts.importing.importing", "fsspec", "httpx2", environment=without_hub())

    def run(plan: ImportPlan) -> TerminationMessage:
        (tmp_path / "plan.json").write_text(json.dumps(plan.to_json()))
        log = tmp_path / "termination-log"
        home = {"HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": url}
        environment = {**home, "HONE_TERMINATION_LOG": str(log), "OMP_NUM_THREADS": "1"}
        forks(["import", str(tmp_path / "plan.json")], environment, tmp_path / "output")
        outcome = parse_outcome(log.read_text())
        assert outcome is not None
        return outcome

    with hub.serve(tmp_path / "hub") as url:
        yield run
    forks.close()


def test_an_adapter_of_the_hub_brings_its_base(
    place: Place, command: Callable[[ImportPlan], TerminationMessage], tiny_model: Path, adapter: Path
) -> None:
    models = place.folder / "hub" / "models"
    shutil.copytree(adapter, models / "acme" / "tutor" / "main")
    shutil.copytree(tiny_model, models / "acme" / "base" / "main")
    result = command(place.plan("hf://acme/tutor", "hf://acme/base")).result
    assert isinstance(result, ImportResult)
    assert result.base is not None
    assert result.commit is not None
    assert len(result.commit) == 40
    assert result.base.path == f"base-models/acme--base/{result.base.commit}"
    assert (place.store / result.base.path / "model.safetensors").is_file()
    assert result.base.digest == manifest.digest_of(place.store / result.base.path)
    config = json.loads((place.stored / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "acme/base"
    (models / "acme" / "renamed").symlink_to(models / "acme" / "base")  # the hub follows the earlier name
    result = command(place.plan("hf://acme/tutor", "hf://acme/renamed", folder="import-4/files")).result
    assert isinstance(result, ImportResult)
    assert result.base is not None
    assert result.base.path == f"base-models/acme--renamed/{result.base.commit}"
    failure = command(place.plan("hf://acme/tutor", "hf://acme/other", folder="import-2/files")).failure
    assert failure is not None
    words = (
        "hf://acme/tutor: adapter_config.json names the base acme/base, and the entry names hf://acme/other. If both"
    )
    assert (failure.code, failure.message[: len(words)]) == ("BaseMismatch", words)
    failure = command(place.plan("hf://acme/absent", None, folder="import-3/files")).failure
    assert failure is not None
    assert failure.code == "ModelNotFound"


def test_a_model_in_a_bucket_is_imported(
    place: Place, adapter: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with objectstore.serve(tmp_path_factory.mktemp("s3")) as server:
        bucket = server.bucket("models")
        shutil.copytree(adapter, bucket / "team" / "tutor")
        shutil.copytree(adapter, bucket / "team" / "tutor-old")
        keys = tmp_path / "keys"
        keys.mkdir()
        (keys / s3.KEY).write_text(server.access_key)
        (keys / s3.SECRET).write_text(server.secret_key)
        source = {"s3": S3(endpoint=server.endpoint), "secretName": "keys"}
        plan = place.plan("s3://models/team/tutor", source=source, secretPath=str(keys))
        result: ImportResult = importing.run(plan)
        assert (result.adapter_rank, result.left_out) == (4, ["training_args.bin"])
        absent = place.plan("s3://models/team/absent", source=source, secretPath=str(keys), folder="import-2/files")
        assert refused(absent)[0] == "SourceNotFound"


def test_a_token_beyond_the_embedding_that_the_base_has_as_well_is_taken(place: Place) -> None:
    _with_tokens_of_a_resized_base(place)
    for file in place.model.glob("*token*"):
        shutil.copy(file, place.base)
    importing.run(place.plan())


def test_the_tokenizer_of_the_adapter_wins_over_that_of_its_base(place: Place) -> None:
    own = tiny.tokenizer()
    own.chat_template = "{{ 'own' }}"
    own.save_pretrained(place.model)
    importing.run(place.plan())
    assert "own" in (place.stored / "adapter" / "chat_template.jinja").read_text()
