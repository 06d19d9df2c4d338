"""What a newcomer finds first: hooks, the workflow, forms, the policy on versions, the README."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from hone_api.generate import KINDS
from hone_api.schema.schema import crd

pytestmark = pytest.mark.pure
ROOT = Path(__file__).resolve().parents[2]


def test_hooks_run_what_is_locked() -> None:
    """Each by the .venv, so that nothing is downloaded and no version differs from CI's."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    for hook in config["repos"][0]["hooks"]:
        assert hook["language"] == "system"
        program = shlex.split(hook["entry"])[0]
        assert program.startswith(".venv/bin/")
        assert (ROOT / program).exists(), f"{hook['id']}: {program} is not installed by make setup"


def test_the_dev_container_is_the_light_setup() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert container["postCreateCommand"] == "make setup-light"
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert SpecifierSet(needed).contains(re.fullmatch(r"python:([\d.]+)-\w+", container["image"])[1] + ".0")


def test_the_workflow_runs_the_command_of_the_readme() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert any(command.endswith(".ci/run") for command in commands)
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "exec make test"
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", step.get("uses", f"a/b@{0:040}")), "pinned by commit"


@pytest.mark.parametrize("form", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda p: p.name)
def test_forms_ask_for_something(form: Path) -> None:
    body = yaml.safe_load(form.read_text())["body"]
    fields = [field for field in body if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_the_policy_on_versions_is_that_of_the_definitions() -> None:
    page = (ROOT / "docs/reference/api-versions.md").read_text()
    rows = re.findall(r"^\| `hone\.dev/(\w+)` \| ([\w, ]+) \| (yes|no) \| (yes|no) \|", page, re.M)
    served = {
        (version["name"], version["served"], version["storage"], kind.kind)
        for kind in KINDS
        for version in crd(kind)["spec"]["versions"]
    }
    assert served == {
        (name, is_served == "yes", stored == "yes", kind)
        for name, kinds, is_served, stored in rows
        for kind in kinds.split(", ")
    }


def test_the_readme_is_short_and_names_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    quickstart = text.split("\n## Quickstart\n")[1].split("\n## ")[0]
    assert len(text.splitlines()) < 150
    assert "make demo" in quickstart
    assert "`make test`" in quickstart
    for short, long in {
        "SFT": "supervised fine-tuning",
        "LoRA": "low-rank adaptation",
        "DPO": "direct preference optimization",
        "PPO": "proximal policy optimization",
        "GRPO": "group relative policy optimization",
    }.items():
        assert re.search(rf"{short}(, | \(){long}", text), f"{short} is never spelled out"


def test_the_readme_links_every_example() -> None:
    text = (ROOT / "README.md").read_text()
    for example in (ROOT / "examples").glob("*/README.md"):
        assert f"]({example.relative_to(ROOT)})" in text


def test_the_quickstart_has_as_many_commands_as_it_says() -> None:
    page = (ROOT / "docs/quickstart.md").read_text()
    first, every_day = page.split("## Every day after it")
    counts = [len(re.findall(r"^\$ hone ", part, re.M)) for part in (first, every_day)]
    assert "in eight commands: five to get there, three for every day after it" in first
    assert counts == [5, 3]
