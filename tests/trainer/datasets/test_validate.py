"""`validate` as a person uses it before there is a cluster: files, globs, addresses, a manifest, generated rows."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.servers import tls_server

from hone_dev import hub
from hone_dev.models import modelserver
from hone_trainer.__main__ import main

pytestmark = pytest.mark.trainer
MANIFEST = """\
apiVersion: hone.dev/v1alpha1
kind: Dataset
metadata: {name: answers}
spec:
  source: {uri: "%s"}
  checks: {maxRejected: "20%%"}
"""
SYNTHESIS = """\
  synthesis: {template: SelfInstruct, endpoint: "%s", rows: 4, parallel: 1%s}
"""


def lines(start: int, count: int = 40) -> str:
    return "".join(json.dumps({"text": f"row {i}"}) + "\n" for i in range(start, start + count))


@pytest.fixture(autouse=True)
def _log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_TERMINATION_LOG", str(tmp_path / "log"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two files in two folders, and one that is not data."""
    for number, name in enumerate(("one/a.jsonl", "two/b.jsonl", "two/notes")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(lines(number * 100))
    return tmp_path


@pytest.mark.parametrize(
    "sources",
    [
        ["one/a.jsonl", "two/b.jsonl"],
        ["*/*.jsonl"],
        ["**/*.jsonl"],
        ["one/*.jsonl", "two/b.jsonl"],
    ],
)
def test_several_files_and_globs_are_one_source(files: Path, sources: list[str], capsys: Any) -> None:
    assert main(["validate", *sources]) == 0
    assert "rows:       80 valid" in capsys.readouterr().out


def test_a_row_of_several_files_has_its_place(files: Path, capsys: Any) -> None:
    (files / "two/b.jsonl").write_text(lines(100) + "{\n")
    assert main(["validate", "*/*.jsonl"]) == 0
    assert "two/b.jsonl:41: not JSON" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name files"),
        (["absent.jsonl"], "there is no file absent.jsonl"),
        (["absent/*.jsonl"], "there is no file absent/*.jsonl"),
        (["one", "two"], "or one folder"),
        (["hf://owner/name", "one/a.jsonl"], "name either one address, or files"),
        (["gs://bucket/rows.jsonl"], "gs:// is not read: write s3://bucket/path"),
        (["az://container/rows.jsonl"], "SAS token"),
        (["http://data.test/rows.jsonl"], "write https://"),
        (["hf://datasets/owner/name"], "write hf://owner/name"),
        (["hf://owner/name/data/train.jsonl"], "select its files with files"),
        (["ftp://data.test/rows.jsonl"], "ftp://data.test/rows.jsonl: a source of rows is hf://owner/name"),
        (["--dataset", "part.yaml"], "spec.source.split: split is the name of one split"),
        (["--dataset", "sum.yaml"], "make a Dataset of each and a mixture of both"),
        (["--dataset", "volume.yaml"], "the manifest's source is in the cluster"),
        (["one/a.jsonl", "--dataset", "volume.yaml", "--synthesis"], "--synthesis needs --dataset"),
    ],
)
def test_what_is_impossible_is_reported(files: Path, arguments: list[str], words: str, capsys: Any) -> None:
    (files / "volume.yaml").write_text(MANIFEST % "pvc://data/rows.jsonl")
    for name, split in (("part", "train[:10%]"), ("sum", "train+test")):
        of_hub = (MANIFEST % "hf://owner/name").replace('name"}', f'name", split: "{split}"}}')
        (files / f"{name}.yaml").write_text(of_hub)
    assert main(["validate", *arguments]) == 78
    told = capsys.readouterr().err
    assert words in told
    assert "pattern" not in told


EXAM_QUESTION = "A train leaves at nine with twelve cars and forty seats in each of them. How many can sit?"


@pytest.fixture
def rows_and_exam(tmp_path: Path) -> None:
    """Three rows; the second holds the question of the exam's second row."""
    rows = [("How many seats?", "Count them."), (f"Solve it: {EXAM_QUESTION.upper()}", "Four hundred."), ("Who?", "I.")]
    exam = [("What leaves at nine in the morning, and where does it go then?", "A train."), (EXAM_QUESTION, "480")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in rows))
    chat = ([{"role": "user", "content": p}, {"role": "assistant", "content": c}] for p, c in exam)
    (tmp_path / "exam.jsonl").write_text("".join(json.dumps({"messages": turns}) + "\n" for turns in chat))
    (tmp_path / "exam.csv").write_text("task,solution\n" + "".join(f'"{p}","{c}"\n' for p, c in exam))


@pytest.mark.usefixtures("rows_and_exam")
def test_rows_of_an_exam_are_found_on_a_laptop(capsys: Any) -> None:
    assert main(["validate", "rows.jsonl", "--against", "exam.jsonl", "--out", "kept"]) == 0
    out = capsys.readouterr().out
    assert "against:    exam.jsonl: 2 rows" in out
    assert "rows:       2 valid" in out
    assert "Contamination: 1 removed; row 2: holds 12 8-grams of row 2 of exam.jsonl" in out
    (removed,) = map(json.loads, Path("kept/removed.jsonl").read_text().splitlines())
    assert (removed["row"], removed["step"]) == (2, "Contamination")


@pytest.mark.usefixtures("rows_and_exam")
def test_an_exam_stands_for_the_sets_of_the_manifest(tmp_path: Path, capsys: Any) -> None:
    contamination = "  curation: {contamination: {datasets: [{name: quiz}], ngram: 3, overlap: %s}}\n"
    for overlap, removed in (("100%", 1), ("101%", None)):
        (tmp_path / "d.yaml").write_text(MANIFEST % "pvc://data/rows.jsonl" + contamination % overlap)
        code = main(["validate", "rows.jsonl", "--dataset", "d.yaml", "--against", "exam.jsonl"])
        assert code == (78 if removed is None else 0)
    out = capsys.readouterr().out
    assert "holds 17 3-grams of row 2 of exam.jsonl" in out
    assert "left out" not in out
    (tmp_path / "d.yaml").write_text(MANIFEST % "pvc://data/rows.jsonl" + contamination % "100%")
    assert main(["validate", "rows.jsonl", "--dataset", "d.yaml"]) == 0
    assert "use --against FILE instead of its datasets" in capsys.readouterr().out


@pytest.mark.usefixtures("rows_and_exam")
def test_an_exam_has_the_columns_of_the_rows_or_its_own(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "rows.csv").write_text(f'task,solution\n"{EXAM_QUESTION}",480\n"Who?",Me.\n"Why?",So.\n')
    mapped = ["validate", "rows.csv", "--column", "prompt=task", "--column", "completion=solution"]
    assert main([*mapped, "--against", "exam.csv", "--against", "exam.jsonl"]) == 0
    out = capsys.readouterr().out
    assert "against:    exam.csv: 2 rows" in out
    assert "against:    exam.jsonl: 2 rows" in out
    assert "Contamination: 1 removed; row 1" in out


@pytest.mark.usefixtures("rows_and_exam")
def test_an_exam_that_cannot_be_read_is_reported_as_such(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "odd.jsonl").write_text('{"a": 1}\n')
    assert main(["validate", "rows.jsonl", "--against", "odd.jsonl"]) == 65
    assert "UnknownFormat: --against odd.jsonl: " in capsys.readouterr().err
    assert main(["validate", "rows.jsonl", "--against", "absent.jsonl"]) != 0
    assert "there is no file absent.jsonl" in capsys.readouterr().err


def test_out_keeps_the_rows_and_what_is_known_of_them(files: Path, capsys: Any) -> None:
    (files / "one/a.jsonl").write_text(lines(0) + "{\n")
    assert main(["validate", "one/a.jsonl", "--out", "kept"]) == 0
    kept = [json.loads(line) for line in (files / "kept/train.jsonl").read_text().splitlines()]
    held = [json.loads(line) for line in (files / "kept/validation.jsonl").read_text().splitlines()]
    assert sorted(row["text"] for row in kept + held) == sorted(f"row {i}" for i in range(40))
    (rejected,) = (files / "kept/rejected.jsonl").read_text().splitlines()
    assert json.loads(rejected)["code"] == "BrokenJson"
    assert (files / "kept/report.html").is_file()
    assert "kept:       kept" in capsys.readouterr().out


def test_out_of_rows_that_are_not_fit_keeps_no_split_of_a_run_before(files: Path) -> None:
    assert main(["validate", "one/a.jsonl", "--out", "kept"]) == 0
    (files / "one/a.jsonl").write_text("{x\n" * 9)
    assert main(["validate", "one/a.jsonl", "--out", "kept"]) == 65
    assert not (files / "kept/train.jsonl").exists()
    assert len((files / "kept/rejected.jsonl").read_text().splitlines()) == 9


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tls_server.certificate(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("by", ["argument", "manifest"])
def test_an_https_source_is_read_with_the_environments_key(
    by: str, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("AUTHORIZATION", "Bearer canary")
    with tls_server.serve(certificate) as server:
        server.answers["/rows.jsonl"] = (200, {}, lines(0).encode())
        uri = f"https://localhost:{server.port}/rows.jsonl"
        (tmp_path / "dataset.yaml").write_text(MANIFEST % uri)
        source = [uri] if by == "argument" else ["--dataset", "dataset.yaml"]
        assert main(["validate", *source]) == 78, "a private address, unless it is allowed"
        assert main(["validate", *source, "--allow-private-addresses"]) == 0
        assert server.requests[0][3] == "Bearer canary"
    captured = capsys.readouterr()
    assert "rows:       40 valid" in captured.out
    assert "canary" not in captured.out + captured.err


def test_an_hf_source_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from huggingface_hub import constants

    folder = tmp_path / "hub/datasets/acme/rows/main"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text(lines(0))
    (folder / "test.jsonl").write_text(lines(100))
    with hub.serve(tmp_path / "hub") as url:
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        assert main(["validate", "hf://acme/rows"]) == 0
    assert "rows:       40 valid" in capsys.readouterr().out


class Quiz(modelserver.Model):
    """Makes up another question at each request."""

    served_as = "quiz"

    def __init__(self) -> None:
        self.asked = 0

    def answer(self, messages: list[dict[str, str]], temperature: float, length: int, seed: int) -> dict[str, Any]:
        self.asked += 1
        text = f"**Question:** What is {self.asked} and {'x' * self.asked}?\n**Answer:** It is {self.asked}."
        return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}


def test_generated_rows_are_kept_and_asked_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    seeds = [{"prompt": f"How many is {i}?", "completion": f"It is {i}."} for i in range(3)]
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in seeds))
    monkeypatch.setenv("API_KEY", "sk-canary")
    quiz = Quiz()
    with modelserver.serve(quiz, "sk-canary") as url:
        spec = MANIFEST % "pvc://data/seeds.jsonl" + '  splits: {validation: "0%"}\n'
        (tmp_path / "dataset.yaml").write_text(spec + SYNTHESIS % (url, ", review: {required: false}"))
        command = ["validate", "seeds.jsonl", "--dataset", "dataset.yaml"]
        assert main(command) == 0
        assert "left out:   synthesis" in capsys.readouterr().out
        assert quiz.asked == 0
        command += ["--synthesis", "--out", "kept", "--allow-private-addresses"]
        assert main(command) == 0
        asked = quiz.asked
        assert main(command) == 0
    rows = [json.loads(line) for line in (tmp_path / "kept/train.jsonl").read_text().splitlines()]
    assert [row["completion"] for row in rows] == [f"It is {n}." for n in range(1, 5)]
    assert quiz.asked == asked
    assert (tmp_path / "kept/synthetic.jsonl").is_file()


def test_generated_rows_that_wait_for_people_are_reported(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "seeds.jsonl").write_text(json.dumps({"prompt": "How many?", "completion": "One."}) + "\n")
    with modelserver.serve(Quiz()) as url:
        (tmp_path / "dataset.yaml").write_text(MANIFEST % "pvc://data/seeds.jsonl" + SYNTHESIS % (url, ""))
        options = ["--synthesis", "--out", "kept", "--allow-private-addresses"]
        assert main(["validate", "seeds.jsonl", "--dataset", "dataset.yaml", *options]) == 0
    told = capsys.readouterr().out
    assert "4 rows wait for review: hone dataset review answers --path kept/store" in told


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["train.jsonl", "test.jsonl"], 'train: files: ["train.jsonl"]; test: files: ["test.jsonl"]'),
        (["train/0.jsonl", "train/1.jsonl", "validation/0.jsonl"], 'train: files: ["train/*.jsonl"]; validation:'),
        (["rows.jsonl", "rows_test.jsonl"], 'train: files: ["rows.jsonl"]; test:'),
        (["dev.jsonl", "eval.jsonl"], 'validation: files: ["dev.jsonl"]; test: files: ["eval.jsonl"]'),
    ],
)
def test_a_folder_with_the_files_of_splits_is_refused(
    tmp_path: Path, names: list[str], words: str, capsys: Any
) -> None:
    for number, name in enumerate(names):
        (tmp_path / "rows" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "rows" / name).write_text(lines(number * 100))
    assert main(["validate", "rows"]) == 65
    told = capsys.readouterr().err
    assert "SeveralSplits" in told
    assert words in told
    (tmp_path / "dataset.yaml").write_text(
        (MANIFEST % "pvc://data/rows").replace('rows"', f'rows", files: ["{names[0]}"]')
    )
    assert main(["validate", "rows", "--dataset", "dataset.yaml"]) == 0
    assert "rows:       40 valid" in capsys.readouterr().out


def test_what_datasets_saves_of_several_splits_is_refused(tmp_path: Path, capsys: Any) -> None:
    import datasets

    rows = datasets.Dataset.from_dict({"text": [f"row {i}" for i in range(40)]})
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(str(tmp_path / "rows"))
    assert main(["validate", "rows"]) == 65
    assert "SeveralSplits" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["train.txt", "test.txt"], 'train: files: ["train.txt"]; test: files: ["test.txt"]'),
        (["train.md", "test.md", "LICENSE.txt", "NOTICE.md"], 'train: files: ["train.md"]; test: files: ["test.md"]'),
        (["wiki.train.txt", "wiki.valid.txt", "about.txt"], 'validation: files: ["wiki.valid.txt"]'),
        (["train/0.txt", "train/1.txt", "dev/0.txt"], 'train: files: ["train/*.txt"]; validation:'),
        (["corpus.txt", "corpus_test.txt"], 'train: files: ["corpus.txt"]; test: files: ["corpus_test.txt"]'),
        (["train-00000-of-00001.txt", "eval.txt"], 'test: files: ["eval.txt"]'),
        (["train.jsonl", "test.txt"], 'train: files: ["train.jsonl"]; test: files: ["test.txt"]'),
    ],
)
def test_a_corpus_of_splits_is_refused(tmp_path: Path, names: list[str], words: str, capsys: Any) -> None:
    for name in names:
        (tmp_path / "rows" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "rows" / name).write_text(f"Of {name} and its rows.\n")
    assert main(["validate", "rows"]) == 65
    told = capsys.readouterr().err
    assert "SeveralSplits" in told
    assert words in told


@pytest.mark.parametrize(
    "names",
    [
        ["index.md", "guide.md", "test.md", "LICENSE.txt", "NOTICE.md", "LICENSE-MIT.txt", "readme.txt"],
        ["license_agreements.txt", "copying-machines.txt"],
        ["install.md", "testing/unit.md", "evaluation/scores.md", "training/start.md"],
        ["how-to-train-a-dog.txt", "a-test-drive.txt", "the-dev-team-at-work.txt"],
        ["test/one.txt", "test/two.txt", "test/three.txt"],
    ],
)
def test_pages_about_tests_are_no_splits_and_a_licence_is_no_page(
    tmp_path: Path, names: list[str], capsys: Any
) -> None:
    for name in names:
        (tmp_path / "rows" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "rows" / name).write_text(f"Of {name} and its rows.\n")
    (tmp_path / "dataset.yaml").write_text(MANIFEST % "pvc://data/rows" + '  splits: {validation: "0%"}\n')
    assert main(["validate", "rows", "--dataset", "dataset.yaml"]) == 0
    about = ("LICENSE.txt", "NOTICE.md", "LICENSE-MIT.txt", "readme.txt")
    pages = [name for name in names if name not in about]
    assert f"rows:       {len(pages)} valid" in capsys.readouterr().out


@pytest.mark.parametrize("format", ["PromptCompletion", "Text"])
def test_markdown_next_to_files_of_rows_is_not_read_and_reported(tmp_path: Path, format: str, capsys: Any) -> None:
    (tmp_path / "rows" / "docs").mkdir(parents=True)
    row = {"text": "t"} if format == "Text" else {"prompt": "p", "completion": "c"}
    (tmp_path / "rows" / "rows.jsonl").write_text(
        "".join(json.dumps({key: f"{value} {n}" for key, value in row.items()}) + "\n" for n in range(40))
    )
    for name in ("NOTES.md", "docs/how.md"):
        (tmp_path / "rows" / name).write_text("How these rows were made.\n")
    assert main(["validate", "rows", "--format", format]) == 0
    told = capsys.readouterr().out
    assert "rows:       40 valid (" in told
    assert "describes them: NOTES.md, docs/how.md. To read it, name it in source.files." in told


@pytest.mark.parametrize("arguments", [["s/*.jsonl"], ["s/train.jsonl", "s/test.jsonl"], ["s/t*.jsonl", "s/dev.jsonl"]])
def test_files_of_several_splits_are_no_one_source(tmp_path: Path, arguments: list[str], capsys: Any) -> None:
    (tmp_path / "s").mkdir()
    for number, name in enumerate(("train", "dev", "test")):
        (tmp_path / "s" / f"{name}.jsonl").write_text(lines(number * 100))
    assert main(["validate", *arguments]) == 65
    told = capsys.readouterr().err
    assert "SeveralSplits" in told
    assert "(train: train.jsonl; " in told
    assert "--against s/dev.jsonl" in told or "--against s/test.jsonl" in told
    spec = (MANIFEST % "pvc://data/rows").replace('rows"', 'rows", files: ["*.jsonl"]')
    (tmp_path / "dataset.yaml").write_text(spec)
    assert main(["validate", *arguments, "--dataset", "dataset.yaml"]) == 0, "who names the files insists"


def test_a_folder_above_the_files_names_no_split(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "test").mkdir()
    for name in ("train-1", "rows"):
        (tmp_path / "test" / f"{name}.jsonl").write_text(lines(len(name) * 100))
    assert main(["validate", "test/train-1.jsonl", "test/rows.jsonl"]) == 0
    assert "rows:       80 valid" in capsys.readouterr().out


def test_names_of_columns_and_rows_print_no_control_sequence(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"prompt": "q\x9b2J", "completion": "a", "\x1b]8;;http://evil\x07click": "b", "\x1b[2J": 1}
    path.write_text("".join(json.dumps({**row, "prompt": f"{row['prompt']} {n}"}) + "\n" for n in range(3)))
    assert main(["validate", str(path)]) == 0
    printed = "".join(capsys.readouterr())
    assert "click" in printed
    assert not {"\x1b", "\x07", "\x9b"} & {*printed}


def test_a_nul_in_the_first_row_rejects_that_row_alone(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"prompt,completion\nq,a\0\n" + b"".join(b"q%d,a%d\n" % (n, n) for n in range(40)))
    assert main(["validate", str(path)]) == 0
    assert "rejected:   1" in capsys.readouterr().out


def test_a_whole_number_that_is_too_long_is_named_as_such(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "rows.jsonl"
    rows = ['{"prompt": "q", "completion": "a", "n": ' + "9" * 5000 + "}"]
    path.write_text("\n".join(rows + [json.dumps({"prompt": f"q{n}", "completion": "a"}) for n in range(40)]))
    assert main(["validate", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "a whole number of over 4,300 digits" in printed
    assert "int_max_str_digits" not in printed


def test_a_model_that_is_not_a_folder_has_the_command_that_fetches_it(files: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["validate", "one/a.jsonl", "--out", str(tmp_path / "kept"), "--model", "acme/tiny"]) != 0
    assert "hf download acme/tiny --local-dir base" in capsys.readouterr().err


LAPTOP = """
import json, runpy, sys

refused = set(json.loads(sys.argv.pop(1)))

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
sys.argv[0] = "hone-trainer"
runpy.run_module("hone_trainer", run_name="__main__")
"""


def _installed(extra: str) -> set[str]:
    """The distributions that `pip install 'hone[extra]'` brings."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    todo = [Requirement(line) for line in project["dependencies"] + project["optional-dependencies"][extra]]
    found = {"hone"}
    while todo:
        asked = todo.pop()
        if (name := canonicalize_name(asked.name)) in found:
            continue
        found.add(name)
        for one in map(Requirement, metadata.requires(name) or ()):
            if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in {"", *asked.extras}):
                todo.append(one)
    return found


@pytest.mark.parametrize(
    "name", ["a.parquet", *(pytest.param(name, marks=pytest.mark.long) for name in ("a.csv", "a.jsonl.gz"))]
)
def test_a_laptop_needs_what_the_extra_data_brings_and_nothing_else(name: str, tmp_path: Path) -> None:
    """Not torch, transformers, or `datasets`: all modules of other packages are absent."""
    rows = [{"prompt": f"Where is {n}?", "completion": f"Near {n}, behind the old tower."} for n in range(300)]
    table = pyarrow.Table.from_pylist(rows)
    lines = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    write: dict[str, Callable[[Path], Any]] = {
        "a.csv": lambda path: pyarrow.csv.write_csv(table, path),
        "a.parquet": lambda path: pyarrow.parquet.write_table(table, path),
        "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(lines)),
    }
    write[name](tmp_path / name)
    brought = _installed("data")
    owners = metadata.packages_distributions()
    others = [module for module, of in owners.items() if not {*map(canonicalize_name, of)} & brought]
    assert {"torch", "transformers", "datasets", "typer"} <= {*others}
    manifest = tmp_path / "rows.yaml"
    curation = {"deduplicate": "Near", "languages": ["en"]}
    spec = {"source": {"uri": f"pvc://claim/{name}"}, "curation": curation}
    manifest.write_text(json.dumps({"kind": "Dataset", "metadata": {"name": "rows"}, "spec": spec}))
    argv = ["validate", str(tmp_path / name), "--dataset", str(manifest), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", LAPTOP, json.dumps(others), *argv], capture_output=True, text=True)
    assert (done.returncode, (tmp_path / "out" / "train.jsonl").is_file()) == (0, True), done.stderr
