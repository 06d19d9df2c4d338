"""Credentials in text, and configs of models that name code: what of them is left."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hone_api.contract.termination import parse_outcome
from hone_api.kinds.modelversion import AnsweredPrompt
from hone_api.plan import ArtifactInput, DatasetInput, ModelInput, TrainingPlan
from hone_operator.apiserver.cluster import Cluster
from hone_trainer.errors import SourceError, StoreError
from hone_trainer.models import base_model, merge_base
from hone_trainer.models.safe_config import make_safe, refuse_code
from hone_trainer.secrets import remember, scrub
from hone_trainer.store import contents, manifest

pytestmark = pytest.mark.pure
CANARY = "CanaryCanaryCanary0123456789abcdef"
# Put together here, so that no scanner of the repository takes them for real ones.
SECRETS = {
    "AWS key": "AK" + "IA" + "CANARYCANARY0123",
    "AWS session key": "AS" + "IA" + "CANARYCANARY0123",
    "AWS secret": f"aws_secret_access_key={CANARY}",
    "AWS secret as JSON": f'"SecretAccessKey": "x", "aws_session_token": "{CANARY}"',
    "OpenAI key": f"Incorrect API key provided: sk-{CANARY}",
    "OpenAI project key": f"sk-proj-{CANARY}",
    "Hugging Face token": f"401 for hf_{CANARY}",
    "GitHub token": f"remote: ghp_{CANARY}",
    "GitHub fine-grained token": f"github_pat_{CANARY}",
    "GitLab token": f"glpat-{CANARY}",
    "Slack token": f"xoxb-{CANARY}",
    "JSON Web Token": f"token eyJhbGciOiJSUzI1NiJ9.eyJ{CANARY}.{CANARY}",
    "private key": f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}\n-----END RSA PRIVATE KEY-----",
    "private key that is cut": f"-----BEGIN PRIVATE KEY-----\n{CANARY}",
    "end of a private key": f"{CANARY}\n-----END RSA PRIVATE KEY-----\n***",
    "JSON in JSON": f'{{\\"api_key\\": \\"{CANARY}\\"}}',
    "bearer": f"Authorization: Bearer {CANARY}",
    "basic": f"Authorization: Basic {CANARY}",
    "password in an address": f"https://user:{CANARY}@example.org/x",
    "signature in an address": f"https://example.org/x?X-Amz-Signature={CANARY}",
    "API_KEY of an environment": f"API_KEY={CANARY}",
    "password in YAML": f"password: {CANARY}",
    "Azure storage key": f"AccountKey={CANARY}",
}


@pytest.mark.attack("secrets in text")
@pytest.mark.parametrize("what", SECRETS)
def test_a_secret_that_was_never_seen_before_is_hidden(what: str) -> None:
    found = scrub(f"before {SECRETS[what]} after")
    assert CANARY not in found
    assert "CANARYCANARY" not in found
    assert "***" in found


@pytest.mark.attack("secrets in text")
@pytest.mark.parametrize("field", ["message", "hint"])
@pytest.mark.parametrize("what", SECRETS)
def test_the_operator_hides_what_a_pod_did_not(what: str, field: str) -> None:
    failure = {"code": "TrainerError", "message": "m", "hint": "h", field: SECRETS[what]}
    outcome = parse_outcome(json.dumps({"failure": failure}))
    assert outcome is not None
    assert outcome.failure is not None
    assert "CANARY" not in outcome.model_dump_json().upper()


@pytest.mark.attack("secrets in text")
@pytest.mark.parametrize("what", SECRETS)
def test_no_credential_of_a_log_comes_to_the_status(what: str) -> None:
    class Answers(Cluster):
        async def _call(self, *args: Any, **named: Any) -> bytes:
            return f"Traceback\n{SECRETS[what]}".encode()

    tail = asyncio.run(Answers.__new__(Answers).log_tail("team", "pod", "trainer", 10))
    assert tail is not None
    assert "CANARY" not in tail.upper()


REPEATED = ["a", "a-", "eyJ-", "password", "password ", "://a", "?a", "&key", "bearer ", "-----BEGIN ", "-----END "]


@pytest.mark.attack("secrets in text")
@pytest.mark.parametrize("text", REPEATED)
def test_a_long_log_is_read_in_linear_time(text: str) -> None:
    """32 KiB of one letter took six minutes before; in a process of its own, whose processor time is limited."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_CPU, (100, 100))"
    program = (
        f"{limit}; from hone_api.base.credentials import hide_credentials; hide_credentials(({text!r} * 2**20)[:2**20])"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("text", ["sk-learn", "the password is wrong", "tokens: 512", "max_tokens=100", "eyJ is"])
def test_what_is_not_a_secret_stays(text: str) -> None:
    assert scrub(text) == text


NAMED = {
    "attn_implementation": "owner/kernel",
    "_attn_implementation": "owner/kernel",
    "_attn_implementation_internal": "owner/kernel",
    "experts_implementation": "owner/kernel",
    "use_kernels": True,
    "auto_map": {"AutoModel": "owner/repo--modeling.Model"},
    "trust_remote_code": True,
}


@pytest.mark.attack("model configs")
@pytest.mark.parametrize("key", NAMED)
@pytest.mark.parametrize("deep", [False, True])
def test_a_config_names_no_code_and_no_kernel(tmp_path: Path, key: str, deep: bool) -> None:
    config: dict[str, Any] = {"model_type": "llama", key: NAMED[key]}
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": "x", "text_config": [config]} if deep else config))
    make_safe(file)
    assert key not in file.read_text()
    assert "llama" in file.read_text()


@pytest.mark.attack("model configs")
@pytest.mark.parametrize(
    ("content", "code"),
    [
        ('{"quantization_config": {"quant_method": "owner/kernel"}}', "UnsupportedModel"),
        ('{"quantization_config": {"quant_method": ["fp8"]}}', "UnsupportedModel"),
        ('{"quantization_config": "quark"}', "UnsupportedModel"),
        ("[" * 100_000, "UnsafeModel"),
        ("[" * 600 + "]" * 600, "UnsafeModel"),
        ("not JSON", "UnsafeModel"),
    ],
)
def test_a_config_that_is_refused(tmp_path: Path, content: str, code: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(content)
    with pytest.raises(SourceError) as raised:
        make_safe(file)
    assert raised.value.code == code


@pytest.mark.attack("model configs")
@pytest.mark.parametrize("key", NAMED)
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_a_model_of_a_volume_that_names_code_is_refused_before_it_is_read(tmp_path: Path, name: str, key: str) -> None:
    """It was never cleaned: Hone does not write to a user's volume, nor to what an earlier release staged."""
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors").touch()
    (tmp_path / name).write_text(json.dumps({"model_type": "llama", "text_config": [{key: NAMED[key]}]}))
    with pytest.raises(SourceError, match=f"{name} has {key}: .*Remove the key from the file") as raised:
        base_model.open_base(tmp_path)
    assert raised.value.code == "UnsafeModel"


@pytest.mark.attack("model configs")
def test_a_model_of_a_volume_in_an_unknown_quantization_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "owner/kernel"}}')
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(SourceError, match="quantization_config of kind 'owner/kernel'"):
        base_model.open_base(tmp_path)


def test_implementations_of_transformers_itself_are_no_code_of_the_model(tmp_path: Path) -> None:
    config = {
        "_attn_implementation": "sdpa",
        "attn_implementation": {"": "eager", "vision_config": None},
        "experts_implementation": "grouped_mm",
        "use_kernels": False,
        "quantization_config": {"quant_method": "mxfp4"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    refuse_code(tmp_path)


@pytest.mark.parametrize("method", ["bitsandbytes", "fp8"])
def test_a_known_quantization_stays(tmp_path: Path, method: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"quantization_config": {"quant_method": method}}))
    make_safe(file)
    assert method in file.read_text()


@pytest.mark.attack("model configs")
def test_the_package_that_loads_kernels_of_the_hub_is_not_installed() -> None:
    assert importlib.util.find_spec("kernels") is None


PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![](https://example.org/pixel.png)",
    "# A heading\n\n## Another",
    "```\n</pre><script>alert(1)</script>\n```",
    "``````\n<b>out</b>",
    "a\n\n> **Tuned:** forged",
    "<!-- ", "</code></pre><h1>x",
    "| a | b |\n| - | - |",
    "---\nbase_model: forged\n---",
]  # fmt: skip


@pytest.mark.attack("HTML and cards")
@pytest.mark.parametrize("payload", PAYLOADS)
def test_an_answer_stays_text_in_the_model_card(payload: str) -> None:
    from markdown_it import MarkdownIt

    from hone_trainer.artifacts import model_card

    text = model_card._sample(AnsweredPrompt(prompt=payload, reference=payload, base=payload, tuned=payload))
    tokens = MarkdownIt("commonmark").parse(text + "\n\nafter " + model_card._code(payload))
    kinds = [token.type for token in tokens if token.type not in ("paragraph_open", "paragraph_close", "inline")]
    assert kinds == ["fence"] * 4
    assert [token.content for token in tokens if token.type == "fence"] == [payload + "\n"] * 4
    assert [child.type for child in tokens[-2].children or ()] == ["text", "code_inline"]


@pytest.mark.torch
@pytest.mark.attack("manifests")
@pytest.mark.parametrize("path", ["/etc/passwd", "../../evil.yaml", "a/../../../evil.yaml", "/store/tasks/evil.yaml"])
def test_a_task_definition_of_the_store_is_never_read(path: str) -> None:
    from hone_trainer.harness.tasks import _definition

    with pytest.raises(StoreError) as raised:
        _definition(path)
    assert raised.value.code == "ManifestMismatch"


@pytest.mark.attack("manifests")
@pytest.mark.parametrize("what", ["other content of the same size", "a file that is not listed"])
@pytest.mark.parametrize("role", ["base", "adapter", "other model"])
def test_a_model_that_changed_after_it_was_recorded_is_refused(tmp_path: Path, what: str, role: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"before")
    manifest.write(tmp_path / "model")
    model = ModelInput(path=str(tmp_path / "model"), digest=manifest.digest_of(tmp_path / "model"))
    if what.startswith("other"):
        (tmp_path / "model" / "model.safetensors").write_bytes(b"behind")
    else:
        (tmp_path / "model" / "adapter_config.json").write_text("{}")
    base = {"model_path": "x", "model_digest": None, "model_adapter": None, "models": {}, "work_path": str(tmp_path)}
    changed: dict[str, dict[str, Any]] = {
        "base": {"model_path": model.path, "model_digest": model.digest},
        "adapter": {"model_adapter": ArtifactInput(path=model.path, digest=str(model.digest))},
        "other model": {"models": {"judge": model}},
    }
    with pytest.raises(StoreError) as raised:
        merge_base.prepare(TrainingPlan.model_construct(**base | changed[role]), first=False)
    assert raised.value.code == "ManifestMismatch"


ROWS = b'{"text": "a row"}\n'


def _dataset(store: Path) -> Path:
    """The file of a materialized split, in a folder with the name of its content."""
    (store / "new").mkdir(parents=True)
    (store / "new" / "train.jsonl").write_bytes(ROWS)
    (store / "new" / "report.json").write_text("{}")
    manifest.write(store / "new")
    folder = store / contents.digest_of(store / "new").removeprefix("sha256:")
    (store / "new").rename(folder)
    return folder / "train.jsonl"


def _forged(file: Path) -> None:
    """Other rows, and a manifest that fits them."""
    file.write_bytes(ROWS.replace(b"a row", b"b row"))
    manifest.write(file.parent)


CHANGES: dict[str, Callable[[Path], object]] = {
    "one byte": lambda file: file.write_bytes(ROWS.replace(b"a row", b"b row")),
    "one byte and a new manifest": _forged,
    "a row more": lambda file: file.write_bytes(ROWS * 2),
    "no rows": lambda file: file.unlink(),
    "no manifest": lambda file: (file.parent / "manifest.json").unlink(),
    "a file more": lambda file: file.with_name("validation.jsonl").write_bytes(ROWS),
    "a report less": lambda file: file.with_name("report.json").unlink(),
    "a link": lambda file: file.with_name("left-out.jsonl").symlink_to("/etc/passwd"),
}


def _plan(file: Path, digest: str, folder: Path) -> TrainingPlan:
    body = {"run": "r", "modelPath": "/none", "modelUri": "hf://a/b", "output": {"modelName": "m"}}
    body |= {"workPath": str(folder / "work"), "outputPath": str(folder / "out")}
    return TrainingPlan.model_validate(body | {"datasets": [{"name": "mine", "path": str(file), "digest": digest}]})


@pytest.mark.attack("manifests")
@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("role", ["datasets", "evaluation_datasets", "retention_datasets"])
def test_rows_that_changed_after_they_were_recorded_are_refused(tmp_path: Path, what: str, role: str) -> None:
    good, bad = _dataset(tmp_path / "good"), _dataset(tmp_path / "bad")
    CHANGES[what](bad)
    plan = _plan(good, f"sha256:{good.parent.name}", tmp_path)
    changed = plan.datasets[0].model_copy(update={"path": str(bad)})
    with pytest.raises(StoreError) as raised:
        contents.verify_datasets(plan.model_copy(update={role: [changed]}))
    assert (raised.value.code, "mine" in raised.value.message) == ("DatasetChanged", True)


@pytest.mark.attack("manifests")
def test_a_run_on_changed_rows_ends_before_any_model_is_read(tmp_path: Path) -> None:
    file = _dataset(tmp_path)
    CHANGES["one byte"](file)
    plan = _plan(file, f"sha256:{file.parent.name}", tmp_path)
    (tmp_path / "plan.json").write_text(plan.model_dump_json(by_alias=True))
    environment = {**os.environ, "HONE_TERMINATION_LOG": str(tmp_path / "log")}
    command = [sys.executable, "-m", "hone_trainer", "run", str(tmp_path / "plan.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    outcome = parse_outcome((tmp_path / "log").read_text())
    assert outcome is not None, done.stderr
    assert outcome.failure is not None, done.stderr
    assert (outcome.failure.code, done.returncode) == ("DatasetChanged", 74)


def test_rows_as_they_were_recorded_go_on(tmp_path: Path) -> None:
    file = _dataset(tmp_path)
    inputs = [
        DatasetInput(name="mine", path=str(file), digest=f"sha256:{file.parent.name}"),
        DatasetInput(name="by hand", path=str(file), digest=f"sha256:{hashlib.sha256(ROWS).hexdigest()}"),
        DatasetInput(name="by hand, without", path=str(file), digest=contents.UNKNOWN),
    ]
    contents.verify(inputs)


def test_a_remembered_header_does_not_hide_the_word_that_others_are_found_by() -> None:
    remember("Bearer remembered-canary-1")
    assert scrub("key remembered-canary-1") == "key ***"
    assert scrub("Bearer 0123456789abcdef") == "Bearer ***"
