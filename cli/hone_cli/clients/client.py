"""`from hone import Client`: the commands of every day as functions. Nothing is decided here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from hone_api import API_VERSION
from hone_api.base.reading import read_known
from hone_api.dataset.dataset import DATASET
from hone_api.kinds.finetunejob import FINE_TUNE_JOB, FineTuneJobSpec
from hone_api.kinds.finetunejob_status import FineTuneJobStatus
from hone_api.kinds.model import MODEL
from hone_api.kinds.modelversion import ModelVersionSpec, ModelVersionStatus
from hone_api.words.states import ConditionType
from hone_cli import lineage, versions
from hone_cli.clients import drawing
from hone_cli.errors import CommandError
from hone_cli.reach.kube import Kube
from hone_cli.reach.objects import Objects
from hone_cli.runs import compare, jobs, logs, manifests, planning, prices
from hone_cli.runs.run import apply
from hone_cli.runs.view import curves, ending, has_failed, is_over, sentences, view
from hone_cli.runs.watch import SECONDS, looks, wait_for_version

if TYPE_CHECKING:
    import pandas

    from hone_cli.chat import RemoteChat

Manifest = str | Path | Mapping[str, Any]
"""A file with manifests, or one object."""
Progress = Callable[["HoneRun"], object]
M = TypeVar("M", bound=BaseModel)
_KINDS = (DATASET, FINE_TUNE_JOB, MODEL)


class PlanRefusedError(CommandError):
    """Nothing was applied: an object is refused, or a job does not fit or exceeds its budget."""

    def __init__(self, plan: planning.ApplyPlan) -> None:
        refused = [f"{each.kind} {each.name}: {words}" for each in plan.objects for words in each.problems]
        misfits = [f"{job.name}: {job.misfit}" for job in plan.jobs if job.fits is False]
        misfits += [
            f"{job.name}: its plan exceeds the budget of {job.budget_gpu_hours:g} GPU-hours"
            for job in plan.jobs
            if job.over_budget
        ]
        super().__init__(f"nothing was applied: {'; '.join(refused or misfits)}")
        self.plan = plan


class RunFailedError(CommandError):
    """The run is over, and its model cannot be used."""


class NotFinishedError(CommandError):
    """The run is not over."""


def manifest(name: str, spec: BaseModel) -> dict[str, Any]:
    """The object of a spec, e.g. of a FineTuneJobSpec, for `Client.plan` and `Client.run`."""
    kind = next((kind.kind for kind in _KINDS if isinstance(spec, kind.spec)), None)
    if kind is None:
        raise CommandError(f"{type(spec).__name__} is not the spec of {', '.join(each.kind for each in _KINDS)}")
    body = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": body}


class HoneClient:
    """One namespace of a cluster, by the kubeconfig and with your own rights, as the command `hone`.

    Args:
        namespace: default: the context's.
        context: of the kubeconfig; default: the current one.
        price_table: the file of `hone plan --prices`.

    Every method raises HoneError (`hone_cli.errors.CommandError`) with one sentence for people.
    """

    def __init__(
        self, namespace: str | None = None, context: str | None = None, price_table: str | Path | None = None
    ) -> None:
        self.objects = Objects(Kube.load(context, namespace))
        self.prices = prices.read(Path(price_table) if price_table else None)

    def bodies(self, sources: Iterable[Manifest]) -> list[dict[str, Any]]:
        """The objects of files and mappings, in the order in which they are applied."""
        found: list[tuple[str, Any]] = []
        for number, source in enumerate(sources, 1):
            if isinstance(source, Mapping):
                found.append((f"object {number}", dict(source)))
            else:
                found += [(str(source), body) for body in manifests.documents(Path(source))[1]]
        return manifests.ordered(found, self.objects.kube.namespace)

    def plan(self, *sources: Manifest, spot: bool = False) -> planning.ApplyPlan:
        """What these manifests would do, need and cost; nothing is changed. See `hone plan`."""
        return planning.plan(self.bodies(sources), self.objects, self.prices, spot=spot)

    def run(self, *sources: Manifest) -> HoneRun:
        """Plan and apply; the run of the only job in them. See `hone run`.

        Raises:
            PlanRefusedError: an object is refused, or a job does not fit or exceeds its budget; nothing was applied.
            HoneError: they have no job, or several: then use `start`.
        """
        names = [body["metadata"]["name"] for body in self.bodies(sources) if body["kind"] == FINE_TUNE_JOB.kind]
        if len(names) != 1:
            raise CommandError(f"run takes one FineTuneJob, not {len(names)}: use start. Nothing was applied")
        return self.start(*sources)[0]

    def start(self, *sources: Manifest) -> list[HoneRun]:
        """Plan and apply; the runs of all jobs in them."""
        bodies = self.bodies(sources)
        plan = planning.plan(bodies, self.objects, self.prices, spot=False)
        if plan.exit_code:
            raise PlanRefusedError(plan)
        apply(self.objects, bodies)
        return [self.job(body["metadata"]["name"]) for body in bodies if body["kind"] == FINE_TUNE_JOB.kind]

    def job(self, name: str) -> HoneRun:
        """A run by the name of its FineTuneJob."""
        return HoneRun(self.objects, self.objects.get(FINE_TUNE_JOB.kind, name))

    def jobs(self) -> list[HoneRun]:
        """The runs of the namespace, the newest first."""
        return [HoneRun(self.objects, body) for body in jobs.newest_first(self.objects)]

    def compare(self, *names: str) -> dict[str, dict[str, list[Any]]]:
        """Settings that differ, curves and numbers of two or more runs. See `hone compare`."""
        return compare.looked_up(self.objects, names)[1]

    def models(self) -> list[lineage.ModelNode]:
        """The models of the namespace, from their rows to their aliases. See `hone models`."""
        kube = self.objects.kube
        return lineage.trees(kube.all_models(), kube.model_versions(None))

    def version(self, reference: str) -> HoneVersion:
        """The ModelVersion of `model`, `model:3`, `model@alias` or `model-v3`."""
        return HoneVersion(self.objects, versions.chosen(self.objects.kube, reference))


@dataclass
class HoneRun:
    """A FineTuneJob as it was at the last look; `refresh` and `wait` look again."""

    objects: Objects
    body: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the FineTuneJob."""
        return str(self.body["metadata"]["name"])

    @property
    def spec(self) -> FineTuneJobSpec:
        """The fields that this release knows."""
        return _known(FineTuneJobSpec, self.body["spec"])

    @property
    def status(self) -> FineTuneJobStatus:
        """The fields that this release knows."""
        return _known(FineTuneJobStatus, self.body.get("status") or {})

    @property
    def line(self) -> str:
        """Stage, steps and numbers, for people."""
        return sentences(ending(self.body)) if is_over(self.body) else view(self.body).line()

    @property
    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Step and value of each curve, by the name of the metric."""
        return curves(self.body)

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens by itself."""
        return is_over(self.body)

    def frame(self) -> pandas.DataFrame:
        """The curves as a data frame: a row for each step, a column for each metric."""
        try:
            import pandas
        except ImportError:
            raise CommandError("a data frame needs pandas, which is not installed: pip install pandas") from None
        columns = {name: pandas.Series(dict(points), dtype=float) for name, points in self.curves.items()}
        return pandas.DataFrame(columns).rename_axis("step")

    def refresh(self) -> HoneRun:
        """Look again."""
        self.body = self.objects.get(FINE_TUNE_JOB.kind, self.name)
        return self

    def looks(self, seconds: float = SECONDS) -> Iterator[HoneRun]:
        """Itself every few seconds, until the run is over and its model verified, or cannot be used.

        Raises:
            HoneError: it was deleted, or the cluster does not answer for a minute.
        """
        for body in looks(self.objects, self.name, seconds):
            self.body = body
            yield self
        if version := self.status.model_version_name:
            wait_for_version(self.objects, version, lambda _: None, seconds)

    def wait(self, progress: Progress | None = None, *, seconds: float = SECONDS) -> HoneRun:
        """Wait until the run is over; `progress` is called with the run at each look.

        `progress=display(run, display_id=True).update` of a notebook draws the curves while they grow.
        """
        for run in self.looks(seconds):
            if progress is not None:
                progress(run)
        return self

    def result(self) -> HoneVersion:
        """The version that the run made.

        Raises:
            NotFinishedError: it is not over: `wait` first.
            RunFailedError: it failed, or its version cannot be used.
        """
        if not is_over(self.body):
            raise NotFinishedError(f"{self.name} is not over ({self.line}): wait for it")
        name = self.status.model_version_name
        if has_failed(self.body) or name is None:
            raise RunFailedError(self.line)
        if (body := self.objects.find("ModelVersion", name)) is None:
            raise RunFailedError(f"{self.name} has made ModelVersion {name}, which is gone")
        stalled = versions.condition(body, ConditionType.STALLED) or {}
        if stalled.get("status") == "True":
            raise RunFailedError(f"{name} cannot be used: {stalled.get('reason')}: {stalled.get('message', '')}")
        return HoneVersion(self.objects, body)

    def logs(self, rank: int = 0, tail: int = 100, *, previous: bool = False) -> str:
        """What a pod of the newest attempt logs; `tail=0` is all of it."""
        return b"".join(logs.log(self.objects, self.name, rank, tail, previous=previous)).decode(errors="replace")

    def suspend(self) -> HoneRun:
        """Stop it for a while, with a checkpoint."""
        jobs.set_suspend(self.objects, self.name, suspended=True)
        return self.refresh()

    def resume(self) -> HoneRun:
        """Let it go on."""
        jobs.set_suspend(self.objects, self.name, suspended=False)
        return self.refresh()

    def cancel(self) -> None:
        """Delete the FineTuneJob; rows, models and versions stay."""
        body = jobs.unfinished(self.objects, self.name)
        self.objects.delete(FINE_TUNE_JOB.kind, self.name, body["metadata"]["uid"])

    def _repr_html_(self) -> str:
        return drawing.run(self.name, self.line, self.curves)


@dataclass
class HoneVersion:
    """A ModelVersion as it was at the last look."""

    objects: Objects
    body: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the ModelVersion."""
        return str(self.body["metadata"]["name"])

    @property
    def spec(self) -> ModelVersionSpec:
        """The fields that this release knows."""
        return _known(ModelVersionSpec, self.body["spec"])

    @property
    def status(self) -> ModelVersionStatus:
        """The fields that this release knows."""
        return _known(ModelVersionStatus, self.body.get("status") or {})

    @contextlib.contextmanager
    def chat(self, *, form: str | None = None, gpus: int = 0, memory: str | None = None) -> Iterator[Conversation]:
        """A conversation with the version and its base, in a pod that is deleted at the end. See `hone chat`."""
        from hone_cli.chat import opened

        with opened(self.objects.kube, versions.ready(self.body), form, gpus, memory) as remote:
            yield Conversation(remote)

    def download(self, folder: str | Path, form: str | None = None) -> Path:
        """Copy its files into a new folder; every byte is verified. See `hone download`."""
        from hone_cli.download import choose_artifact, fetch

        body = versions.ready(self.body)
        fetch(self.objects.kube, body, choose_artifact(body, form), Path(folder))
        return Path(folder)


class Conversation:
    """It goes on with the tuned model's answers; `messages` is what was said."""

    def __init__(self, remote: RemoteChat) -> None:
        self.remote = remote
        self.messages: list[Mapping[str, str]] = []

    def ask(self, question: str) -> dict[str, str]:
        """The answers by model: `base` and `tuned`."""
        asked = [*self.messages, {"role": "user", "content": question}]
        answers = {name: str(reply["text"]) for name, reply in self.remote.answers(asked).items()}
        self.messages = [*asked, {"role": "assistant", "content": answers["tuned"]}]
        return answers


def _known(model: type[M], value: Any) -> M:
    try:
        return read_known(model, value)[0]
    except ValidationError as error:
        raise CommandError(
            f"the cluster has a {model.__name__} that this release of hone does not know: install the release that "
            f"the cluster runs ({error.error_count()} fields differ)"
        ) from None
