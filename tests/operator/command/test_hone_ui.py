"""`hone ui` at a real API server: what it answers and refuses, and the page in a real browser."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
import yaml
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from support.cluster.hand import AT, conditions
from support.pages.browser import ATTACKS, axe_violations, chromium
from support.servers.app_server import running

from hone import Client, DatasetSpec, FineTuneJobSpec, manifest
from hone_cli import answering
from hone_cli.chat import RemoteChat
from hone_cli.clients import pages
from hone_cli.clients.console import Console, application
from hone_cli.errors import CommandError
from hone_cli.reach import files
from hone_cli.reach.copying import BrokenConnectionError
from hone_cli.reach.guard import digest
from hone_cli.runs import planning

TOKEN = "the-token-of-this-page"
HANG = 120  # seconds; a guard against hanging, not an expectation
MODEL = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)["messages"][-1]["content"]
    answers = {name: {"text": f"{name} of {asked}", "ending": "Stop"} for name in ("base", "tuned")}
    print(json.dumps(answers), flush=True)
"""
VIEWS = ("runs", "run/first", "compare/first/second", "datasets", "dataset/rows", "models", "chat/bot-v2", "new")
SIZES = {"desktop": (1200, 900), "phone": (390, 844)}


def job(name, **spec):
    body = {"model": {"uri": "hf://Qwen/Qwen2.5-0.5B-Instruct"}, "datasets": [{"name": "rows"}], **spec}
    return manifest(name, FineTuneJobSpec.model_validate({**body, "output": {"modelName": "bot"}}))


def add_version(namespace, number, **spec):
    lineage = {"baseModel": {"uri": "hf://owner/base@main"}, "datasets": [], "job": {"name": "first", "uid": "x"}}
    lineage |= {"method": "SFT", "seed": 1, "hyperParameters": {}}
    artifact = {"format": "Adapter", "uri": f"pvc://hone-store/models/{number}/adapter", "digest": f"sha256:{'0' * 64}"}
    body = {"modelName": "bot", "version": number, "artifacts": [{**artifact, "sizeBytes": 1}], "lineage": lineage}
    namespace.create("ModelVersion", f"bot-v{number}", {**body, **spec})
    status = {"conditions": conditions("Ready"), "baseEvalLoss": "3.9", "evalLoss": f"2.{number}"}
    namespace.patch("ModelVersion", f"bot-v{number}", {"status": status}, "status")


@pytest.fixture
def client(namespace, apiserver, monkeypatch, tmp_path):
    """A namespace with two runs, rows, and a model with two versions."""
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(apiserver))
    (tmp_path / "prices.yaml").write_text("currency: EUR\ngpuHour: {NVIDIA-L4: 0.7}\n")
    client = Client(namespace.name, price_table=tmp_path / "prices.yaml")
    client.start(
        manifest("rows", DatasetSpec(source={"uri": "pvc://data/rows.jsonl"})),
        job("first", resources={"gpusPerNode": 1, "gpuProducts": ["NVIDIA-L4"]}),
        job("second", training={"epochs": "7"}),
    )
    for name, factor in (("first", 1), ("second", 1.2)):
        curve = " ".join(f"{step}:{factor * 4 / (1 + step / 40):.4f}" for step in range(10, 200, 10))
        status = {
            "phase": "Running",
            "conditions": conditions("Running"),
            "metrics": [{"name": "loss", "curve": curve}],
        }
        status["progress"] = {"stage": "Training", "step": 190, "totalSteps": 400, "loss": "0.7", "eta": "8m"}
        status["queue"] = (
            {"reason": "Pending", "position": 2, "message": "waits for 2 GPUs"} if name == "second" else None
        )
        namespace.patch("FineTuneJob", name, {"status": status}, "status")
    errors = [{"code": "MissingColumn", "count": 3, "rows": [4, 7, 9], "example": ATTACKS[1], "hint": "Name it."}]
    status = {"conditions": conditions("Ready"), "rejected": 3, "errors": errors, "summary": "900 rows"}
    status["splits"] = [{"name": "train", "rows": 900}, {"name": "validation", "rows": 50}]
    status["tokens"] = {"mean": 100, "max": 400}
    namespace.patch("Dataset", "rows", {"status": status}, "status")
    add_version(namespace, 1, approval={"state": "Approved", "by": "ada"})
    add_version(namespace, 2)
    return client


@pytest.fixture
def url(client):
    with Console(client) as console, running(application(console, digest(TOKEN))) as url:
        yield url


def asked(url, name, **body):
    return requests.post(f"{url}/api/{name}", json=body, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=HANG)


def acted(url, act, **fields):
    answer = asked(url, "act", act=act, fields=fields)
    return answer.json().get("html") or answer.json()["error"]


@pytest.mark.apiserver
def test_strangers_are_refused_and_nothing_comes_from_elsewhere(url) -> None:
    page = requests.get(url, timeout=HANG)
    for part in ("default-src 'none'", "script-src 'self'", "style-src 'self'", "form-action 'none'"):
        assert part in page.headers["Content-Security-Policy"]
    for path in ("", "console.js", "console.css"):
        text = requests.get(f"{url}/{path}", timeout=HANG).text
        assert "http://" not in text.replace("http://127.0.0.1", "")
        assert "https://" not in text
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert requests.post(f"{url}/api/show", json={"path": []}, headers=headers, timeout=HANG).status_code == 401
    mine = {"Authorization": f"Bearer {TOKEN}"}
    for stranger in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        sent = requests.post(f"{url}/api/show", json={"path": []}, headers={**mine, **stranger}, timeout=HANG)
        assert sent.status_code == 403


@pytest.mark.apiserver
def test_views_show_what_is_there_and_text_is_not_markup(url) -> None:
    shown = {view: asked(url, "show", path=view.split("/")).json() for view in VIEWS}
    assert all("<h1>" in view["html"] for view in shown.values()), shown
    assert "place 2" in shown["runs"]["html"]
    assert "190/400" in shown["run/first"]["html"]
    assert "GPU-hours" in shown["run/first"]["html"]
    assert "EUR" in shown["run/first"]["html"]
    assert "training.epochs" in shown["compare/first/second"]["html"]
    assert "<img" not in shown["dataset/rows"]["html"]
    assert "&lt;img src=x" in shown["dataset/rows"]["html"]
    assert (shown["runs"]["live"], shown["models"]["live"]) == (True, False)
    for path in (["nope"], ["run"], ["runs", "0"], ["run", "absent"], ["compare", "first"], ["chat", "a", "b"]):
        assert asked(url, "show", path=path).status_code == 409, path
    assert asked(url, "show", path=[1]).status_code == 400


@pytest.mark.apiserver
def test_a_failed_run_says_once_why_and_what_to_do(client, url, namespace) -> None:
    failure = {"code": "OutOfMemory", "message": "rank 0 in step 13", "hint": "Lower training.maxLength."}
    status = {"phase": "Failed", "conditions": conditions("Finished", "Failed"), "failure": failure}
    namespace.patch("FineTuneJob", "first", {"status": status}, "status")
    page = asked(url, "show", path=["run", "first"]).json()["html"]
    assert "<dd>first has failed: OutOfMemory: rank 0 in step 13</dd>" in page
    more = f"hone explain OutOfMemory; hone logs first -n {namespace.name}"
    assert f"<dd>Lower training.maxLength. More: {more}</dd>" in page
    assert page.count("maxLength") == 1
    assert client.job("first").line.startswith("first has failed: OutOfMemory: rank 0 in step 13. Lower")


@pytest.mark.apiserver
def test_runs_have_what_they_used_and_cost_and_older_ones_a_page(url, namespace, monkeypatch) -> None:
    used = {"number": 1, "jobName": "first-1", "startTime": AT, "endTime": "2026-01-01T02:00:00Z", "outcome": "Failed"}
    used["phases"] = {"scheduled": 0, "training": 7200}
    namespace.patch("FineTuneJob", "first", {"status": {"startTime": AT, "attempts": [used]}}, "status")
    listed = asked(url, "show", path=["runs"]).json()["html"]
    assert "<td>2.0</td><td>1.40 EUR</td>" in listed
    assert "Older runs" not in listed
    assert "2.00 GPU-hours 1.40 EUR" in asked(url, "show", path=["run", "first"]).json()["html"]
    monkeypatch.setattr(pages, "_PAGE", 1)
    pair = [asked(url, "show", path=path).json()["html"] for path in (["runs"], ["runs", "2"])]
    assert ["#/runs/2" in page for page in pair] == [True, False]
    assert ["#/runs/1" in page for page in pair] == [False, True]
    assert [("#/run/first" in page) != ("#/run/second" in page) for page in pair] == [True, True]


@pytest.mark.apiserver
def test_a_run_of_another_release_is_not_a_fault(client, monkeypatch) -> None:
    """An object without fields that this release needs, as a later one may store it."""
    name, body = "strange", {"metadata": {"name": "strange", "creationTimestamp": AT, "uid": "x", "generation": 1}}
    kept = client.objects.get
    strange = {"spec": {}}
    monkeypatch.setattr(client.objects, "get", lambda kind, n: {**body, **strange} if n == name else kept(kind, n))
    assert "<h1>strange</h1>" in pages.shown(client, ["run", name])
    strange["status"] = {"conditions": "none"}
    with pytest.raises(CommandError, match="run strange: in a form that this release of hone does not know"):
        pages.shown(client, ["run", name])


@pytest.fixture
def store(client, namespace, monkeypatch, tmp_path):
    """Pods that read the store: the real API server takes them, and a folder of this machine is served in their place.

    Gives the store, and the pods that were started.
    """
    claim, started, digests = "hone-store", [], {"rows": f"datasets/{'a' * 64}", "report": "reports/rows"}
    image = {"image": "hone/trainer:1", "imagePullPolicy": "Never", "imagePullSecrets": [], "claim": claim}
    folders = {"uri": f"pvc://{claim}/{digests['rows']}", "report": f"pvc://{claim}/{digests['report']}/report.html"}
    namespace.patch("Dataset", "rows", {"status": {**folders, "reviewPod": image}}, "status")
    for folder in digests.values():
        (tmp_path / "store" / folder).mkdir(parents=True)

    @contextlib.contextmanager
    def reached(_, name):
        (container,) = (body := namespace.get("Pod", name))["spec"]["containers"]
        started.append(body["metadata"]["name"])
        served = tmp_path / name
        for mount in container["volumeMounts"]:
            if "subPath" in mount:
                assert mount["readOnly"]
                to = served / mount["mountPath"].removeprefix("/files/").removeprefix("/files")
                shutil.copytree(tmp_path / "store" / mount["subPath"], to, dirs_exist_ok=True)
        (token_digest,) = (each["value"] for each in container["env"] if each["name"] == "HONE_REVIEW_TOKEN_SHA256")
        with running(files.application(served, token_digest)) as address:
            yield types.SimpleNamespace(url=address)

    monkeypatch.setattr("hone_cli.reach.running.reached", reached)
    return tmp_path / "store", started


@pytest.mark.apiserver
def test_rows_are_shown_a_page_at_a_time(store, url, namespace) -> None:
    root, started = store
    rows = [{"messages": [{"role": "user", "content": f"Frage {i}: größer? {ATTACKS[1]}"}]} for i in range(45)]
    (root / f"datasets/{'a' * 64}/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused = {"row": 7, "code": "MissingColumn", "value": {"text": "x" * 5000}}
    (root / "reports/rows/rejected.jsonl").write_text(json.dumps(refused))
    (root / "reports/rows/report.html").write_text("<!doctype html><h1>The report</h1>")
    place, shown = "0", []
    while place:
        shown.append(acted(url, "rows", dataset="rows", file="train", offset=place))
        place = next(iter(re.findall(r'name="offset" value="(\d+)"', shown[-1])), "")
    assert [page.count("<pre>") for page in shown] == [20, 20, 5]
    assert all(f"Frage {i}: größer?" in "".join(shown) for i in range(45))
    assert "<img" not in "".join(shown)
    rejected = acted(url, "rows", dataset="rows", file="rejected", offset="0")
    assert "MissingColumn" in rejected
    assert "characters)" in rejected, "a long row is cut, and says so"
    assert "has no such file" in acted(url, "rows", dataset="rows", file="removed", offset="0")
    for wrong in ({"file": "../secret"}, {"file": "train", "offset": "-1"}):
        assert "a Dataset has no rows" in acted(url, "rows", **{"dataset": "rows", "offset": "0", **wrong})
    answer = acted(url, "report", dataset="rows")
    (place,) = re.findall(r'href="(report/[^"]+)"', answer)
    page = requests.get(f"{url}/{place}", timeout=HANG)
    assert "The report" in page.text
    assert page.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    assert requests.get(f"{url}/report/another", timeout=HANG).status_code == 404
    assert len(started) == 1, "one pod reads it all"
    taken = {"uri": "pvc://hone-store/models/x", "reviewPod": namespace.get("Dataset", "rows")["status"]["reviewPod"]}
    namespace.patch("Dataset", "rows", {"status": taken}, "status")
    assert "is not a folder of its rows" in acted(url, "rows", dataset="rows", file="train", offset="0")


@pytest.mark.apiserver
def test_a_pod_that_is_gone_is_replaced(store, url, client, monkeypatch) -> None:
    root, started = store
    (root / f"datasets/{'a' * 64}/train.jsonl").write_text('{"text": "hello"}\n')
    asked_for = {"dataset": "rows", "file": "train", "offset": "0"}
    with Console(client) as console:
        assert "hello" in console.act("rows", asked_for)["html"]
        with monkeypatch.context() as patched:
            patched.setattr("hone_cli.reach.remote_files.RemoteFiles.read", _broken)
            with pytest.raises(CommandError, match="The next try starts a new pod"):
                console.act("rows", asked_for)
        assert "hello" in console.act("rows", asked_for)["html"]
    assert len(started) == 2


def _broken(*_):
    raise BrokenConnectionError("ConnectionError")


@pytest.mark.apiserver
def test_an_alias_moves_forth_and_back_unless_promotion_moves_it(url, namespace) -> None:
    namespace.create("Model", "bot", {"promotion": {"aliases": ["champion"]}})

    def pinned():
        return namespace.get("Model", "bot")["spec"].get("aliases")

    to_two = {"model": "bot", "alias": "production", "version": "2"}
    assert "production of bot would move to v2" in acted(url, "alias", **to_two)
    assert pinned() is None
    assert "production of bot moves to v2" in acted(url, "point", **to_two)
    assert "from v2 to v1" in acted(url, "point", **{**to_two, "version": "1"})
    assert pinned() == [{"name": "production", "version": 1}]
    assert "points to v1 already" in acted(url, "point", **{**to_two, "version": "1"})
    assert "has no version 9" in acted(url, "alias", **{**to_two, "version": "9"})
    assert "is not the number" in acted(url, "alias", **{**to_two, "version": "x"})
    assert "spec.promotion of Model bot moves champion" in acted(url, "alias", **{**to_two, "alias": "champion"})
    assert "choose a word" in acted(url, "alias", **{**to_two, "alias": "v3"})
    namespace.patch("ModelVersion", "bot-v2", {"spec": {"approval": {"state": "Rejected", "by": "ada"}}})
    assert "v2 of bot was rejected" in acted(url, "alias", **to_two)


@pytest.mark.apiserver
def test_forms_do_what_the_commands_do(url, namespace, tmp_path) -> None:
    acted(url, "suspend", run="first")
    assert namespace.get("FineTuneJob", "first")["spec"]["suspend"] is True
    acted(url, "resume", run="first")
    assert namespace.get("FineTuneJob", "first")["spec"]["suspend"] is False
    would = acted(url, "decide", version="bot-v1", state="Rejected", comment="promises refunds")
    assert "would be rejected" in would
    assert namespace.get("ModelVersion", "bot-v1")["spec"]["approval"]["state"] == "Approved"
    assert "is rejected" in acted(url, "confirm", version="bot-v1", state="Rejected", comment="promises refunds")
    assert namespace.get("ModelVersion", "bot-v1")["spec"]["approval"]["comment"] == "promises refunds"
    rows = "".join(json.dumps({"question": f"q {i}?", "answer": f"a {i}."}) + "\n" for i in range(50))
    (tmp_path / "support.jsonl").write_text(rows)
    fields = {"source": str(tmp_path / "support.jsonl"), "model": "Qwen/Qwen2.5-0.5B-Instruct", "gpus": "1", "gpu": ""}
    assert "name: support" in acted(url, "write", **fields)
    assert "is not a number" in acted(url, "write", **{**fields, "gpus": "one"})
    assert "name a file with rows" in acted(url, "write", **{**fields, "source": "--html=x"})
    text = yaml.safe_dump(job("third"))
    assert "FineTuneJob third is new" in acted(url, "plan", manifest=text)
    assert "third" not in namespace.names("FineTuneJob")
    assert "It cannot be applied" in acted(url, "plan", manifest=text.replace("modelName: bot", "modelName: Bot!"))
    assert "#/run/third" in acted(url, "apply", manifest=text)
    assert "third" in namespace.names("FineTuneJob")
    assert "there is no action" in acted(url, "delete", run="first")
    assert "has no field" in acted(url, "suspend")


@pytest.fixture
def chats(monkeypatch):
    """The server of a chat's pod with a scripted model: no pod runs here."""
    with subprocess.Popen([sys.executable, "-c", MODEL], stdin=-1, stdout=-1, text=True) as process:
        with running(answering.application(answering.Model(process), digest(TOKEN))) as url:
            remote = contextlib.contextmanager(lambda *_: iter([RemoteChat(url, TOKEN)]))
            monkeypatch.setattr("hone_cli.chat.opened", remote)
            yield
        process.kill()


@pytest.mark.apiserver
def test_a_chat_whose_pod_is_gone_begins_again(client, monkeypatch) -> None:
    opened = []

    @contextlib.contextmanager
    def pod(*_):
        opened.append("pod")
        with subprocess.Popen([sys.executable, "-c", MODEL], stdin=-1, stdout=-1, text=True) as process:
            with running(answering.application(answering.Model(process), digest(TOKEN))) as url:
                yield RemoteChat(url if len(opened) > 1 else "http://127.0.0.1:1", TOKEN)
            process.kill()

    monkeypatch.setattr("hone_cli.chat.opened", pod)
    asked = {"version": "bot-v1", "question": "hello"}
    with Console(client) as console:
        with pytest.raises(CommandError, match="The next try starts a new pod"):
            console.act("ask", asked)
        assert "tuned of hello" in console.act("ask", asked)["html"]
    assert opened == ["pod", "pod"]


@pytest.mark.apiserver
def test_end_waits_for_a_pod_that_starts_and_other_chats_do_not(client, monkeypatch) -> None:
    starts, goes_on, closed = threading.Event(), threading.Event(), []

    class Scripted:
        def answers(self, _):
            return {"tuned": {"text": "yes"}}

    @contextlib.contextmanager
    def pod(_, version, *_others):
        if version["metadata"]["name"] == "bot-v1":
            starts.set()
            assert goes_on.wait(HANG)
        yield Scripted()
        closed.append(version["metadata"]["name"])

    monkeypatch.setattr("hone_cli.chat.opened", pod)
    with Console(client) as console, ThreadPoolExecutor() as threads:
        first = threads.submit(console.act, "ask", {"version": "bot-v1", "question": "hello"})
        assert starts.wait(HANG)
        try:
            other = threads.submit(console.act, "ask", {"version": "bot-v2", "question": "hello"})
            assert "yes" in other.result(HANG)["html"]
            end = threads.submit(console.act, "end", {"version": "bot-v1"})
            with pytest.raises(TimeoutError):
                end.result(0.5)
        finally:
            goes_on.set()
        end.result(HANG)
        first.result(HANG)
        assert closed == ["bot-v1"]


@pytest.mark.apiserver
def test_a_run_is_planned_once_for_its_spec(client, monkeypatch) -> None:
    looked = []
    monkeypatch.setattr("hone_cli.runs.cluster_room.room", lambda *_: looked.append("room") or [])
    planned_job = planning.planned_job
    monkeypatch.setattr(planning, "planned_job", lambda *a, **k: looked.append("plan") or planned_job(*a, **k))
    shown = [pages.shown(client, ["run", "first"]) for _ in range(2)]
    assert "GPU-hours" in shown[1]
    assert looked == ["plan"]


class Page:
    """The page as a person sees it, with the keyboard alone."""

    def __init__(self, browser, url):
        self.browser, self.url = browser, url
        browser.get("about:blank")
        browser.get(f"{url}/#token={TOKEN}")
        self.until("first")

    def until(self, words):
        def shown(browser):
            return words in browser.execute_script("return document.body.innerText")

        WebDriverWait(self.browser, HANG, 0.05).until(shown, f"{words!r} is not on the page")

    def press(self, *keys):
        ActionChains(self.browser).send_keys(*keys).perform()

    def tab_to(self, words):
        """Tab until what has the focus has this text or name."""
        for _ in range(80):
            self.press(Keys.TAB)
            here = self.browser.switch_to.active_element
            if words in (here.text, here.get_attribute("name"), here.get_attribute("aria-label")):
                return
        pytest.fail(f"the keyboard does not reach {words}")

    def go(self, view):
        self.browser.execute_script(f"location.hash = '#/{view}'")
        head = {"run/first": "first", "dataset/rows": "rows", "chat/bot-v2": "Chat with bot-v2", "new": "New run"}
        wanted = head.get(view) or view.split("/")[0].capitalize()
        WebDriverWait(self.browser, HANG, 0.05).until(
            lambda browser: browser.execute_script("return document.querySelector('h1')?.textContent") == wanted, view
        )


@pytest.mark.e2e
def test_every_view_in_a_browser_has_no_serious_finding_of_axe(url, tmp_path) -> None:
    with chromium() as browser:
        page = Page(browser, url)
        assert TOKEN not in browser.current_url
        for size, (width, height) in SIZES.items():
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            for scheme in ("light", "dark"):
                feature = {"name": "prefers-color-scheme", "value": scheme}
                browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
                for view in VIEWS:
                    page.go(view)
                    assert axe_violations(browser) == [], (view, size, scheme)
                    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth"), view
                    browser.save_screenshot(str(tmp_path / f"{view.replace('/', '-')}-{size}-{scheme}.png"))
        browser.execute_script("document.querySelector('main').append(document.createElement('input'))")
        assert axe_violations(browser), "an input without a name is seen"
        assert [each for each in browser.get_log("browser") if each["level"] == "SEVERE"] == []


@pytest.mark.e2e
def test_a_person_reads_rows_and_the_report_page_of_a_dataset(store, url) -> None:
    """A form has a field called dataset, as the property of every element is."""
    root, _ = store
    rows = [{"text": f"Row {number} {ATTACKS[1]}"} for number in range(25)]
    (root / f"datasets/{'a' * 64}/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "reports/rows/report.html").write_text("<!doctype html><h1>The report</h1>")
    with chromium() as browser:
        page = Page(browser, url)
        page.go("dataset/rows")
        for button, words in (("Show train rows", "Row 19"), ("More rows", "Row 24")):
            page.tab_to(button)
            page.press(Keys.ENTER)
            page.until(words)
        assert "More rows" not in browser.find_element("tag name", "main").text
        assert "4, 7, 9" in browser.find_element("tag name", "main").text
        page.tab_to("Show the report page")
        page.press(Keys.ENTER)
        page.until("Open the report")
        page.tab_to("Open the report")
        page.press(Keys.ENTER)
        WebDriverWait(browser, HANG, 0.05).until(lambda browser: len(browser.window_handles) == 2)
        browser.switch_to.window(browser.window_handles[1])
        page.until("The report")


@pytest.mark.e2e
def test_a_page_says_what_does_not_answer_and_goes_on_when_it_does(client) -> None:
    configuration = client.objects.kube.configuration
    address = configuration.host
    with chromium() as browser:
        with Console(client) as console, running(application(console, digest(TOKEN))) as url:
            page = Page(browser, url)
            configuration.host = "https://127.0.0.1:9"
            page.until("the cluster does not answer at https://127.0.0.1:9")
            page.until("190/400")  # what was last known stays
            configuration.host = address
            message = browser.find_element("id", "message")
            WebDriverWait(browser, HANG, 0.05).until(lambda _: not message.text, "the message stays")
        page.until("hone ui does not answer: start it again")


@pytest.mark.e2e
def test_the_keyboard_alone_compares_approves_chats_and_starts_a_run(url, namespace, chats) -> None:
    with chromium() as browser:
        page = Page(browser, url)
        for name in ("first", "second"):
            page.tab_to(f"Compare {name}")
            page.press(Keys.SPACE)
        page.tab_to("Compare")
        page.press(Keys.ENTER)
        page.until("settings that differ")
        browser.get(f"{url}/#/models")
        page.until("v2")
        page.tab_to("Reject, and roll aliases back")
        page.press(Keys.ENTER)
        page.until("would be rejected")
        page.tab_to("Yes")
        page.press(Keys.ENTER)
        page.until("bot-v2 is rejected")
        assert namespace.get("ModelVersion", "bot-v2")["spec"]["approval"]["state"] == "Rejected"
        browser.get(f"{url}/#/chat/bot-v1")
        page.until("Chat with bot-v1")
        page.tab_to("question")
        page.press("What is a Pod?", Keys.TAB, Keys.ENTER)
        page.until("tuned of What is a Pod?")
        browser.get(f"{url}/#/new")
        page.until("New run")
        page.tab_to("source")
        page.press("/absent.jsonl")
        page.tab_to("Look at the rows, and write a manifest")
        page.press(Keys.ENTER)
        page.until("absent.jsonl")


@pytest.mark.apiserver
def test_the_command_prints_an_address_of_loopback_and_ctrl_c_ends_it(namespace, apiserver, terminal) -> None:
    screen = terminal("ui", "--namespace", namespace.name, columns=200, KUBECONFIG=str(apiserver))
    screen.until("Look at http://127.0.0.1:")
    screen.until("Ctrl-C ends it")
    screen.press("\x03")
    assert screen.end() == 0
