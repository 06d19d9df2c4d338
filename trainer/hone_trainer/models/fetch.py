"""Fetch: stage a base model in the store, pinned to a commit: `store`/base-models/<owner>--<name>/<commit>.

Weights that are not safetensors are refused, and keys in config.json that make transformers load code are removed.
"""

from __future__ import annotations

import errno
import fnmatch
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hone_api.contract.manifest import MANIFEST
from hone_api.contract.report import FetchResult
from hone_api.plan import FetchPlan
from hone_api.words.failures import FailureCode, Retry
from hone_trainer.errors import ConfigError, SourceError, TrainerError
from hone_trainer.models import read_shape, weights
from hone_trainer.models.safe_config import make_safe
from hone_trainer.reporting.task import TaskProgress
from hone_trainer.store import folders, hub, hub_card, manifest
from hone_trainer.store.deadline import Deadline

ALLOWED = ("*.safetensors", "*.json", "*.txt", "*.jinja", "*.model", "*.tiktoken", "LICENSE*", "NOTICE*")
"""Data files of a model. Pickles (.bin, .pt), code (.py) and other forms of the weights are not fetched."""
_OTHER_FORM = "consolidated"
"""Prefixes of files with the same weights for another library, which transformers does not read."""


def run(plan: FetchPlan, check: Callable[[Path], object] | None = None) -> FetchResult:
    """Stage the plan's model unless it is staged already.

    Args:
        check: is given a folder with config and tokenizer before the weights are downloaded.

    Raises:
        SourceError: ModelNotFound, GatedModelAccessDenied, RevisionNotFound, SourceUnreachable, SourceTooLarge,
            UnsafeModel, UnsupportedModel, SecretNotFound, SecretKeyNotFound.
        ConfigError: NotSupportedYet, for any scheme except hf://.
        TrainerError: what `check` raises.
    """
    uri = plan.model.uri or ""
    if not uri.startswith("hf://"):
        raise ConfigError(f"model {uri.partition('://')[0]}://: only hf:// is fetched", FailureCode.NOT_SUPPORTED_YET)
    repository = hub.Repository.parse(
        uri, "model", hub.token_of(plan.secret_path), Deadline.after(plan.limits.timeout_seconds)
    )
    with TaskProgress(f"model {repository.name}") as progress:
        snapshot = hub.look_up(repository)
        names = _choose_files(repository, snapshot)
        size = sum(snapshot.files[name] for name in names)
        if size > plan.limits.max_source_bytes:
            raise SourceError(
                FailureCode.SOURCE_TOO_LARGE, f"{repository}: {size} bytes, limit {plan.limits.max_source_bytes}"
            )
        path = f"base-models/{repository.name.replace('/', '--')}/{snapshot.commit}"
        target = Path(plan.store) / path
        if folders.is_intact(target):
            progress.log(f"{repository.name} at {snapshot.commit[:12]} is already in the store")
        else:
            progress.log(f"fetching {repository.name} at {snapshot.commit[:12]}: {size / 2**20:.0f} MiB")
            _stage(repository, snapshot, names, target, check)
        card = _card(repository, snapshot)
        return FetchResult(
            path=path,
            commit=snapshot.commit,
            digest=manifest.digest_of(target),
            size_bytes=manifest.size_of(target),
            shape=read_shape.shape(target),
            license=hub_card.licence(card),
        )


def _card(repository: hub.Repository, snapshot: hub.Snapshot) -> Mapping[str, Any]:
    with tempfile.TemporaryDirectory(prefix="hone-card-") as folder:
        return hub_card.front_matter(repository, snapshot, Path(folder))


def _choose_files(repository: hub.Repository, snapshot: hub.Snapshot) -> list[str]:
    """Files to fetch.

    Raises:
        SourceError: UnsafeModel without safetensors, UnsupportedModel without config.json.
    """
    top = [name for name in snapshot.files if "/" not in name]
    names = sorted(name for name in top if any(fnmatch.fnmatchcase(name, pattern) for pattern in ALLOWED))
    names = [name for name in names if not name.startswith(_OTHER_FORM)]
    if not any(name.endswith(".safetensors") for name in names):
        pickles = [name for name in top if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".gguf"))]
        has = f"it has {', '.join(pickles[:3])}" if pickles else "it has no weights"
        raise SourceError(FailureCode.UNSAFE_MODEL, f"{repository} has no safetensors file: {has}")
    if "config.json" not in names:
        raise SourceError(FailureCode.UNSUPPORTED_MODEL, f"{repository} has no config.json")
    if "adapter_config.json" in top:
        way_out = "it would be applied silently: name the base model, or one with the adapter merged"
        raise SourceError(
            FailureCode.UNSUPPORTED_MODEL, f"{repository} holds an adapter (adapter_config.json), and {way_out}"
        )
    return names


def _stage(
    repository: hub.Repository,
    snapshot: hub.Snapshot,
    names: list[str],
    target: Path,
    check: Callable[[Path], object] | None,
) -> None:
    """Files that an earlier call downloaded whole are not downloaded again."""
    with folders.resumed_folder(target, keep=_goes_on) as work:
        folder = work / "model"
        folder.mkdir(exist_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)
        small = [name for name in names if not name.endswith(".safetensors")]
        if check:
            hub.download(repository, snapshot, small, folder, resumable=True)
            _check_none(hub.differing(snapshot, small, folder), repository, folder)
            with tempfile.TemporaryDirectory(prefix="hone-model-") as copies:
                for name in small:
                    shutil.copyfile(folder / name, Path(copies, name))
                for config in Path(copies).glob("*.json"):
                    make_safe(config)
                check(Path(copies))
        hub.download(repository, snapshot, names, folder, resumable=True)
        hub.forget_download(folder)
        _check_none(hub.differing(snapshot, small, folder), repository, folder)
        for config in folder.glob("*.json"):
            make_safe(config)
        manifest.write(folder)
        _check_none(_other_weights(snapshot, folder), repository, folder)
        weights.check_files(folder)
        folders.publish(folder, target)


def _goes_on(error: BaseException) -> bool:
    """Whether the next attempt uses what has arrived. A full disk gets its space back."""
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return not is_full and not (isinstance(error, TrainerError) and error.retry is Retry.NEVER)


def _other_weights(snapshot: hub.Snapshot, folder: Path) -> list[str]:
    """Those that are not what the hub lists, by the manifest: no large file is read twice."""
    weights = [entry for entry in manifest.read_entries(folder) if entry.path.endswith(".safetensors")]
    listed = [(entry, snapshot.digests[entry.path]) for entry in weights]
    return [entry.path for entry, digest in listed if hub.is_sha256(digest) and digest != entry.sha256]


def _check_none(others: list[str], repository: hub.Repository, folder: Path) -> None:
    """Remove files that are not what the hub lists: the library that downloads goes by their times alone.

    Raises:
        SourceError: ChecksumMismatch, if there are any.
    """
    for name in others:
        (folder / name).unlink()
    if others:
        words = f"{repository}: {', '.join(others[:5])} is not what the hub lists; the next attempt downloads it again"
        raise SourceError(FailureCode.CHECKSUM_MISMATCH, words)
