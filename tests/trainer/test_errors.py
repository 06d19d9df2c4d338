"""Errors become outcomes with codes; credentials appear nowhere."""

import errno
import json
import logging

import pytest
from pydantic import ValidationError

from hone_api.contract.plan_reading import parse_plan
from hone_api.contract.report import DatasetResult
from hone_api.words.failures import FAILURES
from hone_trainer import secrets
from hone_trainer.errors import ConfigError, DataError, SourceError, StoreError, TrainerError, classify, to_outcome
from hone_trainer.store.hub import secret_key

pytestmark = pytest.mark.pure


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (SourceError("SourceUnreachable", "x"), "SourceUnreachable", 74),
        (ConfigError("x"), "InvalidConfiguration", 78),
        (DataError("TooFewRows", "x"), "TooFewRows", 65),
        (StoreError("ManifestMismatch", "x"), "ManifestMismatch", 74),
        (TrainerError("Diverged", "x", step=3), "Diverged", 70),
        (OSError(errno.ENOSPC, "No space left on device"), "DiskFull", 74),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "DiskFull", 74),
        (OSError(errno.EIO, "Input/output error"), "StorageError", 74),
        (MemoryError(), "OutOfMemory", 1),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried …"), "OutOfMemory", 1),
        (OutOfMemoryError("CUDA out of memory"), "GpuOutOfMemory", 1),
        (KeyError("x"), "TrainerError", 1),
    ],
)
def test_every_error_has_a_code_and_an_exit_code(error, code, exit_code):
    outcome = to_outcome(error)
    assert outcome.failure.code == code
    assert outcome.exit_code == exit_code == FAILURES[code].exit_code
    assert outcome.failure.hint == classify(error).hint == FAILURES[code].hint


def test_a_code_outside_the_list_is_a_mistake_of_ours():
    with pytest.raises(KeyError, match="Strange"):
        TrainerError("Strange", "x")


def test_all_wrong_fields_of_a_plan_are_reported_at_once():
    with pytest.raises(ValidationError) as caught:
        parse_plan('{"kind": "Materialize", "store": 3, "source": {"uri": "gopher://x"}, "surprise": 1}')
    message = to_outcome(caught.value).failure.message
    for part in ("store", "uri", "surprise", "name"):
        assert part in message


def test_rank_step_and_counts_travel():
    failure = to_outcome(TrainerError("Diverged", "NaN", rank=1, step=7)).failure
    assert (failure.rank, failure.step) == (1, 7)
    assert to_outcome(DataError("TooFewRows", "x", DatasetResult(rows=3))).result.rows == 3


def test_a_long_message_is_cut():
    assert len(to_outcome(ConfigError("x" * 10_000)).failure.message) == 2000


@pytest.mark.parametrize(
    "text",
    [
        "401 for hf_canaryCanaryCanary42 at the hub",
        "sent Authorization: Bearer canary-canary.canary",
        "sent Basic Y2FuYXJ5OmNhbmFyeQ==",
        "GET https://bob:canary@example.org/x",
        "GET https://example.org/x?a=1&X-Amz-Signature=canary&b=2",
        "GET https://example.org/x?sig=canary",
        "GET https://example.org/x?access_token=canary",
        "X-Amz-Security-Token=canarycanary",
        "X-Amz-Security-Token: canarycanary",
        "MLFLOW_TRACKING_TOKEN=dapicanarycanary",
        "export SOME_SERVICE_SECRET='canarycanary'",
        '{"auths": {"registry": {"auth": "Y2FuYXJ5OmNhbmFyeQ=="}}}',
    ],
)
def test_what_looks_like_a_credential_is_hidden(text):
    found = secrets.scrub(text)
    assert "canary" not in found.lower()
    assert "Y2FuYXJ5" not in found
    assert "***" in found
    assert "canary" not in to_outcome(ConfigError(text)).failure.message.lower()


def test_what_looks_like_a_credential_is_hidden_next_to_one_that_is_known(monkeypatch):
    monkeypatch.setattr(secrets, "_known", set())
    secrets.remember("canary")
    assert secrets.scrub("401 for hf_canaryRest42Rest42 at the hub") == "401 for hf_*** at the hub"
    secrets.remember("first?key=middle&last-part")
    assert secrets.scrub("sent first?key=middle&last-part to it") == "sent *** to it"


@pytest.mark.parametrize(
    "text",
    [
        "hf://acme/model@main",
        "pvc://claim/path",
        "the tokens of row 3",
        "https://example.org/x?page=2",
        "hf_hub",
        "a key = value",
        '"auth": "none"',
    ],
)
def test_what_is_not_a_credential_stays(text):
    assert secrets.scrub(text) == text


@pytest.mark.parametrize("sequence", ["\x1b[2J", "\x1b]8;;http://evil\x07", "\x9b31m", "\r", "\u202e"])
def test_what_a_terminal_would_execute_is_not_printed(sequence):
    text = f"column {sequence}name"
    assert secrets.scrub(text).startswith("column  ")
    assert sequence[0] not in secrets.scrub(text)
    assert sequence[0] not in to_outcome(ConfigError(text)).failure.message
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "%s\tof\nrow", (text,), None)
    assert secrets.ScrubbingFilter().filter(record)
    assert sequence[0] not in record.msg
    assert record.msg.endswith("name\tof\nrow")


def test_a_package_that_is_missing_is_named_with_the_extra():
    failure = to_outcome(ModuleNotFoundError("No module named 'numpy'", name="numpy")).failure
    assert failure.code == "InvalidConfiguration"
    assert "numpy is not installed" in failure.message
    assert "pip install '.[trainer]'" in failure.message


def test_a_remembered_value_is_hidden_everywhere(caplog):
    secrets.remember("Token s3cr3t-canary")
    assert secrets.scrub("x s3cr3t-canary y") == "x *** y"
    record = logging.LogRecord("x", logging.INFO, "f", 1, "value %s", ("s3cr3t-canary",), None)
    assert secrets.ScrubbingFilter().filter(record)
    assert record.getMessage() == "value ***"


def test_the_log_filter_also_hides_them_in_tracebacks():
    try:
        raise ValueError("Bearer canary-canary")
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "failed", None, (ValueError, error, error.__traceback__))
    secrets.ScrubbingFilter().filter(record)
    text = logging.Formatter().format(record)
    assert "ValueError" in text
    assert "canary-canary" not in text.replace('raise ValueError("Bearer canary-canary")', "")


def test_a_mounted_secret(tmp_path):
    with pytest.raises(FileNotFoundError):
        secrets.read_key(str(tmp_path / "absent"), "K")
    (tmp_path / "s").mkdir()
    with pytest.raises(FileNotFoundError):
        secrets.read_key(str(tmp_path / "s"), "K")
    (tmp_path / "s" / "..2026_01_01").mkdir()
    (tmp_path / "s" / "..data").symlink_to("..2026_01_01")
    with pytest.raises(FileNotFoundError):  # what the kubelet mounts for an optional secret that is absent
        secrets.read_key(str(tmp_path / "s"), "K")
    (tmp_path / "s" / "K").write_text("value-canary\n")
    assert secrets.read_key(str(tmp_path / "s"), "K") == "value-canary"
    assert secrets.read_key(str(tmp_path / "s"), "OTHER") is None
    assert secrets.scrub("value-canary") == "***"


@pytest.mark.parametrize(
    ("mounted", "code", "words"),
    [
        ({}, "SecretNotFound", "kubectl create secret generic hone-hub --from-literal=HF_TOKEN=…"),
        ({"OTHER": "x"}, "SecretKeyNotFound", "Secret hone-hub has no key HF_TOKEN"),
    ],
)
def test_a_secret_that_is_missing_is_named(tmp_path, monkeypatch, mounted, code, words):
    """By what the operator sets for the pod; the words survive the hiding of credentials."""
    for key, value in mounted.items():
        (tmp_path / key).write_text(value)
    monkeypatch.setenv("HONE_SECRETS", json.dumps({str(tmp_path): "hone-hub"}))
    with pytest.raises(TrainerError) as caught:
        secret_key(str(tmp_path), "HF_TOKEN")
    failure = to_outcome(caught.value).failure
    assert (failure.code, words in failure.message) == (code, True), failure.message


@pytest.mark.parametrize("told", [None, "{", "[]", "{}"])
def test_without_a_name_the_field_is_named(tmp_path, monkeypatch, told):
    monkeypatch.delenv("HONE_SECRETS", raising=False)
    if told is not None:
        monkeypatch.setenv("HONE_SECRETS", told)
    with pytest.raises(TrainerError, match="Secret named in secretName"):
        secret_key(str(tmp_path / "absent"), "HF_TOKEN")
