"""Which servers the client of MLflow reaches, and what it makes of their answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from hone_api.words.failures import FailureCode
from hone_trainer.endpoints.addresses import AllowedNetwork, Resolution
from hone_trainer.endpoints.mlflow.server import MlflowError, MlflowServer, authorization
from hone_trainer.errors import TrainerError

pytestmark = pytest.mark.pure
TEAM = AllowedNetwork(namespace="team-a")


@pytest.mark.attack("addresses")
@pytest.mark.parametrize(
    ("uri", "answer", "words"),
    [
        ("https://169.254.169.254/", Resolution(["169.254.169.254"]), "which is not public"),
        ("https://metadata.example.org", Resolution(["169.254.169.254"]), "which is not public"),
        ("https://10.96.0.1", Resolution(["10.96.0.1"]), "which is not public"),
        ("https://kubernetes.default.svc", Resolution(["10.96.0.1"]), "is a Service of another namespace"),
        ("http://mlflow.example.org", Resolution(["93.184.216.34"]), "only https://"),
        (
            "http://mlflow",
            Resolution(["10.96.0.1"], "kubernetes.default.svc.cluster.local"),
            "not one of type ExternalName",
        ),
        ("https://[::ffff:169.254.169.254]", Resolution(["::ffff:169.254.169.254"]), "which is not public"),
    ],
)
def test_a_tenant_does_not_reach_what_is_not_its_own(uri: str, answer: Resolution, words: str) -> None:
    server = MlflowServer(uri, TEAM, resolver=lambda *_: answer)
    with pytest.raises(TrainerError, match=words) as caught:
        server.call("GET", "experiments/get-by-name", experiment_name="x")
    assert caught.value.code == FailureCode.DESTINATION_REFUSED


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (400, b'{"error_code": "INVALID_STATE", "message": "no"}', "DestinationRefused", "m answers 400 INVALID_STATE"),
        (302, b"", "DestinationRefused", "m answers 302: it is not an MLflow server"),
        (200, b"<html>", "DestinationRefused", "m answers 200: it is not an MLflow server"),
        (200, b"[]", "DestinationRefused", "m answers 200: it is not an MLflow server"),
        (401, b"who?", "DestinationDenied", "m answers 401: it wants a secretName"),
        (403, b"Invalid Host header - x", "DestinationDenied", "m answers 403: MLflow does not know this name"),
        (429, b"", "DestinationUnreachable", "m answers 429"),
        (503, b"<html>", "DestinationUnreachable", "m answers 503"),
        (404, b'{"error_code": "<script>"}', "DestinationRefused", "m answers 404: it is not"),
    ],
)
def test_an_answer_has_a_code_and_no_words_of_a_server_that_the_tenant_cannot_ask_itself(
    status: int, body: bytes, code: str, words: str
) -> None:
    with pytest.raises(MlflowError) as caught:
        MlflowServer("http://m", TEAM)._read(status, body)
    assert str(caught.value.code) == code
    assert caught.value.message.startswith(words)
    assert "no" not in caught.value.message.split()


def test_a_public_server_is_quoted() -> None:
    server = MlflowServer("https://m.example.org", TEAM, _may_quote=True)
    with pytest.raises(MlflowError, match=r"m\.example\.org answers 400 INVALID_STATE: because"):
        server._read(400, b'{"error_code": "INVALID_STATE", "message": "because"}')


@pytest.mark.parametrize(("uri", "name"), [("https://MLflow.org:443/team", "mlflow.org"), ("http://m:5000", "m:5000")])
def test_a_server_that_does_not_know_its_name_gets_the_one_that_it_is_asked_by(uri: str, name: str) -> None:
    with pytest.raises(MlflowError, match=rf"--allowed-hosts {name}, and"):
        MlflowServer(uri, TEAM)._read(403, b"Invalid Host header - possible DNS rebinding attack detected")


def test_a_server_that_is_not_there_is_named_and_no_class_of_ours() -> None:
    server = MlflowServer("http://127.0.0.1:9", AllowedNetwork(namespace="team-a", allow_private=True))
    with pytest.raises(TrainerError, match=r"127\.0\.0\.1:9: Failed to establish") as caught:
        server.call("GET", "experiments/get", experiment_id="0")
    assert caught.value.code == FailureCode.DESTINATION_UNREACHABLE
    assert "Bounded" not in caught.value.message


def test_credentials_come_from_the_secret(tmp_path: Path) -> None:
    assert authorization(None) == {}
    with pytest.raises(TrainerError, match="does not exist in this namespace") as caught:
        authorization(str(tmp_path / "absent"))
    assert caught.value.code == FailureCode.SECRET_NOT_FOUND
    (tmp_path / "MLFLOW_TRACKING_USERNAME").write_text("ada")
    with pytest.raises(TrainerError, match="MLFLOW_TRACKING_PASSWORD"):
        authorization(str(tmp_path))
    (tmp_path / "MLFLOW_TRACKING_PASSWORD").write_text("secret-of-ada\n")
    assert authorization(str(tmp_path)) == {"Authorization": "Basic YWRhOnNlY3JldC1vZi1hZGE="}
    (tmp_path / "MLFLOW_TRACKING_TOKEN").write_text("token-of-ada\n")
    assert authorization(str(tmp_path)) == {"Authorization": "Bearer token-of-ada"}
