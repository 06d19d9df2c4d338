"""Every name below a source is read, or counted in the status by its reason, or refused: none is lost.

Layouts are made of parts on a real volume: each part alone, and every two parts together. The words of splits and the
kinds of files are those of `datasets`, which also judges names, cards and what it saves.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from hone_api.dataset.dataset_status import NotReadReason
from hone_api.dataset.source import Source
from hone_api.plan import MaterializePlan
from hone_trainer.datasets.readers.read import read_rows
from hone_trainer.datasets.sources import layout, listing, sources
from hone_trainer.datasets.sources.layout import Indexes
from hone_trainer.datasets.sources.listing import ListedName
from hone_trainer.errors import SourceError, StoreError, TrainerError
from hone_trainer.reporting.task import TaskProgress

pytestmark = pytest.mark.trainer
NOBODY = 65534
ROOT = Path(__file__).resolve().parents[4]
OUTSIDE = ROOT / "docs/outside.md"


@dataclass(frozen=True)
class Part:
    """Something that a folder may hold: how it is made, and what is to become of each of its names."""

    make: Callable[[Path, Path], Any]
    """Makes it in a folder of a volume."""
    read: Sequence[str] = ()
    not_read: dict[str, str] = field(default_factory=dict)
    """Reasons by name."""
    refused: str = ""
    """A failure code."""


def rows(*names: str) -> Callable[[Path, Path], None]:
    """Files of two rows, whose text is where they are."""

    def make(folder: Path, volume: Path) -> None:
        for name in names:
            write(folder / name, volume)

    return make


def write(path: Path, volume: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.relative_to(volume)
    path.write_text("".join(json.dumps({"text": f"{place} {n}"}) + "\n" for n in range(2)))
    return path


def link(name: str, target: str) -> Callable[[Path, Path], None]:
    """A link, next to files behind it; {other} in the target is another folder of the volume."""

    def make(folder: Path, volume: Path) -> None:
        other = volume / f"other-{folder.name}"
        for place in (folder / "inner/in.jsonl", folder / "one.jsonl", other / "far.jsonl", other / "deep/er.jsonl"):
            write(place, volume)
        (folder / name).symlink_to(target.format(other=other, folder=folder))

    return make


def content(**texts: str) -> Callable[[Path, Path], None]:
    """Files with a text; __ in a keyword is /, and _ before a known suffix a dot."""

    def make(folder: Path, _: Path) -> None:
        for name, text in texts.items():
            path = folder / re.sub(r"_(?=(json|jsonl|csv|bin|text)$)", ".", name.replace("__", "/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return make


def both(*makers: Callable[[Path, Path], Any]) -> Callable[[Path, Path], None]:
    def make(folder: Path, volume: Path) -> None:
        for maker in makers:
            maker(folder, volume)

    return make


def named(reason: NotReadReason, *names: str) -> Part:
    """Files with rows in them that are not read."""
    return Part(rows(*names), not_read=dict.fromkeys(names, reason))


def hard(folder: Path, volume: Path) -> None:
    os.link(write(folder / "a.jsonl", volume), folder / "b.jsonl")


def circle(folder: Path, volume: Path) -> None:
    write(folder / "left/l.jsonl", volume)
    write(folder / "right/r.jsonl", volume)
    (folder / "left/to").symlink_to("../right")
    (folder / "right/to").symlink_to("../left")


STATE = json.dumps({"_data_files": [{"filename": "data.jsonl"}], "_split": None})
NEXT = ["inner/in.jsonl", "one.jsonl"]
SAME, HIDDEN, ABOUT = NotReadReason.SAME_FILE, NotReadReason.HIDDEN, NotReadReason.DESCRIPTION
PARTS = {
    "rows": Part(rows("a.jsonl", "b.jsonl"), ["a.jsonl", "b.jsonl"]),
    "rows in folders": Part(rows("x/y/z/a.jsonl", "x/b.jsonl"), ["x/b.jsonl", "x/y/z/a.jsonl"]),
    "a suffix in capitals": Part(rows("A.JSONL"), ["A.JSONL"]),
    "odd names": Part(
        rows("a b.jsonl", "ü.jsonl", "[x]*?.jsonl", "x\ny.jsonl"), ["a b.jsonl", "ü.jsonl", "[x]*?.jsonl", "x\ny.jsonl"]
    ),
    "folders called like files": Part(rows("a.jsonl/b.jsonl"), ["a.jsonl/b.jsonl"]),
    "an empty folder": Part(lambda folder, _: (folder / "empty").mkdir()),
    "a hidden file": named(HIDDEN, ".a.jsonl"),
    "a checksum of Hadoop": named(HIDDEN, ".a.jsonl.crc"),
    "a repository": Part(rows(".git/a.jsonl", ".git/x/b.jsonl"), not_read={".git/": HIDDEN}),
    "checkpoints of notebooks": Part(rows(".ipynb_checkpoints/a.jsonl"), not_read={".ipynb_checkpoints/": HIDDEN}),
    "what fsck found": Part(rows("lost+found/a.jsonl"), not_read={"lost+found/": HIDDEN}),
    "what Spark has not committed": Part(rows("_temporary/0/a.jsonl"), not_read={"_temporary/": HIDDEN}),
    "what macOS packs": Part(rows("__MACOSX/a.jsonl"), not_read={"__MACOSX/": HIDDEN}),
    "mount of a config map": Part(
        both(
            rows("..2026/k.jsonl"),
            lambda f, _: ((f / "..data").symlink_to("..2026"), (f / "k.jsonl").symlink_to("..data/k.jsonl")),
        ),
        ["k.jsonl"],
        {"..2026/": HIDDEN, "..data/": HIDDEN},
    ),
    "descriptions": named(ABOUT, "license.txt", "dataset_info.json", "dataset_infos.json", "LICENSE", "croissant.json"),
    "marks of Spark and Parquet": named(ABOUT, "_SUCCESS", "_metadata", "_common_metadata"),
    "a page": named(NotReadReason.PAGE, "NOTES.md"),
    "unknown kinds": named(
        NotReadReason.UNKNOWN_KIND, "a.bin", "b.xlsx", "part-00000", "c.jsonl.zip", "d.feather", "e.jsonl~"
    ),
    "no bytes": Part(content(e_jsonl="", f_csv=""), not_read=dict.fromkeys(("e.jsonl", "f.csv"), NotReadReason.EMPTY)),
    "a hard link": Part(hard, ["a.jsonl"], {"b.jsonl": SAME}),
    "a link to a file next to it": Part(link("a.jsonl", "one.jsonl"), NEXT, {"a.jsonl": SAME}),
    "a link to a file of the volume": Part(link("a.jsonl", "{other}/far.jsonl"), [*NEXT, "a.jsonl"]),
    "a link to a folder of the volume": Part(link("more", "{other}"), [*NEXT, "more/far.jsonl", "more/deep/er.jsonl"]),
    "a link to a folder next to it": Part(link("more", "inner"), NEXT, {"more/in.jsonl": SAME}),
    "a hidden link to a folder": Part(link(".more", "inner"), NEXT, {".more/": HIDDEN}),
    "a loop": Part(link("inner/loop", "."), NEXT, {"inner/loop/": SAME}),
    "a loop over two": Part(link("inner/loop", "{folder}"), NEXT, {"inner/loop/": SAME}),
    "folders that lead to each other": Part(
        circle,
        ["left/l.jsonl", "right/r.jsonl"],
        {"left/to/r.jsonl": SAME, "right/to/l.jsonl": SAME, "left/to/to/": SAME, "right/to/to/": SAME},
    ),
    "a dangling link": Part(link("a.jsonl", "blobs/abc"), refused="SourceNotFound"),
    "a dangling link to a folder": Part(link("more", "{other}/none"), refused="SourceNotFound"),
    "a dangling link of another kind": Part(link("a.bin", "none"), NEXT, {"a.bin": NotReadReason.UNKNOWN_KIND}),
    "a hidden dangling link": Part(link(".a.jsonl", "none"), NEXT, {".a.jsonl": HIDDEN}),
    "a link to itself": Part(link("a.jsonl", "a.jsonl"), refused="SourceNotFound"),
    "a link out of the volume": Part(link("a.jsonl", "/etc/passwd"), refused="SourceRefused"),
    "a link to a folder out of the volume": Part(link("more", "/etc"), refused="SourceRefused"),
    "a pipe": Part(lambda folder, _: os.mkfifo(folder / "a.jsonl"), refused="SourceRefused"),
    "a pipe of no kind": Part(lambda folder, _: os.mkfifo(folder / "a"), not_read={"a": NotReadReason.UNKNOWN_KIND}),
    "a saved data set": Part(
        both(rows("data.jsonl", "cache-1.jsonl"), content(state_json=STATE)),
        ["data.jsonl"],
        {"state.json": ABOUT, "cache-1.jsonl": NotReadReason.NOT_LISTED},
    ),
    "a saved data set, half": Part(both(rows("b.jsonl"), content(state_json=STATE)), refused="SourceNotFound"),
    "another state": Part(both(rows("a.jsonl"), content(state_json='{"step": 1}')), ["a.jsonl"], {"state.json": ABOUT}),
    "a damaged state": Part(both(rows("a.jsonl"), content(state_json='{"_data')), ["a.jsonl"], {"state.json": ABOUT}),
    "saved splits": Part(
        both(rows("one/a.jsonl", "two/a.jsonl"), content(dataset_dict_json='{"splits": ["one", "two"]}')),
        refused="SeveralSplits",
    ),
    "a cache of datasets": Part(
        both(rows("cache-0123456789abcdef.arrow"), content(dataset_info_json="{}")),
        not_read={"dataset_info.json": ABOUT, "cache-0123456789abcdef.arrow": NotReadReason.NOT_LISTED},
    ),
    "a Delta table": Part(rows("p.jsonl", "_delta_log/00000000000000000000.json"), refused="SourceRefused"),
    "an Iceberg table": Part(rows("data/p.jsonl", "metadata/v1.metadata.json"), refused="SourceRefused"),
    "a Hudi table": Part(rows("p.jsonl", ".hoodie/hoodie.properties"), refused="SourceRefused"),
    "train and held out": Part(rows("train.jsonl", "heldout.jsonl"), refused="SeveralSplits"),
    "train and what may be anything": Part(rows("train.jsonl", "gold.jsonl"), refused="SeveralSplits"),
}


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What counts as a mounted volume."""
    mount = tmp_path / "volume"
    mount.mkdir()
    monkeypatch.setattr(sources.os.path, "ismount", lambda path: Path(path).name == "volume")
    return mount


def fetch(source: Path, **fields: Any) -> sources.Fetched:
    plan = {
        "name": "rows",
        "store": "/store",
        "sourcePath": str(source),
        "source": {"uri": "pvc://claim/set", **fields},
    }
    return sources.fetch(MaterializePlan.model_validate(plan), source, TaskProgress("rows"))


def check(volume: Path, parts: dict[str, Part]) -> None:
    """A source of these parts, by the folder of each, next to one file of rows if a part is not at the top."""
    source = volume / "set"
    read: set[str] = set()
    not_read: dict[str, str] = {}
    if len(parts) > 1 or not any(part.read for part in parts.values()):
        write(source / "rows.jsonl", volume)
        read.add("rows.jsonl")
    for folder, part in parts.items():
        (source / folder).mkdir(parents=True, exist_ok=True)
        part.make(source / folder, volume)
        prefix = f"{folder}/" if folder else ""
        read |= {prefix + name for name in part.read}
        not_read |= {prefix + name: reason for name, reason in part.not_read.items()}
    if codes := {part.refused for part in parts.values() if part.refused}:
        with pytest.raises(TrainerError) as caught:
            fetch(source)
        assert caught.value.code in codes
        return
    found = fetch(source)
    assert [file.name for file in found.files] == sorted(read)
    assert {one.reason: one.count for one in found.not_read} == Counter(map(str, not_read.values()))
    assert {name for one in found.not_read for name in one.first} <= {name.replace("\n", "?") for name in not_read}
    texts = [row.value["text"] for row in read_rows(found.files, 2**30) if row.value]
    real = {file.path.resolve().relative_to(volume) for file in found.files}
    assert Counter(texts) == {f"{place} {number}": 1 for place in real for number in range(2)}


@contextlib.contextmanager
def another(volume: Path) -> Iterator[Path]:
    """A volume for one case."""
    with tempfile.TemporaryDirectory(dir=volume.parent) as folder:
        mount = Path(folder) / "volume"
        mount.mkdir()
        yield mount


@pytest.mark.attack("data files")
@pytest.mark.parametrize("name", PARTS)
def test_a_part(volume: Path, name: str) -> None:
    check(volume, {"": PARTS[name]})


def _pairs() -> list[tuple[str, str]]:
    return list(itertools.combinations_with_replacement(PARTS, 2))


def _check_pairs(volume: Path, pairs: Sequence[tuple[str, str]]) -> int:
    for pair in pairs:
        with another(volume) as mount:
            check(mount, dict(zip("ab", (PARTS[name] for name in pair), strict=True)))
    return len(pairs)


def test_two_parts_in_two_folders(volume: Path) -> None:
    assert _check_pairs(volume, random.Random(7).sample(_pairs(), 80)) == 80


@pytest.mark.outside
@pytest.mark.long
def test_every_two_parts(volume: Path) -> None:
    tried = _check_pairs(volume, _pairs())
    assert _row("Layouts of folders") == (f"{tried:,}", f"{tried:,}")


def _row(title: str) -> tuple[str, str]:
    """Tried and held, of a list of the page."""
    cells = next(line.split("|") for line in OUTSIDE.read_text().splitlines() if line.startswith(f"| {title}"))
    return cells[2].strip(), cells[3].strip()


# -- what can be had in spite of a refusal ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [name for name, part in PARTS.items() if part.refused and "saved" not in name and "pipe" not in name]
)
def test_files_that_the_spec_names_are_read_next_to_what_is_refused(volume: Path, name: str) -> None:
    write(volume / "set/good/rows.jsonl", volume)
    PARTS[name].make(volume / "set", volume)
    found = fetch(volume / "set", files=["good/*"])
    assert [file.name for file in found.files] == ["good/rows.jsonl"]
    assert [one.reason for one in found.not_read] == ["NotChosen"]


@pytest.mark.attack("data files")
def test_a_folder_that_the_user_may_not_read_is_an_error_and_not_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.os.path, "ismount", lambda path: Path(path).name == "volume")
    with tempfile.TemporaryDirectory() as top:
        Path(top).chmod(0o755)
        volume = Path(top) / "volume"
        write(volume / "set/good/rows.jsonl", volume)
        write(volume / "set/locked/rows.jsonl", volume)
        (volume / "set/locked").chmod(0o000)
        os.seteuid(10001)
        try:
            with pytest.raises(StoreError, match=r"locked/ cannot be read: .* \(Permission denied\)") as caught:
                fetch(volume / "set")
            assert caught.value.code == "StorageError"
            with pytest.raises(StoreError, match="locked/ cannot be read"):
                fetch(volume / "set", files=["*.jsonl"])
            assert [file.name for file in fetch(volume / "set", files=["good/*"]).files] == ["good/rows.jsonl"]
        finally:
            os.seteuid(0)


@pytest.mark.attack("data files")
def test_links_that_multiply_folders_are_refused(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_LINKED_FOLDERS", 1000)
    for one, other in itertools.permutations("abcdefghi", 2):
        (volume / "set" / one).mkdir(parents=True, exist_ok=True)
        (volume / "set" / one / other).symlink_to(f"../{other}")
    with pytest.raises(SourceError, match="links lead to over 1000 folders") as caught:
        fetch(volume / "set")
    assert caught.value.code == "SourceTooLarge"


def test_files_of_no_bytes_are_read_where_there_are_no_others(volume: Path) -> None:
    content(a_jsonl="")(volume, volume)
    assert [file.name for file in fetch(volume).files] == ["a.jsonl"]


def test_hidden_files_are_read_where_a_glob_says_so(volume: Path) -> None:
    rows(".a.jsonl", "b.jsonl")(volume, volume)
    assert [file.name for file in fetch(volume, files=["*.jsonl"]).files] == ["b.jsonl"]
    assert [file.name for file in fetch(volume, files=[".*.jsonl"]).files] == [".a.jsonl"]


CARD = """---
configs:
- config_name: default
  data_files: [{split: train, path: a.jsonl}, {split: test, path: b.jsonl}]
---
"""


def test_a_card_in_a_folder_says_which_of_its_files_are_trained(volume: Path) -> None:
    rows("one/a.jsonl", "one/b.jsonl", "two/c.jsonl", "notes/x.md")(volume, volume)
    for folder, text in {"one": CARD, "two": "# Two", "notes": CARD}.items():
        (volume / folder / "README.md").write_text(text)
    found = fetch(volume)
    assert [file.name for file in found.files] == ["one/a.jsonl", "two/c.jsonl"]
    assert {one.reason: one.first for one in found.not_read}["OtherSplit"] == ["one/b.jsonl"]
    assert [file.name for file in fetch(volume, files=["one/b.jsonl"]).files] == ["one/b.jsonl"]
    (volume / "one/a.jsonl").unlink()
    with pytest.raises(SourceError, match="/one: no data file is named as its card says"):
        fetch(volume)


def test_columns_in_names_of_folders_are_not_lost(volume: Path) -> None:
    rows("set/label=0/a.jsonl", "set/label=1/a.jsonl", "set/label=1/b.jsonl")(volume, volume)
    with pytest.raises(SourceError, match=r"column label in names of folders alone \(label=0, label=1\)") as caught:
        fetch(volume / "set")
    assert caught.value.code == "SourceRefused"
    globs = re.findall(r"files: (\[.*?\])", str(caught.value))
    assert [len(fetch(volume / "set", files=json.loads(glob)).files) for glob in globs] == [1, 3]
    rows("one/lang=de/a.jsonl", "one/lang=de/b.jsonl")(volume, volume)
    assert len(fetch(volume / "one").files) == 2


# -- as `datasets` reads them ----------------------------------------------------------------------------------------


FORMS = (
    *("{}.jsonl", "{}-00000-of-00001.jsonl", "data/{}-0.jsonl", "{}/a.jsonl", "x_{}.jsonl", "{}_x.jsonl"),
    *("x/{}/a.jsonl", "x-{}-y.jsonl", "x/{}/y/a.jsonl"),
)
FOREIGN = (
    *(
        ("Trainingsdaten", "Testdaten"),
        ("training", "Validierung"),
        ("entraînement", "test"),
        ("entrenamiento", "pruebas"),
    ),
    *(
        ("treino", "teste"),
        ("обучение", "тест"),
        ("训练集", "测试集"),
        ("訓練データ", "検証データ"),
        ("훈련", "테스트"),
        ("trn", "tst"),
    ),
)
HELD = ("heldout", "held_out", "held-out", "holdout", "hold-out", "heldOut", "testset", "test_set", "testSet", "evals")


def _words() -> list[tuple[str, str]]:
    """A word of train and one of another split."""
    from datasets.data_files import SPLIT_KEYWORDS

    words = {str(split): list(words) for split, words in SPLIT_KEYWORDS.items()}
    train = words.pop("train")
    return list(itertools.product(train, [*itertools.chain(*words.values()), *HELD]))


def test_files_named_as_splits_are_not_trained_together() -> None:
    for (train, other), form in itertools.product([*_words(), *FOREIGN], FORMS):
        names = [form.format(train), form.format(other)]
        volume = Source(uri="pvc://claim/set")
        with pytest.raises(SourceError) as caught:
            listing.choose({name: ListedName(1) for name in names}, Indexes(), volume, "pvc")
        assert caught.value.code == "SeveralSplits"
        plain = [form.format("rows"), form.format(other)]
        assert len(layout.splits_of(plain)) == 2, plain


def _check_names(volume: Path, cases: Sequence[tuple[tuple[str, str], str]]) -> int:
    from datasets.data_files import DataFilesDict, get_data_patterns

    for (train, other), form in cases:
        with another(volume) as mount:
            rows(form.format(train), form.format(other))(mount, mount)
            judged = DataFilesDict.from_patterns(get_data_patterns(str(mount)), base_path=str(mount))
            expected = [Path(path).relative_to(mount).as_posix() for path in judged["train"]]
            found = listing.choose({n: ListedName(1) for n in _below(mount)}, Indexes(), Source(uri="hf://a/b"), "hf")
            # What `datasets` takes for one split, because it does not know the word, is two here.
            assert found.files == expected or (other in HELD and found.files == [form.format(train)])
            assert len(expected) == 1 or other in HELD
    return len(cases)


def _below(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def test_splits_by_name_are_those_of_datasets(volume: Path) -> None:
    cases = list(itertools.product(_words(), FORMS))
    assert _check_names(volume, random.Random(3).sample(cases, 6)) == 6


@pytest.mark.outside
@pytest.mark.long
def test_every_word_in_every_form(volume: Path) -> None:
    tried = _check_names(volume, list(itertools.product(_words(), FORMS)))
    assert _row("Names of splits") == (f"{tried:,}", f"{tried:,}")


TREE = (
    "main/train-0.jsonl",
    "main/test-0.jsonl",
    "side/train.jsonl",
    "a.jsonl",
    "b.jsonl",
    "data/x/c.jsonl",
    "data/d.jsonl",
)
DATA_FILES: dict[str, Any] = {
    "a glob": "*.jsonl",
    "a glob of all": "**/*.jsonl",
    "a glob below": "data/**",
    "a glob in a folder": "data/*.jsonl",
    "two": ["a.jsonl", "b.jsonl"],
    "a range": "[ab].jsonl",
    "one of these": "?.jsonl",
    "from here": "./a.jsonl",
    "splits": [{"split": "train", "path": "main/train-*"}, {"split": "test", "path": "main/test-*"}],
    "several paths of a split": [
        {"split": "train", "path": ["a.jsonl", "data/*"]},
        {"split": "test", "path": "b.jsonl"},
    ],
    "splits of other names": [{"split": "train_sft", "path": "a.jsonl"}, {"split": "test_sft", "path": "b.jsonl"}],
    "no train": [{"split": "validation", "path": "a.jsonl"}, {"split": "test", "path": "b.jsonl"}],
    "test alone": [{"split": "test", "path": "b.jsonl"}],
}
CARDS: dict[str, Any] = {
    **{name: [{"config_name": "default", "data_files": files}] for name, files in DATA_FILES.items()},
    **{
        f"{name}, in a folder": [{"config_name": "x", "data_dir": "data", "data_files": files}]
        for name, files in {"a glob": "*.jsonl", "a glob of all": "**"}.items()
    },
    "a folder": [{"config_name": "x", "data_dir": "main"}],
    "two": [{"config_name": "x", "data_files": "a.jsonl"}, {"config_name": "y", "data_files": "b.jsonl"}],
    "two, one the default": [
        {"config_name": "x", "data_files": "a.jsonl"},
        {"config_name": "y", "data_files": "b.jsonl", "default": True},
    ],
    "two, one called default": [
        {"config_name": "x", "data_files": "a.jsonl"},
        {"config_name": "default", "data_files": "b.jsonl"},
    ],
    "what is not there": [
        {"config_name": "x", "data_files": [{"split": "train", "path": "none-*"}, {"split": "test", "path": "b.jsonl"}]}
    ],
}


@pytest.mark.parametrize("name", CARDS)
@pytest.mark.parametrize("uri", ["pvc://claim/set", "hf://a/b"])
def test_a_card_means_what_datasets_makes_of_it(
    volume: Path, name: str, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    rows(*TREE)(volume, volume)
    card = {"configs": CARDS[name]}
    (volume / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n# Rows\n")
    try:
        judged = datasets.load_dataset_builder(str(volume)).config.data_files
    except (ValueError, FileNotFoundError):  # several configurations, or no such file
        judged = {}
    splits = {
        str(split): [Path(path).relative_to(volume).as_posix() for path in paths] for split, paths in judged.items()
    }
    expected = splits.get("train") or (next(iter(splits.values())) if len(splits) == 1 else None)
    found = {name: ListedName(1) for name in _below(volume)}
    if expected is None:
        with pytest.raises(SourceError) as caught:
            listing.choose(found, Indexes(card), Source(uri=uri), "set")
        assert caught.value.code in ("SeveralSplits", "SourceNotFound")
        return
    choice = listing.choose(found, Indexes(card), Source(uri=uri), "set")
    assert choice.files == sorted(expected)
    assert {one.reason: one.count for one in choice.not_read} == {
        "Description": 1,
        **({"OtherSplit": len(TREE) - len(expected)} if len(expected) < len(TREE) else {}),
    }
    if uri.startswith("pvc"):
        assert [file.name for file in fetch(volume).files] == choice.files


def test_a_data_set_that_datasets_saved_is_read_without_its_caches(volume: Path) -> None:
    import datasets

    made = datasets.Dataset.from_list([{"text": f"old {n}"} for n in range(20)])
    made.save_to_disk(str(volume / "set"))
    loaded = datasets.load_from_disk(str(volume / "set"))
    loaded.map(lambda row: {"text": row["text"].replace("old", "new")}).filter(lambda row: "1" in row["text"])
    assert list((volume / "set").glob("cache-*"))
    found = fetch(volume / "set")
    texts = [row.value["text"] for row in read_rows(found.files, 2**30) if row.value]
    assert texts == [f"old {n}" for n in range(20)]
    assert [(one.reason, one.count) for one in found.not_read] == [("Description", 2), ("NotListed", 2)]


def test_splits_that_datasets_saved_are_not_trained_together(volume: Path) -> None:
    import datasets

    made = datasets.Dataset.from_list([{"text": f"{n}"} for n in range(20)])
    datasets.DatasetDict({"seen": made, "unseen": made}).save_to_disk(str(volume / "set"))
    with pytest.raises(SourceError, match=r'seen: files: \["seen/data-') as caught:
        fetch(volume / "set")
    assert caught.value.code == "SeveralSplits"
    assert [file.name for file in fetch(volume / "set", files=["seen/*.arrow"]).files] == [
        "seen/data-00000-of-00001.arrow"
    ]


def test_a_kind_that_datasets_reads_is_read_or_named(volume: Path) -> None:
    from datasets.packaged_modules import _EXTENSION_TO_MODULE

    names = [f"x{suffix}" for suffix in _EXTENSION_TO_MODULE]
    choice = listing.choose(
        {"rows.jsonl": ListedName(1)} | {n: ListedName(1) for n in names}, Indexes(), Source(uri="pvc://c/s"), "s"
    )
    unknown = next(one.count for one in choice.not_read if one.reason == "UnknownKind")
    pages = sum(one.count for one in choice.not_read if one.reason == "Page")
    assert len(choice.files) + unknown + pages == 1 + len(names)
    assert unknown > 100
