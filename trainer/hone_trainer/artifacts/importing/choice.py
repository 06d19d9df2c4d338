"""Which files at a source make a model, and which do not. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from hone_api.blocks.delivery import ArtifactForm
from hone_api.contract.manifest import ADDED, MANIFEST
from hone_api.words.failures import FailureCode
from hone_trainer.errors import SourceError
from hone_trainer.models.fetch import ALLOWED

WEIGHTS = ".safetensors"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
CARD, REPORT = "README.md", "report.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_WRITTEN_HERE = frozenset({MANIFEST, *ADDED, REPORT})
"""Files of a model that Hone exported; the import writes its own."""
_OF_WHOLE_MODELS = ("config.json", "*.index.json")
_OTHER_FORM = "consolidated"


@dataclass(frozen=True)
class Choice:
    """The files to take, sorted, and those to leave where they are."""

    form: ArtifactForm
    names: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def weights(self) -> list[str]:
        """Those that are large."""
        return [name for name in self.names if name.endswith(WEIGHTS)]

    @property
    def others(self) -> list[str]:
        """Those that are small: configs, tokenizer, card, licence."""
        return [name for name in self.names if not name.endswith(WEIGHTS)]


def choose(files: Collection[str], source: str) -> Choice:
    """The adapter or the whole model among the files of a folder, by their paths in it.

    Raises:
        SourceError: UnsafeModel, its weights are pickles alone; UnsupportedModel, it is neither or both.
    """
    top = sorted(name for name in files if "/" not in name)
    wanted = [name for name in top if name not in _WRITTEN_HERE and _is_allowed(name)]
    whole = [name for name in wanted if name.endswith(WEIGHTS) and name != ADAPTER_WEIGHTS]
    if ADAPTER_CONFIG in top and whole:
        words = f"it has {ADAPTER_CONFIG} and the weights of a whole model ({whole[0]}): keep one of them in the folder"
        raise SourceError(FailureCode.UNSUPPORTED_MODEL, f"{source}: {words}")
    if ADAPTER_CONFIG in top:
        if ADAPTER_WEIGHTS not in top:
            raise _without_weights(top, source, ADAPTER_WEIGHTS)
        names = [n for n in wanted if not any(fnmatch.fnmatchcase(n, pattern) for pattern in _OF_WHOLE_MODELS)]
        return _choice("Adapter", names, files)
    if not whole:
        raise _without_weights(top, source, f"*{WEIGHTS}")
    if "config.json" not in top:
        words = f"it has neither {ADAPTER_CONFIG} nor config.json in this folder"
        raise SourceError(FailureCode.UNSUPPORTED_MODEL, f"{source}: {words}")
    return _choice("Full", [name for name in wanted if name != ADAPTER_WEIGHTS], files)


def shown(left_out: Collection[str], most: int = 16) -> list[str]:
    """What was left out, for people: files, and folders as a whole; each at most 64 characters long."""
    places = dict.fromkeys(name if "/" not in name else f"{name.partition('/')[0]}/" for name in left_out)
    return [place if len(place) <= 64 else f"{place[:63]}…" for place in list(places)[:most]]


def _is_allowed(name: str) -> bool:
    if name.startswith(_OTHER_FORM):
        return False
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in (*ALLOWED, CARD))


def _choice(form: ArtifactForm, names: Collection[str], files: Collection[str]) -> Choice:
    return Choice(form, tuple(sorted(names)), tuple(sorted(set(files) - set(names) - _WRITTEN_HERE)))


def _without_weights(top: Collection[str], source: str, wanted: str) -> SourceError:
    """What is there instead of the weights."""
    pickles = [name for name in top if name.endswith(PICKLES)]
    if pickles:
        words = f"its weights are pickles ({', '.join(pickles[:3])}), which can run code when they are read"
        return SourceError(FailureCode.UNSAFE_MODEL, f"{source}: {words}")
    have = ", ".join(Path(name).name for name in list(top)[:5]) or "nothing"
    return SourceError(FailureCode.UNSUPPORTED_MODEL, f"{source}: there is no {wanted}; the folder has {have}")
