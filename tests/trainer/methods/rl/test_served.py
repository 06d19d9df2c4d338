"""A server of samples as the trainer sees it; `test_vllm` has the real one."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hone_trainer.encoding.prompts import Prompt
from hone_trainer.endpoints.addresses import AllowedNetwork
from hone_trainer.endpoints.client import Access, Endpoint, in_parallel
from hone_trainer.errors import SourceError, TrainerError
from hone_trainer.methods.rl import served
from hone_trainer.signals import Stop

pytestmark = pytest.mark.trainer
KEY = "sk-of-this-server"


@pytest.fixture
def silent() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def generation(url: str, folder: Path, stop: Stop) -> served.ServedGeneration:
    endpoint = Endpoint(url, Access(AllowedNetwork(allow_private=True), most_seconds=served.SECONDS))
    library = served.ServedGeneration(endpoint, None, folder, "run", {}, served.Patience(stop), print)
    library._name = "run-adapter-0"  # as after sync_weights
    return library


@pytest.mark.parametrize(("target", "refused"), [("experts.gate_up_proj", True), (None, False)])
def test_an_adapter_of_experts_is_refused_where_the_server_would_leave_them_out(
    experts_model: Path, target: str | None, refused: bool
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(experts_model)
    config = LoraConfig(r=2, target_modules=["q_proj"], target_parameters=[target] if target else None)
    network: Any = get_peft_model(base, config)
    if refused:
        with pytest.raises(TrainerError, match=r"experts \(.*gate_up_proj.*adapt attention layers alone") as raised:
            served.refuse_experts(network, "mixtral")
        assert raised.value.code == "InvalidConfiguration"
    served.refuse_experts(network, "gpt_oss" if refused else "mixtral")


def test_a_server_that_does_not_answer_is_given_up_before_the_other_ranks_do(
    silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One limit for all tries of a prompt."""
    monkeypatch.setattr(served, "SECONDS", 2.0)
    begun = time.monotonic()
    with pytest.raises(SourceError, match="Read timed out") as raised:
        generation(silent, tmp_path, Stop()).generate([[1], [2]])
    assert raised.value.code == "EndpointUnreachable"
    assert time.monotonic() - begun < 600


def test_a_signal_ends_the_waiting(silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "GRACE", 1.0)
    stop = Stop()
    stop.requested = True
    with pytest.raises(TrainerError, match="while waiting for vLLM") as raised:
        generation(silent, tmp_path, stop).generate([[1], [2]])
    assert raised.value.code == "Interrupted"


def test_answers_keep_their_order() -> None:
    def ask(number: int) -> int:
        time.sleep(0.01 * (5 - number))
        return number

    assert in_parallel(ask, range(5), 3) == [0, 1, 2, 3, 4]
    assert in_parallel(ask, [], 3) == []


def test_the_first_error_ends_what_is_not_under_way() -> None:
    asked = []

    def ask(number: int) -> None:
        asked.append(number)
        if number == 0:
            raise SourceError("EndpointRefused", "no")
        time.sleep(0.01)

    with pytest.raises(SourceError, match="no"):
        in_parallel(ask, range(1000), 1)
    assert len(asked) < 1000


# -- a prompt that it fails on ---------------------------------------------------------------------------------


class Choosy(BaseHTTPRequestHandler):
    """Has samples of every prompt but those with the token 7."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        choice = {"token_ids": [5, 6], "logprobs": {"token_logprobs": [-1.0, -2.0]}}
        refused = 7 in asked["prompt"]
        self.send_response(400 if refused else 200)
        self.end_headers()
        body = {"error": "the prompt is not taken"} if refused else {"choices": [choice] * asked["n"]}
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def choosy() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Choosy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_prompt_that_the_server_fails_on_costs_its_own_samples(
    choosy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = generation(choosy, tmp_path, Stop())
    _, completions, log_probs, _ = library.generate([[1, 2], [1, 2], [1, 7], [1, 7], [3]])
    assert library.failed == [False, False, True, True, False]
    assert completions == [[5, 6], [5, 6], [7], [7], [5, 6]]
    assert log_probs[2] == [[None]]
    assert capsys.readouterr().out.count("samples of a prompt are left out: 127.0.0.1") == 1
    library.generate([[1, 2]])
    assert library.failed == [False]


def test_a_server_that_fails_on_every_prompt_ends_the_run(choosy: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="the prompt is not taken") as raised:
        generation(choosy, tmp_path, Stop()).generate([[7], [7, 7]])
    assert raised.value.code == "EndpointRefused"


# -- its key ---------------------------------------------------------------------------------------------------


class Guarded(BaseHTTPRequestHandler):
    """Says what it serves to those who have the key, and to others the key that they sent."""

    def do_GET(self) -> None:
        sent = self.headers.get("Authorization", "")
        known = sent == f"Bearer {KEY}"
        body = {"data": [{"id": "base", "max_model_len": 128}]} if known else {"error": f"{sent} is not known"}
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def guarded() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def run_of(make_plan: Any, tmp_path: Path) -> Any:
    """The part of a run that connecting needs; `key` is what the secret has, if anything."""

    def make(url: str, key: str | None) -> Any:
        folder = tmp_path / "secret"
        if key is not None:
            folder.mkdir()
            (folder / "API_KEY").write_text(f"{key}\n")
        options = {"engine": "VLLM", "endpoint": url, "secretName": "vllm"}
        grpo = {"rewards": [{"type": "Number"}], "maxCompletionLength": 8, "generation": options}
        plan = make_plan(method="GRPO", grpo=grpo, allowPrivateAddresses=True, generationSecretPath=str(folder))
        return SimpleNamespace(plan=plan, rows=[Prompt([1, 2], {}, 1)], stop=Stop())

    return make


def test_a_server_is_shown_its_key(guarded: str, run_of: Any) -> None:
    assert served._connect(run_of(guarded, KEY)).host == "127.0.0.1"


def test_a_wrong_key_is_refused_and_not_repeated(guarded: str, run_of: Any) -> None:
    with pytest.raises(SourceError, match=r"grpo\.generation\.endpoint: .* 401: .* is not known") as raised:
        served._connect(run_of(guarded, "sk-wrong"))
    assert raised.value.code == "EndpointRefused"
    assert "sk-wrong" not in raised.value.message


def test_a_missing_key_is_reported(guarded: str, run_of: Any) -> None:
    with pytest.raises(SourceError) as raised:
        served._connect(run_of(guarded, None))
    assert raised.value.code == "SecretNotFound"
