"""`hone plan` without a cluster: what is read, computed, refused, and with which exit code."""

from __future__ import annotations

import json
import tracemalloc
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from hone_api.estimate import gpus
from hone_api.estimate.known_models import MODELS
from hone_cli.__main__ import application
from hone_cli.errors import CliExit, CommandError
from hone_cli.runs import manifests, prices

pytestmark = pytest.mark.pure
COUNTS = {"splits": [{"name": "train", "rows": 500}], "tokens": {"mean": 100, "max": 400}}
DATASET: dict[str, Any] = {
    "apiVersion": "hone.dev/v1alpha1",
    "kind": "Dataset",
    "metadata": {"name": "rows", "annotations": {"hone.dev/checked": json.dumps(COUNTS)}},
    "spec": {"source": {"uri": "pvc://rows/rows.jsonl"}},
}


def job(model: str = "Qwen/Qwen2.5-0.5B-Instruct", **spec: Any) -> dict[str, Any]:
    body = {"model": {"uri": f"hf://{model}"}, "datasets": [{"name": "rows"}], "adapter": {"type": "LoRA"}}
    body |= {"training": {"epochs": "2"}, "output": {"modelName": "m"}, **spec}
    return {"apiVersion": "hone.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "job"}, "spec": body}


def on(product: str, count: int = 1) -> dict[str, Any]:
    return {"gpusPerNode": count, "gpuProducts": [product]}


@pytest.fixture
def plan(tmp_path: Path):
    def run(*bodies: dict[str, Any], words: tuple[str, ...] = ()) -> Result:
        (tmp_path / "m.yaml").write_text(yaml.safe_dump_all(bodies))
        done = CliRunner().invoke(application(["plan"]), ["plan", str(tmp_path / "m.yaml"), "--offline", *words])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    return run


def planned(done: Result) -> Any:
    return json.loads(done.stdout)["jobs"][0]


def test_a_job_that_fits_has_its_needs_as_ranges(plan, tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text("currency: EUR\ngpuHour: {NVIDIA-L4: 2}\nspotGpuHour: {NVIDIA-L4: 1}\n")
    words = ("-o", "json", "--prices", str(tmp_path / "prices.yaml"))
    done = plan(DATASET, job(resources=on("NVIDIA-L4", 2)), words=words)
    assert done.exit_code == CliExit.DONE
    found = planned(done)
    assert (found["rows"], found["tokens"], found["ranks"], found["fits"]) == (500, 100_000, 2, True)
    low, high = found["seconds"]["low"], found["seconds"]["high"]
    assert 0 < low < high
    assert found["gpuHours"] == pytest.approx({"low": low / 1800, "high": high / 1800})
    assert found["price"] == pytest.approx({"low": low / 900, "high": high / 900})
    assert found["currency"] == "EUR"
    cheap = planned(plan(DATASET, job(resources=on("NVIDIA-L4", 2)), words=(*words, "--spot")))
    assert cheap["price"] == pytest.approx({"low": low / 1800, "high": high / 1800})


def test_a_job_that_does_not_fit_names_the_cheapest_change(plan) -> None:
    done = plan(DATASET, job("meta-llama/Llama-3.1-8B-Instruct", resources=on("NVIDIA-L4"), adapter={"type": "None"}))
    assert done.exit_code == CliExit.DOES_NOT_FIT
    assert "does NOT fit" in done.stdout
    assert "The cheapest change that fits: adapter.type: LoRA (trains low-rank updates)." in done.stdout


def test_rows_longer_than_the_context_of_the_model_do_not_fit(plan) -> None:
    longer = {"maxLength": 40_000}
    done = plan(DATASET, job("Qwen/Qwen2.5-0.5B-Instruct", training=longer))
    assert done.exit_code == CliExit.DOES_NOT_FIT
    assert "training.maxLength is over the context of hf://Qwen/Qwen2.5-0.5B-Instruct, 32,768 tokens" in done.stdout
    whole = {"adapter": {"type": "None"}, "training": {**longer, "ropeScaling": {"type": "YaRN", "factor": "2.0"}}}
    assert "over the context" not in plan(DATASET, job("Qwen/Qwen2.5-0.5B-Instruct", **whole)).stdout


@pytest.mark.parametrize("product", [gpu.name for gpu in gpus.TABLE] + ["CPU", "unknown"])
def test_every_known_model_on_every_device_has_a_plan(plan, product: str) -> None:
    for model in MODELS:
        resources = {"gpusPerNode": 0} if product == "CPU" else on(product)
        done = plan(DATASET, job(model, resources=resources), words=("-o", "json"))
        found = planned(done)
        assert found["memoryBytes"] > 0
        assert (found["fits"] is None) is (product == "unknown")
        assert done.exit_code == (CliExit.DOES_NOT_FIT if found["fits"] is False else CliExit.DONE)
        assert (found["seconds"] is None) is (product == "unknown")


@pytest.mark.parametrize(
    ("budget", "words", "code"),
    [
        ({"gpuHours": "1000"}, "1000 GPU-hours: enough", CliExit.DONE),
        ({"money": 10, "gpuHourPrice": "1000"}, "0.01 GPU-hours: the run may need more, and then stops", CliExit.DONE),
        ({"money": 10, "gpuHourPrice": "0"}, "", CliExit.REFUSED),
        ({"gpuHours": "0.00001"}, "1e-05 GPU-hours: NOT enough even for the shortest", CliExit.DOES_NOT_FIT),
    ],
)
def test_a_budget_is_compared_with_the_gpu_hours(plan, budget: dict[str, Any], words: str, code: CliExit) -> None:
    done = plan(DATASET, job("meta-llama/Llama-3.1-8B-Instruct", resources=on("NVIDIA-A100-80GB"), budget=budget))
    assert not words or f"budget    {words}" in done.stdout
    assert done.exit_code == code


def test_the_plan_says_which_servers_load_the_result(plan) -> None:
    for spec, words in (
        ({"adapter": {"type": "LoRA", "rank": 16}}, "vLLM: yes, the adapter on its base, with --enable-lora"),
        ({"adapter": {"type": "DoRA"}}, "vLLM: no, a DoRA adapter; train with output.merge to serve the merged model"),
        ({"output": {"modelName": "m", "merge": True, "formats": ["Safetensors", "GGUF"]}}, "llama.cpp: yes"),
    ):
        done = plan(DATASET, job(**spec))
        assert f"  serve     {words}" in done.stdout


def test_recipes_say_of_every_model_and_gpu_what_init_would_choose() -> None:
    done = CliRunner().invoke(application(["recipes"]), ["recipes", "-o", "json"])
    rows = json.loads(done.stdout)
    assert len(rows) == len(MODELS) * len(gpus.TABLE) == 15 * 14
    assert {row["basis"] for row in rows} == {"estimated"}
    by_pair = {(row["model"], row["gpu"]): row for row in rows}
    assert by_pair["meta-llama/Llama-3.1-8B-Instruct", "NVIDIA-L4"]["fits"]
    assert not by_pair["meta-llama/Llama-3.3-70B-Instruct", "Tesla-T4"]["fits"]
    done = CliRunner().invoke(application(["recipes"]), ["recipes", "llama-3.1", "--gpu", "l4"])
    assert [line.split()[:3] for line in done.stdout.splitlines() if line] == [
        ["meta-llama/Llama-3.1-8B-Instruct", gpu, way] for gpu, way in (("NVIDIA-L4", "LoRA,"), ("NVIDIA-L40S", "LoRA"))
    ]
    done = CliRunner().invoke(application(["recipes"]), ["recipes", "nobody"])
    assert isinstance(done.exception, CommandError)


def test_rows_that_nobody_has_counted_neither_fit_nor_not(plan) -> None:
    bare = {**DATASET, "metadata": {"name": "rows"}}
    long = job("meta-llama/Llama-3.1-8B-Instruct", resources=on("NVIDIA-L4"), training={"maxLength": 16384})
    assert planned(plan(bare, long, words=("-o", "json")))["fits"] is None


def test_each_product_that_the_job_may_get_is_judged(plan) -> None:
    both = {"gpusPerNode": 1, "gpuProducts": ["NVIDIA-L4", "NVIDIA-A100-SXM4-80GB"]}
    done = plan(DATASET, job("meta-llama/Llama-3.1-8B-Instruct", resources=both, adapter={"type": "LoRA"}))
    if "L4" not in done.stdout:
        done = plan(DATASET, job("Qwen/Qwen2.5-14B-Instruct", resources=both, adapter={"type": "LoRA"}))
    assert "on NVIDIA-A100-SXM4-80GB: fits" in done.stdout
    assert "advice    on NVIDIA-L4: A rank needs about" in done.stdout


@pytest.mark.parametrize("noted", ["{}", "[]", '{"splits": 3}', '{"splits": [{"name": "train"}], "tokens": {}}'])
def test_counts_that_somebody_changed_count_for_nothing(plan, noted: str) -> None:
    changed = {**DATASET, "metadata": {"name": "rows", "annotations": {"hone.dev/checked": noted}}}
    assert "not counted yet" in plan(changed, job(resources=on("NVIDIA-L4"))).stdout


def test_a_date_in_a_manifest_is_a_text(plan) -> None:
    dated = {**DATASET, "metadata": {"name": "rows", "annotations": {"released": date(2026, 1, 1)}}}
    assert plan(dated, job(resources=on("NVIDIA-L4")), words=("-o", "json")).exit_code == CliExit.DONE


def test_what_is_not_known_is_said(plan) -> None:
    bare = {**DATASET, "metadata": {"name": "rows"}}
    done = plan(bare, job("owner/unknown", resources=on("NVIDIA-L4")))
    assert done.exit_code == CliExit.DONE
    assert "not counted yet" in done.stdout
    assert "known once the model is staged" in done.stdout


def test_all_objects_are_looked_at_at_once(plan) -> None:
    bad = {**DATASET, "metadata": {"name": "other"}, "spec": {"source": {"uri": "ftp://x"}, "colums": {}}}
    wrong = job(training={"batchSize": 7, "packing": True}, method="DAPT", resources={"gpusPerNode": 2})
    done = plan(DATASET, bad, wrong)
    assert done.exit_code == CliExit.REFUSED
    assert "Dataset rows is new" in done.stdout
    refused = [line for line in done.stdout.splitlines() if line.startswith("  refused: ")]
    assert len(refused) >= 4
    assert any("did you mean columns?" in line for line in refused)
    assert any("batchSize" in line for line in refused)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the files have no object"),
        ("a: [", "is not YAML in line 1"),
        ("kind: Dataset\nmetadata: {name: a", "is not YAML in line 2"),
        ("- 1", "object 1 is not an object of Kubernetes"),
        ("kind: Deployment\nmetadata: {name: a}", "kind Deployment: hone applies ConfigMap"),
        ("kind: Dataset\nmetadata: {name: a}", "apiVersion of a Dataset is hone.dev/v1alpha1, not None"),
        ("apiVersion: hone.dev/v1alpha1\nkind: Dataset\n", "has no metadata.name"),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: b}", "is of namespace b: add --namespace"),
        ("---\n".join(["apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n"] * 2), "Secret a is there twice"),
        ("\x00", "is not YAML"),
        ("a: " + "[" * 3_000, "is nested too deeply"),
        ("a: &a [*a]", "an alias that repeats itself"),
        (
            "0: &a0 [1, 1]\n" + "".join(f"{n}: &a{n} !!pairs [{f'x: *a{n - 1}, ' * 9}]\n" for n in range(1, 9)),
            "too many values",
        ),
        (
            "a: &a [1, 1]\n" + "".join(f"{n}: &{n} [{f'*{n - 1}, ' * 9}]\n".replace("*0", "*a") for n in range(1, 9)),
            "too many values",
        ),
    ],
)
def test_a_manifest_that_is_none_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "m.yaml").write_text(text)
    done = CliRunner().invoke(application(["plan"]), ["plan", str(tmp_path / "m.yaml"), "--offline"])
    assert isinstance(done.exception, CommandError)
    assert words in str(done.exception)


def test_an_alias_that_repeats_itself_often_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(CommandError, match="an alias that repeats itself"):
            manifests.parsed(f"a: &a [{'*a, ' * 30}]", "m.yaml")
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", ["gpuHour: 3", "gpuhour: {}", "[", "\x00", "1"])
def test_a_table_of_prices_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(CommandError, match="is not a table of prices"):
        prices.read(tmp_path / "p.yaml")


def test_rows_that_nobody_counted_refuse_no_job(plan) -> None:
    bare = {**DATASET, "metadata": {"name": "rows"}}
    done = plan(bare, job(resources={"gpusPerNode": 0, "memory": "4Gi"}))
    assert done.exit_code == CliExit.DONE
    assert "with rows of up to 2,048 tokens" in done.stdout


def test_no_control_character_of_a_manifest_reaches_the_terminal(plan) -> None:
    done = plan(DATASET, job("owner/x", output={"modelName": "m\x1b[2J"}, datasets=[{"name": "\x1b[31mrows"}]))
    assert "\x1b" not in done.stdout
