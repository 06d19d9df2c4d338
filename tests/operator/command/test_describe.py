"""`kubectl describe dset` alone shows a newcomer what is wrong with their file.

The operator's process, the API server, the trainer and kubectl are real; the pod that would run the trainer is a
process on this machine.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.cluster.desired_objects import all_containers

from hone_dev.tools.tools import kubectl

pytestmark = pytest.mark.apiserver

GUIDE = Path(__file__).parents[3] / "docs/guides/data/report.md"

GOOD = [{"messages": [{"role": "user", "content": f"Question {i}?"}, {"role": "assistant", "content": f"Answer {i}."}]}
        for i in range(40)]  # fmt: skip
BAD = [
    {"messages": [{"role": "user", "content": "Hello?"}]},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "robot", "content": "Hi"}]},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "robot", "content": "Hello"}]},
]


def materialise(namespace: Any, name: str, folder: Path) -> None:
    """What the pod of a Dataset's Job does, and its end."""
    job = namespace.until(lambda: next((j for j in namespace.names("Job") if j.startswith(name)), None), "a Job")
    (pod,) = namespace.start_pods(job)
    config = next(c for c in namespace.list("ConfigMap") if "plan.json" in c.get("data", {}))
    plan = json.loads(config["data"]["plan.json"])
    plan |= {"store": str(folder / "store"), "sourcePath": str(folder / "rows.jsonl")}
    plan |= {"incoming": str(folder / "store" / "incoming" / job)}
    (folder / "plan.json").write_text(json.dumps(plan))
    log = folder / "termination-log"
    for container in all_containers(namespace.get("Job", job)):
        done = subprocess.run(
            [sys.executable, "-m", "hone_trainer", container["command"][3], str(folder / "plan.json")],
            env={**os.environ, "HONE_TERMINATION_LOG": str(log), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            break
    namespace.end_pod(pod, done.returncode, terminated={"message": log.read_text()})
    namespace.end_job(job, "Failed" if done.returncode else "Complete", "PodFailurePolicy" if done.returncode else "")


@pytest.fixture
def describe(apiserver: Path, namespace: Any, operator: Any, tmp_path: Path) -> Any:
    """Makes a Dataset of these lines; gives what kubectl says of it in the end."""

    def run(lines: list[str], reason: str, **spec: Any) -> str:
        (tmp_path / "rows.jsonl").write_text("".join(line + "\n" for line in lines))
        namespace.create("Dataset", "answers", {"source": {"uri": "pvc://data/rows.jsonl"}, **spec})
        materialise(namespace, "answers", tmp_path)
        namespace.until(
            lambda: namespace.condition("Dataset", "answers", "Ready").get("reason") == reason, f"Ready says {reason}"
        )
        namespace.until(lambda: namespace.list("Event"), "an event")
        command = [str(kubectl()), "-n", namespace.name, "describe", "dset", "answers"]
        env = {**os.environ, "KUBECONFIG": str(apiserver)}
        text = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
        print(text)
        return text

    return run


def test_rows_that_are_not_fit(describe: Any) -> None:
    lines = [json.dumps(row) for row in (*GOOD, *BAD)]
    lines.insert(7, '{"messages": [')
    text = describe(lines, "TooManyBadRows")
    # how it stands, and why
    assert "40 of 44 rows are good. 4 rejected: 2 UnknownRole (rows 43, 44)" in text
    assert "4 of 44 rows are rejected (checks.maxRejected 5%)" in text
    # each kind: what, where, an example with file and line, and what to do
    for words in (
        "UnknownRole",
        "rows.jsonl:43: messages[1].role is 'robot', not one of system, developer, user, assistant",
        "Use the roles system, user, assistant and tool.",
        "NoAssistantTurn",
        "rows.jsonl:42: messages has no assistant turn",
        "Add the answer.",
        "BrokenJson",
        "rows.jsonl:8: not JSON",
        "Write one JSON object per line with a JSON library",
        # the way out, and where to read on
        "Fix the rows listed, or raise checks.maxRejected.",
        "pvc://hone-store/reports/answers/report.html",
        "Chat (Auto: the first 43 rows have messages with role and content)",
    ):
        assert words in text, words
    events = text.split("Events:")[1]
    assert "TooManyBadRows" in events
    shown = GUIDE.read_text().split("$ kubectl describe dset answers\n")[1].split("```")[0]
    for line in shown.splitlines():
        pattern = r".*".join(re.escape(part) for part in " ".join(line.split()).split("…"))
        assert any(re.fullmatch(pattern, " ".join(other.split())) for other in text.splitlines()), (
            f"the guide has {line}"
        )


def test_a_format_that_cannot_be_detected(describe: Any) -> None:
    text = describe([json.dumps({"input": f"q{i}", "output": f"a{i}"}) for i in range(30)], "UnknownFormat")
    assert "the rows have the columns input, output" in text
    assert "Perhaps spec.columns {prompt: input, completion: output} is meant." in text
    assert "Name the format, and map the columns in spec.columns." in text


def test_a_page_instead_of_data(describe: Any) -> None:
    text = describe(["<!doctype html>", "<title>Sign in</title>"], "DamagedFile")
    assert "rows.jsonl: the file is a web page" in text
    assert "the server may have sent a web page instead of the data" in text


def test_rows_that_are_fit_come_with_advice(describe: Any) -> None:
    text = describe([json.dumps(row) for row in GOOD] + ["{}"], "Materialized")
    assert "40 of 41 rows are good. 1 rejected: 1 MissingMessages (row 41)." in text
    assert "40 rows are very few: from 50 to 100 on a change of tone shows" in text
    assert "Every row fits into training.maxLength 512." in text
    assert "validation rows give a rough held-out loss only" in text
