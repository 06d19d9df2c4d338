"""Credentials in text, and configs of models that name code: what of them is left."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from hone_api.modelversion import Sample
from hone_api.plan import ArtifactInput, ModelInput, TrainingPlan
from hone_trainer import chain, manifest
from hone_trainer.errors import SourceError, StoreError
from hone_trainer.fetch import make_safe
from hone_trainer.secrets import scrub

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


@pytest.mark.parametrize("text", ["sk-learn", "the password is wrong", "tokens: 512", "max_tokens=100", "eyJ is"])
def test_what_is_no_secret_stays(text: str) -> None:
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
        ('{"quantization_config": {"quant_method": ["gptq"]}}', "UnsupportedModel"),
        ('{"quantization_config": "quark"}', "UnsupportedModel"),
        ("[" * 100_000, "UnsafeModel"),
        ("not JSON", "UnsafeModel"),
    ],
)
def test_a_config_that_is_refused(tmp_path: Path, content: str, code: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(content)
    with pytest.raises(SourceError) as raised:
        make_safe(file)
    assert raised.value.code == code


@pytest.mark.parametrize("method", ["gptq", "fp8"])
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

    from hone_trainer import card

    text = card._sample(Sample(prompt=payload, reference=payload, base=payload, tuned=payload))
    tokens = MarkdownIt("commonmark").parse(text + "\n\nafter " + card._code(payload))
    kinds = [token.type for token in tokens if token.type not in ("paragraph_open", "paragraph_close", "inline")]
    assert kinds == ["fence"] * 4
    assert [token.content for token in tokens if token.type == "fence"] == [payload + "\n"] * 4
    assert [child.type for child in tokens[-2].children or ()] == ["text", "code_inline"]


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
        chain.prepare(TrainingPlan.model_construct(**base | changed[role]), first=False)
    assert raised.value.code == "ManifestMismatch"
