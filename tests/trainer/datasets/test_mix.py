"""Mixtures of Datasets, what a new content changes, and what a sweep leaves: with real folders of a store."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hone_api.contract.report import DatasetResult
from hone_api.plan import DatasetInput, MaterializePlan, MixPlan, SweepPlan
from hone_trainer.datasets import materialize, mix, publishing, sweep
from hone_trainer.errors import ConfigError, DataError, SourceError
from hone_trainer.store import manifest

pytestmark = pytest.mark.trainer


class Store:
    """A store, what is materialized into it, and what is mixed of that."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[str, DatasetResult] = {}

    def dataset(self, name: str, texts: list[str], previous: str | None = None, **splits: str) -> DatasetResult:
        return self.of_rows(name, [{"text": text} for text in texts], previous, **splits)

    def of_rows(
        self, name: str, rows: list[dict[str, str]], previous: str | None = None, **splits: str
    ) -> DatasetResult:
        file = self.folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        body = {
            "name": name,
            "source": {"uri": "pvc://c/f"},
            "sourcePath": str(file),
            "splits": {"validation": "20%", **splits},
            "store": str(self.folder / "store"),
            **({"previous": previous} if previous else {}),
        }
        self.made[name] = materialize.run(MaterializePlan.model_validate(body))
        return self.made[name]

    def plan(self, weights: dict[str, str], **fields: Any) -> MixPlan:
        parts = []
        for name, weight in weights.items():
            result = self.made[name]
            for split in result.splits:
                path = self.folder / "store" / str(result.path) / f"{split.name}.jsonl"
                parts.append(
                    DatasetInput(name=name, split=split.name, path=str(path), digest=str(result.digest), share=weight)
                )
        return MixPlan(name="mix", parts=parts, store=str(self.folder / "store"), **fields)

    def rows(self, result: DatasetResult, split: str = "train") -> list[str]:
        path = self.folder / "store" / str(result.path) / f"{split}.jsonl"
        return [json.loads(line)["text"] for line in path.read_text().splitlines()] if path.exists() else []

    def contents(self) -> set[str]:
        return {path.name for path in (self.folder / "store" / "datasets").iterdir()}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """With `own` of 100 short rows and `general` of 400 long ones."""
    store = Store(tmp_path)
    store.dataset("own", [f"own {i}" for i in range(100)])
    store.dataset("general", [f"general {i} " + "long words of a row " * (1 + i % 7) for i in range(400)])
    return store


def kinds(rows: list[str]) -> Counter[str]:
    return Counter(row.partition(" ")[0] for row in rows)


def test_the_first_part_is_used_once_and_the_other_fills_up(store: Store) -> None:
    result = mix.run(store.plan({"own": "75%", "general": "25%"}))
    own = store.rows(store.made["own"])
    train = store.rows(result)
    assert kinds(train) == {"own": len(own), "general": round(len(own) / 3)}
    assert {row for row in train if row.startswith("own")} == set(own)
    assert [u.row_share for u in result.mixture if u.split == "train"] == ["75.0%", "25.0%"]
    assert manifest.verify(store.folder / "store" / str(result.path)).files >= 4
    assert result.format_detected == "Text"
    assert [s.name for s in result.splits] == ["train", "validation"]


def test_what_a_part_holds_out_stays_held_out(store: Store) -> None:
    result = mix.run(store.plan({"own": "50%", "general": "50%"}))
    held_out = set(store.rows(store.made["own"], "validation")) | set(store.rows(store.made["general"], "validation"))
    assert not held_out & set(store.rows(result))
    validation = store.rows(result, "validation")
    assert set(validation) <= held_out
    assert len(set(validation)) == len(validation), "never repeated"
    assert len(set(kinds(validation).values())) == 1


def test_a_held_out_row_that_is_trained_on_elsewhere_goes(store: Store) -> None:
    clash = store.rows(store.made["own"], "validation")[0]
    rows = [f"third {i}" for i in range(200)]
    for seed in range(50):  # until the clash is a train row there
        store.dataset("third", [*rows, clash], seed=seed)
        if clash in store.rows(store.made["third"]):
            break
    result = mix.run(store.plan({"third": "50%", "own": "50%"}))
    assert clash in store.rows(result)
    assert clash not in store.rows(result, "validation")


def test_questions_that_one_part_trains_on_and_another_holds_out_are_counted(store: Store) -> None:
    for name, seed in (("one", "0"), ("other", "1")):
        store.of_rows(name, [{"prompt": f"q{n}", "completion": f"{name} {n}"} for n in range(100)], seed=seed)
    result = mix.run(store.plan({"one": "50%", "other": "50%"}))
    held = next(split.rows for split in result.splits if split.name == "validation")
    [sentence] = [sentence for sentence in result.advice if "question in train" in sentence]
    crossing = int(sentence.split()[0])
    assert 0 < crossing <= held
    assert f"{crossing} of {held} validation rows" in sentence


def test_by_tokens_the_tokens_have_the_shares(store: Store) -> None:
    result = mix.run(store.plan({"own": "10%", "general": "90%"}, by="Tokens"))
    shares = {u.name: float(u.token_share.rstrip("%")) for u in result.mixture if u.split == "train"}
    assert shares == pytest.approx({"own": 10, "general": 90}, abs=1.5)


def test_a_total_repeats_what_is_too_small(store: Store) -> None:
    result = mix.run(store.plan({"own": "50%", "general": "50%"}, total=500))
    train = store.rows(result)
    assert kinds(train) == {"own": 250, "general": 250}
    own = next(u for u in result.mixture if (u.name, u.split) == ("own", "train"))
    counts = Counter(row for row in train if row.startswith("own"))
    assert set(counts.values()) <= {int(float(own.passes)), int(float(own.passes)) + 1}


def test_the_same_again_is_the_same_content_and_another_seed_is_not(store: Store) -> None:
    plan = store.plan({"own": "75%", "general": "25%"})
    first = mix.run(plan)
    assert mix.run(plan).digest == first.digest
    assert mix.run(plan.model_copy(update={"seed": 1})).digest != first.digest
    assert not any(name.startswith(".") for name in store.contents())


def test_rows_of_all_parts_lie_among_each_other(store: Store) -> None:
    """The first rows are what an evaluation with a bound looks at."""
    result = mix.run(store.plan({"own": "50%", "general": "50%"}))
    assert min(kinds(store.rows(result)[:40]).values()) > 8


def test_what_is_impossible_is_reported(store: Store) -> None:
    with pytest.raises(ConfigError, match="80% together, not 100%"):
        mix.run(store.plan({"own": "60%", "general": "20%"}))
    with pytest.raises(DataError, match="minRows is 9999") as caught:
        mix.run(store.plan({"own": "50%", "general": "50%"}, checks={"minRows": 9999}))
    assert caught.value.code == "TooFewRows"
    plan = store.plan({"own": "50%", "general": "50%"})
    Path(plan.parts[0].path).unlink()
    with pytest.raises(SourceError, match=r"own/train sha256:.* is not in the store") as missing:
        mix.run(plan)
    assert missing.value.code == "SourceNotFound"


def test_a_new_content_says_what_it_changed(store: Store) -> None:
    before = store.made["own"].digest
    rows = [f"own {i}" for i in range(10, 130)]
    after = store.dataset("own", rows, previous=before)
    assert after.changes is not None
    assert (after.changes.previous, after.changes.added, after.changes.removed) == (before, 30, 10)
    mixed = mix.run(store.plan({"own": "50%", "general": "50%"}, previous=after.digest))
    assert mixed.changes is not None
    gone = store.dataset("own", rows, previous="sha256:" + "0" * 64)
    assert gone.changes is None


def test_appended_rows_move_none(store: Store) -> None:
    before = set(store.rows(store.made["own"], "validation"))
    after = store.dataset("own", [f"own {i}" for i in range(300)])
    assert before <= set(store.rows(after, "validation"))


def test_a_sweep_removes_only_what_nothing_refers_to(store: Store) -> None:
    root = store.folder / "store" / "datasets"
    old = store.made["own"].digest
    new = store.dataset("own", ["another", "content", *(f"x {i}" for i in range(30))]).digest
    general = store.made["general"].digest
    (root / "notes").mkdir()
    plan = SweepPlan(store=str(root.parent), remove=[str(old), str(new), "sha256:" + "0" * 64], as_of=time.time())
    assert sweep.run(plan).removed == 0, "all were made within the grace"
    long_ago = time.time() - 2 * 3600
    for digest in (old, new, general):
        os.utime(root / str(digest).removeprefix("sha256:"), (long_ago, long_ago))
    store.dataset("again", [f"own {i}" for i in range(100)])  # finds the first content again
    assert store.made["again"].digest == old
    result = sweep.run(plan)
    assert result.removed == 1
    assert result.size_bytes > 0
    assert store.contents() == {str(old).removeprefix("sha256:"), str(general).removeprefix("sha256:"), "notes"}


def test_a_sweep_of_a_store_without_data_is_well() -> None:
    assert sweep.run(SweepPlan(store="/nonexistent", remove=["sha256:" + "0" * 64], as_of=0)).removed == 0


def test_reports_go_with_their_dataset(store: Store) -> None:
    reports = store.folder / "store" / "reports"
    for name in ("there", "gone", "gone-just-now", ".work-0"):
        (reports / name).mkdir(parents=True)
        (reports / name / "rejected.jsonl").write_text("{}")
        long_ago = time.time() - (60 if name == "gone-just-now" else 7200)
        os.utime(reports / name, (long_ago, long_ago))
    plan = SweepPlan(store=str(reports.parent), remove=[], datasets=["there"], as_of=time.time())
    assert sweep.run(plan.model_copy(update={"datasets": None})).removed == 0
    assert sweep.run(plan).removed == 1
    assert {path.name for path in reports.iterdir()} == {"there", "gone-just-now", ".work-0"}


def test_an_old_list_spares_what_came_after_it(store: Store) -> None:
    """The pod of a sweep may have waited for a node while Datasets were made."""
    made = [str(result.digest) for result in store.made.values()]
    plan = SweepPlan(store=str(store.folder / "store"), remove=made, as_of=time.time() - 7200, grace_seconds=3600)
    assert sweep.run(plan).removed == 0
    assert sweep.run(plan.model_copy(update={"as_of": time.time() + 7200})).removed == 2


def test_who_finds_a_content_while_it_is_swept_has_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of both may be the first: afterwards the content is there and whole.

    On a volume without locks of folders; for one that has them, see `test_racing`.
    """

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    digest = str(store.made["own"].digest).removeprefix("sha256:")
    folder = store.folder / "store" / "datasets" / digest
    plan = SweepPlan(store=str(store.folder / "store"), remove=[f"sha256:{digest}"], as_of=time.time())
    rename = Path.rename

    def find_first(path: Path, target: Path) -> Path:
        if path == folder:
            monkeypatch.setattr(Path, "rename", rename)
            store.dataset("again", [f"own {i}" for i in range(100)])
        return rename(path, target)

    os.utime(folder, (1, 1))
    monkeypatch.setattr(Path, "rename", find_first)
    assert sweep.run(plan).removed == 0
    assert publishing.is_intact(folder)

    def sweep_first(*args: Any) -> None:
        monkeypatch.setattr(os, "utime", utime)
        assert sweep.run(plan).removed == 1
        utime(*args)

    utime = os.utime
    os.utime(folder, (1, 1))
    monkeypatch.setattr(os, "utime", sweep_first)
    store.dataset("once more", [f"own {i}" for i in range(100)])
    assert publishing.is_intact(folder)
