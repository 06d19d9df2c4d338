"""`hone check` and `hone init`: what is written for which rows, models and GPUs, and what is refused in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.pages.screen import Screen

from hone_api.dataset.dataset import DatasetSpec, Format
from hone_api.estimate.gpus import TABLE
from hone_api.estimate.known_models import MODELS
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.methods import METHODS
from hone_cli.errors import CommandError
from hone_cli.rows.init import CHECKED, ManifestRequest, choose, manifest
from hone_cli.rows.place import address, checked, key, suggested

pure = pytest.mark.pure
NEEDS_MORE = {Format.VERIFIABLE}
"""Formats whose methods need rewards."""


def result(form: str, longest: int = 100) -> dict:
    split = [{"name": "train", "rows": 400}, {"name": "validation", "rows": 20}]
    return {"formatDetected": f"{form} (Auto: …)", "splits": split, "tokens": {"max": longest, "mean": 90}}


@pure
@pytest.mark.parametrize("form", [form for form in Format if form is not Format.AUTO])
def test_every_format_has_a_manifest_or_a_way_out(form: Format) -> None:
    request = ManifestRequest("answers", "pvc://answers/rows.jsonl", "hf://owner/base")
    if form in NEEDS_MORE:
        with pytest.raises(CommandError, match=r"docs/guides/methods"):
            manifest(request, result(form))
        return
    dataset, job = yaml.safe_load_all(manifest(request, result(form)))
    assert DatasetSpec.model_validate(dataset["spec"]).source.uri == request.uri
    spec = FineTuneJobSpec.model_validate(job["spec"])
    assert form in METHODS[spec.method].formats
    assert [each.name for each in spec.datasets] == [dataset["metadata"]["name"]] == ["answers"]
    assert json.loads(dataset["metadata"]["annotations"][CHECKED]) == {
        "splits": result(form)["splits"],
        "tokens": {"mean": 90, "max": 100},
    }


@pure
@pytest.mark.parametrize("model", MODELS)
def test_the_choice_for_a_known_model_fits_or_says_that_it_does_not(model: str) -> None:
    for gpu in TABLE:
        request = ManifestRequest("answers", "pvc://a/b", f"hf://{model}", 1, gpu.name)
        choice = choose(request, "SFT", 512)
        text = manifest(request, result(Format.CHAT))
        assert ("does NOT fit" in text) is (choice.fits is False)
        assert yaml.safe_load_all(text)
    assert choose(ManifestRequest("a", "pvc://a/b", f"hf://{model}", 0), "SFT", 512).gib >= 2


@pure
def test_a_longer_row_has_more_room() -> None:
    lengths = []
    for longest in (10, 500, 5000, 10**7):
        text = manifest(ManifestRequest("a", "pvc://a/b", "hf://o/m"), result(Format.CHAT, longest))
        lengths.append(list(yaml.safe_load_all(text))[1]["spec"]["training"]["maxLength"])
    assert lengths == [512, 1024, 8192, 32_768]


@pure
def test_columns_and_a_gated_model_are_in_the_manifest() -> None:
    columns = {"prompt": 'a "q": #1', "completion": "réponse"}
    request = ManifestRequest("a", "https://h/x", "hf://meta-llama/Llama-3.2-1B-Instruct", columns=columns)
    dataset, job = yaml.safe_load_all(manifest(request, result(Format.PROMPT_COMPLETION)))
    assert dataset["spec"]["columns"] == columns
    assert job["spec"]["model"]["secretName"] == "hone-hub"


@pure
@pytest.mark.parametrize("model", ["ftp://x/y", "hf://owner", "hf://a/b: c", "hf://a/b\n  x: 1"])
def test_a_model_that_no_job_takes_is_refused(model: str) -> None:
    with pytest.raises(CommandError):
        manifest(ManifestRequest("a", "pvc://a/b", model), result(Format.CHAT))


@pure
def test_where_a_file_goes_depends_on_its_size(tmp_path: Path) -> None:
    file = tmp_path / "Ünsere rows (1).jsonl"
    file.write_bytes(bytes(1_000_000))
    assert address(file, "a") == "configmap://a/nsere-rows--1-.jsonl"
    file.write_bytes(bytes(1_000_001))
    assert address(file, "a") == f"pvc://a/{key(file)}"
    with pytest.raises(CommandError, match="name one file"):
        address(tmp_path, "a")


@pure
@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("rows.jsonl", "rows"),
        ("/a/My Rows.v2.jsonl.gz", "my-rows"),
        ("hf://o/Answers@v1", "answers"),
        ("Fragen über 1.jsonl", "fragen-uber-1"),
        ("...", "rows"),
    ],
)
def test_a_name_is_made_from_the_file(source: str, name: str) -> None:
    assert suggested(source) == name


@pure
def test_files_in_other_scripts_have_names_of_their_own() -> None:
    files = ("вопросы.jsonl", "ответы.jsonl", "質問.jsonl", "вопросы-2025.jsonl", "ответы-2025.jsonl", "س" * 90)
    names = [suggested(file) for file in files]
    assert len(set(names)) == len(files)
    assert [checked(name) for name in names] == names
    assert names[0].startswith("rows-")
    assert names[3].startswith("2025-")


@pure
@pytest.mark.parametrize("name", ["2024-05-01", "2024", "1e5", "e5", "null", "on", "y", "0x1f", "rows", "12-30-45"])
def test_a_name_stays_a_text_in_every_parser(name: str) -> None:
    """YAML 1.1 and 1.2 take different words for dates, numbers and truth values."""
    text = manifest(ManifestRequest(name, f"pvc://{name}/rows.jsonl", "hf://o/m"), result(Format.CHAT))
    dataset, job = yaml.safe_load_all(text)
    assert (dataset["metadata"]["name"], job["metadata"]["name"]) == (name, f"{name}-1")
    assert job["spec"]["datasets"][0]["name"] == job["spec"]["output"]["modelName"] == name
    assert (f"name: {name}\n" in text) is (name == "rows")


def hone(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "hone_cli", *words]
    return subprocess.run(program, capture_output=True, text=True, cwd=cwd, stdin=subprocess.DEVNULL)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    lines = [json.dumps({"question": f"How do I reset password {i}?", "answer": f"By page {i}."}) for i in range(60)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.trainer
def test_a_file_becomes_a_manifest_without_questions(rows: Path) -> None:
    done = hone("init", "rows.jsonl", "-m", "Qwen/Qwen2.5-0.5B-Instruct", "--gpu", "NVIDIA-L4", "-n", "team", cwd=rows)
    assert done.returncode == 0, done.stderr
    following = "hone upload rows.jsonl rows -n team && hone run rows.yaml -n team"
    assert done.stderr.splitlines()[-1] == f"rows.yaml is written. Next: {following}"
    dataset, job = yaml.safe_load_all((rows / "rows.yaml").read_text())
    assert dataset["spec"]["source"]["uri"] == "configmap://rows/rows.jsonl"
    assert job["spec"]["resources"]["gpuProducts"] == ["NVIDIA-L4"]
    again = hone("init", "rows.jsonl", "-m", "a/b", cwd=rows)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "rows.yaml exists" in again.stderr


@pytest.mark.trainer
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["rows.jsonl"], "name the base model: --model"),
        (["absent.jsonl", "-m", "a/b"], "absent.jsonl: No such file or directory"),
        (["broken.jsonl", "-m", "a/b"], "hone check broken.jsonl"),
        (
            ["empty.jsonl", "-m", "a/b"],
            "empty.jsonl holds no row. The source has no rows: check the path and the files. ",
        ),
        (["rows.jsonl", "-m", "a/b", "--name", "No"], "'No' is not a name"),
    ],
)
def test_what_cannot_be_is_one_line(rows: Path, words: list[str], line: str) -> None:
    (rows / "broken.jsonl").write_text('{"messages": [\n{"half": \n')
    (rows / "empty.jsonl").touch()
    done = hone("init", *words, cwd=rows)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("hone: ")
    assert line in done.stderr.splitlines()[-1]
    assert not list(rows.glob("*.yaml"))


@pytest.mark.trainer
def test_a_file_that_ends_in_half_a_row_is_said_to(rows: Path) -> None:
    whole = (rows / "rows.jsonl").read_text()
    (rows / "half.jsonl").write_text(whole[:-9])
    done = hone("init", "half.jsonl", "-m", "a/b", "-o", "-", cwd=rows)
    assert (done.returncode, "59 rows, 1 rejected (hone check says why), PromptC" in done.stderr) == (0, True), (
        done.stderr
    )


@pytest.mark.trainer
def test_on_a_terminal_it_asks_for_the_model_and_the_gpus(rows: Path, terminal: Callable[..., Screen]) -> None:
    screen = terminal("init", str(rows / "rows.jsonl"), "-o", str(rows / "out.yaml"), columns=60)
    screen.until("Base model [Qwen/Qwen2.5-0.5B-Instruct]:")
    screen.press("owner/base\r")
    screen.until("GPUs [1]:")
    screen.press("0\r")
    assert screen.end() == 0
    job = list(yaml.safe_load_all((rows / "out.yaml").read_text()))[1]["spec"]
    assert (job["model"]["uri"], job["resources"]["gpusPerNode"]) == ("hf://owner/base", 0)


@pytest.mark.trainer
def test_the_check_prints_what_the_trainer_finds(rows: Path) -> None:
    done = hone("check", "rows.jsonl", "--column", "prompt=question", "--column", "completion=answer", cwd=rows)
    assert done.returncode == 0, done.stderr
    assert "rows:       60 valid" in done.stdout
    found = json.loads(hone("check", "rows.jsonl", "--json", cwd=rows).stdout)
    assert found["rows"] == 60
    assert found["formatDetected"].startswith("PromptCompletion")


ONLY = """
import importlib.abc, sys, tomllib
from importlib.metadata import packages_distributions
allowed = set(sys.argv.pop(1).split(","))
class Refused(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        top = name.partition(".")[0]
        if top in NAMES and not (set(NAMES[top]) & allowed):
            raise ModuleNotFoundError(f"No module named {top!r}", name=top)
NAMES = {top: [d.lower().replace("_", "-") for d in ds] for top, ds in packages_distributions().items()}
sys.meta_path.insert(0, Refused())
from hone_trainer.__main__ import main
sys.exit(main(["validate", *sys.argv[1:]]))
"""


@pytest.mark.trainer
def test_the_check_needs_only_the_packages_of_its_extra(rows: Path) -> None:
    """As in an environment that has no others: torch, transformers and datasets among them."""
    import re
    import tomllib

    extras = tomllib.loads((Path(__file__).resolve().parents[3] / "pyproject.toml").read_text())["project"]
    named = [*extras["dependencies"], *extras["optional-dependencies"]["data"]]
    own = {re.match(r"[\w-]+", each)[0].lower() for each in named}
    of_them = {"pydantic-core", "typing-extensions", "annotated-types", "typing-inspection", "numpy", "markupsafe"}
    program = [sys.executable, "-c", ONLY, ",".join({"hone", *own, *of_them}), "rows.jsonl"]
    done = subprocess.run(program, capture_output=True, text=True, cwd=rows)
    assert done.returncode == 0, done.stderr
    assert "60 valid" in done.stdout
