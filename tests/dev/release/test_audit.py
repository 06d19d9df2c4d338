"""The file with reasons for what linters of others say, and what they say of pods that the operator makes."""

import zipfile
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from support.cluster.desired_objects import CASES

from hone_dev.release import audit
from hone_dev.release.audit import Finding
from hone_dev.tools.console import HoneDevError

pytestmark = pytest.mark.pure
LINE = {"tool": "kube-score", "rule": "pod-networkpolicy", "where": "Job/*", "reason": "beside it"}


def test_a_finding_needs_a_reason_and_a_reason_a_finding() -> None:
    found = Finding("kube-score", "pod-networkpolicy", "Job/one")
    audit.check([found, found], [LINE])
    for other in (Finding("kube-score", "pod-networkpolicy", "Deployment/hone"), Finding("checkov", "X", "Job/one")):
        with pytest.raises(HoneDevError, match=f"^{other}$"):
            audit.check([found, other], [LINE])
    with pytest.raises(HoneDevError, match="no finding needs: kube-score pod-networkpolicy"):
        audit.check([], [LINE])


def test_every_line_names_a_tool_and_says_why() -> None:
    lines = audit.reasons()
    assert len(lines) > 10
    assert all(line.keys() == LINE.keys() and line["reason"] for line in lines)
    assert {line["tool"] for line in lines} <= {*audit.TOOLS, "actionlint", "zizmor", "syft"}


@pytest.mark.torch
def test_every_installed_package_has_a_licence_that_may_be_passed_on() -> None:
    lines = [line for line in audit.reasons() if line["tool"] == "licences"]
    found = list(audit.licences(Path()))
    assert len(found) > 10
    audit.check(found, lines)
    assert not [line for line in lines if line["rule"] in ("agpl", "gpl")]


@pytest.mark.long
def test_no_package_of_another_lock_has_a_licence_that_may_not_be_passed_on() -> None:
    """By the index itself."""
    found = list(audit.locks(Path()))
    audit.check(found, [line for line in audit.reasons() if line["tool"] == "locks"])
    assert not [each for each in found if each.rule in ("agpl", "gpl")]


def test_a_licence_is_read_from_a_wheel_that_is_not_installed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "one.whl", "w") as wheel:
        wheel.writestr("one/METADATA", "License-Expression: MIT\n\n")
        wheel.writestr("one/_vendor/two-1.dist-info/METADATA", "Name: two\nLicense-Expression: MIT\n\n")
        wheel.writestr("one-1.dist-info/METADATA", "Name: one\nLicense-Expression: AGPL-3.0-only\n\ntext\n")
    assert audit.licence(audit._metadata(str(tmp_path / "one.whl"))) == "AGPL-3.0-only"


@pytest.mark.parametrize(
    ("fields", "rules"),
    [
        ({"License-Expression": "AGPL-3.0-only"}, {"agpl", "gpl"}),
        ({"Classifier": "License :: OSI Approved :: GNU Affero General Public License v3"}, {"agpl", "gpl"}),
        ({"License": "GPL-3.0"}, {"gpl"}),
        ({"Classifier": "License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)"}, set()),
        ({"Classifier": "License :: OSI Approved"}, {"unknown"}),
        ({}, {"unknown"}),
        ({"License-Expression": "Apache-2.0"}, set()),
    ],
)
def test_a_licence_is_read_from_any_field(fields: dict[str, str], rules: set[str], monkeypatch: Any) -> None:
    metadata = Message()
    for name, value in fields.items():
        metadata[name] = value
    monkeypatch.setattr(audit, "distributions", lambda: [SimpleNamespace(metadata=metadata, name="one")])
    assert {each.rule for each in audit.licences(Path())} == rules


@pytest.mark.long
@pytest.mark.parametrize("tool", [audit.kube_score, audit.checkov, audit.trivy])
def test_every_pod_of_the_operator_is_as_others_want_it(tool: Any, tmp_path: Path) -> None:
    """By the tools themselves, which are downloaded or compiled once."""
    jobs = [each for name, make in CASES.items() for each in make() if each["kind"] == "Job"]
    assert len(jobs) > 20
    for number, job in enumerate(jobs):
        job["metadata"] = {**job["metadata"], "name": f"{job['metadata']['name']}-{number:03}"}
    (tmp_path / "jobs.yaml").write_text(yaml.safe_dump_all(jobs))
    found = list(tool(tmp_path / "jobs.yaml"))
    said = "\n".join(each.where for each in found)
    assert all(job["metadata"]["name"] in said for job in jobs), "it has read every Job"
    rules = {each.rule for each in found}
    audit.check(found, [line for line in audit.reasons() if line["rule"] in rules])


@pytest.mark.long
def test_every_object_of_the_operator_has_the_fields_of_the_oldest_and_the_newest_kubernetes(tmp_path: Path) -> None:
    every = [each for make in CASES.values() for each in make()]
    every[0]["spec"] = {}
    for number, each in enumerate(every):
        each["metadata"] = {**each["metadata"], "name": f"{each['metadata']['name']}-{number}"}
    (tmp_path / "objects.yaml").write_text(yaml.safe_dump_all(every))
    found = list(audit.kubeconform(tmp_path / "objects.yaml"))
    wrong = [each for each in found if each.where.startswith(f"{every[0]['kind']}/{every[0]['metadata']['name']} ")]
    assert len({each.rule for each in wrong}) == 2, "it has read the objects, for both versions"
    lines = [each for each in audit.reasons() if each["tool"] == "kubeconform" and each["where"].startswith("Job/")]
    audit.check([each for each in found if each not in wrong], lines)
