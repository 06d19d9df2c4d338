"""The demo's steps against a real API server; the operator's part is played by writes to the status."""

import json
import threading
import time
from pathlib import Path

import pytest

from hone_dev.demo import ask, command
from hone_dev.demo.follow import follow
from hone_dev.demo.targets import Target, administrator
from hone_dev.tools.console import HoneDevError

pytestmark = pytest.mark.apiserver

CRDS = Path(__file__).parents[3] / "crds"


@pytest.fixture(scope="module")
def target(apiserver):
    target = Target(apiserver, None)
    target.kubectl("apply", "--server-side", "--filename", str(CRDS))
    target.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=15m")
    return target


@pytest.fixture(autouse=True)
def _no_jobs_left(target):
    yield
    target.kubectl("delete", "ftj", "--all", "--namespace", command.TENANT, "--ignore-not-found")


def set_status(target, name, status):
    patch = json.dumps({"status": status})
    where = ("--namespace", command.TENANT, "patch", "ftj", name)
    target.kubectl(*where, "--subresource=status", "--type=merge", "--patch", patch)


def ended(type_, reason):
    now = "2026-01-01T00:00:00Z"
    return [
        {"type": t, "status": "True", "reason": reason, "message": "", "lastTransitionTime": now}
        for t in (type_, "Finished")
    ]


def names(target):
    items = target.get("ftj", "--namespace", command.TENANT)["items"]
    return sorted(item["metadata"]["name"] for item in items)


def test_the_example_is_accepted_and_a_second_start_follows(target):
    first, second = command.start(target), command.start(target)
    assert (first.name, first.new, second.name, second.new) == ("ops-commands", True, "ops-commands", False)
    assert names(target) == ["ops-commands"]
    labels = target.get("namespace", command.TENANT)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_a_finished_run_stays_when_the_next_is_written(target):
    command.start(target)
    set_status(target, "ops-commands", {"conditions": ended("Succeeded", "Completed")})
    assert command.start(target).name == "ops-commands-2"
    assert names(target) == ["ops-commands", "ops-commands-2"]


def test_a_run_is_shown_until_it_ends(target, capsys):
    run = command.start(target)
    since = "2026-01-01T00:00:00Z"
    running = [{"type": "Running", "status": "True", "reason": "R", "message": "", "lastTransitionTime": since}]
    progress = {"stage": "Training", "step": 30, "totalSteps": 60, "percent": 50, "loss": "2.5"}

    set_status(target, run.name, {"conditions": running, "progress": progress})
    end = {"conditions": ended("Succeeded", "Completed"), "modelVersionName": "m-v1"}
    shown = ""

    def end_once_shown():
        nonlocal shown
        while "Training 30/60 50%  loss 2.50" not in shown:
            shown += capsys.readouterr().err
            time.sleep(0.05)
        set_status(target, run.name, end)

    threading.Thread(target=end_once_shown, daemon=True).start()
    job = follow(target, command.TENANT, run.name)
    assert job["status"]["modelVersionName"] == "m-v1"
    assert "Training 30/60 50%  loss 2.50" in shown


def test_a_failed_run_is_reported_with_its_hint(target):
    run = command.start(target)
    failure = {"code": "DiskFull", "message": "The store is full.", "hint": "Enlarge it."}
    set_status(target, run.name, {"conditions": ended("Failed", "DiskFull"), "failure": failure})
    with pytest.raises(HoneDevError, match="DiskFull: The store is full") as caught:
        follow(target, command.TENANT, run.name)
    assert caught.value.hint.startswith("Enlarge it.")


def test_a_deleted_run_is_reported(target):
    run = command.start(target)
    timer = threading.Timer(2.0, lambda: target.kubectl("delete", "ftj", run.name, "--namespace", command.TENANT))
    timer.start()
    with pytest.raises(HoneDevError, match="was deleted"):
        follow(target, command.TENANT, run.name)
    timer.join()


def test_the_pod_that_asks_may_run_where_pod_security_is_restricted(target):
    command._apply(target, command._namespace(command.TENANT, command.ENABLED))
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}  # no controller makes it
    command._apply(target, account, namespace=command.TENANT)
    document = ask.pod("r:5000/hone/trainer:2.0", "/store/models/x/adapter", "What is a Pod?")
    where = ("--namespace", command.TENANT)
    target.kubectl(*where, "create", "--dry-run=server", "--filename=-", stdin=json.dumps(document))
    del document["spec"]["securityContext"]
    with pytest.raises(HoneDevError, match="restricted"):
        target.kubectl(*where, "create", "--dry-run=server", "--filename=-", stdin=json.dumps(document))


def test_without_a_model_nobody_is_asked(target):
    command._apply(target, command._namespace(command.TENANT, command.ENABLED))
    with pytest.raises(HoneDevError, match="there is no ModelVersion"):
        ask.ask(target, command.TENANT, "What is a Pod?")


def test_tests_take_the_current_context_unless_hone_is_installed_there(target, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(target.kubeconfig))
    taken = Target(administrator("current", tmp_path), None)
    assert taken.get("namespace", "default")["metadata"]["uid"] == target.get("namespace", "default")["metadata"]["uid"]
    assert (tmp_path / "kubeconfig").stat().st_mode & 0o077 == 0
    target.kubectl("create", "deployment", "operator", "--image=hone")
    try:
        target.kubectl("label", "deployment", "operator", "app.kubernetes.io/name=hone")
        with pytest.raises(HoneDevError, match="Hone is installed"):
            administrator("current", tmp_path)
    finally:
        target.kubectl("delete", "deployment", "operator")


def test_a_cluster_for_tests_needs_a_client_certificate(tmp_path, monkeypatch):
    config = tmp_path / "config"
    config.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "a",
                "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
                "clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}],
                "users": [{"name": "a", "user": {"token": "secret"}}],
            }
        )
    )
    monkeypatch.setenv("KUBECONFIG", str(config))
    with pytest.raises(HoneDevError, match="no client certificate"):
        administrator("current", tmp_path)
    with pytest.raises(HoneDevError, match="CLUSTER=prod"):
        administrator("prod", tmp_path)
