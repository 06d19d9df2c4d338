"""Configurations and splits of hub repositories, by card and by file names; and one through a real download."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from hone_api.contract.report import DatasetResult
from hone_api.contract.termination import parse_outcome
from hone_api.dataset.source import Source
from hone_dev import hub
from hone_trainer.datasets.sources import listing
from hone_trainer.datasets.sources.layout import Indexes, one_split, splits_of
from hone_trainer.datasets.sources.listing import ListedName
from hone_trainer.errors import SourceError

pytestmark = pytest.mark.trainer
GSM8K = ["main/test-0.parquet", "main/train-0.parquet", "socratic/test-0.parquet", "socratic/train-0.parquet"]
# As openai/gsm8k writes it.
CARD = {
    "configs": [
        {
            "config_name": name,
            "data_files": [
                {"split": "train", "path": f"{name}/train-*"},
                {"split": "test", "path": f"{name}/test-*"},
            ],
        }
        for name in ("main", "socratic")
    ]
}
DEFAULT = {"configs": [*CARD["configs"][:1], {**CARD["configs"][1], "default": True}]}


@pytest.mark.parametrize(
    ("names", "card", "config", "split", "expected"),
    [
        (GSM8K, CARD, "main", None, ["main/train-0.parquet"]),
        (GSM8K, CARD, "socratic", "test", ["socratic/test-0.parquet"]),
        (GSM8K, DEFAULT, None, None, ["socratic/train-0.parquet"]),
        (GSM8K, {}, "main", "test", ["main/test-0.parquet"]),  # refs/convert/parquet: folders are configurations
        (
            ["a.csv", "b.csv"],
            {"configs": [{"config_name": "x", "data_files": "*.csv"}]},
            None,
            None,
            ["a.csv", "b.csv"],
        ),
        (
            ["a.csv", "b.csv"],
            {"configs": [{"config_name": "x", "data_files": ["b.csv"]}]},
            "x",
            "train",
            ["b.csv"],
        ),
        (
            ["en/a.csv", "fr/a.csv"],
            {"configs": [{"config_name": "fr", "data_dir": "fr"}, {"config_name": "en", "data_dir": "en"}]},
            "fr",
            None,
            ["fr/a.csv"],
        ),
        (["rows.jsonl", "README.jsonl"], {}, None, None, ["README.jsonl", "rows.jsonl"]),
        (["data/train.jsonl", "data/test.jsonl"], {}, None, None, ["data/train.jsonl"]),
        (["dev.jsonl", "training.jsonl"], {}, None, "validation", ["dev.jsonl"]),
        (["only/test.jsonl"], {}, None, None, ["only/test.jsonl"]),
        (["contest.jsonl", "latest.jsonl"], {}, None, None, ["contest.jsonl", "latest.jsonl"]),
        (["x.csv"], {"configs": "nonsense"}, None, None, ["x.csv"]),
    ],
)
def test_files_of_a_configuration_and_split(
    names: list[str], card: dict[str, Any], config: str | None, split: str | None, expected: list[str]
) -> None:
    assert sorted(chosen(names, card, config, split)) == expected


def chosen(names: list[str], card: dict[str, Any], config: str | None, split: str | None) -> list[str]:
    source = Source(uri="hf://a/b", config=config, split=split)
    return one_split(names, Indexes(card), source, "hf://a/b")


@pytest.mark.parametrize(
    ("card", "config", "split", "words"),
    [
        (CARD, None, None, "no default configuration: name one of main, socratic"),
        (CARD, "other", None, "no configuration other; it has main, socratic"),
        (CARD, "main", "dev", "no split dev; it has test, train"),
        ({}, "other", None, "no configuration other"),
        ({}, None, "dev", "no split dev; it has test, train"),
    ],
)
def test_what_does_not_exist_is_reported_with_what_does(
    card: Any, config: str | None, split: str | None, words: str
) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        chosen(GSM8K, card, config, split)
    assert caught.value.code == "SourceNotFound"


def test_splits_by_name_lose_no_file() -> None:
    names = [*GSM8K, "val/x.csv", "notes.txt"]
    assert sorted(name for files in splits_of(names).values() for name in files) == sorted(names)


def test_a_configuration_through_a_hub(tmp_path: Path) -> None:
    """In a process of its own: huggingface_hub reads where its hub is when it is imported."""
    repository = tmp_path / "hub" / "datasets" / "team" / "sums" / "main"
    for config in ("main", "socratic"):
        for split in ("train", "test"):
            file = repository / config / f"{split}-0.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(json.dumps({"text": f"{config} {split} {i}"}) + "\n" for i in range(30)))
    (repository / "README.md").write_text(f"---\n{yaml.safe_dump(CARD)}---\n# Sums\n")
    source = {"uri": "hf://team/sums", "config": "socratic", "split": "test"}
    plan = {"kind": "Materialize", "name": "sums", "source": source, "store": "store"}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    home = {"HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "HONE_TERMINATION_LOG": str(tmp_path / "log")}
    with hub.serve(tmp_path / "hub") as url:
        command = [sys.executable, "-m", "hone_trainer", "materialize", str(tmp_path / "plan.json")]
        subprocess.run(command, env={**os.environ, **home, "HF_ENDPOINT": url}, check=True, capture_output=True)
    outcome = parse_outcome((tmp_path / "log").read_text())
    assert outcome is not None
    assert isinstance(outcome.result, DatasetResult)
    folder = tmp_path / "store" / str(outcome.result.path)
    rows = [json.loads(line)["text"] for file in folder.glob("[tv]*.jsonl") for line in file.read_text().splitlines()]
    assert sorted(rows) == sorted(f"socratic test {i}" for i in range(30))


@pytest.mark.parametrize(
    "names",
    [
        ["data/test-0.parquet", "data/train-0.parquet", "data/train-1.parquet"],
        ["test-0.parquet", *(f"train-{n}.parquet" for n in range(12))],
        ["test/0.csv", "test/1.csv", "train/0.csv", "train/1.csv"],
        ["a-test.csv", "a-train.csv", "b-test.csv", "b-train.csv"],
        ["a/x-train.csv", "b/y-train.csv", "c/z-test.csv"],
    ],
)
def test_what_a_refusal_says_to_write_chooses_no_other_split(names: list[str]) -> None:
    volume = Source(uri="pvc://claim/set")
    with pytest.raises(SourceError) as caught:
        one_split(names, Indexes(), volume, "pvc")
    said = re.findall(r"(train|test): files: (\[.*?\])", caught.value.message)
    chosen = {split: [n for n in names for glob in json.loads(globs) if fnmatch(n, glob)] for split, globs in said}
    assert chosen == {split: [name for name in names if split in name] for split in ("train", "test")}


def test_a_file_that_the_card_names_and_that_is_not_there_is_not_passed_over() -> None:
    entry = {"config_name": "default", "data_files": [{"split": "train", "path": ["a.jsonl", "b.jsonl"]}]}
    held = {"split": "test", "path": "c.jsonl"}
    card = {"configs": [{**entry, "data_files": [*entry["data_files"], held]}]}
    volume = Source(uri="pvc://claim/set")
    with pytest.raises(SourceError, match=r"its card names b\.jsonl"):
        one_split(["a.jsonl"], Indexes(card), volume, "pvc")
    assert one_split(["a.jsonl", "b.jsonl"], Indexes(card), volume, "pvc") == ["a.jsonl", "b.jsonl"]


def test_two_revisions_in_a_hubs_cache_are_not_read_together() -> None:
    volume = Source(uri="pvc://claim/set")
    names = [f"datasets--a--{name}/snapshots/{sha * 40}/rows.jsonl" for name, sha in (("x", "a"), ("y", "b"))]
    both = [*names, names[0].replace("a" * 40, "c" * 40)]
    assert listing.choose({name: ListedName(1) for name in names}, Indexes(), volume, "pvc").files == names
    with pytest.raises(SourceError, match=f"several revisions.*snapshots/{'a' * 40}/"):
        listing.choose({name: ListedName(1) for name in both}, Indexes(), volume, "pvc")
