"""Materialize: from a source to the store, complete or not there; the same rows give the same digest."""

import json
import multiprocessing
import os
import re
from pathlib import Path

import pytest

from hone_api.plan import MaterializePlan
from hone_dev import hub
from hone_trainer.datasets import materialize
from hone_trainer.datasets.sources import sources
from hone_trainer.errors import ConfigError, DataError, SourceError
from hone_trainer.store import contents, manifest

pytestmark = pytest.mark.trainer
PAIRS = [{"question": f"What is {i}?", "answer": f"It is {i}."} for i in range(100)]
COLUMNS = {"prompt": "question", "completion": "answer"}


def lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def plan(tmp_path):
    """Makes a plan for a file or folder; keywords are fields of the plan, in camelCase."""

    def make(path: Path | None = None, rows=None, **fields) -> MaterializePlan:
        if path is None:
            path = tmp_path / "rows.jsonl"
            path.write_text(lines(rows))
        fields = {"source": {"uri": "pvc://claim/rows.jsonl"}, "sourcePath": str(path), **fields}
        return MaterializePlan.model_validate({"name": "rows", "store": str(tmp_path / "store"), **fields})

    return make


def failure(plan, code) -> DataError:
    with pytest.raises(DataError) as caught:
        materialize.run(plan)
    assert caught.value.code == code, caught.value
    assert caught.value.result is not None
    assert not list((Path(plan.store) / "datasets").iterdir()), "nothing is left in the store"
    return caught.value


def records(plan, result, split) -> list[dict]:
    return [json.loads(line) for line in (Path(plan.store) / result.path / f"{split}.jsonl").read_text().splitlines()]


def test_rows_reach_the_store_as_normalised_splits_with_a_manifest(plan):
    asked = plan(rows=PAIRS, columns=COLUMNS, splits={"validation": "20%"})
    result = materialize.run(asked)
    folder = Path(asked.store) / result.path
    assert result.path == f"datasets/{result.digest.removeprefix('sha256:')}"
    train, validation = records(asked, result, "train"), records(asked, result, "validation")
    assert {s.name: s.rows for s in result.splits} == {"train": len(train), "validation": len(validation)}
    everything = {(r["prompt"], r["completion"]) for r in train + validation}
    assert everything == {(r["question"], r["answer"]) for r in PAIRS}
    assert result.rows == len(train) + len(validation) == 100
    assert 5 <= len(validation) <= 40
    verified = manifest.verify(folder)
    assert (verified.files, verified.size_bytes) == (8, result.size_bytes)
    stored = sum(f.stat().st_size for f in folder.iterdir() if f.name != manifest.MANIFEST)
    assert result.size_bytes == stored > 0
    assert contents.digest_of(folder) == result.digest
    assert json.loads((folder / "report.json").read_text())["result"]["rows"] == 100
    assert [p.name for p in folder.parent.iterdir()] == [folder.name], "no work folder is left"


def test_the_order_of_rows_is_that_of_the_source(plan):
    asked = plan(rows=PAIRS, columns=COLUMNS, splits={"validation": "0%"})
    found = records(asked, materialize.run(asked), "train")
    assert [row["completion"] for row in found] == [row["answer"] for row in PAIRS]


def test_the_digest_depends_on_the_rows_alone(plan, tmp_path):
    first = materialize.run(plan(rows=PAIRS, columns=COLUMNS))
    other = tmp_path / "other.json"
    other.write_text(json.dumps([{"completion": r["answer"], "prompt": r["question"]} for r in PAIRS], indent=2))
    os.utime(other, (1, 1))
    asked = plan(other)
    inode = (Path(asked.store) / first.path / "train.jsonl").stat().st_ino
    second = materialize.run(asked)
    assert second.digest == first.digest
    assert (Path(asked.store) / second.path / "train.jsonl").stat().st_ino == inode, "it was there already"
    assert materialize.run(plan(rows=PAIRS[:-1], columns=COLUMNS)).digest != first.digest


def test_the_names_of_folders_are_no_columns(plan, tmp_path):
    made = plan(rows=PAIRS, columns=COLUMNS)
    other = made.model_copy(update={"store": str(tmp_path / "code=3" / "grp=7" / "[a]*")})
    Path(other.store).mkdir(parents=True)
    assert materialize.run(other).digest == materialize.run(made).digest


def test_a_damaged_dataset_is_replaced(plan):
    asked = plan(rows=PAIRS, columns=COLUMNS)
    folder = Path(asked.store) / materialize.run(asked).path
    content = (folder / "train.jsonl").read_bytes()
    (folder / "train.jsonl").write_bytes(content[:-2] + b"x\n")
    materialize.run(asked)
    assert (folder / "train.jsonl").read_bytes() == content
    manifest.verify(folder)


def test_several_at_once_give_one_dataset(plan):
    asked = plan(rows=PAIRS * 20, columns=COLUMNS)
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        results = pool.map(materialize.run, [asked] * 4, chunksize=1)
    assert len({result.digest for result in results}) == 1
    folder = Path(asked.store) / results[0].path
    manifest.verify(folder)
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_equal_rows_and_groups_never_cross_splits(plan):
    rows = [{"text": f"document {i % 37}, page {i % 3}", "document": i % 37} for i in range(400)]
    asked = plan(rows=rows, splits={"validation": "30%", "groupBy": "document"})
    result = materialize.run(asked)

    def documents(split):
        return {row["text"].split(",")[0] for row in records(asked, result, split)}

    assert not documents("train") & documents("validation")
    assert len(documents("train") | documents("validation")) == 37
    assert result.duplicates == 400 - 37 * 3


def test_rejected_rows_are_kept_with_their_reasons(plan):
    rows = [*PAIRS, {"question": "no answer"}, {"question": "", "answer": "x"}, {"question": "no answer"}]
    asked = plan(rows=rows, columns=COLUMNS)
    result = materialize.run(asked)
    assert (result.rows, result.rejected) == (100, 3)
    missing, empty = result.errors
    assert (missing.code, missing.count, missing.rows) == ("MissingColumn", 2, [101, 103])
    assert missing.example == "rows.jsonl:101: column answer is missing; the row has: question"
    assert (empty.code, empty.count, empty.rows) == ("EmptyContent", 1, [102])
    kept = [json.loads(line) for line in (Path(asked.store) / result.path / "rejected.jsonl").read_text().splitlines()]
    assert [(row["row"], row["code"], row["value"]) for row in kept] == [
        (101, "MissingColumn", rows[100]),
        (102, "EmptyContent", rows[101]),
        (103, "MissingColumn", rows[102]),
    ]


def test_only_the_first_ten_row_numbers_are_reported(plan):
    rows = [*PAIRS, *[{"question": "x"}] * 50]
    result = materialize.run(plan(rows=rows, columns=COLUMNS, checks={"maxRejected": "40%"}))
    assert (result.errors[0].count, result.errors[0].rows) == (50, list(range(101, 111)))


def test_token_statistics(plan):
    rows = [{"text": "x" * n} for n in (1, 4, 5, 400)]
    tokens = materialize.run(plan(rows=rows)).tokens
    assert tokens.model_dump() == {
        "unit": "bytes/4",
        "total": 104,
        "mean": 26,
        "median": 1,
        "p95": 100,
        "max": 100,
        "over": [{"context": c, "rows": 0, "share": "0.0%"} for c in (512, 1024, 2048, 4096, 8192, 32768)],
    }


@pytest.mark.parametrize(
    ("content", "fields", "code", "words"),
    [
        ("", {}, "EmptySource", "holds no row"),
        ("\n \n", {}, "EmptySource", "holds no row"),
        (
            lines(PAIRS),
            {"format": "PromptCompletion"},
            "TooManyBadRows",
            r"100 MissingColumn \(rows 1, 2, 3.*answer, question",
        ),
        (lines([{"input": "a", "output": "b"}] * 9), {}, "UnknownFormat", "input, output"),
        ("a\nb\n", {}, "TooManyBadRows", r"2 of 2 rows are rejected.*BrokenJson.*rows.jsonl:1"),
        (lines([{"text": "x"}] * 10) + "{\n", {}, "TooManyBadRows", "1 of 11 rows"),
        (
            lines([{"text": " "}] * 10),
            {"format": "Text", "checks": {"maxRejected": "100%"}},
            "TooManyBadRows",
            "EmptyContent",
        ),
        (
            lines(PAIRS),
            {"columns": COLUMNS, "checks": {"minRows": 101}},
            "TooFewRows",
            "100 valid rows, checks.minRows is 101",
        ),
        (lines(PAIRS[:1]), {"columns": COLUMNS}, "EmptySplit", "split .* is empty"),
        (lines(PAIRS[:1] * 9), {"columns": COLUMNS}, "EmptySplit", "split .* is empty"),
    ],
)
def test_data_that_is_not_fit(plan, tmp_path, content, fields, code, words):
    (tmp_path / "rows.jsonl").write_text(content)
    error = failure(plan(tmp_path / "rows.jsonl", **fields), code)
    assert re.search(words, error.message), error.message


def test_bytes_that_are_not_utf8_are_reported_with_row_numbers(plan, tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(lines([{"text": "a"}] * 3).encode() + '{"text": "é"}\n'.encode("latin-1"))
    error = failure(plan(tmp_path / "rows.jsonl"), "TooManyBadRows")
    assert error.result.errors[0].model_dump() == {
        "code": "NotUTF8",
        "count": 1,
        "rows": [4],
        "example": "rows.jsonl:4: not UTF-8 at byte 11 of the line",
        "hint": None,
    }


def test_small_data_has_a_validation_row(plan):
    result = materialize.run(plan(rows=PAIRS[:3], columns=COLUMNS))
    assert {s.name: s.rows for s in result.splits} == {"train": 2, "validation": 1}


def test_wrong_fields_are_refused_before_the_source_is_read(plan, tmp_path):
    absent = tmp_path / "absent"
    with pytest.raises(ConfigError, match="together over 100%"):
        materialize.run(plan(absent, splits={"validation": "60%", "test": "60%"}))


def test_a_folder_gives_all_its_data_files_or_those_that_the_globs_choose(plan, tmp_path):
    folder = tmp_path / "claim" / "data"
    (folder / "more").mkdir(parents=True)
    (folder / "b.jsonl").write_text(lines([{"text": "b"}]))
    (folder / "a.csv").write_text("text\na\n")
    (folder / "more" / "c.txt").write_text("c\n")
    (folder / "README.md").write_text("read me")
    (folder / ".hidden.jsonl").write_text(lines([{"text": "hidden"}]))
    (folder / "weights.bin").write_bytes(b"\0")
    none = {"validation": "0%"}

    def texts(**source):
        asked = plan(folder, splits=none, source={"uri": "pvc://claim/data", **source})
        return [row["text"] for row in records(asked, materialize.run(asked), "train")]

    assert texts() == ["a", "b", "c"]
    assert texts(files=["*.jsonl"]) == ["b"]
    assert texts(files=["more/*", "a.csv"]) == ["a", "c"]
    with pytest.raises(SourceError, match=r"no file matches \*\.parquet") as caught:
        texts(files=["*.jsonl", "*.parquet"])
    assert caught.value.code == "SourceNotFound"


def test_links_must_stay_inside_the_source(plan, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.jsonl").write_text(lines([{"text": "secret"}]))
    claim = tmp_path / "claim"
    claim.mkdir()
    (claim / "link.jsonl").symlink_to(outside / "secret.jsonl")
    (claim / "folder").symlink_to(outside)
    for path in (claim, claim / "link.jsonl", claim / "folder"):
        with pytest.raises(SourceError, match="leads out of the source") as caught:
            materialize.run(plan(path))
        assert caught.value.code == "SourceRefused"


def test_a_link_on_the_way_must_not_leave_the_volume(plan, tmp_path, monkeypatch):
    (tmp_path / "outside" / "sub").mkdir(parents=True)
    (tmp_path / "outside" / "sub" / "rows.jsonl").write_text(lines([{"text": "secret"}]))
    claim = tmp_path / "claim"
    (claim / "real").mkdir(parents=True)
    (claim / "real" / "rows.jsonl").write_text(lines([{"text": "a"}, {"text": "b"}]))
    (claim / "bad").symlink_to(tmp_path / "outside")
    (claim / "good").symlink_to(claim / "real")
    monkeypatch.setattr(sources.os.path, "ismount", lambda path: Path(path) == claim)
    with pytest.raises(SourceError, match="leads out of the source"):
        materialize.run(plan(claim / "bad" / "sub" / "rows.jsonl"))
    assert materialize.run(plan(claim / "good" / "rows.jsonl")).rows == 2


def test_a_config_map_is_mounted_through_links(plan, tmp_path):
    mount = tmp_path / "source"
    (mount / "..2026").mkdir(parents=True)
    (mount / "..2026" / "rows.jsonl").write_text(lines(PAIRS))
    (mount / "..data").symlink_to("..2026")
    (mount / "rows.jsonl").symlink_to("..data/rows.jsonl")
    source = {"uri": "configmap://rows/rows.jsonl"}
    assert materialize.run(plan(mount / "rows.jsonl", columns=COLUMNS, source=source)).rows == 100


def test_a_source_that_is_not_there(plan, tmp_path):
    with pytest.raises(SourceError, match="no such file") as caught:
        materialize.run(plan(tmp_path / "absent.jsonl"))
    assert caught.value.code == "SourceNotFound"


def test_sha256_is_checked(plan):
    right = materialize.run(plan(rows=PAIRS, columns=COLUMNS)).revision
    source = {"uri": "pvc://claim/rows.jsonl", "sha256": right}
    assert materialize.run(plan(rows=PAIRS, columns=COLUMNS, source=source)).revision == right
    with pytest.raises(SourceError, match=right) as caught:
        materialize.run(plan(rows=PAIRS, columns=COLUMNS, source={**source, "sha256": "0" * 64}))
    assert caught.value.code == "ChecksumMismatch"


def test_a_source_over_the_limit(plan):
    with pytest.raises(SourceError) as caught:
        materialize.run(plan(rows=PAIRS, columns=COLUMNS, limits={"maxSourceBytes": 100}))
    assert caught.value.code == "SourceTooLarge"


def test_work_folders_of_killed_pods_go_after_a_day(plan):
    asked = plan(rows=PAIRS, columns=COLUMNS)
    root = Path(asked.store) / "datasets"
    for name in (".work-old", ".work-new", ".work-long"):
        (root / name).mkdir(parents=True)
    (root / ".work-long" / "rows").write_text("by a pod that has worked for days")
    for name in (".work-old", ".work-long"):
        os.utime(root / name, (1, 1))
    materialize.run(asked)
    assert (root / ".work-new").is_dir()
    assert (root / ".work-long").is_dir()
    assert not (root / ".work-old").exists()


def test_splits_hold_the_values_of_a_column_in_the_same_proportions(plan):
    rows = [{**pair, "kind": "rare" if i % 10 == 3 else "usual"} for i, pair in enumerate(PAIRS)]
    failed = failure(plan(rows=PAIRS, columns=COLUMNS, splits={"stratifyBy": "kind"}), "TooManyBadRows")
    assert "column kind (splits.stratifyBy) is missing" in failed.message
    asked = plan(rows=rows, columns=COLUMNS, splits={"validation": "20%", "stratifyBy": "kind"})
    result = materialize.run(asked)
    text = (Path(asked.store) / result.path / "validation.jsonl").read_text()
    rare = [f"What is {i}?" for i in range(3, 100, 10)]
    assert sum(json.loads(line)["prompt"] in rare for line in text.splitlines()) == pytest.approx(2, abs=1)
    assert len(text.splitlines()) == pytest.approx(20, abs=2)


@pytest.fixture
def dataset_hub(tmp_path, monkeypatch):
    """acme/rows on a hub on loopback: two data files and descriptions."""
    folder = tmp_path / "hub" / "datasets" / "acme" / "rows" / "main"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "train-00000.jsonl").write_text(lines(PAIRS[:60]))
    (folder / "data" / "test-00000.jsonl").write_text(lines(PAIRS[60:]))
    (folder / "README.md").write_text("# rows")
    (folder / "dataset_infos.json").write_text("{}")
    from huggingface_hub import constants

    with hub.serve(tmp_path / "hub") as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        yield folder


def test_a_dataset_from_the_hub_is_pinned_to_a_commit(plan, dataset_hub):
    result = materialize.run(plan(columns=COLUMNS, source={"uri": "hf://acme/rows"}, rows=[]))
    assert result.rows == 60, "the rest is its test split"
    assert len(result.revision) == 40
    assert [(one.reason, one.count, one.first) for one in result.not_read] == [
        ("Description", 2, ["README.md", "dataset_infos.json"]),
        ("OtherSplit", 1, ["data/test-00000.jsonl"]),
    ]
    assert any("another split or configuration: data/test-00000.jsonl" in sentence for sentence in result.advice)
    every = {"uri": f"hf://acme/rows@{result.revision}", "files": ["data/*.jsonl"]}
    assert materialize.run(plan(columns=COLUMNS, source=every, rows=[])).rows == 100


def test_what_a_saved_data_set_lists_is_read_from_the_hub(plan, dataset_hub):
    (dataset_hub / "data" / "train-00000.jsonl").rename(dataset_hub / "data" / "a.jsonl")
    (dataset_hub / "data" / "test-00000.jsonl").rename(dataset_hub / "data" / "b.jsonl")
    (dataset_hub / "data" / "state.json").write_text(json.dumps({"_data_files": [{"filename": "a.jsonl"}]}))
    assert materialize.run(plan(columns=COLUMNS, source={"uri": "hf://acme/rows"}, rows=[])).rows == 60


@pytest.mark.parametrize(
    ("uri", "code"), [("hf://acme/absent", "DatasetSourceNotFound"), ("hf://acme/rows@v9", "RevisionNotFound")]
)
def test_what_the_hub_does_not_have(plan, dataset_hub, uri, code):
    with pytest.raises(SourceError) as caught:
        materialize.run(plan(columns=COLUMNS, source={"uri": uri}, rows=[]))
    assert caught.value.code == code
