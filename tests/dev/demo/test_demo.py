"""Which run a demo starts, what it shows of it, and what it says at the end."""

import io
import shlex
import subprocess
import sys

import pytest
from rich.console import Console
from typer.testing import CliRunner

from hone_dev.__main__ import app
from hone_dev.demo import ask, command, follow, runs, summary, targets
from hone_dev.tools.console import HoneDevError

pytestmark = pytest.mark.pure


def job(name="ops-commands", conditions=(), **status):
    listed = [{"type": t, "status": s, "reason": r, "message": m} for t, s, r, m in conditions]
    return {"metadata": {"name": name}, "status": {"conditions": listed, **status}}


def finished(name):
    return job(name, [("Finished", "True", "Succeeded", "")])


@pytest.mark.parametrize(
    ("existing", "expected"),
    [
        ([], runs.Run("ops-commands", new=True)),
        ([finished("ops-commands")], runs.Run("ops-commands-2", new=True)),
        ([job("ops-commands")], runs.Run("ops-commands", new=False)),
        ([{"metadata": {"name": "ops-commands"}}], runs.Run("ops-commands", new=False)),
        ([finished("ops-commands"), job("ops-commands-2")], runs.Run("ops-commands-2", new=False)),
        ([finished(f"ops-commands-{n}") for n in (2, 10, 9)], runs.Run("ops-commands-11", new=True)),
        ([job("ops-commands-of-mine"), job("other")], runs.Run("ops-commands", new=True)),
        ([job(conditions=[("Stalled", "True", "NotSupportedYet", "")])], runs.Run("ops-commands-2", new=True)),
        (
            [{"metadata": {"name": "ops-commands", "deletionTimestamp": "2026-01-01T00:00:00Z"}}],
            runs.Run("ops-commands-2", new=True),
        ),
    ],
)
def test_an_unfinished_run_is_followed_and_a_finished_one_stays(existing, expected):
    assert runs.choose("ops-commands", existing) == expected


def test_a_new_run_has_its_own_name_and_the_same_data():
    objects = runs.manifests(command.EXAMPLE)
    applied = runs.to_apply(objects, runs.Run("ops-commands-2", new=True))
    assert [(o["kind"], o["metadata"]["name"]) for o in applied] == [
        ("ConfigMap", "ops-requests"),
        ("Dataset", "ops-requests"),
        ("FineTuneJob", "ops-commands-2"),
    ]
    assert runs.job_of(applied)["spec"] == runs.job_of(objects)["spec"]
    assert runs.job_of(objects)["metadata"]["name"] == "ops-commands"


def test_a_run_under_way_is_not_applied_again():
    applied = runs.to_apply(runs.manifests(command.EXAMPLE), runs.Run("ops-commands", new=False))
    assert [o["kind"] for o in applied] == ["ConfigMap", "Dataset"]


@pytest.mark.parametrize(
    ("of", "line"),
    [
        ({"metadata": {"name": "x"}}, "starting"),
        (
            job(
                conditions=[("Accepted", "True", "Accepted", ""), ("DatasetReady", "False", "Materializing", "Try 1.")]
            ),
            "DatasetReady: Materializing. Try 1.",
        ),
        (
            job(
                conditions=[("Running", "True", "Running", "")],
                progress={
                    "stage": "Training",
                    "step": 15,
                    "totalSteps": 60,
                    "loss": "2.8134",
                    "tokensPerSecond": "74.31",
                    "eta": "7m",
                },
            ),
            "Training 15/60 25%  loss 2.81  tokens/s 74  ETA 7m",
        ),
        (job(conditions=[("Running", "True", "Running", "")], phase="Running"), "Running"),
    ],
)
def test_one_line_shows_where_a_run_is(of, line):
    assert follow.view(of).line() == line


def test_a_failure_is_one_sentence_and_a_hint():
    error = follow.failure(
        job(
            conditions=[("Failed", "True", "OutOfMemory", "")],
            failure={"code": "OutOfMemory", "message": "Rank 0 was killed.", "hint": "Raise resources.memory."},
        )
    )
    assert str(error) == "the run failed: OutOfMemory: Rank 0 was killed."
    assert error.hint == "Raise resources.memory."


def test_a_refused_spec_fails_with_its_condition():
    error = follow.failure(job(conditions=[("Stalled", "True", "NotSupportedYet", "spec.tracking: not yet")]))
    assert str(error) == "the run failed: NotSupportedYet: spec.tracking: not yet"


def test_a_run_that_goes_on_or_went_well_has_no_failure():
    assert follow.failure(job(conditions=[("Failed", "False", "Running", "")])) is None
    assert follow.failure(finished("x")) is None


def test_an_unknown_cluster_is_refused_before_anything_is_done():
    with pytest.raises(HoneDevError, match="there is no cluster gke"):
        command.demo("gke")


def test_kind_is_refused_where_it_is_not_installed(monkeypatch):
    monkeypatch.setattr(targets.shutil, "which", lambda name: None)
    with pytest.raises(HoneDevError, match="kind is not installed"):
        targets.kind()


@pytest.fixture
def prod(monkeypatch, tmp_path):
    """A kubeconfig whose current context is called prod."""
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: prod\n"
        "contexts: [{name: prod, context: {cluster: c, user: u}}]\n"
        "clusters: [{name: c, cluster: {server: 'https://prod.example.org'}}]\nusers: [{name: u, user: {}}]\n"
    )
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))


@pytest.mark.parametrize(
    ("ref", "values"),
    [
        ("registry.example.org:5000/hone/operator:1.0", ("registry.example.org:5000/hone/operator", "1.0", None)),
        ("hone/operator@sha256:" + "a" * 64, ("hone/operator", None, "sha256:" + "a" * 64)),
        ("hone/operator:1.0@sha256:" + "a" * 64, ("hone/operator", "1.0", "sha256:" + "a" * 64)),
    ],
)
def test_the_current_context_gets_the_images_that_are_named(prod, monkeypatch, ref, values):
    monkeypatch.setenv("HONE_OPERATOR_IMAGE", ref)
    monkeypatch.setenv("HONE_TRAINER_IMAGE", "hone/trainer:2.0")
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example.org")
    target = targets.current()
    assert (target.kubeconfig, target.context) == (None, "prod")
    image = target.values["image"]
    assert (image["repository"], image.get("tag"), image.get("digest")) == values
    assert target.values["trainer"]["image"] == {"repository": "hone/trainer", "tag": "2.0"}
    assert target.values["huggingFace"] == {"endpoint": "https://hub.example.org"}


@pytest.mark.parametrize("ref", ["hone/operator", "registry.example.org:5000/hone/operator"])
def test_an_image_without_a_version_is_refused(prod, monkeypatch, ref):
    monkeypatch.setenv("HONE_OPERATOR_IMAGE", ref)
    monkeypatch.setenv("HONE_TRAINER_IMAGE", "hone/trainer:2.0")
    with pytest.raises(HoneDevError, match="has neither tag nor digest"):
        targets.current()


def test_the_current_context_is_named_before_it_is_refused(prod, monkeypatch, capsys):
    monkeypatch.delenv("HONE_OPERATOR_IMAGE", raising=False)
    with pytest.raises(HoneDevError) as caught:
        targets.current()
    assert "using the current context: prod (https://prod.example.org)" in capsys.readouterr().err
    assert "HONE_TRAINER_IMAGE" in caught.value.hint


def test_without_a_current_context_nothing_is_used(monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(HoneDevError) as caught:
        targets.current()
    assert "CLUSTER" in caught.value.hint


VERSION = {
    "metadata": {"name": "ops-commands-v1"},
    "spec": {
        "artifacts": [{"format": "Adapter", "uri": "pvc://hone-store/models/x/adapter", "sizeBytes": 19_600_000}],
        "lineage": {
            "baseModel": {"uri": "hf://HuggingFaceTB/SmolLM2-135M-Instruct", "commit": "a6262f7ccb60ccb9"},
            "datasets": [{"name": "ops-requests", "split": "train", "digest": "sha256:" + "0" * 64}],
            "method": "SFT",
            "seed": 42,
            "steps": 60,
        },
        "evaluation": {
            "numbers": [{"name": "loss", "base": "3.800001", "tuned": "1.900049", "rows": 64}],
            "samples": [{"prompt": "What is [x]?", "base": "No idea.", "tuned": "A field.", "reference": "The field."}],
        },
    },
    "status": {"verifiedAt": "2026-01-01T00:12:05Z"},
}


def test_the_summary_shows_what_was_gained_and_where_the_time_went(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(summary, "Console", lambda **_: Console(file=out, width=110))
    run = job(startTime="2026-01-01T00:01:00Z", completionTime="2026-01-01T00:12:00Z")
    run["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    phases = {"scheduled": 0, "image": 2, "loading": 14, "evaluatingBase": 65, "firstStep": 3, "training": 500}
    run["status"]["attempts"] = [{"phaseSeconds": phases, "heldSecondsBeforeFirstStep": 79}]
    summary.show(run, VERSION, 80, 10)
    text = out.getvalue()
    for part in ("ops-commands-v1", " 3.8 ", " 1.9 ", "-50 %", "What is [x]?", "No idea.", "A field.", "The field."):
        assert part in text
    assert "1m 20s" in text  # cluster
    assert "11m 0s" in text  # training
    assert "13m 35s" in text  # in all
    sentence = "Before the first step: image 2s, loading 14s, evaluating the base 1m 5s. 79 seconds passed in its pod."
    assert sentence in text
    run["spec"] = {"resources": {"gpusPerNode": 1}}
    assert summary.before_first_step(run).endswith(" 79 GPU-seconds were held.")
    assert summary.before_first_step(job()) == ""


def test_three_questions_stand_with_both_answers_and_which_is_right(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(summary, "Console", lambda **_: Console(file=out, width=110))
    run = job()
    run["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    right = [{"prompt": f"q{n}", "base": f"b{n}", "tuned": f"t{n}", "reference": f"t{n}"} for n in range(3)]
    wrong = {"prompt": "q3", "base": "b3", "tuned": "t3", "reference": "own"}
    numbers = [{"name": "exact_match", "base": "0.0", "tuned": "0.95", "rows": 40}]
    for samples, marks in (([*right, wrong], 3), ([wrong], 0)):
        spec = {**VERSION["spec"], "evaluation": {"samples": samples, "numbers": numbers}}
        summary.show(run, {**VERSION, "spec": spec}, 80, 10)
        text = out.getvalue()
        assert text.count("✓ right") == marks
        assert "+0.95" in text
        assert ("q3" in text) == (samples == [wrong]), "only the first three are shown"
        out.seek(out.truncate(0))
    assert "the row's own answer: own" in text


def test_the_summary_shows_warnings_and_marks_an_answer_that_loops(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(summary, "Console", lambda **_: Console(file=out, width=110))
    run = job(conditions=[("Advised", "True", "Advice", "1 of 2 sample answers loop")])
    run["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    sample = {"prompt": "?", "base": "b", "tuned": "a a a", "baseEnding": "Cut", "tunedEnding": "Repeats"}
    version = {**VERSION, "spec": {**VERSION["spec"], "evaluation": {"samples": [sample]}}}
    summary.show(run, version, 80, 10)
    for part in ("Warnings", "1 of 2 sample answers loop", "a a a", "(loops: it repeats itself", "(cut at the token"):
        assert part in out.getvalue()
    assert summary.advice(job(conditions=[("Advised", "False", "NothingToAdvise", "")])) == ""


def artifact(form, uri="pvc://hone-store/models/x/{}"):
    return {"format": form, "uri": uri.format(form.lower())}


@pytest.mark.parametrize(
    ("artifacts", "folder"),
    [
        ([artifact("Adapter")], "/store/models/x/adapter"),
        ([artifact("Adapter"), artifact("Merged"), artifact("GGUF")], "/store/models/x/merged"),
        ([artifact("GGUF")], None),
        ([artifact("Full", "pvc://other/full")], None),
    ],
)
def test_the_folder_that_is_asked(artifacts, folder):
    assert ask.folder_of({"spec": {"artifacts": artifacts}}) == folder


def test_the_newest_model_is_asked():
    versions = [{"metadata": {"name": str(t), "creationTimestamp": f"2026-01-0{t}T00:00:00Z"}} for t in (2, 3, 1)]
    assert ask.newest(versions)["metadata"]["name"] == "3"
    assert ask.newest([]) is None


@pytest.mark.parametrize("reference", ["r:5000/hone/trainer:2.0", "r/trainer@sha256:" + "a" * 64])
def test_an_image_of_the_values_as_a_reference(reference):
    assert ask.image(targets._image(reference)) == reference


def test_the_last_line_of_the_demo_is_a_command_of_the_program():
    """It is read by a shell, and its words by the program that it names."""
    line = ask.command("kind", [{"prompt": "What's `spec.x` for $1?"}])
    python, *words = shlex.split(line)
    assert python == ".venv/bin/python"
    assert words == ["-m", "hone_dev", "ask", "--cluster", "kind", "What's `spec.x` for $1?"]
    assert ask.command("embedded", []) == ".venv/bin/python -m hone_dev ask 'Restart checkout in production.'"
    assert CliRunner().invoke(app, ["ask", "--help"]).exit_code == 0


def test_a_question_reaches_the_trainer_as_it_is():
    container = ask.pod("image", "/store/models/x/adapter", "--help $(HOME) 'x'")["spec"]["containers"][0]
    assert container["command"][-2:] == ["--", "--help $$(HOME) 'x'"]


@pytest.mark.parametrize(
    ("code", "ends", "shown"),
    [
        ("print('An answer.')", 0, "An answer.\n"),
        ("print('An answer.'); print('note: it loops', file=sys.stderr)", 0, "An answer.\nnote: it loops\n"),
        ("print('Loading weights', file=sys.stderr); sys.exit(78)", 1, "Loading weights\n"),
    ],
)
def test_the_log_of_the_pod_holds_the_answer_alone(code, ends, shown):
    noise = "import sys; print('Loading weights', file=sys.stderr) if 'exit' not in sys.argv[1] else None; "
    argv = ["sh", "-c", ask.SCRIPT, "ask", sys.executable, "-c", noise + code, code]
    found = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (ends, shown, "")
