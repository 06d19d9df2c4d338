"""Which files of a hub repository are a configuration and a split: by its card, else by their names.

The card's front matter names them (`configs`: config_name, data_files, data_dir, default), as
https://huggingface.co/docs/hub/datasets-manual-configuration has it; without, folders are configurations and words in
names are splits, as https://huggingface.co/docs/hub/datasets-file-names-and-splits has it.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from hone_trainer.datasets.compression import base_name
from hone_trainer.errors import SourceError

TRAIN = "train"
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SUBJECTS = {"training", "testing", "evaluation"}
"""Words of splits that documents are about, too."""


def choose(
    names: Sequence[str], card: Mapping[str, Any], config: str | None, split: str | None, what: str
) -> list[str]:
    """The files of a configuration and a split, in the order of their names.

    Args:
        names: the repository's data files.
        card: the front matter of its README.md.
        config: None for the card's default one.
        split: None for train where there is one, else for all.
        what: the repository, for messages.

    Raises:
        SourceError: SourceNotFound for a configuration or split that is not there; the message names those that are.
    """
    configs = [one for one in card.get("configs") or () if isinstance(one, dict) and one.get("config_name")]
    if configs:
        splits = _splits_of(entry(configs, config, what), names)
    else:
        folder = [name for name in names if config is None or name.startswith(f"{config}/")]
        if config is not None and not folder:
            raise SourceError("SourceNotFound", f"{what} has no configuration {config}")
        splits = by_name(folder)
    if split is None:
        found = splits.get(TRAIN) or [name for files in splits.values() for name in files]
    elif split in splits:
        found = splits[split]
    else:
        raise SourceError(
            "SourceNotFound", f"{what} has no split {split}; it has {', '.join(sorted(splits)) or 'none'}"
        )
    return sorted(set(found))


def of_config(names: Sequence[str], card: Mapping[str, Any], config: str | None, what: str) -> list[str]:
    """The files of all splits of a configuration that the card names.

    Raises:
        SourceError: SourceNotFound for a configuration that is not there.
    """
    configs = [one for one in card.get("configs") or () if isinstance(one, dict) and one.get("config_name")]
    splits = _splits_of(entry(configs, config, what), names)
    return sorted({name for files in splits.values() for name in files})


def by_name(names: Sequence[str]) -> dict[str, list[str]]:
    """Files by the split that a word of their path tells; those without one are train when no file tells train."""
    found: dict[str, list[str]] = {}
    for name in names:
        words = re.split(r"[^a-z]+", name.lower())
        told = [split for split, known in _WORDS.items() if set(words) & set(known)]
        found.setdefault(told[0] if told else "", []).append(name)
    plain = found.pop("", [])
    if plain:
        found.setdefault(TRAIN, []).extend(plain)
    return found


def documents(names: Sequence[str]) -> dict[str, list[str]]:
    """Texts by split, as a corpus has them: train.txt, wiki.test.txt, dev/0.md; empty where they are pages.

    A page about tests is no split: a folder, or the name (of .txt its first or last word) has to be a split's, and one
    has to be that of train, or half of them those of some. The others are then train, where none tells train.
    """
    told = {name: split for name in names if (split := _told(PurePosixPath(base_name(name))))}
    if TRAIN not in told.values() and 2 * len(told) < len(names):
        return {}
    found: dict[str, list[str]] = {}
    for name in told if TRAIN in told.values() else names:
        found.setdefault(told.get(name, TRAIN), []).append(name)
    return found


def _told(path: PurePosixPath) -> str | None:
    """The split that a document's path tells."""
    words = [re.sub(r"[\W_]*\d+(-of-\d+)?", "", part) for part in (*path.parts[:-1], path.stem)]
    if path.suffix == ".txt":
        inner = re.split(r"[\W\d_]+", path.stem)
        words += [inner[0], inner[-1]]
    return next((split for split, known in _WORDS.items() if {*words} & {*known} - _SUBJECTS), None)


def entry(configs: Sequence[Mapping[str, Any]], config: str | None, what: str) -> Mapping[str, Any]:
    """The card's entry of a configuration; None: of the default one.

    Raises:
        SourceError: SourceNotFound.
    """
    known = {str(one["config_name"]): one for one in configs}
    if config is None:
        default = [one for one in configs if one.get("default") or one["config_name"] == "default"]
        if default or len(known) == 1:
            return (default or configs)[0]
        raise SourceError("SourceNotFound", f"{what} has no default configuration: name one of {', '.join(known)}")
    if config not in known:
        raise SourceError("SourceNotFound", f"{what} has no configuration {config}; it has {', '.join(known)}")
    return known[config]


def _splits_of(described: Mapping[str, Any], names: Sequence[str]) -> dict[str, list[str]]:
    """Files by split. data_files is a glob, a list of globs, or a list of {split, path}."""
    files = described.get("data_files")
    if files is None:
        folder = str(described.get("data_dir") or "").strip("/")
        return by_name([name for name in names if not folder or name.startswith(f"{folder}/")])
    found: dict[str, list[str]] = {}
    for one in files if isinstance(files, list) else [files]:
        split, paths = (str(one.get("split", TRAIN)), one.get("path")) if isinstance(one, dict) else (TRAIN, one)
        for glob in paths if isinstance(paths, list) else [paths]:
            found.setdefault(split, []).extend(fnmatch.filter(names, str(glob)))
    return found
