"""Settings: file below environment, and every mistake reported at once."""

import os
import re

import pytest
import yaml
from pydantic import BaseModel

from hone_operator.settings import ConfigurationError, Settings, load

pytestmark = pytest.mark.pure


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith("HONE_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr("hone_operator.settings.SERVICE_ACCOUNT_NAMESPACE", tmp_path / "absent")


def write(tmp_path, monkeypatch, text):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    monkeypatch.setenv("HONE_CONFIG_FILE", str(file))


def test_environment_overrides_file(tmp_path, monkeypatch):
    write(tmp_path, monkeypatch, "namespace: a\ntrainer: {image: from-file:1, scratch_size: 5Gi}\nresync_seconds: 60\n")
    monkeypatch.setenv("HONE_TRAINER__IMAGE", "from-env:2")
    monkeypatch.setenv("HONE_WATCH_NAMESPACES", '["b", "a", "b"]')
    monkeypatch.setenv("HONE_PROGRESS__SERVICE_HOST", "hone.hone-system.svc")
    settings = load()
    assert settings.trainer.image == "from-env:2"
    assert settings.trainer.scratch_size == "5Gi"
    assert settings.resync_seconds == 60
    assert settings.watch_namespaces == ["a", "b"]
    assert settings.progress_url == "https://hone.hone-system.svc:8443"
    assert settings.limits.max_source_bytes == 20 * 2**30


def test_the_environment_overrides_names_of_the_chart(tmp_path, monkeypatch):
    file = (
        "trainer: {image: t:1, scratchSize: 5Gi}\nlimits: {maxSourceBytes: 1, timeoutSeconds: 2}\nresyncSeconds: 60\n"
    )
    write(tmp_path, monkeypatch, f"namespace: a\n{file}store: {{keepUnusedSeconds: 7, size: 9Gi}}\n")
    monkeypatch.setenv("HONE_STORE__KEEP_UNUSED_SECONDS", "8")
    monkeypatch.setenv("HONE_LIMITS__MAX_SOURCE_BYTES", "3")
    monkeypatch.setenv("HONE_RESYNC_SECONDS", "61")
    monkeypatch.setenv("RESYNCSECONDS", "62")
    settings = load()
    assert (settings.store.keep_unused_seconds, settings.store.size) == (8, "9Gi")
    assert (settings.limits.max_source_bytes, settings.limits.timeout_seconds) == (3, 2)
    assert (settings.trainer.scratch_size, settings.resync_seconds) == ("5Gi", 61)


def test_all_mistakes_at_once(tmp_path, monkeypatch):
    text = "trainer: {imagee: x, image_pull_policy: Sometimes}\nresync_seconds: 0\nporgress: {}\nstore: {size: big}\n"
    write(tmp_path, monkeypatch, text)
    monkeypatch.setenv("HONE_PORTS__METRICS", "99999")
    with pytest.raises(ConfigurationError) as error:
        load()
    lines = str(error.value).splitlines()
    assert "  namespace: is required (or HONE_NAMESPACE in the environment)" in lines
    assert "  trainer.image: is required (or HONE_TRAINER__IMAGE in the environment)" in lines
    for place in ("trainer.imagee", "trainer.image_pull_policy", "resync_seconds", "porgress", "store.size"):
        assert any(line.startswith(f"  {place}: ") for line in lines), place
    assert any(line.startswith("  ports.metrics: ") for line in lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [("a: [", "is not YAML"), ("- a\n", "cannot be read"), ("just words\n", "cannot be read")],
)
def test_a_file_that_is_not_a_mapping(tmp_path, monkeypatch, text, said):
    write(tmp_path, monkeypatch, text)
    with pytest.raises(ConfigurationError, match=said):
        load()


def sections(model, path=()):
    """Each section of the settings, by its names in the file."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from sections(field.annotation, (*path, field.alias or name))
    yield path, model


def nested(path, values):
    return {path[0]: nested(path[1:], values)} if path else values


@pytest.mark.parametrize(("path", "model"), [pytest.param(*each, id=".".join(each[0])) for each in sections(Settings)])
def test_null_is_not_set(tmp_path, monkeypatch, path, model):
    """As Kubernetes reads it; the chart writes no null."""
    given = {"namespace": "a", "trainer": {"image": "t:1"}}
    write(tmp_path, monkeypatch, yaml.safe_dump(given))
    default = load()
    nulls = {field.alias or name: None for name, field in model.model_fields.items() if not field.is_required()}
    for key in nested(path, nulls).keys() - given.keys():
        given[key] = nested(path, nulls)[key]
    given["trainer"] |= nested(path, nulls).get("trainer") or {}
    write(tmp_path, monkeypatch, yaml.safe_dump(given))
    assert load() == default


def test_null_does_not_hide_a_name_that_is_unknown_or_required(tmp_path, monkeypatch):
    write(tmp_path, monkeypatch, "namespace: a\ntrainer: {image: null}\nporgress: null\n")
    with pytest.raises(ConfigurationError) as error:
        load()
    assert "  trainer.image: is required" in str(error.value)
    assert "  porgress: there is no such setting" in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("store: {claimName: a, claim_name: b}", "store.claimName and store.claim_name are the same setting: keep one"),
        ("store: {claim_name: b, claimName: a}", "store.claimName and store.claim_name are the same setting: keep one"),
        ("resyncSeconds: 1\nresync_seconds: null", "resyncSeconds and resync_seconds are the same setting"),
        ("store: {size: 1Gi, size: 2Gi}", "size stands twice in the mapping that begins in line 3"),
    ],
)
def test_a_setting_that_stands_twice_is_refused(tmp_path, monkeypatch, text, said):
    write(tmp_path, monkeypatch, f"namespace: a\ntrainer: {{image: t:1}}\n{text}\n")
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        load()


def test_absent_file(monkeypatch):
    monkeypatch.setenv("HONE_CONFIG_FILE", "/nowhere/hone.yaml")
    with pytest.raises(ConfigurationError, match=r"there is no file /nowhere/hone\.yaml"):
        load()


@pytest.mark.parametrize("name", ["HF_ENDPOINT", "KUBEFLOW_TRAINER_SERVER_URL", "HONE_X"])
def test_reserved_environment(monkeypatch, name):
    monkeypatch.setenv("HONE_NAMESPACE", "a")
    monkeypatch.setenv("HONE_TRAINER__IMAGE", "x")
    monkeypatch.setenv("HONE_TRAINER__EXTRA_ENV", f'{{"{name}": "1"}}')
    with pytest.raises(ConfigurationError, match=name):
        load()


def test_namespace_from_the_service_account(tmp_path, monkeypatch):
    file = tmp_path / "namespace"
    file.write_text("hone-system\n")
    monkeypatch.setattr("hone_operator.settings.SERVICE_ACCOUNT_NAMESPACE", file)
    monkeypatch.setenv("HONE_TRAINER__IMAGE", "x")
    assert load().namespace == "hone-system"


def test_a_queue_for_staging_without_kueue_is_refused(tmp_path, monkeypatch):
    own = "namespace: a\ntrainer: {image: t:1}\nstaging: {queue_name: staging}\n"
    write(tmp_path, monkeypatch, own)
    with pytest.raises(ConfigurationError, match=r"staging needs Kueue, and kueue\.enabled is false: set it to true"):
        load()
    write(tmp_path, monkeypatch, own + "kueue: {enabled: true}\n")
    assert load().staging.queue_name == "staging"


KEY = "\\n".join(
    (
        "-----BEGIN PUBLIC KEY-----",
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEtW3KnFeUNGUBw5h70VmbRd7wAYa/",
        "lqWWrpO8Pmo4pnzPCKusUYB+3SclvJ+zEug2HrmbTy6k7IXR6ekxNNqvkQ==",
        "-----END PUBLIC KEY-----",
    )
)


@pytest.mark.parametrize(
    ("signing", "said"),
    [
        ("{secret_name: platform-key}", "set signing.public_keys"),
        ("{required: true}", "set signing.public_keys"),
        (f'{{secret_name: hone-key, public_keys: ["{KEY}"]}}', "every job could name it"),
        (f'{{public_keys: ["{KEY.replace("MFkw", "AAAA")}"]}}', "openssl ec -in private-key.pem -pubout"),
    ],
)
def test_a_key_that_tenants_could_read_or_that_nobody_can_compare_is_refused(tmp_path, monkeypatch, signing, said):
    write(tmp_path, monkeypatch, f"namespace: a\ntrainer: {{image: t:1}}\nsigning: {signing}\n")
    with pytest.raises(ConfigurationError, match=said):
        load()


def test_a_signing_key_of_the_platform(tmp_path, monkeypatch):
    signing = f'{{secret_name: platform-key, required: true, public_keys: ["{KEY}"]}}'
    write(tmp_path, monkeypatch, f"namespace: a\ntrainer: {{image: t:1}}\nsigning: {signing}\n")
    assert load().signing.secret_name == "platform-key"
