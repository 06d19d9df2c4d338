"""Runs the jobs of an example on this machine, without a cluster, and says what their models have learned.

    make setup && .venv/bin/python bench/learning.py examples/07-rlhf [--seeds 3] [--set training.maxSteps=4]

The rows go through `materialize`, each job through `run`, in the order of the manifest; a job that begins with another
one's model gets it. With several seeds the last job is repeated. Prints what the ModelVersions would say.

If the last job is by QLoRA it also runs by LoRA. Exit code 1 when QLoRA's held-out loss ends more than 5 % above
LoRA's, or when training lowers it by less than 95 % of what it lowers LoRA's: rounding the base to 4 bits costs some
loss before the first step, and the second bound leaves that out. `--force-path` runs 4-bit layers as on a processor
with AVX512-BF16, where bitsandbytes would repack them, or as on one without.

`--plan` runs nothing: it estimates the memory and the time of each job, on GPUs and on a CPU core.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from hone_api.plan import MaterializePlan, TrainingPlan
from hone_dev.models import models, repacking
from hone_trainer.datasets import materialize

LOSS, GAIN = 1.05, 0.95
"""QLoRA's held-out loss at most, and how far training lowers it at least; of LoRA's."""
COPIED = ("adapter", "training", "evaluation", "checkpoints", "earlyStopping", "output")


class Example:
    """The objects of an example; what they make is written to `work`."""

    def __init__(self, folder: Path, work: Path, path: str | None = None) -> None:
        """Read the manifests.

        Args:
            path: one of `repacking.PATHS`; None: that of this processor.
        """
        objects = [doc for file in sorted(folder.glob("*.yaml")) for doc in yaml.safe_load_all(file.read_text())]
        self.work = work
        self.module = ["hone_dev.models.repacking", path] if path else ["hone_trainer"]
        self.files = {m["metadata"]["name"]: m["data"] for m in objects if m["kind"] == "ConfigMap"}
        self.datasets = {m["metadata"]["name"]: m["spec"] for m in objects if m["kind"] == "Dataset"}
        self.jobs = {m["metadata"]["name"]: m["spec"] for m in objects if m["kind"] == "FineTuneJob"}
        self._materialized: dict[str, str] = {}

    def rows(self, dataset: str, split: str) -> dict[str, str]:
        """A split of a Dataset as a plan names it."""
        digest = self._materialized.get(dataset) or self._materialize(dataset)
        folder = self.work / "store" / "datasets" / digest.removeprefix("sha256:")
        return {"name": dataset, "split": split, "path": str(folder / f"{split}.jsonl"), "digest": digest}

    def _materialize(self, dataset: str) -> str:
        spec = self.datasets[dataset]
        config_map, key = spec["source"]["uri"].removeprefix("configmap://").split("/")
        file = self.work / "source" / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.files[config_map][key])
        plan = {"name": dataset, **spec, "sourcePath": str(file), "store": str(self.work / "store")}
        exams = spec.get("curation", {}).get("contamination", {}).get("datasets", [])
        plan["evaluationSets"] = [self.rows(exam["name"], exam.get("split", "validation")) for exam in exams]
        digest = str(materialize.run(MaterializePlan.model_validate(plan)).digest)
        self._materialized[dataset] = digest
        return digest

    def made(self, job: str) -> dict[str, Any]:
        """The model of a job that has run: whole, or an adapter and its base. Of one that has not, the base alone."""
        out = self.work / job / "out"
        if not out.is_dir():
            return {"path": str(models.smollm2())}
        if (out / "merged").is_dir():
            return {"path": str(out / "merged")}
        digest = hashlib.sha256((out / "adapter" / "manifest.json").read_bytes()).hexdigest()
        adapter = {"path": str(out / "adapter"), "digest": f"sha256:{digest}"}
        return {"path": str(models.smollm2()), "adapter": adapter}

    def plan(self, job: str, run: str) -> dict[str, Any]:
        """The job's plan, as the operator would write it."""
        spec = self.jobs[job]
        method, trained = spec["method"].lower(), [d["name"] for d in spec["datasets"]]
        held_out = [d["name"] for d in spec.get("evaluationDatasets", spec["datasets"])]
        base = self.made(spec["model"]["fineTuneJob"]) if "fineTuneJob" in spec["model"] else {}
        version = spec.get("ppo", {}).get("rewardModelVersion")
        retention = spec.get("evaluation", {}).get("retention", {}).get("datasets", [])
        return {
            "run": run,
            "method": spec["method"],
            **{field: spec[field] for field in (*COPIED, method) if field in spec},
            "modelPath": base.get("path", str(models.smollm2())),
            "modelUri": spec["model"].get("uri", "pvc://store/earlier"),
            "modelAdapter": base.get("adapter"),
            "models": {version: self.made(version.removesuffix("-v1"))} if version else {},
            "datasets": [self.rows(name, "train") for name in trained],
            "evaluationDatasets": [self.rows(name, "validation") for name in held_out],
            "retentionDatasets": [self.rows(d["name"], d["split"]) for d in retention],
            "workPath": str(self.work / run / "work"),
            "outputPath": str(self.work / run / "out"),
        }

    def written(self, plan: dict[str, Any]) -> Path:
        """The folder of a run, with its plan."""
        folder = self.work / plan["run"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_text(TrainingPlan.model_validate(plan).model_dump_json(by_alias=True))
        return folder

    def estimate(self, job: str) -> int:
        """Print what a job needs; the exit code."""
        folder = self.written(self.plan(job, job))
        print(f"\n{job}", flush=True)
        return subprocess.run([sys.executable, "-m", "hone_trainer", "plan", str(folder / "plan.json")]).returncode

    def run(self, plan: dict[str, Any]) -> dict[str, Any]:
        """Run a plan to its end; its result."""
        folder = self.written(plan)
        with open(folder / "log", "w") as log:
            command = [sys.executable, "-m", *self.module, "run", str(folder / "plan.json")]
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
        if code:
            raise SystemExit(f"{plan['run']} ended with {code}:\n{(folder / 'log').read_text()[-3000:]}")
        return json.loads((folder / "work" / "outcome.json").read_text())["result"]


def main() -> int:
    """Run the jobs.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("example", type=Path, help="folder of the example")
    parser.add_argument("--seeds", type=int, default=1, help="how often the last job runs, with seeds 0, 1, ...")
    parser.add_argument("--set", action="append", default=[], metavar="BLOCK.FIELD=VALUE", help="of the last job")
    parser.add_argument("--work", type=Path, help="folder to keep; jobs that have run there are not run again")
    parser.add_argument("--plan", action="store_true", help="run nothing: estimate memory and time of each job")
    parser.add_argument("--force-path", choices=repacking.PATHS, help="of 4-bit layers; default: this processor's")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        example = Example(options.example, (options.work or Path(temporary)).absolute(), options.force_path)
        if options.plan:
            return max(example.estimate(job) for job in example.jobs)
        *earlier, last = example.jobs
        table, comparisons = Table("job", "metric", "base", "tuned", "rows", title_justify="left"), []
        for job in earlier:
            outcome = example.work / job / "work" / "outcome.json"
            known = outcome.exists() and json.loads(outcome.read_text()).get("result")
            add(table, job, known or example.run(example.plan(job, job)))
        for seed in range(options.seeds):
            changes = [f"training.seed={seed}", *options.set]
            plan = changed(example.plan(last, f"{last}-seed-{seed}"), changes)
            add(table, plan["run"], result := example.run(plan))
            if plan.get("adapter", {}).get("type") == "QLoRA":
                lora_plan = changed(example.plan(last, f"{last}-seed-{seed}-by-lora"), [*changes, "adapter.type=LoRA"])
                add(table, lora_plan["run"], by_lora := example.run(lora_plan))
                comparisons.append(Comparison.of(result, by_lora))
    console = Console(width=120)
    console.print(table)
    for comparison in comparisons:
        console.print(str(comparison))
    return int(not all(comparison.holds for comparison in comparisons))


def changed(plan: dict[str, Any], changes: list[str]) -> dict[str, Any]:
    """The plan with fields replaced, each given as BLOCK.FIELD=VALUE."""
    for change in changes:
        path, value = change.split("=", 1)
        block, field = path.split(".")
        plan = {**plan, block: {**plan.get(block, {}), field: yaml.safe_load(value)}}
    return plan


@dataclass(frozen=True)
class Comparison:
    """QLoRA's held-out loss in shares of LoRA's: before training, after it, and how far training lowered it."""

    start: float
    end: float
    gain: float

    @classmethod
    def of(cls, qlora: dict[str, Any], lora: dict[str, Any]) -> Comparison:
        """From the results of two runs that differ in the adapter alone."""
        (base, tuned), (base_of_lora, tuned_of_lora) = (
            next((float(n["base"]), float(n["tuned"])) for n in result["numbers"] if n["name"] == "loss")
            for result in (qlora, lora)
        )
        return cls(base / base_of_lora, tuned / tuned_of_lora, (base - tuned) / (base_of_lora - tuned_of_lora))

    @property
    def holds(self) -> bool:
        """Whether both bounds are kept."""
        return self.end <= LOSS and self.gain >= GAIN

    def __str__(self) -> str:
        return (
            f"held-out loss of QLoRA over LoRA's: {self.start:.3f} before training, {self.end:.3f} after it (at most "
            f"{LOSS}); training lowered it by {self.gain:.2f} of what LoRA did (at least {GAIN}): "
            f"{'holds' if self.holds else 'does not hold'}"
        )


def add(table: Table, run: str, result: dict[str, Any]) -> None:
    """A row a metric."""
    for number in result["numbers"]:
        metric = f"{number['name']} on {number['dataset']}"
        table.add_row(run, metric, number.get("base"), number["tuned"], str(number["rows"]))


if __name__ == "__main__":
    sys.exit(main())
