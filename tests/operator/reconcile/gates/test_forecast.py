"""What is said before a GPU is asked for."""

from __future__ import annotations

import math
import re

import pytest
from support.cluster.platforms import changed
from support.lives.versions import version_spec
from support.models import shapes

from hone_api.kinds.finetunejob_status import JobProgress
from hone_operator.progress.numbers import Latest
from hone_operator.reconcile.core.outcome import Outcome
from hone_operator.reconcile.core.upstream import Upstream

pytestmark = pytest.mark.pure

LLAMA_7B = shapes.LLAMA_7B.model_dump(by_alias=True)


def fetched(world, new_life, shape=LLAMA_7B, **spec):
    """A job whose model was just staged."""
    life = new_life(model={"uri": "hf://org/model@main"}, **spec)
    life.tick()
    result = {"kind": "Fetch", "path": "base-models/org--model/abc", "commit": "abc"} | (
        {"shape": shape} if shape else {}
    )
    life.ends("Complete", world.dead(0, outcome={"result": result}))
    return life


def version(shape):
    """A Ready ModelVersion whose base has these sizes."""
    base = {"uri": "hf://org/large@main"} | ({"shape": shape} if shape else {})
    spec = version_spec("Full", "pvc://hone-store/models/uid-0/full", "1", model="large", baseModel=base)
    ready = {"type": "Ready", "status": "True", "reason": "Verified"}
    return {"metadata": {"name": "large-v1"}, "spec": spec, "status": {"conditions": [ready]}}


def gpus(product, count=1, **more):
    return {"resources": {"gpusPerNode": count, "gpuProducts": [product]}, **more}


def test_what_cannot_fit_is_refused_before_a_gpu_is_asked_for_with_the_way_out(world, new_life, conditions):
    life = fetched(world, new_life, **gpus("NVIDIA-A100-SXM4-80GB", adapter={"type": "None"}))
    outcome = life.tick(61)
    assert outcome.create == ()
    assert conditions(life.status)["Accepted"] == "False/DoesNotFit"
    assert conditions(life.status)["Stalled"] == "True/DoesNotFit"
    message = life.status["failure"]["message"]
    assert "optimizer 50.2 GiB" in message
    assert "adapter.type: LoRA" in life.status["failure"]["hint"]


def test_what_fits_starts_with_the_estimate_in_status_and_the_peak_next_to_it(world, new_life, conditions):
    life = fetched(
        world,
        new_life,
        **gpus("NVIDIA-A100-SXM4-80GB", adapter={"type": "QLoRA"}, training={"microBatchSize": 1}),
    )
    assert world.component("Job", life.tick(61).create) == ["run-1"]
    memory = life.status["memory"]
    assert 10 * 2**30 < memory["estimated"] < 25 * 2**30
    assert memory["estimated"] == sum(t["bytes"] for t in memory["terms"])
    assert life.status["resolved"]["modelShape"]["layers"] == 32
    life.ends("Complete", world.dead(0, outcome=world.result()), seconds=100)
    life.tick(101)
    assert life.status["memory"] == {**memory, "peak": 1000}


def test_a_longer_context_counts_in_the_estimate_and_for_later_stages(world, new_life):
    activations, contexts = [], []
    for scaling in ({}, {"ropeScaling": {"factor": "2"}}):
        training = {"microBatchSize": 1, **scaling}
        shape = {**LLAMA_7B, "context": 4096}
        life = fetched(
            world, new_life, shape, resources={"memory": "900Gi"}, adapter={"type": "None"}, training=training
        )
        life.datasets["rows"]["status"]["tokens"] = {"mean": 500, "max": 100_000}
        life.tick(61)
        activations.append(next(t["bytes"] for t in life.status["memory"]["terms"] if t["name"] == "activations"))
        life.ends("Complete", world.dead(0, outcome=world.result()), seconds=100)
        (version,) = life.tick(101).record
        contexts.append(version["spec"]["lineage"]["baseModel"]["shape"]["context"])
    assert activations[1] > 1.5 * activations[0]
    assert contexts == [4096, 8192]


@pytest.mark.parametrize(
    ("products", "rows"),
    [(["NVIDIA-A100-80GB"], 4), (["NVIDIA-A100-80GB", "NVIDIA-L4"], 1), (["ACME-9000"], 8)],
)
def test_the_pass_that_is_estimated_fits_into_the_smallest_gpu(world, new_life, products, rows):
    life = fetched(world, new_life, resources={"gpusPerNode": 1, "gpuProducts": products})
    assert world.component("Job", life.tick(61).create) == ["run-1"]
    kept = next(t["bytes"] for t in life.status["memory"]["terms"] if t["name"] == "activations")
    fixed = fetched(
        world, new_life, resources={"gpusPerNode": 1, "gpuProducts": products}, training={"microBatchSize": rows}
    )
    fixed.tick(61)
    assert kept == next(t["bytes"] for t in fixed.status["memory"]["terms"] if t["name"] == "activations")


@pytest.mark.parametrize(
    ("products", "training", "factor"),
    [
        (["NVIDIA-A100-80GB"], {}, 1),
        (["NVIDIA-A100-80GB"], {"epochs": "3"}, 3),
        (["NVIDIA-A100-80GB"], {"maxSteps": 225, "batchSize": 8}, 2),
        (["NVIDIA-A100-80GB", "NVIDIA-H100-80GB"], {}, 1),
        (["NVIDIA-A40", "NVIDIA-A100-80GB"], {}, 312 / 150),
        (["NVIDIA-A100-80GB", "ACME-9000"], {}, None),
        ([], {}, None),
    ],
)
def test_the_time_of_training_is_known_before_the_first_step(world, new_life, products, training, factor):
    """7 billion weights, two operations each in the forward pass and two in the backward pass, and attention's."""
    resources = {"gpusPerNode": 1, "gpuProducts": products} if products else {"memory": "64Gi"}
    life = fetched(world, new_life, resources=resources, training={"microBatchSize": 1, **training})
    status = life.datasets["rows"]["status"]
    status["splits"], status["tokens"] = [{"name": "train", "rows": 900}], {"mean": 500, "max": 600}
    life.tick(61)
    shape = life.status["resolved"]["modelShape"]
    attention = 6 * shape["layers"] * shape["query"] * 600
    flops = 450_000 * (4 * shape["parameters"] + attention)
    share = math.log(shape["parameters"] / 0.6e9) / math.log(8 / 0.6)
    expected = factor and math.ceil(factor * flops / ((0.168 + 0.238 * share) * 312e12))
    assert life.status.get("estimatedSeconds") == expected
    span = life.status.get("estimatedSecondsRange")
    if expected is None:
        assert span is None
    else:
        slow = (flops + 3 * 450_000 * attention) / flops  # nobody knows yet which kernel computes attention
        assert span["low"] < expected < span["high"] == pytest.approx(expected / 0.6 * slow, rel=0.01)


def test_what_may_get_a_gpu_that_nobody_knows_is_not_refused(world, new_life, conditions):
    products = ["NVIDIA-L4", "ACME-9000"]
    for named, accepted in ((products[:1], "False/DoesNotFit"), (products, "True/Accepted")):
        life = fetched(world, new_life, resources={"gpusPerNode": 1, "gpuProducts": named}, adapter={"type": "None"})
        life.tick(61)
        assert conditions(life.status)["Accepted"] == accepted


def test_a_cpu_computes_in_bfloat16_if_the_plan_says_so(world, new_life, conditions):
    for precision, accepted in (("Auto", "False/DoesNotFit"), ("BFloat16", "True/Accepted")):
        training = {"precision": precision, "maxLength": 512}
        life = fetched(world, new_life, resources={"memory": "26Gi"}, training=training)
        life.tick(61)
        assert conditions(life.status)["Accepted"] == accepted


def test_a_limit_far_above_the_rows_does_not_refuse_them(world, new_life, conditions):
    life = fetched(world, new_life, **gpus("NVIDIA-A100-SXM4-80GB"), training={"maxLength": 4096})
    life.datasets["rows"]["status"]["tokens"] = {"max": 600}
    assert life.tick(61).create
    short = life.status["memory"]["estimated"]
    again = fetched(world, new_life, **gpus("NVIDIA-A100-SXM4-80GB"))
    again.datasets["rows"]["status"]["tokens"] = {"max": 600}
    again.tick(61)
    assert again.status["memory"]["estimated"] == short


def test_a_vllm_that_cannot_hold_the_weights_in_its_share_is_refused(world, new_life, conditions, monkeypatch):
    monkeypatch.setattr(world, "platform", changed(world.platform, trainer__vllm_image="trainer-vllm:1"))

    def begun(**generation):
        grpo = {"rewards": [{"type": "Number"}], "generation": {"engine": "VLLM", **generation}}
        training = {"gradientCheckpointing": True, "microBatchSize": 1}
        life = fetched(world, new_life, **gpus("NVIDIA-A100-40GB"), method="GRPO", grpo=grpo, training=training)
        life.tick(61)
        return life

    life = begun()
    assert conditions(life.status)["Accepted"] == "False/DoesNotFit"
    hint = life.status["failure"]["hint"]
    assert "gpuMemoryUtilization" in hint
    wanted = re.search(r"to (0\.\d+) or more", hint).group(1)
    assert conditions(begun(gpuMemoryUtilization=wanted).status)["Accepted"] == "True/Accepted"


def test_a_model_of_unknown_sizes_is_not_judged(world, new_life):
    life = fetched(world, new_life, shape=None, **gpus("NVIDIA-L4", adapter={"type": "None"}))
    assert life.tick(61).create
    assert "memory" not in life.status


@pytest.mark.parametrize(
    ("shape", "level", "judged"), [(LLAMA_7B, "Logits", True), (None, "Logits", False), (None, "Sequence", True)]
)
def test_a_teacher_is_counted_where_it_is_next_to_the_student(world, new_life, shape, level, judged):
    life = fetched(
        world,
        new_life,
        **gpus("NVIDIA-A100-SXM4-80GB", training={"microBatchSize": 1}),
        method="Distillation",
        distillation={"teacherModelVersion": "large-v1", "level": level},
    )
    life.upstream = Upstream(versions={"large-v1": version(shape)})
    assert world.component("Job", life.tick(61).create) == ["run-1"]
    terms = {t["name"]: t["bytes"] for t in life.status.get("memory", {}).get("terms", [])}
    assert bool(terms) is judged
    assert terms.get("teacher") == (2 * LLAMA_7B["parameters"] if shape else None)


def test_a_gpu_that_is_not_in_the_table_is_not_judged(world, new_life):
    life = fetched(world, new_life, **gpus("ACME-9000", adapter={"type": "None"}))
    assert life.tick(61).create
    assert life.status["memory"]["estimated"] > 100 * 2**30


@pytest.mark.parametrize(
    ("spec", "rows", "words"),
    [
        ({"training": {"learningRate": "0.02"}}, 90, "100 times above"),
        ({"training": {"learningRate": "2e-6"}}, 90, "100 times below"),
        ({"training": {"batchSize": 128}}, 90, "batchSize 128 is more than the 90 rows"),
        ({}, 49, "49 rows are few"),
    ],
)
def test_what_looks_wrong_is_a_condition_and_runs_nevertheless(new_life, conditions, spec, rows, words):
    life = new_life(**spec)
    life.datasets["rows"]["status"]["splits"] = [{"name": "train", "rows": rows}]
    outcome = life.tick()
    assert outcome.create
    assert conditions(life.status)["Advised"] == "True/Advice"
    advised = next(c for c in life.status["conditions"] if c["type"] == "Advised")
    assert words in advised["message"]
    assert [e.reason for e in outcome.events] == ["Advice"]
    assert life.tick(1) == Outcome()


def test_a_packed_batch_is_reported_in_rows_and_tokens_with_the_steps_of_an_epoch(world, new_life, conditions):
    """256 short rows become 16 sequences: 2 steps instead of 32."""
    life = fetched(world, new_life, training={"packing": True, "maxLength": 512})
    statistics = {"total": 8192, "mean": 32, "max": 40}
    life.datasets["rows"]["status"] |= {"splits": [{"name": "train", "rows": 256}], "tokens": statistics}
    life.tick(61)
    advised = next(c for c in life.status["conditions"] if c["type"] == "Advised")
    assert "a step has about 128 rows or 4096 tokens, an epoch about 2 steps instead of 32" in advised["message"]
    assert "Set batchSize to 1 to stay near 8 rows a step." in advised["message"]


def test_rows_that_fill_the_hosts_memory_are_reported(world, new_life, conditions):
    """3 billion tokens of 6 bytes are too many, in files that 4 ranks share; 200 million are a gigabyte."""
    said = {}
    for rows in (100_000, 1_500_000):
        life = fetched(world, new_life, **gpus("NVIDIA-H100-80GB-HBM3", count=4))
        statistics = {"total": 2000 * rows, "mean": 2000, "max": 4000}
        life.datasets["rows"]["status"] |= {"splits": [{"name": "train", "rows": rows}], "tokens": statistics}
        life.tick(61)
        said[rows] = next(c for c in life.status["conditions"] if c["type"] == "Advised")["message"]
    assert "memory of the host is tight" not in said[100_000]
    assert "take about 16.8 GiB in a pod, over all its ranks; resources.memory is 8Gi." in said[1_500_000]


@pytest.mark.parametrize(
    ("fewest", "sharded", "way"),
    [(1, True, "set resources.minNodes to 2."), (2, True, ""), (1, False, "")],
)
def test_memory_that_is_tight_on_fewer_nodes_is_reported(world, new_life, fewest, sharded, way):
    """7 billion weights are trained: two ranks of 80 GB hold half of the optimizer each, one does not hold all."""
    spec = {"training": {"batchSize": 8}, **({"deepspeed": {"zeroStage": 3}} if sharded else {})}
    spec |= {"adapter": {"type": "None" if sharded else "LoRA"}}
    resources = {"nodes": 4, "minNodes": fewest, "gpusPerNode": 1, "gpuProducts": ["NVIDIA-H100-80GB-HBM3"]}
    life = fetched(world, new_life, resources=resources, **spec)
    life.tick(61)
    said = next(c for c in life.status["conditions"] if c["type"] == "Advised").get("message", "")
    assert ("because fewer ranks hold more of what ZeRO divides" in said) == bool(way)
    assert way in said
    assert ("memory is tight on NVIDIA-H100-80GB-HBM3 in an attempt with 1 node: about " in said) == bool(way)


@pytest.mark.parametrize(
    ("fewest", "room", "said"),
    [
        (2, "32Gi", "resources.memory is 32Gi: raise it, or remove resources.minNodes."),
        (1, "64Gi", "resources.memory is 64Gi: raise it, or set resources.minNodes to 2."),
        (2, "64Gi", ""),
    ],
)
def test_memory_of_the_host_that_is_tight_on_fewer_nodes_is_reported(world, new_life, fewest, room, said):
    """With offload it is the host that holds the optimizer: each of two ranks has twice as much as each of four."""
    resources = {"gpusPerNode": 1, "gpuProducts": ["NVIDIA-H100-80GB-HBM3"], "memory": room}
    spec = {"training": {"batchSize": 8}, "deepspeed": {"zeroStage": 3, "offload": "Optimizer"}}
    spec |= {"adapter": {"type": "None"}, "resources": {"nodes": 4, "minNodes": fewest, **resources}}
    life = fetched(world, new_life, **spec)
    life.tick(61)
    advised = next(c for c in life.status["conditions"] if c["type"] == "Advised").get("message", "")
    nodes = "1 node" if fewest == 1 else "2 nodes"
    assert (f"memory of the host is tight in an attempt with {nodes}: " in advised) == bool(said)
    assert said in advised


def test_answers_that_are_all_cut_are_reported_while_the_job_runs(world, new_life, conditions):
    life = new_life()
    life.tick()
    for step in range(1, 7):
        assert conditions(life.status)["Advised"] == "False/NothingToAdvise"
        progress = JobProgress(step=step, metrics={"clipped_ratio": "0.9" if step == 1 else "1"})
        life.report = Latest(attempt=1, progress=progress, received=world.time(10 * step))
        life.tick(10)
    assert conditions(life.status)["Advised"] == "True/Advice"
    advised = next(c for c in life.status["conditions"] if c["type"] == "Advised")
    assert advised["message"].count("Every sampled answer is cut at grpo.maxCompletionLength") == 1
    life.tick(10)
    assert next(c for c in life.status["conditions"] if c["type"] == "Advised") == advised


def test_what_the_trainer_saw_is_added(world, new_life, conditions):
    life = new_life()
    life.tick()
    assert conditions(life.status)["Advised"] == "False/NothingToAdvise"
    result = world.result()
    result["result"]["advice"] = ["the loss jumped at step 7"]
    life.ends("Complete", world.dead(0, outcome=result))
    life.tick(61)
    assert conditions(life.status)["Advised"] == "True/Advice"


MIXTURE = LLAMA_7B | {"experts": 8, "expertWidth": 1024}


@pytest.mark.parametrize(
    ("shape", "adapter", "accepted"),
    [
        (MIXTURE, {"type": "DoRA"}, "False/ConflictingFields"),
        (MIXTURE, {"type": "QLoRA"}, "False/ConflictingFields"),
        (MIXTURE, {"type": "LoRA", "dropout": "0.1"}, "False/ConflictingFields"),
        (MIXTURE, {"type": "DoRA", "targets": ["q_proj", "shared_experts.down_proj"]}, "True/Accepted"),
        (MIXTURE, {"type": "DoRA", "targets": ["q_proj", "experts.down_proj"]}, "False/ConflictingFields"),
        (MIXTURE, {"type": "LoRA"}, "True/Accepted"),
        (LLAMA_7B, {"type": "DoRA"}, "True/Accepted"),
    ],
)
def test_what_adapters_of_experts_cannot_have_is_refused(world, new_life, conditions, shape, adapter, accepted):
    life = fetched(world, new_life, shape, **gpus("NVIDIA-H200", adapter=adapter))
    life.tick(61)
    assert conditions(life.status)["Accepted"] == accepted
    if accepted.startswith("False"):
        assert "or name the attention layers in adapter.targets" in life.status["failure"]["message"]
