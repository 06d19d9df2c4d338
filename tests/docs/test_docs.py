"""What the documentation shows is valid, and what it links to exists."""

import functools
import json
import re
import shlex
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from support.pages.serving_schemas import SPECS

from hone_api import API_VERSION
from hone_api.dataset.dataset import DATASET
from hone_api.kinds.finetunejob import FINE_TUNE_JOB
from hone_api.kinds.model import MODEL
from hone_api.kinds.modelversion import MODEL_VERSION
from hone_api.plan import TrainingPlan
from hone_dev.generate import troubleshooting

pytestmark = pytest.mark.pure

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")],
    key=lambda path: path.relative_to(ROOT).as_posix(),
)
KINDS = {kind.kind: kind for kind in (DATASET, FINE_TUNE_JOB, MODEL_VERSION, MODEL)}


def blocks(language):
    """(page, text) of every fenced block in this language."""
    fence = re.compile(rf'^```{language}(?: title="[^"]+")?\n(.*?)^```', re.S | re.M)
    return [
        pytest.param(match[1], id=f"{page.relative_to(ROOT)}:{page.read_text()[: match.start()].count(chr(10)) + 1}")
        for page in PAGES
        for match in fence.finditer(page.read_text())
    ]


def on_top(defaults, values):
    """Values on top of the chart's own, as Helm checks them."""
    if not (isinstance(defaults, dict) and isinstance(values, dict)):
        return values
    return {**defaults, **{name: on_top(defaults.get(name), value) for name, value in values.items()}}


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_manifest_fits_the_api_and_values_fit_the_chart(text):
    for document in yaml.safe_load_all(text):
        if "apiVersion" not in document:
            values = on_top(yaml.safe_load((ROOT / "charts/hone/values.yaml").read_text()), document)
            jsonschema.validate(values, json.loads((ROOT / "charts/hone/values.schema.json").read_text()))
        elif document["apiVersion"] == API_VERSION:
            assert "namespace" not in document["metadata"]
            KINDS[document["kind"]].spec.model_validate(document["spec"])
        elif document["kind"] in ("Pod", "PersistentVolumeClaim", "Deployment", "Service", "NetworkPolicy"):
            kubernetes_validate.validate(document, "1.34", strict=True)
        elif spec := SPECS.get((document["apiVersion"], document["kind"])):
            jsonschema.validate(document["spec"], spec)


def test_plans_on_pages_are_plans():
    pattern = re.compile(r'^```json title="plan.json"\n(.*?)^```', re.S | re.M)
    plans = [match for page in PAGES for match in pattern.findall(page.read_text())]
    assert [TrainingPlan.model_validate_json(plan).run for plan in plans] == ["laptop"]


PODS = {"Pod": ("spec",), "Deployment": ("spec", "template", "spec"), "Job": ("spec", "template", "spec")}


@pytest.mark.parametrize("text", blocks("yaml"))
def test_pods_that_mount_the_store_may_read_it_and_nothing_more(text):
    """Weights in it are for its owner alone; level restricted of the Pod Security Standards."""
    for document in yaml.safe_load_all(text):
        pod = functools.reduce(lambda found, key: found[key], PODS.get(document.get("kind"), ()), document)
        if "containers" not in pod or "hone-store" not in str(pod.get("volumes")):
            continue
        user = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
        assert user.items() <= pod["securityContext"].items()
        for container in pod["containers"]:
            rights = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
            assert rights.items() <= container["securityContext"].items()


def test_the_kinds_are_shown():
    shown = [doc.get("kind") for param in blocks("yaml") for doc in yaml.safe_load_all(param.values[0])]
    assert {"Dataset", "FineTuneJob"} <= set(shown)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_paths_exist(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), f"{page.name} links to {link}, which does not exist"
    for path in re.findall(r"`((?:examples|docs|charts|crds|operator|trainer|dev|tests|bench)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), f"{page.name} names {path}, which does not exist"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_make_targets_that_are_named_exist(page):
    targets = set(re.findall(r"^([a-z0-9-]+(?: [a-z0-9-]+)*):", (ROOT / "Makefile").read_text(), re.M))
    names = {name for line in targets for name in line.split()}
    assert set(re.findall(r"`make ([a-z0-9-]+)", page.read_text())) <= names


@pytest.mark.parametrize("text", blocks("console"))
def test_files_in_commands_exist(text):
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            words = shlex.split(line[2:], comments=True)
            for word in words:
                path, _, test = word.partition("::")
                if path.startswith(("examples/", "charts/", "docs/", "bench/", "tests/")):
                    assert (ROOT / path).exists(), f"{line}: {path} does not exist"
                    assert not test or f"def {test}(" in (ROOT / path).read_text(), f"{path} has no test {test}"


def test_the_pages_of_the_site_are_those_that_exist():
    text = (ROOT / "mkdocs.yml").read_text()
    listed = set(re.findall(r"[:-] ([\w/-]+\.md)$", text, re.M))
    assert listed == {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}


def test_the_codes_are_those_of_the_api():
    assert troubleshooting.PAGE.read_text() == troubleshooting.page(), "run python -m hone_dev.generate.troubleshooting"
