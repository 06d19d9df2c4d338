"""`python -m hone_trainer import`: a foreign adapter or model to <store>/models/<folder>.

What arrives is kept in a folder of its own until it is complete, so a killed import goes on with the files that it has.
The model itself appears by one rename, after it was checked.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hone_api.base.schemes import scheme_of
from hone_api.contract.manifest import MANIFEST, Entry, Manifest, manifest_digest
from hone_api.contract.report import ImportedBase, ImportResult
from hone_api.kinds.finetunejob import ModelRef
from hone_api.kinds.modelversion import Artifact
from hone_api.plan import FetchPlan, ImportPlan
from hone_api.words.failures import FailureCode
from hone_trainer.artifacts import servable
from hone_trainer.artifacts.importing import folding
from hone_trainer.artifacts.importing.adapter import ForeignAdapter, base_problem
from hone_trainer.artifacts.importing.card import write_card
from hone_trainer.artifacts.importing.choice import ADAPTER_CONFIG, REPORT, Choice, choose, shown
from hone_trainer.artifacts.importing.incoming import incoming_of, target_of
from hone_trainer.artifacts.importing.origins import OPEN, ForeignFiles
from hone_trainer.artifacts.importing.targets import explicit_targets, target_names
from hone_trainer.endpoints.http import Resolver, resolve
from hone_trainer.errors import ConfigError, SourceError, StoreError, TrainerError
from hone_trainer.models import base_model, fetch, read_shape, weights
from hone_trainer.models.safe_config import make_safe
from hone_trainer.reporting.task import TaskProgress
from hone_trainer.store import folders, hub, manifest
from hone_trainer.store.deadline import Deadline

FORMS = {"Adapter": "adapter", "Full": "full"}
"""Folder of each form."""


def run(plan: ImportPlan, resolver: Resolver = resolve) -> ImportResult:
    """Import the plan's source, unless it is in the store already.

    Raises:
        SourceError: Source…, UnsafeModel, UnsupportedModel, BaseMismatch, SecretNotFound, SecretKeyNotFound, and of
            the hub.
        StoreError: ManifestMismatch, the files are not those that a manifest.json next to them lists.
        ConfigError: ConflictingFields, an adapter without a base, or a whole model with one.
    """
    target = target_of(plan)
    with TaskProgress(f"import {plan.source.uri}") as progress:
        if (done := _finished(target)) is not None:
            progress.log(f"{plan.source.uri} is already in the store")
            return done
        origin = OPEN[scheme_of(plan.source.uri)](plan, resolver)
        choice = choose(origin.sizes, plan.source.uri)
        _check_fields(plan, choice)
        _check_size(plan, choice, origin)
        incoming = incoming_of(plan, origin.mark)
        incoming.mkdir(parents=True, exist_ok=True)
        listed = _listed(origin)
        origin.fetch(choice.others, incoming, progress.add_bytes)
        adapter = _adapter(plan, incoming) if choice.form == "Adapter" else None
        base = _base(plan) if adapter else None
        origin.fetch(choice.weights, incoming, progress.add_bytes)
        digest = _digest(incoming, choice.names, listed, plan.source.uri)
        result = _published(plan, choice, origin, incoming, target, (adapter, base), digest)
        shutil.rmtree(incoming, ignore_errors=True)
        progress.log(f"{plan.source.uri}: {choice.form}, {result.artifact.size_bytes:,} bytes")
        return result


def _finished(target: Path) -> ImportResult | None:
    """What an earlier attempt has completed."""
    for folder in (target / name for name in FORMS.values()):
        if folders.is_intact(folder):
            return _result(folder, json.loads((folder / REPORT).read_text())["imported"])
    return None


def _check_fields(plan: ImportPlan, choice: Choice) -> None:
    if choice.form == "Adapter" and plan.source.base is None:
        words = "it is an adapter: name the model that it was trained on in base"
    elif choice.form == "Full" and plan.source.base is not None:
        words = "it is a whole model, which has no base to load: remove base"
    else:
        return
    raise ConfigError(f"{plan.source.uri}: {words}", FailureCode.CONFLICTING_FIELDS)


def _check_size(plan: ImportPlan, choice: Choice, origin: ForeignFiles) -> None:
    size, limit = sum(origin.sizes[name] for name in choice.names), plan.limits.max_source_bytes
    if size > limit:
        message = f"{plan.source.uri}: {size} bytes, limit {limit}"
        raise SourceError(FailureCode.SOURCE_TOO_LARGE, message)


def _adapter(plan: ImportPlan, incoming: Path) -> ForeignAdapter:
    """What the adapter's config says, before its weights and its base are fetched."""
    assert plan.source.base is not None
    try:
        config = json.loads((incoming / ADAPTER_CONFIG).read_text(encoding="utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise SourceError(FailureCode.UNSAFE_MODEL, f"{plan.source.uri}: {ADAPTER_CONFIG} is not a JSON object")
    adapter = ForeignAdapter.of(config, plan.source.uri)
    problem = base_problem(adapter.base, plan.source.base.uri, plan.source.base.names or ())
    if problem and not _is_same_repository(plan, adapter.base):
        raise SourceError(FailureCode.BASE_MISMATCH, f"{plan.source.uri}: {problem}")
    return adapter


def _is_same_repository(plan: ImportPlan, named: str) -> bool:
    """Whether the hub has one commit under both names of a base: it follows the earlier name of a repository."""
    assert plan.source.base is not None
    token, deadline = hub.token_of(plan.base_secret_path), Deadline.after(plan.limits.timeout_seconds)
    base = hub.Repository.parse(plan.source.base.uri, "model", token, deadline)
    try:
        commits = {hub.commit_of(replace(base, name=name, revision="main")) for name in (base.name, named)}
    except SourceError:  # e.g. there is no repository of that name, or the token does not reach it
        return False
    return len(commits) == 1


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def base_folder(plan: ImportPlan, result: ImportResult) -> Path | None:
    """Where the base of an imported adapter is; None: it is a whole model."""
    if result.base is None:
        return None
    return Path(plan.store) / result.base.path if result.base.path else _on_volume(plan)


def _on_volume(plan: ImportPlan) -> Path:
    """The folder of a pvc:// base."""
    assert plan.source.base is not None
    assert plan.base_volume is not None
    volume = Path(plan.base_volume)
    folder = volume / plan.source.base.uri.removeprefix("pvc://").partition("/")[2].lstrip("/")
    if not folder.resolve().is_relative_to(volume.resolve()):
        raise SourceError(FailureCode.MODEL_NOT_FOUND, f"{plan.source.base.uri} leads out of its volume")
    return folder


def _base(plan: ImportPlan) -> tuple[Path, ImportedBase]:
    """The folder of the adapter's base, which is fetched if it is on the hub."""
    base = plan.source.base
    assert base is not None
    if base.uri.startswith("pvc://"):
        folder = _on_volume(plan)
        if not (folder / "config.json").is_file():
            raise SourceError(FailureCode.MODEL_NOT_FOUND, f"{base.uri} holds no config.json")
        return folder, ImportedBase(shape=read_shape.shape(folder))
    wanted = FetchPlan(
        model=ModelRef(uri=base.uri), secret_path=plan.base_secret_path, store=plan.store, limits=plan.limits
    )
    staged = fetch.run(wanted)
    return Path(plan.store) / staged.path, ImportedBase(
        path=staged.path, digest=staged.digest, commit=staged.commit, shape=staged.shape, license=staged.license
    )


def _listed(origin: ForeignFiles) -> Mapping[str, Entry]:
    """What a manifest.json at the source lists, by path. It is read apart: a folder that has one looks complete.

    Raises:
        StoreError: ManifestMismatch, it is none.
    """
    if MANIFEST not in origin.sizes:
        return {}
    with tempfile.TemporaryDirectory(prefix="hone-manifest-") as folder:
        origin.fetch([MANIFEST], Path(folder), lambda count: None)
        try:
            return {entry.path: entry for entry in manifest.read_entries(folder)}
        except ValidationError as error:
            words = f"{MANIFEST} at the source is not a manifest: {error.errors()[0]['msg']}"
            raise StoreError(FailureCode.MANIFEST_MISMATCH, words) from None


def _digest(incoming: Path, names: Sequence[str], listed: Mapping[str, Entry], source: str) -> str:
    """Digest of the list of the files, after comparing them with what a manifest.json at the source lists.

    Raises:
        StoreError: ManifestMismatch.
    """
    entries = [_entry(incoming, name) for name in names]
    if other := [entry.path for entry in entries if listed.get(entry.path, entry) != entry]:
        words = f"{', '.join(other[:5])}: not what {MANIFEST} next to it lists"
        raise StoreError(FailureCode.MANIFEST_MISMATCH, f"{source}: {words}")
    return manifest_digest(json.dumps(Manifest(files=entries).model_dump(), sort_keys=True).encode())


def _entry(folder: Path, name: str) -> Entry:
    with open(folder / name, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Entry(path=name, size=(folder / name).stat().st_size, sha256=sha256)


def _published(
    plan: ImportPlan,
    choice: Choice,
    origin: ForeignFiles,
    incoming: Path,
    target: Path,
    of: tuple[ForeignAdapter | None, tuple[Path, ImportedBase] | None],
    digest: str,
) -> ImportResult:
    """The checked model in its place, with what Hone needs to merge, serve and sign it."""
    adapter, base = of
    with folders.work_folder(target) as work:
        for name in choice.names:
            if name in choice.weights:
                (incoming / name).rename(work / name)
            else:
                shutil.copyfile(incoming / name, work / name)
        for config in work.glob("*.json"):
            make_safe(config)
        weights.check_files(work)
        opened = _complete_adapter(plan, work, base[0]) if base else _opened(plan, work)
        licence = write_card(work, plan, choice.form, origin.commit)
        facts: dict[str, Any] = {
            "commit": origin.commit,
            "digest": digest,
            "license": licence,
            "shape": None if base else read_shape.shape(work),
            "base": base[1] if base else None,
            "adapter_type": adapter.type if adapter else None,
            "adapter_rank": json.loads((work / ADAPTER_CONFIG).read_text())["r"] if adapter else None,
            "adapter_targets": target_names(work) if adapter else [],
            "left_out": shown(choice.left_out),
            "left_out_count": len(choice.left_out),
        }
        nothing = Artifact(format=choice.form, uri="", digest=digest, size_bytes=0)
        imported = ImportResult(artifact=nothing, **facts).to_json()
        (work / REPORT).write_text(json.dumps(_report(plan, choice, opened, imported), indent=2) + "\n")
        manifest.write(work)
        folder = target / FORMS[choice.form]
        folders.publish(work, folder)
    return _result(folder, imported)


def _opened(plan: ImportPlan, work: Path) -> base_model.Base:
    """A whole model, whose files have each weight.

    Raises:
        SourceError: UnsupportedModel.
    """
    opened = _open(plan.source.uri, work)
    try:
        base_model.check_weights(opened)
    except TrainerError as error:
        words = error.message.removeprefix(f"{work}: ")
        raise SourceError(error.code, f"{plan.source.uri}: {words}") from error
    return opened


def _complete_adapter(plan: ImportPlan, work: Path, base: Path) -> base_model.Base:
    """Check the adapter's weights against its base, and give it the base's name and a tokenizer."""
    assert plan.source.base is not None
    has_tokenizer = (work / "tokenizer_config.json").is_file()
    opened = _open(plan.source.base.uri, base, tokenizer=work if has_tokenizer else None)
    if not has_tokenizer:
        opened.tokenizer.save_pretrained(work)
    elif added := _tokens_without_embedding(opened, base):
        words = f"its tokenizer has tokens that {plan.source.base.uri} has no embedding of: {', '.join(added)}"
        raise SourceError(
            FailureCode.BASE_MISMATCH,
            f"{plan.source.uri}: {words}. It was trained on a base with a resized embedding: import that base as a "
            "model of its own and name it, or merge the adapter first",
        )
    config = json.loads((work / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": servable.base_name(plan.source.base.uri), "auto_mapping": None}
    config |= {"revision": None, "inference_mode": True, **explicit_targets(config, work)}
    config |= {"init_lora_weights": True, "eva_config": None}  # of use before the first step alone
    (work / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    try:
        folding.drop_base_weights(work, base)
        wrong = servable.problems(work, opened.config, "LanguageModel")
        if not wrong:
            folding.fold(work, opened.config)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:  # of PEFT, by what it misses
        wrong = [str(error).partition("\n")[0][:500]]
    if wrong:
        words = f"the adapter does not fit {plan.source.base.uri}: {'; '.join(wrong[:3])}"
        raise SourceError(FailureCode.BASE_MISMATCH, f"{plan.source.uri}: {words}")
    return opened


def _open(uri: str, folder: Path, tokenizer: Path | None = None) -> base_model.Base:
    """Open a model; what is wrong with it names its address, and no folder of this pod."""
    try:
        return base_model.open_base(folder, tokenizer_path=tokenizer)
    except TrainerError as error:
        words = error.message.partition("\n")[0].replace(f"{folder}: ", "").replace(str(folder), "the folder")
        if not ((tokenizer or folder) / "tokenizer_config.json").is_file():
            words = "it has no tokenizer: add one to the folder with tokenizer.save_pretrained"
        raise SourceError(error.code, f"{uri}: {words}") from None


def _tokens_without_embedding(opened: base_model.Base, base: Path) -> list[str]:
    """The first tokens that the adapter's tokenizer adds and that are no rows of the base's embedding.

    A base's own tokenizer may have such tokens, e.g. one for images in Gemma 3 1B, which reads text alone.
    """
    beyond = {id: token for token, id in opened.tokenizer.get_vocab().items() if id >= opened.vocabulary}
    if not beyond:
        return []
    own = base_model.open_base(base).tokenizer.get_vocab()
    return [repr(beyond[id])[:60] for id in sorted(beyond) if own.get(beyond[id]) != id][:3]


def _report(
    plan: ImportPlan, choice: Choice, opened: base_model.Base, imported: Mapping[str, Any]
) -> Mapping[str, Any]:
    """What the report of a run says of its artifact, as far as it is known of an import."""
    precision = "BFloat16" if str(opened.config.dtype) in ("torch.bfloat16", "torch.float16") else "Float32"
    return {
        "form": choice.form,
        "plan": {"method": "Import", "adapter": {"type": imported.get("adapterType", "None")}},
        "resolved": {"precision": precision},
        "source": plan.source.uri,
        "imported": imported,
    }


def _result(folder: Path, imported: Mapping[str, Any]) -> ImportResult:
    form = imported["artifact"]["format"]
    artifact = Artifact(
        format=form, uri=FORMS[form], digest=manifest.digest_of(folder), size_bytes=manifest.size_of(folder)
    )
    return ImportResult.model_validate({**imported, "artifact": artifact.to_json()})
