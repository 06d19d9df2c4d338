"""Fetch: the real hf:// path, by the real command, against a hub on loopback."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import save_file
from support.models.family_templates import record, tokenizer
from support.runs.forks import Forks, without_hub

from hone_api.contract.report import FetchResult, LookupResult
from hone_api.contract.termination import TerminationMessage, parse_outcome
from hone_dev import hub
from hone_dev.tools.threaded import served
from hone_trainer.store import contents, manifest
from hone_trainer.store.deadline import Deadline
from hone_trainer.store.hub import SLOWEST

pytestmark = pytest.mark.trainer
TOKEN = "hf_canaryCanaryCanary42"
SECRET = {"HF_TOKEN": TOKEN}
IMPORTED = ("hone_trainer.models.fetch", "fsspec", "httpx2", "trio", "yaml")
"""All but huggingface_hub, which reads its settings when it is imported."""


@pytest.fixture(scope="module")
def commands() -> Iterator[Forks]:
    made = Forks(*IMPORTED, environment=without_hub())
    yield made
    made.close()


@pytest.fixture
def model(tmp_path) -> Path:
    """acme/tiny: weights, a config that names code, a pickle, a Python file."""
    folder = tmp_path / "hub" / "models" / "acme" / "tiny" / "main"
    folder.mkdir(parents=True)
    config = {"model_type": "llama", "auto_map": {"AutoModel": "evil.Model"}, "inner": {"trust_remote_code": True}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text('{"auto_map": "is a token here"}')
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "consolidated.safetensors").write_bytes(b"the weights once more")
    (folder / "evil.py").write_text("raise SystemExit")
    save_file({"w": numpy.arange(6.0)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def endpoint(model):
    with hub.serve(model.parents[3]) as url:
        yield url


class Fetch:
    """Runs `python -m hone_trainer fetch` in a folder."""

    def __init__(self, folder: Path, endpoint: str, commands: Forks) -> None:
        self.folder, self.endpoint, self.commands = folder, endpoint, commands
        self.store = folder / "store"
        self.output = ""

    def __call__(
        self, uri: str, secret: dict[str, str] | None = None, rows: dict[str, Any] | None = None, **limits: int
    ) -> TerminationMessage:
        plan = {"kind": "Fetch", "model": {"uri": uri}, "store": "store", "rows": rows, "limits": limits}
        return self.carry_out("fetch", plan, secret)

    def carry_out(self, verb: str, plan: dict[str, Any], secret: dict[str, str] | None = None) -> TerminationMessage:
        if secret is not None:
            (self.folder / "secret").mkdir(exist_ok=True)
            for key, value in secret.items():
                (self.folder / "secret" / key).write_text(value)
            plan["secretPath"] = "secret"
        (self.folder / "plan.json").write_text(json.dumps(plan))
        log = self.folder / "termination-log"
        home = {"HOME": str(self.folder), "HF_HOME": str(self.folder / "hf"), "HF_HUB_OFFLINE": "1"}
        environment = {**home, "HF_ENDPOINT": self.endpoint, "HONE_TERMINATION_LOG": str(log)}
        output = self.folder / "output"
        exit_code = self.commands([verb, str(self.folder / "plan.json")], environment, output, seconds=300)
        self.output = output.read_text()
        outcome = parse_outcome(log.read_text())
        assert outcome is not None
        assert exit_code == outcome.exit_code
        return outcome


@pytest.fixture
def fetch(tmp_path, endpoint, commands) -> Fetch:
    return Fetch(tmp_path, endpoint, commands)


def failed(outcome: TerminationMessage, code: str) -> str:
    assert outcome.failure is not None
    assert outcome.failure.code == code, outcome.failure.message
    return outcome.failure.message


def fetched(outcome: TerminationMessage) -> FetchResult:
    assert isinstance(outcome.result, FetchResult), outcome
    return outcome.result


def test_only_data_is_staged_pinned_to_the_commit_with_a_manifest(fetch, model):
    (model / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    result = fetched(fetch("hf://acme/tiny"))
    folder = fetch.store / result.path
    assert result.path == f"base-models/acme--tiny/{result.commit}"
    assert len(result.commit or "") == 40
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors", "manifest.json"}
    assert json.loads((folder / "config.json").read_text()) == {"model_type": "llama", "inner": {}}
    assert (folder / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()
    assert manifest.verify(folder, result.digest).size_bytes == result.size_bytes
    assert [path.name for path in folder.parent.iterdir()] == [result.commit]
    assert result.license == "apache-2.0"


def test_the_second_fetch_downloads_nothing(fetch):
    first = fetched(fetch("hf://acme/tiny"))
    weights = fetch.store / first.path / "model.safetensors"
    inode = weights.stat().st_ino
    assert fetched(fetch("hf://acme/tiny")) == first
    assert weights.stat().st_ino == inode
    assert "already in the store" in fetch.output


def test_a_look_names_the_commit_and_downloads_nothing(fetch, model):
    first = fetched(fetch("hf://acme/tiny"))
    plan = {"kind": "Lookup", "uri": "hf://acme/tiny@main"}
    assert fetch.carry_out("lookup", plan).result == LookupResult(commit=first.commit or "")
    (model / "README.md").write_text("# News")
    answer = fetch.carry_out("lookup", plan).result
    assert isinstance(answer, LookupResult)
    assert answer.commit != first.commit
    assert [path.name for path in (fetch.store / first.path).parent.iterdir()] == [first.commit]
    failed(fetch.carry_out("lookup", {**plan, "uri": "hf://acme/none"}), "ModelNotFound")


def test_a_damaged_model_is_fetched_again(fetch):
    first = fetched(fetch("hf://acme/tiny"))
    weights = fetch.store / first.path / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + b"x")
    assert fetched(fetch("hf://acme/tiny")) == first
    assert weights.read_bytes() == content


def test_revisions_are_folders_of_their_own(fetch, model):
    shutil.copytree(model, model.parent / "v2")
    (model.parent / "v2" / "LICENSE").write_text("Apache-2.0")
    main, other = fetched(fetch("hf://acme/tiny")), fetched(fetch("hf://acme/tiny@v2"))
    assert main.commit != other.commit
    assert fetched(fetch(f"hf://acme/tiny@{main.commit}")) == main


@pytest.mark.parametrize(
    ("uri", "code", "words"),
    [
        ("hf://acme/absent", "ModelNotFound", "acme/absent"),
        ("hf://acme/tiny@v9", "RevisionNotFound", "v9"),
        ("https://example.org/model", "NotSupportedYet", "https://"),
        ("pvc://claim/model", "NotSupportedYet", "pvc://"),
    ],
)
def test_what_is_not_there(fetch, uri, code, words):
    assert words in failed(fetch(uri), code)


def test_a_gated_model_needs_a_token_that_has_access(fetch, model):
    (model.parent / "hub.json").write_text(json.dumps({"gated": True, "tokens": [TOKEN]}))
    assert "no token was given" in failed(fetch("hf://acme/tiny"), "GatedModelAccessDenied")
    assert "this token has" in failed(
        fetch("hf://acme/tiny", {"HF_TOKEN": "hf_other12345678"}), "GatedModelAccessDenied"
    )
    assert not list(fetch.store.rglob("manifest.json"))
    fetched(fetch("hf://acme/tiny", SECRET))
    assert TOKEN not in fetch.output


def test_a_private_model_looks_absent_without_a_token(fetch, model):
    (model.parent / "hub.json").write_text(json.dumps({"private": True, "tokens": [TOKEN]}))
    assert "private" in failed(fetch("hf://acme/tiny"), "ModelNotFound")
    fetched(fetch("hf://acme/tiny", SECRET))


def test_a_missing_secret_and_a_missing_key_have_reasons_of_their_own(fetch):
    failed(fetch("hf://acme/tiny", {}), "SecretNotFound")
    assert "HF_TOKEN" in failed(fetch("hf://acme/tiny", {"TOKEN": "x"}), "SecretKeyNotFound")


@pytest.mark.faults("T14")
def test_an_unreachable_hub(tmp_path, commands):
    fetch = Fetch(tmp_path, "http://127.0.0.1:9", commands)
    assert "127.0.0.1:9" in failed(fetch("hf://acme/tiny"), "SourceUnreachable")


@pytest.mark.faults("T14")
@pytest.mark.parametrize("what", ["/api/models/acme/tiny", "/tree/", "model-00002", "config.json"])
def test_a_hub_that_goes_away_costs_only_the_files_that_were_not_whole(tmp_path, model, commands, what):
    """The first shard is larger than others, as shards are; only what is missing comes from the hub that is back."""
    (model / "model.safetensors").rename(model / "model-00001.safetensors")
    save_file({"v": numpy.arange(6.0)}, model / "model-00002.safetensors")
    with hub.serve(model.parents[3], cut=what) as url:
        fetch = Fetch(tmp_path, url, commands)
        failed(fetch("hf://acme/tiny", timeoutSeconds=30), "SourceUnreachable")
    assert not list(fetch.store.rglob("manifest.json"))
    whole = {path.name: path.stat().st_ino for path in fetch.store.glob("base-models/*/.work-*/model/*.safetensors")}
    assert set(whole) >= ({"model-00001.safetensors"} if what == "model-00002" else set())
    with hub.serve(model.parents[3]) as url:
        fetch.endpoint = url
        result = fetched(fetch("hf://acme/tiny"))
    folder = fetch.store / result.path
    assert {name: (folder / name).stat().st_ino for name in whole} == whole
    assert manifest.verify(folder, result.digest).files == 5
    assert [path.name for path in folder.parent.iterdir()] == [result.commit]


@pytest.mark.faults("T14")
@pytest.mark.parametrize("name", ["model.safetensors", "chat_template.jinja"])
@pytest.mark.parametrize("damage", [lambda content: content[:-1] + b"x", lambda content: b""], ids=["byte", "length"])
def test_a_file_that_the_disk_damaged_between_two_attempts_is_downloaded_again(tmp_path, model, commands, name, damage):
    """The library that downloads looks at neither length nor content of a file that it has a note about."""
    with hub.serve(model.parents[3], cut="tokenizer.json") as url:
        fetch = Fetch(tmp_path, url, commands)
        failed(fetch("hf://acme/tiny", timeoutSeconds=30), "SourceUnreachable")
    (file,) = fetch.store.glob(f"base-models/*/.work-*/model/{name}")
    times = file.stat()
    file.write_bytes(damage(file.read_bytes()))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    with hub.serve(model.parents[3]) as url:
        fetch.endpoint = url
        assert f"{name} is not what the hub lists" in failed(fetch("hf://acme/tiny"), "ChecksumMismatch")
        assert not list(fetch.store.glob("base-models/*/[!.]*"))
        result = fetched(fetch("hf://acme/tiny"))
    assert (fetch.store / result.path / name).read_bytes() == (model / name).read_bytes()


def test_pickled_weights_alone_are_refused_before_any_download(fetch, model):
    (model / "model.safetensors").unlink()
    assert "pytorch_model.bin" in failed(fetch("hf://acme/tiny"), "UnsafeModel")
    assert not fetch.store.exists()


def test_what_calls_itself_safetensors_must_be(fetch, model):
    (model / "model.safetensors").write_bytes(b"\xff" * 8 + b"{}")
    assert "model.safetensors" in failed(fetch("hf://acme/tiny"), "UnsafeModel")
    assert not list(fetch.store.glob("base-models/*/*")), "what no attempt can use takes no space"


def test_a_missing_shard_is_named(fetch, model):
    index = {"weight_map": {"w": "model.safetensors", "v": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00002-of-00002" in failed(fetch("hf://acme/tiny"), "UnsafeModel")


def test_a_model_over_the_limit_is_refused_before_any_download(fetch):
    assert "limit 100" in failed(fetch("hf://acme/tiny", maxSourceBytes=100), "SourceTooLarge")
    assert not fetch.store.exists()


@pytest.mark.attack("downloads' time")
@pytest.mark.parametrize("what", ["/api/models/acme/tiny", "/tree/", "model.safetensors", "config.json"])
def test_a_hub_that_sends_a_byte_now_and_then_is_left_when_the_time_is_up(tmp_path, model, commands, what):
    with hub.serve(model.parents[3], drip=what) as url:
        fetch = Fetch(tmp_path, url, commands)
        words = failed(fetch("hf://acme/tiny", timeoutSeconds=3), "SourceUnreachable")
    assert "acme/tiny" in words
    assert "longer than 3 s" in words
    assert not list(fetch.store.rglob("manifest.json"))


@pytest.mark.parametrize(("size", "seconds"), [(2**30, 3600), (400 * 2**30, 102_400)])
def test_what_is_large_has_longer(size, seconds):
    assert Deadline.after(3600).at_least(size / SLOWEST).seconds == seconds


# -- rows that are tried before the weights are downloaded ------------------------------------------------------


@contextmanager
def hub_of(folder: Path, template: str) -> Iterator[tuple[str, list[str]]]:
    """A hub with acme/tiny of this chat template: its URL, and the paths of the files that were sent."""
    model = folder / "hub" / "models" / "acme" / "tiny" / "main"
    tok = tokenizer(template)
    tok.save_pretrained(model)
    (model / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": len(tok), "auto_map": {}}))
    save_file({"w": numpy.arange(6.0)}, model / "model.safetensors")
    app, sent = hub.application(folder / "hub"), list[str]()

    async def note(request: Any, response: Any) -> None:
        if request.method == "GET" and "/resolve/" in request.path:
            sent.append(request.path.rpartition("/")[2])

    app.on_response_prepare.append(note)
    with served(app) as url:
        yield url, sent


@pytest.mark.parametrize(
    ("template", "code", "words"),
    [
        ("qwen3", None, "line 1 can be trained on"),
        ("deepseek_r1_distill", "NoTrainableRows", "1 refused: NoReasoning"),
    ],
)
def test_rows_that_the_base_cannot_train_are_refused_before_its_weights_are_downloaded(
    tmp_path: Path, commands: Forks, template: str, code: str | None, words: str
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(record("Plain", "one")) + "\n")
    rows = {
        "kind": "Training",
        "run": "encode",
        "modelPath": "/absent",
        "modelUri": "hf://acme/tiny",
        "datasets": [{"name": "rows", "path": str(tmp_path / "rows.jsonl"), "digest": contents.UNKNOWN}],
        "evaluationDatasets": [],
        "output": {"modelName": "encode"},
        "workPath": "/absent",
        "outputPath": "/absent",
    }
    with hub_of(tmp_path, template) as (url, sent):
        fetch = Fetch(tmp_path, url, commands)
        outcome = fetch("hf://acme/tiny", rows=rows)
    assert sent.count("tokenizer.json") == 1, "what was tried is not downloaded again"
    if code:
        assert words in failed(outcome, code)
        assert "model.safetensors" not in sent
        assert not list(fetch.store.glob("base-models/*/*"))
    else:
        folder = fetch.store / fetched(outcome).path
        assert sent[-1] == "model.safetensors"
        assert words in fetch.output
        assert "auto_map" not in (folder / "config.json").read_text()
