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

from hone_api.failures import FailureCode
from hone_trainer.datasets.compression import base_name
from hone_trainer.errors import SourceError

TRAIN = "train"
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SUBJECTS = {"training", "testing", "evaluation"}
"""Words of splits that are also subjects of documents."""


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
            raise SourceError(FailureCode.SOURCE_NOT_FOUND, f"{what} has no configuration {config}")
        splits = by_name(folder)
    if split is None:
        files_of_train = splits.get(TRAIN) or [name for files in splits.values() for name in files]
    elif split in splits:
        files_of_train = splits[split]
    else:
        raise SourceError(
            FailureCode.SOURCE_NOT_FOUND, f"{what} has no split {split}; it has {', '.join(sorted(splits)) or 'none'}"
        )
    return sorted(set(files_of_train))


def of_config(names: Sequence[str], card: Mapping[str, Any], config: str | None, what: str) -> list[str]:
    """The files of all splits of a configuration that the card names.

    Raises:
        SourceError: SourceNotFound for a configuration that is not there.
    """
    configs = [one for one in card.get("configs") or () if isinstance(one, dict) and one.get("config_name")]
    splits = _splits_of(entry(configs, config, what), names)
    return sorted({name for files in splits.values() for name in files})


def by_name(names: Sequence[str]) -> dict[str, list[str]]:
    """Files by the split in their path; files without one are train if no file is named train."""
    by_split: dict[str, list[str]] = {}
    for name in names:
        words = re.split(r"[^a-z]+", name.lower())
        matching = [split for split, split_words in _WORDS.items() if set(words) & set(split_words)]
        by_split.setdefault(matching[0] if matching else "", []).append(name)
    plain = by_split.pop("", [])
    if plain:
        by_split.setdefault(TRAIN, []).extend(plain)
    return by_split


def documents(names: Sequence[str]) -> dict[str, list[str]]:
    """Texts by split, as a corpus has them: train.txt, wiki.test.txt, dev/0.md; empty where they are pages.

    A page about tests is not a split: a folder, or the name (of .txt its first or last word) has to be a split's, and
    one has to be that of train, or half of them those of some. The others are then train, if none is named train.
    """
    by_file = {name: split for name in names if (split := _split_in_path(PurePosixPath(base_name(name))))}
    if TRAIN not in by_file.values() and 2 * len(by_file) < len(names):
        return {}
    by_split: dict[str, list[str]] = {}
    for name in by_file if TRAIN in by_file.values() else names:
        by_split.setdefault(by_file.get(name, TRAIN), []).append(name)
    return by_split


def _split_in_path(path: PurePosixPath) -> str | None:
    """The split in a document's path."""
    words = [re.sub(r"[\W_]*\d+(-of-\d+)?", "", part) for part in (*path.parts[:-1], path.stem)]
    if path.suffix == ".txt":
        inner = re.split(r"[\W\d_]+", path.stem)
        words += [inner[0], inner[-1]]
    return next((split for split, split_words in _WORDS.items() if {*words} & {*split_words} - _SUBJECTS), None)


def entry(configs: Sequence[Mapping[str, Any]], config: str | None, what: str) -> Mapping[str, Any]:
    """The card's entry of a configuration; None: of the default one.

    Raises:
        SourceError: SourceNotFound.
    """
    configs_by_name = {str(one["config_name"]): one for one in configs}
    if config is None:
        default = [one for one in configs if one.get("default") or one["config_name"] == "default"]
        if default or len(configs_by_name) == 1:
            return (default or configs)[0]
        raise SourceError(
            FailureCode.SOURCE_NOT_FOUND,
            f"{what} has no default configuration: name one of {', '.join(configs_by_name)}",
        )
    if config not in configs_by_name:
        raise SourceError(
            FailureCode.SOURCE_NOT_FOUND, f"{what} has no configuration {config}; it has {', '.join(configs_by_name)}"
        )
    return configs_by_name[config]


def _splits_of(described: Mapping[str, Any], names: Sequence[str]) -> dict[str, list[str]]:
    """Files by split. data_files is a glob, a list of globs, or a list of {split, path}."""
    files = described.get("data_files")
    if files is None:
        folder = str(described.get("data_dir") or "").strip("/")
        return by_name([name for name in names if not folder or name.startswith(f"{folder}/")])
    by_split: dict[str, list[str]] = {}
    for one in files if isinstance(files, list) else [files]:
        split, paths = (str(one.get("split", TRAIN)), one.get("path")) if isinstance(one, dict) else (TRAIN, one)
        for glob in paths if isinstance(paths, list) else [paths]:
            by_split.setdefault(split, []).extend(fnmatch.filter(names, str(glob)))
    return by_split
