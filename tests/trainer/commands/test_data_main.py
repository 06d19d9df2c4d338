"""`python -m hone_trainer`: exit codes, the termination message, help; and what it does not import."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from hone_api.contract.report import DatasetResult
from hone_api.contract.termination import parse_outcome
from hone_trainer.__main__ import main
from hone_trainer.store import manifest

pytestmark = pytest.mark.trainer
HANG_SECONDS = 30 * 60.0  # a guard against hanging on a busy machine, not an expectation
ROWS = "".join(json.dumps({"text": f"row {i}"}) + "\n" for i in range(50))


@pytest.fixture
def log(tmp_path, monkeypatch):
    """The termination log."""
    monkeypatch.setenv("HONE_TERMINATION_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def write(path, **fields):
    path.write_text(json.dumps(fields))
    return str(path)


def dataset(tmp_path, content=ROWS, **fields):
    (tmp_path / "rows.jsonl").write_text(content)
    source = {"uri": "pvc://claim/rows.jsonl"}
    plan = {"kind": "Materialize", "name": "rows", "source": source, "sourcePath": "rows.jsonl", "store": "store"}
    return write(tmp_path / "plan.json", **{**plan, **fields})


def test_materialize_with_paths_relative_to_the_plan(tmp_path, log, monkeypatch):
    monkeypatch.chdir("/")
    assert main(["materialize", dataset(tmp_path)]) == 0
    outcome = parse_outcome(log.read_text())
    assert isinstance(outcome.result, DatasetResult)
    assert outcome.failure is None
    manifest.verify(tmp_path / "store" / str(outcome.result.path))


def test_evaluation_sets_with_paths_relative_to_the_plan(tmp_path, log, monkeypatch):
    (tmp_path / "exam.jsonl").write_text(ROWS.splitlines()[7] + "\n")
    monkeypatch.chdir("/")
    wanted = {"name": "exam", "split": "test", "path": "exam.jsonl", "digest": "sha256:" + "0" * 64}
    curation = {"contamination": {"datasets": [{"name": "exam"}]}}
    assert main(["materialize", dataset(tmp_path, curation=curation, evaluationSets=[wanted])]) == 0
    assert parse_outcome(log.read_text()).result.rows == 49


def test_a_plan_of_a_newer_release_runs_without_what_is_unknown(tmp_path, log, caplog):
    newer = {"release": "99.0.0", "splits": {"future": True}}
    assert main(["materialize", dataset(tmp_path, **newer)]) == 0
    assert "of Hone 99.0.0" in caplog.text
    assert "does not know splits.future and goes on without" in caplog.text
    assert main(["materialize", dataset(tmp_path, splits={"future": True})]) == 78
    assert parse_outcome(log.read_text()).failure.code == "UnknownField"


def test_mix_and_sweep_with_paths_relative_to_the_plan(tmp_path, log, monkeypatch):
    monkeypatch.chdir("/")
    assert main(["materialize", dataset(tmp_path)]) == 0
    made = parse_outcome(log.read_text()).result
    part = {"name": "rows", "path": f"store/{made.path}/train.jsonl", "digest": made.digest, "share": "100%"}
    plan = {"kind": "Mix", "name": "mix", "store": "store", "parts": [part]}
    assert main(["mix", write(tmp_path / "mix.json", **plan)]) == 0
    mixed = parse_outcome(log.read_text()).result
    (use,) = mixed.mixture
    assert (use.name, use.rows, use.row_share, use.passes) == ("rows", mixed.rows, "100.0%", "1.00")
    manifest.verify(tmp_path / "store" / mixed.path)
    plan = {"kind": "Sweep", "store": "store", "remove": [made.digest], "asOf": time.time() + 9, "graceSeconds": 0}
    assert main(["sweep", write(tmp_path / "sweep.json", **plan)]) == 0
    assert parse_outcome(log.read_text()).result.removed == 1
    assert [path.name for path in (tmp_path / "store" / "datasets").iterdir()] == [mixed.path.rpartition("/")[2]]


def test_a_data_failure_carries_the_counts(tmp_path, log, capsys):
    assert main(["materialize", dataset(tmp_path, ROWS + "{\n" * 9)]) == 65
    outcome = parse_outcome(log.read_text())
    assert outcome.failure.code == "TooManyBadRows"
    assert (outcome.result.rows, outcome.result.rejected) == (50, 9)
    assert outcome.result.errors[0].rows == list(range(51, 60))
    assert "TooManyBadRows: 9 of 59 rows" in capsys.readouterr().err


@pytest.mark.parametrize("quoted", [True, False])
def test_rows_stay_out_of_the_termination_message_where_they_must(tmp_path, log, monkeypatch, quoted):
    if not quoted:
        monkeypatch.setenv("HONE_ROWS_IN_STATUS", "false")
    private = "".join(json.dumps({"Ada Lovelace": i}) + "\n" for i in range(9))
    assert main(["materialize", dataset(tmp_path, ROWS + private, format="Text")]) == 65
    assert ("Lovelace" in log.read_text()) == quoted
    outcome = parse_outcome(log.read_text())
    assert (outcome.failure.code, outcome.result.rejected) == ("TooManyBadRows", 9)
    assert outcome.result.errors[0].rows == list(range(51, 60))


def test_the_termination_message_fits_whatever_the_rows_say(tmp_path, log):
    rows = "".join(json.dumps({"ü" * 200 + str(i): 1}) + "\n" for i in range(100))
    assert main(["materialize", dataset(tmp_path, rows, format="Text")]) == 65
    assert len(log.read_bytes()) <= 4096
    assert parse_outcome(log.read_text()).failure.code == "TooManyBadRows"


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (None, "FileNotFound", "cannot be read"),
        ("{", "InvalidValue", "JSON"),
        ('{"kind": "Strange"}', "InvalidValue", "kind"),
        (
            '{"kind": "Fetch", "model": {"uri": "gopher://x"}, "storee": ""}',
            "InvalidValue",
            "; storee: unknown field, did you mean store?",
        ),
        (
            '{"kind": "Verify", "name": "m", "artifacts": [{"path": "x", "digest": "sha256:' + "0" * 64 + '"}]}',
            "InvalidArgument",
            "Verify plan",
        ),
    ],
)
def test_a_plan_that_cannot_be(tmp_path, log, content, code, words):
    if content is not None:
        (tmp_path / "plan.json").write_text(content)
    assert main(["materialize", str(tmp_path / "plan.json")]) == 78
    failure = parse_outcome(log.read_text()).failure
    assert failure.code == code
    assert words in failure.message


@pytest.mark.attack("plans")
@pytest.mark.parametrize("verb", ["run", "materialize", "mix", "sweep", "fetch", "tasks", "verify"])
def test_a_plan_that_was_replaced_is_not_carried_out(tmp_path, log, monkeypatch, verb):
    plan = tmp_path / "plan.json"
    plan.write_text('{"kind": "Sweep", "store": "/store", "remove": [], "asOf": 0}')
    monkeypatch.setenv("HONE_PLAN_SHA256", hashlib.sha256(plan.read_bytes() + b" ").hexdigest())
    assert main([verb, str(plan)]) == 78
    failure = parse_outcome(log.read_text()).failure
    assert failure.code == "InvalidConfiguration"
    assert "is not the plan that this pod was made for" in failure.message


def test_verify(tmp_path, log):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a").write_text("x")
    digest = manifest.write(tmp_path / "m")
    plan = write(tmp_path / "plan.json", kind="Verify", name="m", artifacts=[{"path": "m", "digest": digest}])
    assert main(["verify", plan]) == 0
    assert parse_outcome(log.read_text()).result.files == 1
    (tmp_path / "m" / "a").write_text("y")
    assert main(["verify", plan]) == 74
    assert "a: SHA-256" in parse_outcome(log.read_text()).failure.message


def test_validate_shows_a_person_what_it_sees(tmp_path, log, capsys):
    (tmp_path / "rows.csv").write_text("q,a\n" + "".join(f"What is {i}?,{i}\n" for i in range(40)) + "x\n")
    file = str(tmp_path / "rows.csv")
    assert main(["validate", file, "--column", "prompt=q", "--column", "completion=a"]) == 0
    out = capsys.readouterr().out
    assert "format:     PromptCompletion (Auto" in out
    assert "rows:       40 valid" in out
    assert "BrokenCsv        1 row, first 41; rows.csv:42: 1 fields, the header has 2" in out
    assert "Write the file with a CSV library" in out
    assert "advice:     40 rows are very few" in out
    assert 'first row:  {"prompt": "What is' in out
    assert main(["validate", file]) == 65
    assert main(["validate", file, "--format", "Strange"]) == 78
    assert main(["validate", str(tmp_path / "absent")]) == 78


DATASET = """\
apiVersion: v1
kind: ConfigMap
---
apiVersion: hone.dev/v1alpha1
kind: Dataset
metadata: {name: answers}
spec:
  source: {uri: pvc://data/rows, files: ["*.csv"]}
  format: PromptCompletion
  columns: {prompt: q, completion: a}
  splits: {validation: "25%"}
  checks: {maxRejected: "1%"}
  curation:
    deduplicate: Exact
    deduplicateAgainst: [{name: crawl}]
    contamination: {datasets: [{name: held-out}]}
    scores: [{scorer: Classifier, modelVersion: judge-v1, minimum: 50%}, {scorer: Quality, minimum: 10%}]
"""


def test_validate_by_the_manifest_of_a_dataset(tmp_path, log, capsys):
    """As the cluster would, except for what is there."""
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.csv").write_text("q,a\n" + "".join(f"What is {i}?,{i}\n" for i in range(40)) * 2)
    (tmp_path / "rows" / "b.jsonl").write_text("no row\n")
    (tmp_path / "dataset.yaml").write_text(DATASET)
    command = ["validate", str(tmp_path / "rows"), "--dataset", str(tmp_path / "dataset.yaml")]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "left out:   curation.contamination: it needs what is in the cluster" in out
    assert "left out:   curation.scores by a Classifier" in out
    assert "left out:   curation.deduplicateAgainst: it needs what is in the cluster" in out
    assert "format:     PromptCompletion\n" in out
    assert "ExactDuplicates: 40 removed; row 41: repeats row 1\n" in out
    assert "Quality: nothing\n" in out
    assert 5 <= int(re.search(r"rows: +40 valid \(train \d+, validation (\d+)\)", out)[1]) <= 15
    (tmp_path / "rows" / "a.csv").write_text("q,a\n" + "".join(f"What is {i}?,{i}\n" for i in range(40)) + "x\n")
    assert main(command) == 65, "checks.maxRejected"


@pytest.mark.parametrize(
    ("text", "more", "words"),
    [
        ("kind: ConfigMap", [], "has 0 Datasets, not one"),
        (DATASET + "---\n" + DATASET, [], "has 2 Datasets, not one"),
        ("{", [], "dataset.yaml: while parsing"),
        (DATASET.replace("Exact", "Maybe").replace("25%", "much"), [], "spec.splits.validation"),
        (DATASET, ["--format", "Chat"], "--dataset has format and columns"),
        (DATASET.replace("/rows, ", "/rows, s3: {}, "), [], "spec.source: s3 is for s3:// only: remove it"),
        (DATASET.replace("minimum: 10%", "label: bad"), [], "spec.curation.scores[1]: set minimum or maximum"),
        (DATASET.replace("answers", "my.answers"), [], "metadata.name must have no dot"),
    ],
)
def test_a_manifest_that_cannot_be(tmp_path, log, capsys, text, more, words):
    (tmp_path / "dataset.yaml").write_text(text)
    assert main(["validate", str(tmp_path), "--dataset", str(tmp_path / "dataset.yaml"), *more]) == 78
    assert words in capsys.readouterr().err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for command in ("run", "materialize", "fetch", "verify", "evaluate", "validate"):
        assert f"python -m hone_trainer {command} " in out


def test_unknown_arguments_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["materialize", dataset(tmp_path), "--fast"])
    assert "--fast" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["materialize", "fetch", "verify"])
def test_light_commands_import_neither_torch_nor_transformers(tmp_path, command):
    """A materializing pod must not pay for gigabytes of CUDA libraries."""
    plans = {
        "materialize": dataset(tmp_path),
        "fetch": write(tmp_path / "f.json", kind="Fetch", model={"uri": "hf://a/b"}, store="store"),
        "verify": write(
            tmp_path / "v.json", kind="Verify", name="m", artifacts=[{"path": "x", "digest": "sha256:" + "0" * 64}]
        ),
    }
    code = (
        "import sys; from hone_trainer.__main__ import main\n"
        f"main([{command!r}, {plans[command]!r}])\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'trl'} & set(sys.modules)))"
    )
    log = {"HONE_TERMINATION_LOG": str(tmp_path / "log"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    environment = {**os.environ, **log, "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert (tmp_path / "log").is_file()


def test_sigterm_cleans_up_and_says_so(tmp_path, log):
    silent = socket.create_server(("127.0.0.1", 0))  # a source that takes the call and says nothing
    source = {"uri": f"https://127.0.0.1:{silent.getsockname()[1]}/rows.jsonl"}
    plan = dataset(tmp_path, source=source, limits={"allowPrivateAddresses": True})
    process = subprocess.Popen([sys.executable, "-m", "hone_trainer", "materialize", plan], stderr=subprocess.DEVNULL)
    try:
        silent.settimeout(HANG_SECONDS)
        connection, _ = silent.accept()
        assert list((tmp_path / "store").glob("datasets/.work-*"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG_SECONDS) == 75
        connection.close()
    finally:
        process.kill()
        silent.close()
    assert parse_outcome(log.read_text()).failure.code == "Interrupted"
    assert not list((tmp_path / "store" / "datasets").iterdir())
