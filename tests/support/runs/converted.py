"""From the objects that `hone convert` prints to a trained model: the operator's own code makes the plans of the pods,
and the trainer carries them out. Only what is not on this machine is replaced: rows, base model, GPUs, number of steps.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from support.cluster.desired_objects import PLATFORM, owner

from hone_api.dataset.dataset import DatasetSpec
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.kinds.resolved import Resolved
from hone_api.plan import MaterializePlan, TrainingPlan
from hone_operator.desired.dataset.materialize import materialize
from hone_operator.desired.run.attempt import AttemptInputs
from hone_operator.desired.run.training import training
from hone_operator.reconcile.staging import inputs

STEPS = 2
BASE = "base-models/tiny/abc"
"""Folder of the store."""
HUB = ("config", "split", "files", "secretName")
"""Fields of a source that are of a hub's data set."""
ON_A_CPU = {"gpusPerNode": 0, "nodes": 1, "cpu": "1", "memory": "4Gi"}


class Namespace:
    """A namespace in a folder."""

    def __init__(self, folder: Path, model: Path, rows: Iterable[Mapping[str, Any]]) -> None:
        self.folder = folder
        self.rows = list(rows)
        (self.store / BASE).parent.mkdir(parents=True)
        (self.store / BASE).symlink_to(model)

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def finish(self, objects: Iterable[Mapping[str, Any]]) -> Any:
        """The result of the job among these objects."""
        from hone_trainer.run import pipeline
        from hone_trainer.signals import Stop

        return pipeline.run_plan(self.training_plan(list(objects)), Stop())

    def training_plan(self, objects: list[Mapping[str, Any]]) -> TrainingPlan:
        """The plan of the job's first attempt, after its rows are made."""
        from hone_trainer.datasets import materialize as carried_out

        digests, datasets = {}, {}
        for body in objects:
            if body["kind"] == "Dataset":
                name = body["metadata"]["name"]
                made = carried_out.run(self._rows_plan(name, body["spec"]))
                digests[name] = made.digest
                splits = [{"name": split.name, "rows": split.rows} for split in made.splits]
                datasets[name] = {"status": {"splits": splits, "digest": made.digest}}
        job = next(body for body in objects if body["kind"] == "FineTuneJob")["spec"]
        steps = {key: value for key, value in job.get("training", {}).items() if key != "epochs"}
        spec = FineTuneJobSpec.model_validate({**job, "training": {**steps, "maxSteps": STEPS}, "resources": ON_A_CPU})
        resolved = Resolved(
            model_uri=f"pvc://hone-store/{BASE}",
            model_commit="abc",
            dataset_digests=digests,
            evaluation_datasets=inputs.held_out(spec, datasets),
            image=PLATFORM.trainer.image,
        )
        config, *_ = training(AttemptInputs(owner("FineTuneJob", "run"), spec, 1, resolved), PLATFORM)
        plan = json.loads(self._here(config["data"]["plan.json"], self._rewards(spec, objects)))
        return TrainingPlan.model_validate({**plan, "metricsPort": None})  # one of a pod, and this machine has others

    def _rows_plan(self, name: str, spec: Mapping[str, Any]) -> MaterializePlan:
        """Of a Job that reads the rows from a volume."""
        source = {key: value for key, value in spec["source"].items() if key not in HUB}
        parsed = DatasetSpec.model_validate({**spec, "source": {**source, "uri": "pvc://data/rows.jsonl"}})
        (self.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        config, *_ = materialize(owner("Dataset", name), parsed, 1, PLATFORM)
        plan = json.loads(self._here(config["data"]["plan.json"], {"/source/": f"{self.folder}/"}))
        return MaterializePlan.model_validate({**plan, "incoming": None, "downloadsPath": None})

    def _rewards(self, spec: FineTuneJobSpec, objects: list[Mapping[str, Any]]) -> dict[str, str]:
        """Path in the pod to the file here, of each reward in a ConfigMap."""
        code = {b["metadata"]["name"]: b["data"] for b in objects if b["kind"] == "ConfigMap"}
        files = {}
        for number, reward in enumerate(spec.grpo.rewards if spec.grpo else ()):
            if reward.python:
                file = self.folder / f"reward-{number}.py"
                file.write_text(code[reward.python.config_map_name][reward.python.key])
                files[f"/etc/hone-rewards/{number}/reward.py"] = str(file)
        return files

    def _here(self, plan: str, more: Mapping[str, str]) -> str:
        for there, here in {"/store": str(self.store), **more}.items():
            plan = plan.replace(f'"{there}', f'"{here}')
        return plan
