"""The five commands of the quickstart, as the page has them, for 500 rows; pods are played by hand."""

from __future__ import annotations

import json
import re
import shlex
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hone_cli.__main__ import application
from hone_cli.errors import CommandError

pytestmark = pytest.mark.apiserver
PAGE = Path(__file__).resolve().parents[3] / "docs" / "quickstart.md"
AT = "2026-01-01T00:00:00Z"


def commands() -> list[list[str]]:
    """The commands of the first block, without `hone`."""
    section = PAGE.read_text().split("\n## From a file to an answer\n")[1].split("\n## ")[0]
    block = re.search(r"```console\n(.*?)```", section, re.S)
    assert block is not None
    lines = [shlex.split(line.removeprefix("$ ")) for line in block[1].splitlines()]
    assert all(words[0] == "hone" for words in lines)
    return [words[1:] for words in lines]


def test_there_are_at_most_five() -> None:
    assert 0 < len(commands()) <= 5


def test_they_lead_from_500_rows_to_a_run_that_succeeds(namespace, apiserver, monkeypatch, tmp_path) -> None:
    """All but the conversation, for which a pod must really run: `tests/e2e/test_front_door.py` has it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(apiserver))
    rows = [{"question": f"How do I reset password {i}?", "answer": f"Open page {i}."} for i in range(500)]
    (tmp_path / "support.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def end() -> None:
        while "support-1" not in namespace.names("FineTuneJob"):
            time.sleep(0.2)
        listed = [
            {"type": name, "status": "True", "reason": "Succeeded", "message": "", "lastTransitionTime": AT}
            for name in ("Finished", "Succeeded")
        ]
        status = {"phase": "Succeeded", "conditions": listed, "modelVersionName": "support-v1"}
        namespace.patch("FineTuneJob", "support-1", {"status": status}, "status")

    played = threading.Thread(target=end)
    played.start()
    *steps, chat = commands()
    printed = ""
    for words in steps:
        more = [] if words[0] in ("check", "init") else ["--namespace", namespace.name]
        more += ["--yes"] if words[0] == "run" else []  # nobody can be asked here
        done = CliRunner().invoke(application(words[:1]), [*words, *more])
        assert done.exit_code == 0, (words, done.output, done.exception)
        printed += done.output
    played.join()
    assert namespace.get("Dataset", "support")["spec"]["source"]["uri"] == "configmap://support/support.jsonl"
    assert namespace.get("ConfigMap", "support")["data"]["support.jsonl"].count("\n") == 500
    assert printed.rstrip().endswith(f"Next: hone {shlex.join(chat)} -n {namespace.name}")
    for line in PAGE.read_text().split("without the lines of `check`:\n")[1].split("```")[1].splitlines()[1:-1]:
        assert line.partition("? [y/N]")[0].replace("namespace default", "") in printed or "Apply to" in line, line
    with pytest.raises(CommandError, match="has no ModelVersion"):  # the model was played as well
        CliRunner().invoke(application(["chat"]), [*chat, "--namespace", namespace.name], catch_exceptions=False)
