"""Every example is valid by itself, and its data is what its generator makes."""

import importlib.util
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hone_api import API_VERSION
from hone_api.dataset.dataset import DATASET
from hone_api.kinds.finetunejob import FINE_TUNE_JOB
from hone_api.kinds.model import MODEL

pytestmark = pytest.mark.pure

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
KINDS = {kind.kind: kind for kind in (DATASET, FINE_TUNE_JOB, MODEL)}
CONFIG_MAP_LIMIT = 2**20
MIXED_QUALITY = "09-curated-data"
"""Its rows are bad on purpose."""
WITHOUT_ROWS = "14-import"
"""Nothing is trained."""
REPOSITORY = "15-gitops"
"""Argo CD and Flux apply its folders: `tests/gitops`."""


def objects(example):
    return [doc for file in sorted((EXAMPLES / example).glob("*.yaml")) for doc in yaml.safe_load_all(file.read_text())]


def of_kind(example, kind):
    return [doc for doc in objects(example) if doc["kind"] == kind]


def rows_of(example, dataset):
    """Rows of a Dataset, from the ConfigMap that it names."""
    config_map, key = dataset["spec"]["source"]["uri"].removeprefix("configmap://").split("/")
    found = {m["metadata"]["name"]: m["data"] for m in of_kind(example, "ConfigMap")}
    return [json.loads(line) for line in found[config_map][key].splitlines()]


def rows(example):
    (dataset,) = of_kind(example, "Dataset")
    return rows_of(example, dataset)


def description(row):
    """The answer without the field's type, which may well be the same."""
    return row["answer"].rpartition(" Type: ")[0]


def folded(text):
    return " ".join(text.casefold().split())


@pytest.fixture
def make_data(monkeypatch):
    return load(monkeypatch, "02-two-nodes")


def load(monkeypatch, example):
    """The generator of an example's data."""
    spec = importlib.util.spec_from_file_location("make_data", EXAMPLES / example / "make_data.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "make_data", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("example", NAMES)
def test_every_manifest_fits_the_api(example):
    for manifest in objects(example):
        assert "namespace" not in manifest["metadata"]
        if manifest["kind"] in KINDS:
            assert manifest["apiVersion"] == API_VERSION
            KINDS[manifest["kind"]].spec.model_validate(manifest["spec"])


@pytest.mark.parametrize("example", NAMES)
def test_an_example_needs_nothing_from_another(example):
    config_maps = {f"configmap://{m['metadata']['name']}/{k}" for m in of_kind(example, "ConfigMap") for k in m["data"]}
    datasets = {dataset["metadata"]["name"]: dataset for dataset in of_kind(example, "Dataset")}
    jobs = {job["metadata"]["name"]: job["spec"] for job in of_kind(example, "FineTuneJob")}
    assert {dataset["spec"]["source"]["uri"] for dataset in datasets.values()} <= config_maps
    retention = [job.get("evaluation", {}).get("retention", {"datasets": []}) for job in jobs.values()]
    used = {d["name"] for part in [*jobs.values(), *retention] for d in part["datasets"]}
    used |= {d["name"] for job in jobs.values() for d in job.get("evaluationDatasets", ())}
    assert used == set(datasets)
    for job in jobs.values():
        assert (
            job["model"] == {"uri": "hf://HuggingFaceTB/SmolLM2-135M-Instruct"} or job["model"]["fineTuneJob"] in jobs
        )
    made = {f"{job['output']['modelName']}-v1" for job in jobs.values()}
    assert {job["ppo"]["rewardModelVersion"] for job in jobs.values() if "ppo" in job} <= made


@pytest.mark.parametrize("example", [name for name in NAMES if name != REPOSITORY])
def test_the_readme_opens_with_the_command_that_runs_it(example):
    readme = (EXAMPLES / example / "README.md").read_text()
    command = re.search(r"```(?:console|bash|sh)?\n(.*?)```", readme, re.S).group(1).splitlines()[0]
    assert command == f"$ kubectl apply --server-side -f examples/{example}/"
    assert readme.index(command) < 400


@pytest.mark.parametrize("example", [name for name in NAMES if name != MIXED_QUALITY])
def test_the_columns_are_those_of_the_rows(example):
    for dataset in of_kind(example, "Dataset"):
        columns = set(dataset["spec"]["columns"].values())
        if group := dataset["spec"].get("splits", {}).get("groupBy"):
            columns.add(group)
        assert all(set(row) == columns and all(row.values()) for row in rows_of(example, dataset))


@pytest.mark.parametrize("example", ["02-two-nodes", "03-qlora"])
def test_no_answer_can_be_on_both_sides_of_a_split(example):
    """A split is drawn by row: one row an answer, whatever its case and white space."""
    found = rows(example)
    assert len({folded(description(row)) for row in found}) == len(found)
    assert len({folded(row["question"]) for row in found}) == len(found)


@pytest.mark.parametrize("example", ["04-dapt", "05-dpo", "06-reward", "07-rlhf"])
def test_no_text_can_be_on_both_sides_of_a_split(example):
    for dataset in of_kind(example, "Dataset"):
        for column in dataset["spec"]["columns"].values():
            texts = [folded(row[column]) for row in rows_of(example, dataset)]
            assert len(set(texts)) == len(texts)


def kubernetes_rows():
    """The rows that the examples 02 to 07, 09 and 11 are made from."""
    return [json.loads(line) for line in (EXAMPLES / "02-two-nodes" / "kubernetes-api.jsonl").read_text().splitlines()]


def test_no_answer_is_nearly_another(make_data):
    bags = [make_data.words(description(row)) for row in kubernetes_rows()]
    near = [(a, b) for a, b in itertools.combinations(bags, 2) if len(a & b) >= make_data.NEAR * len(a | b)]
    assert near == []


def test_the_answers_are_worth_learning(make_data):
    found = kubernetes_rows()
    assert 1000 <= len(found) <= 2000
    for row in found:
        answer = description(row)
        assert len(answer.split()) >= make_data.MIN_WORDS
        assert len(answer) <= make_data.MAX_CHARACTERS + 1
        assert answer[-1] in ".!?"
        assert not re.search("https?://", answer)
        assert "deprecated" not in answer.casefold()
        assert re.search(r"`[\w$.\[\]]+`", row["question"])


@pytest.mark.parametrize("example", [name for name in NAMES if name not in (WITHOUT_ROWS, REPOSITORY)])
def test_a_config_map_holds_the_data(example):
    (config_map,) = of_kind(example, "ConfigMap")
    assert sum(len(value.encode()) for value in config_map["data"].values()) < 0.9 * CONFIG_MAP_LIMIT


def test_the_data_is_what_the_generator_makes(make_data):
    if not shutil.which("go"):
        pytest.skip(f"there is no go to get {make_data.MODULE} with")
    try:
        files = make_data.files()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{make_data.MODULE} cannot be had: {error.stderr}")
    for path, text in files.items():
        assert path.read_text() == text, f"{path} has drifted: run python examples/02-two-nodes/make_data.py"


def test_the_requests_are_what_their_generator_makes(monkeypatch):
    for path, text in load(monkeypatch, "01-first-model").files().items():
        assert path.read_text() == text, f"{path} has drifted: run python examples/01-first-model/make_data.py"


def test_no_sentence_and_no_service_of_a_request_is_in_two_groups(monkeypatch):
    """The Dataset holds whole groups out: what is asked about them cannot have been learnt by heart."""
    make_data, found = load(monkeypatch, "01-first-model"), rows("01-first-model")
    groups = {row["group"] for row in found}
    assert len({row["request"] for row in found}) == len(found)
    assert len(groups) == make_data.GROUPS
    for action in make_data.ACTIONS:
        assert len({folded(s) for s in make_data.sentences(action)}) == make_data.GROUPS
    services = {(json.loads(row["command"])["service"], row["group"]) for row in found}
    assert len({service for service, _ in services}) == len(services)
    assert len({service.partition("-")[0] for service, _ in services}) == len(services), "a word names one service"


def test_a_request_says_all_that_its_command_needs(monkeypatch):
    make_data = load(monkeypatch, "01-first-model")
    numbers = {word: str(number) for number, word in make_data.NUMBERS.items()}
    for row in rows("01-first-model"):
        command, text = json.loads(row["command"]), row["request"].casefold()
        assert command["service"] in text
        assert any(name in text for name in make_data.ENVIRONMENTS[command["environment"]])
        said = re.findall(r"[\w.]*\w", text)
        values = {numbers.get(word, word.removeprefix("v")) for word in said}
        assert {str(v) for k, v in command.items() if k in ("replicas", "minutes", "version")} <= values, row


def test_the_data_of_the_preference_methods_is_what_its_generator_makes(monkeypatch):
    module = load(monkeypatch, "05-dpo")
    for path, text in module.files().items():
        assert path.read_text() == text, f"{path} has drifted: run python examples/05-dpo/make_data.py"


def test_the_data_of_the_chain_is_what_its_generator_makes(monkeypatch):
    module = load(monkeypatch, "11-chain")
    for path, text in module.files().items():
        assert path.read_text() == text, f"{path} has drifted: run python examples/11-chain/make_data.py"
    questions = [row["question"] for row in module.everyday()]
    assert len(set(questions)) == len(questions) >= 120


def test_the_rows_that_come_later_are_more_than_its_model_waits_for(monkeypatch):
    module = load(monkeypatch, "13-model-life")
    assert (EXAMPLES / "13-model-life" / "data.yaml").read_text() == module.data()
    [first] = of_kind("13-model-life", "Dataset")
    later = yaml.safe_load((EXAMPLES / "13-model-life" / "later" / "dataset.yaml").read_text())
    before, after = ({**d["spec"], "source": None} for d in (first, later))
    assert (first["metadata"], before) == (later["metadata"], after), "rows alone differ"
    [model] = of_kind("13-model-life", "Model")
    [job] = of_kind("13-model-life", "FineTuneJob")
    retrain = model["spec"]["retrain"]
    assert (retrain["fineTuneJob"], job["spec"]["output"]["modelName"]) == (
        job["metadata"]["name"],
        model["metadata"]["name"],
    )
    old, new = (rows_of("13-model-life", dataset) for dataset in (first, later))
    assert new[: len(old)] == old
    assert len(new) - len(old) >= retrain["rows"]["atLeast"]
    assert len({folded(row["question"]) for row in new}) == len(new)


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("Number of desired pods of it here", "Number of desired pods of it here."),
        ("Too short.", None),
        ("This field is deprecated and will go away soon enough.", None),
        ("A list of  sources\nto project. More info: https://kubernetes.io/x", "A list of sources to project."),
        ("Host name of the node to use. More info: https://kubernetes.io/x", "Host name of the node to use."),
        ("One two three four five six. Possible values: - A: b - C: d", "One two three four five six."),
    ],
)
def test_how_a_description_becomes_an_answer(make_data, description, expected):
    assert make_data.answer(description) == expected


def test_a_long_description_ends_at_a_sentence(make_data):
    answer = make_data.answer("Names such as e.g. A or B are valid here. " + "And more of it. " * 30)
    assert answer.startswith("Names such as e.g. A or B are valid here. And more")
    assert answer.endswith("And more of it.")
    assert make_data.MAX_CHARACTERS - 20 < len(answer) <= make_data.MAX_CHARACTERS


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "integer", "format": "int32"}, "integer"),
        ({"$ref": "#/definitions/io.k8s.api.core.v1.PodSpec"}, "PodSpec"),
        ({"type": "array", "items": {"$ref": "#/definitions/io.k8s.api.core.v1.Container"}}, "list of Container"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "map of string"),
    ],
)
def test_the_type_of_a_field(make_data, schema, expected):
    assert make_data.type_of(schema) == expected


def test_two_runs_of_the_generator_agree(make_data):
    place = make_data.Place
    first = place("Pod", "v1", ("spec", "x"), "The very same description of a field that is here.", "string")
    second = place("Pod", "v1beta1", ("spec", "y"), "the very same  description of a field that is HERE", "integer")
    near = place("Job", "v1", ("spec", "deep", "z"), "The very same description of one field that is here.", "string")
    for order in itertools.permutations([first, second, near]):
        assert [p for p, _ in make_data.distinct(order)] == [first]
