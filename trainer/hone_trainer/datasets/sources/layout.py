"""Which files of a source are a configuration and a split: by its card, dataset_dict.json, or their names.

The card's front matter names them (`configs`: config_name, data_files, data_dir, default), as
https://huggingface.co/docs/hub/datasets-manual-configuration has it; without, folders are configurations and words in
names are splits, as https://huggingface.co/docs/hub/datasets-file-names-and-splits has it.
"""

from __future__ import annotations

import fnmatch
import itertools
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from glob import has_magic
from pathlib import PurePosixPath
from typing import Any

from hone_api.dataset.source import Source
from hone_api.words.failures import FailureCode
from hone_trainer.datasets.readers.compression import base_name
from hone_trainer.errors import SourceError

TRAIN = "train"
OTHER = "other"
"""Files without a split in their names, next to files of train."""
SPLITS = "dataset_dict.json"
DOCUMENTS = (".txt", ".md")
_FOREIGN = {
    TRAIN: (
        *("trainings", "entrainement", "apprentissage", "entrenamiento", "treino", "treinamento", "addestramento"),
        *("обучение", "обучающая", "训练", "訓練", "学習", "학습", "훈련"),
    ),
    "validation": (
        *("validierung", "validierungs", "validacion", "validacao", "validazione", "convalida"),
        *("валидация", "валидационная", "проверка", "验证", "驗證", "検証", "검증"),
    ),
    "test": (
        *("prueba", "pruebas", "teste", "testes", "collaudo"),
        *("тест", "тестовая", "测试", "測試", "评估", "評估", "テスト", "評価", "테스트", "평가"),
    ),
}
"""Words of other languages, without accents, that `datasets` does not know."""
_SUBJECTS = {"training", "testing", "evaluation", *_FOREIGN[TRAIN]}
"""Words of splits that are also subjects of documents."""
_ENDS = (
    "",
    "set",
    "sets",
    "data",
    "split",
    "daten",
    "satz",
    "集",
    "数据",
    "數據",
    "データ",
    "セット",
    "데이터",
    "세트",
)
_WORDS = {
    split: {f"{word}{end}" for word in (*words, *_FOREIGN[split]) for end in _ENDS}
    for split, words in {
        TRAIN: ("train", "training", "trn"),
        "validation": ("validation", "valid", "val", "dev", "devel"),
        "test": (
            *("test", "tests", "testing", "tst", "eval", "evals", "evaluation", "evaluations"),
            *("heldout", "holdout", "devtest"),
        ),
    }.items()
}


@dataclass(frozen=True)
class Indexes:
    """What the source says of its own files."""

    card: Mapping[str, Any] = field(default_factory=dict)
    """The front matter of README.md."""
    documents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """state.json and dataset_dict.json of `datasets`, by their names in the listing."""
    cards_below: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The front matter of README.md in folders, as of copies of several repositories, by its name in the listing."""


def one_split(names: list[str], indexes: Indexes, source: Source, what: str) -> list[str]:
    """The files of the split that the source names; of train, where an index or a hub says what that is.

    Raises:
        SourceError: SourceNotFound, SeveralSplits.
    """
    on_hub = source.uri.startswith("hf://")
    configs = _configs(indexes.card)
    if configs and not on_hub and len(configs) > 1 and not _defaults(configs):
        by_config = {str(one["config_name"]): _splits_of(one, names) for one in configs}
        first = {config: splits.get(TRAIN) or _all(splits) for config, splits in by_config.items()}
        raise several(first, names, what)
    by_split = _all_splits(names, configs, indexes, source, what)
    split = source.split or (TRAIN if TRAIN in by_split and (on_hub or configs) else None)
    if split is None and len(by_split) > 1:
        raise several(by_split, names, what, by_name=on_hub)
    if split is not None and split not in by_split:
        there = ", ".join(sorted(by_split)) or "none"
        raise SourceError(FailureCode.SOURCE_NOT_FOUND, f"{what} has no split {split}; it has {there}")
    files = by_split[split] if split else _all(by_split)
    if configs and not files and names:
        message = f"{what}: no data file is named as its card says for split {split or ', '.join(by_split)}"
        raise SourceError(FailureCode.SOURCE_NOT_FOUND, message)
    paths = [path for of, path in _paths_of(entry(configs, source.config, what)) if of == split] if configs else []
    if absent := [path for path in paths if not has_magic(path) and path not in names]:
        message = f"{what}: its card names {absent[0]}, and there is no such data file. Copy it, or name the files"
        raise SourceError(FailureCode.SOURCE_NOT_FOUND, f"{message} to read in spec.source.files")
    return files


def left_by_cards(chosen: Sequence[str], indexes: Indexes, source: Source, what: str) -> set[str]:
    """Files below folders that have a card of their own, and that are not of its configuration and split.

    Raises:
        SourceError: as `one_split`.
    """
    left: set[str] = set()
    for card, front in indexes.cards_below.items() if not _configs(indexes.card) else ():
        folder = card.rpartition("/")[0] + "/"
        inside = [name.removeprefix(folder) for name in chosen if name.startswith(folder)]
        if inside and _configs(front):
            kept = one_split(inside, Indexes(front), source, f"{what}/{folder.rstrip('/')}")
            left |= {folder + name for name in {*inside} - {*kept}}
    return left


def _all_splits(
    names: list[str], configs: Sequence[Mapping[str, Any]], indexes: Indexes, source: Source, what: str
) -> dict[str, list[str]]:
    """Files of a configuration by split: as the card, or dataset_dict.json says, else by their names."""
    if configs:
        return _splits_of(entry(configs, source.config, what), names)
    if source.config is not None:
        names = [name for name in names if name.startswith(f"{source.config}/")]
        if not names:
            raise SourceError(FailureCode.SOURCE_NOT_FOUND, f"{what} has no configuration {source.config}")
    folders = {
        f"{join(index.rpartition('/')[0], str(split))}/": str(split)
        for index, document in indexes.documents.items()
        if index.endswith(SPLITS) and isinstance(document.get("splits"), list)
        for split in document["splits"]
    }
    if not folders:
        return splits_of(names)
    by_split: dict[str, list[str]] = {}
    for name in names:
        split = next((split for folder, split in folders.items() if name.startswith(folder)), OTHER)
        by_split.setdefault(split, []).append(name)
    return by_split


def join(folder: str, name: str) -> str:
    """The path of a name in a folder, or at the top."""
    return f"{folder}/{name}" if folder else name


def several(
    by_split: Mapping[str, list[str]], names: Sequence[str], what: str, *, by_name: bool = False
) -> SourceError:
    """SeveralSplits: test rows must not be trained on.

    Args:
        by_name: whether source.split may name one.
    """
    if by_name:
        choices = f"spec.source.split ({', '.join(by_split)})"
    else:
        globs = "; ".join(f"{split}: files: {json.dumps(_glob(files, names))}" for split, files in by_split.items())
        choices = f"spec.source.files ({globs})"
    every = json.dumps(sorted({f"*{PurePosixPath(name).suffix}" for name in names}))
    return SourceError(
        FailureCode.SEVERAL_SPLITS,
        f"{what} has the files of several splits. Choose one in {choices}, and make a Dataset of each; to split all"
        f" rows again, write files: {every}"[:1000],
    )


def _all(by_split: Mapping[str, list[str]]) -> list[str]:
    return [name for files in by_split.values() for name in files]


def _glob(files: Sequence[str], names: Sequence[str]) -> list[str]:
    """A glob that chooses these files and no other of the names, or their names."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(min(files), max(files), strict=False))
    start = "".join(letter for letter, _ in same)
    for glob in (f"{begin}*{PurePosixPath(files[0]).suffix}" for begin in (start[: start.rfind("/") + 1], start)):
        if len(files) > 1 and {*fnmatch.filter(names, glob)} == {*files}:
            return [glob]
    return [*files[:8], *(["…"] if len(files) > 8 else [])]


def of_config(names: Sequence[str], card: Mapping[str, Any], config: str | None, what: str) -> list[str]:
    """The files of all splits of a configuration that the card names.

    Raises:
        SourceError: SourceNotFound for a configuration that is not there.
    """
    splits = _splits_of(entry(_configs(card), config, what), names)
    return sorted({*_all(splits)})


def splits_of(names: Sequence[str]) -> dict[str, list[str]]:
    """Files by the split in their names, train first.

    Files without one are train if no file is; next to a file of rows that says train, they may be anything.
    """
    texts = [name for name in names if base_name(name).endswith(DOCUMENTS)]
    by_split = documents(texts)
    if texts and not by_split:
        by_split[OTHER] = texts
    is_said = False
    for name in sorted({*names} - {*texts}):
        split, word = _split_of(name)
        by_split.setdefault(split, []).append(name)
        is_said |= split == TRAIN and word not in _SUBJECTS
    if OTHER in by_split and not is_said:
        by_split.setdefault(TRAIN, []).extend(by_split.pop(OTHER))
    return {split: by_split[split] for split in (*_WORDS, OTHER) if split in by_split}


def _split_of(name: str) -> tuple[str, str]:
    """The split in a path, and the word for it: of the file's name, else of the innermost folder that has one."""
    for part in reversed(PurePosixPath(name).parts):
        name = _normal(part)
        words = dict.fromkeys((*re.split(r"[^a-z]+", name), *re.split(r"[\W\d_]+", name)))
        for split, split_words in _WORDS.items():
            if word := next((word for word in words if word in split_words), None):
                return split, word
    return OTHER, ""


def _normal(text: str) -> str:
    """Lower case without accents, with words apart: heldOut, held-out and held_out are heldout."""
    plain = unicodedata.normalize("NFC", re.sub(r"(?<=[a-z])[\u0300-\u036f]", "", unicodedata.normalize("NFKD", text)))
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", plain).lower()
    return re.sub(r"\b(held|hold)[-_. ]out|(?<=_)(held|hold)[-_. ]out", "heldout", apart)


def documents(names: Sequence[str]) -> dict[str, list[str]]:
    """Texts by split, as a corpus has them: train.txt, wiki.test.txt, dev/0.md; empty where they are pages.

    A page about tests is not a split: a folder, or the name (of .txt its first or last word) has to be a split's, and
    one has to be that of train, or half of them those of some. The others are then train.
    """
    by_file = {name: split for name in names if (split := _split_in_path(PurePosixPath(base_name(name))))}
    if TRAIN not in by_file.values() and 2 * len(by_file) < len(names):
        return {}
    by_split: dict[str, list[str]] = {}
    for name in names:
        by_split.setdefault(by_file.get(name, TRAIN), []).append(name)
    return by_split


def _split_in_path(path: PurePosixPath) -> str | None:
    """The split in a document's path."""
    words = [re.sub(r"[\W_]*\d+(-of-\d+)?", "", _normal(part)) for part in (*path.parts[:-1], path.stem)]
    if path.suffix == ".txt":
        inner = re.split(r"[\W\d_]+", _normal(path.stem))
        words += [inner[0], inner[-1]]
    return next((split for split, split_words in _WORDS.items() if {*words} & split_words - _SUBJECTS), None)


def _configs(card: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The card's entries."""
    configs = card.get("configs")
    entries = configs if isinstance(configs, list) else []
    return [one for one in entries if isinstance(one, dict) and one.get("config_name")]


def _defaults(configs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [one for one in configs if one.get("default") or one["config_name"] == "default"]


def entry(configs: Sequence[Mapping[str, Any]], config: str | None, what: str) -> Mapping[str, Any]:
    """The card's entry of a configuration; None: of the default one.

    Raises:
        SourceError: SourceNotFound.
    """
    configs_by_name = {str(one["config_name"]): one for one in configs}
    if config is None:
        default = _defaults(configs)
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
    """Files by split. data_files is a glob, a list of globs, a list of {split, path}, or globs by split."""
    folder = str(described.get("data_dir") or "").strip("./")
    if described.get("data_files") is None:
        return splits_of([name for name in names if not folder or name.startswith(f"{folder}/")])
    by_split: dict[str, list[str]] = {}
    for split, path in _paths_of(described):
        by_split.setdefault(split, []).extend(filter(re.compile(_translated(path)).match, names))
    return by_split


def _paths_of(described: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each split and a name or glob of its files."""
    folder = str(described.get("data_dir") or "").strip("./")
    files = described.get("data_files") or []
    if isinstance(files, dict):
        files = [{"split": split, "path": path} for split, path in files.items()]
    for one in files if isinstance(files, list) else [files]:
        split, paths = (str(one.get("split", TRAIN)), one.get("path")) if isinstance(one, dict) else (TRAIN, one)
        for path in paths if isinstance(paths, list) else [paths]:
            yield split, join(folder, str(path).removeprefix("./"))


def _translated(glob: str) -> str:
    """A regular expression for a glob of a card, in which * ends at / and ** does not."""
    from fsspec.utils import glob_translate

    try:
        return glob_translate(glob)
    except ValueError:  # such as a**: the hub's own reader refuses it as well
        return fnmatch.translate(glob)
