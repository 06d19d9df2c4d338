"""A follower next to a server that answers as vLLM 0.31 does, behind the real guard; e2e has the real vLLM."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from support.cluster.kube import wait_until
from support.servers.followed_vllm import Server, Team

from hone_api.contract.served import ServedAdapter, key_of
from hone_trainer.artifacts.serving import follow
from hone_trainer.artifacts.serving.folders import KEPT_SECONDS
from hone_trainer.artifacts.serving.follow import GUARD, serve_health
from hone_trainer.artifacts.serving.guard import BEGIN, END, SWAP_HEADER
from hone_trainer.store import manifest

pytestmark = pytest.mark.pure
DEEP = "[" * 200_000


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            steps = (self.headers.get(SWAP_HEADER), "" if self.path == "/v1/models" else self.path[4:].split("_")[0])
            server.asked += [step for step in steps if step]
            status, body = server.answer(self.path, json.loads(text or "{}"))
            out = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(out)))
            self.end_headers()
            self.wfile.write(out)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield Team(tmp_path, f"http://127.0.0.1:{http.server_port}", server)
        http.shutdown()


@pytest.mark.parametrize(
    ("parameters", "is_fused"),
    [
        (["mlp.experts.gate_up_proj", "mlp.experts.down_proj"], True),
        (["mlp.shared_experts.up_proj"], False),
        ([], False),
        (None, False),
        (True, False),
        (5, False),
    ],
)
def test_experts_that_are_held_together_are_said_to_be(team: Team, parameters: Any, is_fused: bool) -> None:
    faq = team.also_serves("faq", 2)
    adapter = team.trained(1, target_parameters=parameters)
    team.points(adapter, adapter)
    assert team.step() == {"faq": faq.digest, "bot": adapter.digest}
    assert team.server.fused == ({"bot"} if is_fused else set())


@pytest.mark.parametrize(("status", "cause"), [(400, "user"), (500, "platform")])
def test_a_server_that_fails_is_the_platforms_and_a_refusal_is_not(team: Team, status: int, cause: str) -> None:
    adapter = team.trained(1)
    team.server.refused.add(adapter.digest.removeprefix("sha256:"))
    team.server.refusal_status = status
    team.points(adapter, adapter)
    assert team.step() == {}
    assert team.follower.problems["bot"].cause == cause


def test_an_odd_answer_is_noted_and_others_are_served(team: Team) -> None:
    faq, adapter = team.also_serves("faq", 2), team.trained(1)
    team.server.refused.add(adapter.digest.removeprefix("sha256:"))
    team.server.refusal = DEEP.encode()
    team.points(adapter, adapter)
    assert team.step() == {"faq": faq.digest}
    assert team.follower.problems["bot"].attempts == 1


def test_an_alias_moves_and_moves_back(team: Team) -> None:
    first, second = team.trained(1), team.trained(2)
    team.points(first, first)
    assert not team.follower.ready
    assert team.step() == {"bot": first.digest}
    assert team.follower.ready
    config = json.loads((Path(team.server.loaded["bot"]) / "adapter_config.json").read_text())
    assert config == {"r": 8, "base_model_name_or_path": "/base"}
    for adapter in (second, first):
        team.points(adapter, second, first)
        assert team.step() == {"bot": adapter.digest}
    team.step(KEPT_SECONDS / 2)
    team.step(KEPT_SECONDS + 1)
    kept = {folder.name for folder in team.follower.folders.root.iterdir()} - {GUARD}
    assert kept == {first.digest.removeprefix("sha256:")}


def test_it_follows_until_it_is_stopped(team: Team) -> None:
    adapter, stopped = team.trained(1), threading.Event()
    team.points(adapter, adapter)
    left = team.follower.folders.root / "unfinished-0"
    left.mkdir()
    (left / "adapter_model.safetensors").touch()
    following = threading.Thread(target=team.follower.run, args=(stopped,))
    following.start()
    wait_until(lambda: team.follower.ready, "ready")
    assert team.loaded() == {"bot": adapter.digest}
    assert not left.exists(), "left by a container that ended while it copied"
    stopped.set()
    following.join()


def test_a_withdrawn_approval_unloads(team: Team) -> None:
    first = team.trained(1)
    team.points(first, first)
    team.step()
    team.points(None)
    assert team.step() == {}
    assert team.follower.ready
    assert team.follower.status()["serves"] == {}
    team.points(first, first)
    assert team.step() == {"bot": first.digest}
    (team.root / "aliases" / key_of("bot")).unlink()
    assert team.step() == {}


@pytest.mark.parametrize("work", ["copy", "load"])
@pytest.mark.parametrize("when", ["in the same pass", "later"])
def test_what_is_withdrawn_leaves_while_another_adapter_is_copied_or_loaded(team: Team, work: str, when: str) -> None:
    first, second = team.trained(1), team.trained(2)
    team.points(first, first)
    faq = team.also_serves("faq", 3)
    team.points(second, first, second)
    if work == "load":
        team.follower.folders.prepare(second)
    with team.held(work) as begun:
        if when == "in the same pass":
            team.points(None, model="faq")
        team.follower.step()
        assert begun.wait(60)
        if when == "later":
            assert team.loaded()["faq"] == faq.digest
            team.points(None, model="faq")
            team.follower.step()
        assert "faq" not in team.loaded()
        assert "faq" not in team.follower.status()["serves"]
    assert team.step() == {"bot": second.digest}


def test_a_withdrawn_adapter_does_not_wait_for_its_turn_to_be_replaced(team: Team) -> None:
    first, second = team.trained(1), team.trained(2)
    team.points(first, first)
    faq, other = team.also_serves("faq", 3), team.trained(4)
    for adapter in (second, other):
        team.follower.folders.prepare(adapter)
    team.points(second, first, second)
    with team.held("load") as begun:
        team.follower.step()
        assert begun.wait(60)
        team.points(other, other, model="faq")
        team.follower.step()
        assert faq.digest not in team.loaded().values()
    assert team.step() == {"bot": second.digest, "faq": other.digest}


@pytest.mark.parametrize("other", [True, False], ids=["another is next", "nothing is next"])
def test_what_is_withdrawn_while_it_is_copied_is_never_loaded(team: Team, other: bool) -> None:
    first, second, third = (team.trained(number) for number in (1, 2, 3))
    team.points(first, first)
    team.step()
    team.points(second, first, second)
    with team.held("copy") as begun:
        team.follower.step()
        assert begun.wait(60)
        team.points(*((third, first, third) if other else (first, first)))
        team.server.asked.clear()
    assert team.step() == {"bot": (third if other else first).digest}
    assert team.server.asked == ([BEGIN, "unload", "load", END] if other else [])


def test_what_is_withdrawn_between_a_pass_and_the_load_is_not_loaded(team: Team) -> None:
    first = team.trained(1)
    team.follower.folders.prepare(first)
    team.points(first, first)
    look = team.follower._look

    def late() -> Any:
        if threading.current_thread().name == "load":
            team.points(None)
        return look()

    team.follower._look = late
    assert team.step() == {}
    assert team.server.asked == []


def test_what_was_withdrawn_meanwhile_does_not_return_if_the_next_is_refused(team: Team) -> None:
    first, second = team.trained(1), team.trained(2)
    team.points(first, first)
    team.step()
    team.server.refused.add(second.digest.removeprefix("sha256:"))
    team.points(second, first, second)
    team.server.while_loading = lambda: team.points(second, second)
    team.server.asked.clear()
    assert team.step() == {}
    assert team.server.asked == [BEGIN, "unload", "load", END]


@pytest.mark.parametrize("copied", [True, False], ids=["copied before", "not copied yet"])
def test_a_withdrawn_adapter_is_replaced_while_requests_wait_and_never_waits_for_a_copy(
    team: Team, copied: bool
) -> None:
    first, second = team.trained(1), team.trained(2)
    for adapter in (first, second) if copied else (second,):
        team.points(adapter, first, second)
        team.step()
    team.server.asked.clear()
    team.points(first, first)
    assert team.step() == {"bot": first.digest}
    assert team.server.asked == ([BEGIN, "unload", "load", END] if copied else ["unload", "load"])
    assert team.follower.serves == {"bot": "bot-v1"}


def test_a_withdrawn_adapter_does_not_return_if_the_next_is_refused(team: Team) -> None:
    first, second = team.trained(1), team.trained(2)
    for adapter in (first, second):
        team.points(adapter, first, second)
        team.step()
    team.server.refused.add(first.digest.removeprefix("sha256:"))
    team.points(first, first)
    assert team.step() == {}
    assert team.follower.status()["serves"] == {}
    assert team.server.asked[-1] == END
    team.server.loaded["bot"] = str(team.follower.folders.path(second.digest))  # as if the unload had been lost
    assert team.step() == {}, "also before the next attempt is due"
    team.server.refused.clear()
    assert team.step(600) == {"bot": first.digest}


@pytest.mark.parametrize("approved", [True, False], ids=["approved", "withdrawn"])
@pytest.mark.parametrize("harm", ["altered", "refused"])
def test_an_adapter_that_cannot_be_loaded_keeps_only_an_approved_one(team: Team, harm: str, approved: bool) -> None:
    first, second = team.trained(1), team.trained(2)
    team.points(first, first)
    team.step()
    if harm == "altered":
        (team.root / "models" / "r2" / "1" / "adapter" / "adapter_model.safetensors").write_text("3")
    else:
        team.server.refused.add(second.digest.removeprefix("sha256:"))
    team.points(second, second, *([first] if approved else []))
    assert team.step() == ({"bot": first.digest} if approved else {})
    words, cause = {"altered": ("SHA-256", "platform"), "refused": ("max_lora_rank", "user")}[harm]
    assert words in team.follower.problems["bot"].message
    assert f'hone_serve_problem{{name="bot",cause="{cause}"}} 1\n' in team.follower.metrics()
    assert team.follower.ready, "the others are still served"
    attempts = team.follower.problems["bot"].attempts
    team.step(0.1)
    assert team.follower.problems["bot"].attempts == attempts, "a copy of gigabytes is not made at each pass"
    if harm == "refused":
        team.server.refused.clear()
        assert team.step(600) == {"bot": second.digest}
        assert not team.follower.problems


@pytest.mark.parametrize("config", [{"alpha_pattern": {"q_proj": 64}}, {"use_dora": True}, {"of_tomorrow": 1}])
def test_an_adapter_that_vllm_would_compute_otherwise_is_not_loaded(team: Team, config: dict[str, Any]) -> None:
    before, after = team.trained(1), team.trained(2, **config)
    team.points(before, before)
    team.step()
    team.points(after, before, after)
    assert team.step() == {"bot": before.digest}
    assert "vLLM's answers would differ" in team.follower.problems["bot"].message
    assert team.follower.problems["bot"].cause == "user"


def test_an_approved_adapter_stays_while_the_alias_means_what_this_server_cannot_load(team: Team) -> None:
    """A version that is DoRA, merged or full, on another base, or whose approval is missing."""
    before = team.trained(1)
    team.points(before, before)
    team.step()
    for base in ("pvc://store/base-models/other", None):
        after = team.trained(2 if base else 3).model_copy(update={"base": base}) if base else None
        team.points(after, before)
        assert team.step() == {"bot": before.digest}
        assert team.follower.ready
    team.points(None)
    assert team.step() == {}, "it is not approved any more"


@pytest.mark.parametrize("seed", range(4))
def test_only_approved_adapters_are_ever_served_and_none_goes_before_its_time(team: Team, seed: int) -> None:
    """Random words of the operator: targets, approvals, other bases, an alias that is gone, JSON that is none."""
    rng = random.Random(seed)
    good = [team.trained(number) for number in (1, 2, 3)]
    odd = [team.trained(4, use_dora=True), good[0].model_copy(update={"base": "pvc://store/base-models/other"})]
    key = team.root / "aliases" / key_of("bot")
    for _ in range(15):
        before = team.loaded().get("bot")
        approved = rng.sample(good, rng.randrange(4))
        target = rng.choice([*good, *odd, None, "gone", "damaged"])
        if target == "gone":
            key.unlink(missing_ok=True)
        elif target == "damaged":
            key.write_text("{")
        else:
            may = approved if target is None else [*approved, target]  # the operator names no other adapter
            team.points(target, *may)
        after = team.step(400.0).get("bot")
        digests = {adapter.digest for adapter in approved}
        if target in good:
            assert after == target.digest
        elif target in ("gone", "damaged"):
            assert after is None
        else:
            assert after == (before if before in digests or (target and before == target.digest) else None)
        assert ("bot" in team.follower.problems) == (target not in good)


def test_what_is_served_and_what_is_not_is_measured(team: Team) -> None:
    http = serve_health(team.follower, 0)
    url = f"http://127.0.0.1:{http.server_port}/metrics"
    before = team.trained(1)
    team.points(before, before)
    team.step()
    answer = requests.get(url, timeout=60)
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert 'hone_served{name="bot",version="bot-v1"} 1\n' in answer.text
    assert 'hone_serve_problem{name="bot",cause=""} 0\n' in answer.text
    # Damage is the platform's; an alias or a Model that does not exist is the name's that somebody wrote.
    for text, cause in (("no JSON", "platform"), ('{"aliases": []}', "user"), (None, "user")):
        key = team.root / "aliases" / key_of("bot")
        key.write_text(text) if text else key.unlink()
        team.step()
        answer = requests.get(url, timeout=60)
        assert "hone_served{" not in answer.text
        assert f'hone_serve_problem{{name="bot",cause="{cause}"}} 1\n' in answer.text
    http.shutdown()


@pytest.mark.parametrize("text", ["[]", "{", "\udcff", DEEP], ids=["list", "no JSON", "no UTF-8", "deep"])
def test_an_adapter_without_a_config_is_noted_and_not_copied_at_each_pass(team: Team, text: str) -> None:
    faq, adapter = team.also_serves("faq", 2), team.trained(1)
    folder = team.root / "models" / "r1" / "1" / "adapter"
    (folder / "adapter_config.json").write_text(text, errors="surrogateescape")
    (folder / "manifest.json").unlink()
    wrong = adapter.model_copy(update={"digest": manifest.write(folder)})
    team.points(wrong, wrong)
    assert team.step() == {"faq": faq.digest}
    assert team.follower.problems["bot"].attempts == 1


def test_what_nobody_expected_in_a_thread_ends_the_passes(team: Team) -> None:
    adapter = team.trained(1)
    team.points(adapter, adapter)

    def broken(adapter: ServedAdapter) -> Path:
        raise RuntimeError("unexpected")

    team.follower.folders.prepare = broken
    with pytest.raises(RuntimeError, match="unexpected"):
        team.step()


def test_a_new_pod_is_not_ready_without_its_adapter(team: Team) -> None:
    adapter = team.trained(1)
    team.server.refused.add(adapter.digest.removeprefix("sha256:"))
    team.points(adapter, adapter)
    team.step()
    assert not team.follower.ready
    team.server.refused.clear()
    team.step(600)
    assert team.follower.ready


@pytest.mark.parametrize("seen", [True, False], ids=["did not answer", "between two passes"])
def test_a_server_that_started_again_gets_its_adapters_before_it_is_ready(team: Team, seen: bool) -> None:
    adapter = team.trained(1)
    team.points(adapter, adapter)
    team.step()
    if seen:
        team.stops()
    team.server.loaded.clear()
    with team.held("load") as begun:
        team.follower.step()
        assert begun.wait(60)
        assert not team.follower.ready
        team.follower.step()
        assert not team.follower.ready, "it is being loaded"
        assert team.follower.status()["serves"] == {}
    assert team.step() == {"bot": adapter.digest}
    assert team.follower.ready


def test_a_server_that_started_again_is_tried_at_once_and_is_ready_without_what_it_refuses(team: Team) -> None:
    first, second = team.trained(1), team.trained(2)
    team.points(first, first)
    faq = team.also_serves("faq", 3)
    team.server.refused.add(second.digest.removeprefix("sha256:"))
    team.points(second, first, second)
    for _ in range(9):
        team.step(600)
    assert team.follower.problems["bot"].attempts > 5, "the next attempt is minutes away"
    team.stops()
    team.server.loaded.clear()
    with team.held("load") as begun:
        team.follower.step()
        assert begun.wait(60)
        assert not team.follower.ready, "what an earlier vLLM refused does not count"
    assert team.step(0) == {"faq": faq.digest}
    assert team.follower.problems["bot"].attempts == 1
    assert team.follower.ready


def test_one_adapter_that_is_exchanged_does_not_take_the_pod(team: Team) -> None:
    first, second = team.trained(1), team.trained(2)
    team.points(first, first)
    team.step()
    team.points(second, first, second)
    team.follower.folders.prepare(second)
    with team.held("load") as begun:
        team.follower.step()
        assert begun.wait(60)
        assert team.loaded() == {}
        team.follower.step()
        assert team.follower.ready
    assert team.step() == {"bot": second.digest}


def test_an_adapter_outside_the_store_is_not_read(team: Team) -> None:
    adapter = team.trained(1).model_copy(update={"uri": "pvc://store/models/../base-models/b"})
    team.points(adapter, adapter)
    assert team.step() == {}
    assert "reads pvc://store/models/ alone" in team.follower.problems["bot"].message


def test_probes_and_status(team: Team) -> None:
    http = serve_health(team.follower, 0)
    url = f"http://127.0.0.1:{http.server_port}"
    assert requests.get(f"{url}/readyz", timeout=600).status_code == 503
    adapter = team.trained(1)
    team.points(adapter, adapter)
    team.step()
    assert requests.get(f"{url}/readyz", timeout=600).status_code == 200
    assert requests.get(f"{url}/status", timeout=600).json()["serves"] == {"bot": "bot-v1"}
    with team.held("copy") as begun:
        later = team.trained(2)
        team.points(later, adapter, later)
        team.follower.step()
        assert begun.wait(60)
        team.now += 3600
        team.follower.step()
        assert requests.get(f"{url}/healthz", timeout=600).status_code == 503, "a copy that does not end"
    assert requests.get(f"{url}/healthz", timeout=600).status_code == 200
    team.now += 3600
    assert requests.get(f"{url}/healthz", timeout=600).status_code == 503
    assert requests.get(f"{url}/other", timeout=600).status_code == 404
    http.shutdown()


def test_an_idle_connection_to_the_probes_ends(team: Team) -> None:
    http = serve_health(team.follower, 0)
    with socket.create_connection(("127.0.0.1", http.server_port), timeout=600) as idle:
        assert idle.recv(1) == b""
    http.shutdown()


def test_idle_connections_neither_take_threads_without_end_nor_shut_a_probe_out(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_IDLE_SECONDS", 3600)
    http = serve_health(team.follower, 0)
    before = threading.active_count()
    with contextlib.ExitStack() as ended:
        for _ in range(300):
            ended.enter_context(socket.create_connection(("127.0.0.1", http.server_port), timeout=600))
        assert requests.get(f"http://127.0.0.1:{http.server_port}/healthz", timeout=600).ok
        wait_until(lambda: threading.active_count() - before <= 64, "the threads end")
    http.shutdown()


def test_aliases_that_are_nested_too_deeply_cannot_be_read(team: Team) -> None:
    adapter = team.trained(1)
    team.points(adapter, adapter)
    for file in team.follower.aliases.iterdir():
        if file.is_file():
            file.write_text("[" * 100_000)
    assert set(team.follower._models().values()) == {None}
