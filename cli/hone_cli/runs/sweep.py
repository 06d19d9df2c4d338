"""`hone sweep`: trials of a job, one after the other and side by side, until it is known which settings to keep."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hone_cli.errors import CliExit, CommandError, printable
from hone_cli.reach.options import ContextOption, NamespaceOption, PricesOption, confirmed

if TYPE_CHECKING:
    from hone_cli.reach.objects import Objects
    from hone_cli.runs.planning import ApplyPlan
    from hone_cli.runs.prices import Prices
    from hone_cli.runs.trials import Sweep, SweepVerdict, Trial

SECONDS = 5.0
"""Between two looks at the trials."""
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,43}[a-z0-9])?")
"""Of a sweep: its jobs are called NAME-123, and a job's name has at most 52 characters."""


def sweep(
    files: Annotated[list[Path], typer.Argument(help="Manifests with one FineTuneJob; - reads standard input.")],
    vary: Annotated[
        list[str], typer.Option("--vary", help="FIELD=LOW..HIGH, FIELD=LOW..HIGH:log or FIELD=A,B,C; repeat it.")
    ],
    trials: Annotated[int, typer.Option(min=2, max=999, help="At most so many runs, with the manifest as it is.")] = 12,
    parallel: Annotated[int, typer.Option(min=1, max=100, help="Runs at the same time.")] = 2,
    budget: Annotated[
        str | None, typer.Option(help="Bound of all trials together: 40gpuh, or 200EUR with --prices.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Metric of the held-out rows; default: loss, of PPO and GRPO reward.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the sweep; default: that of the job with -sweep.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of settings.")] = 0,
    early: Annotated[
        bool, typer.Option("--early/--no-early", help="Stop trials that are worse than the median.")
    ] = True,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Start without asking.")] = False,
    prices: PricesOption = None,
    output: Annotated[
        Literal["yaml", "json"], typer.Option("--output", "-o", help="Form of the result: yaml or json.")
    ] = "yaml",
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Try settings of a job, and print the manifest to keep.

    The first trial is the manifest as it is. The others vary what --vary names, chosen by optuna (TPE), and are each
    compared with the first one by the same held-out rows. A trial is an ordinary FineTuneJob called NAME-1, NAME-2, …:
    it waits for quota and queue as any other, and shares the staged base and the encoded rows. If the best value of a
    trial is worse than the median of the finished ones at the same step, it is suspended, with a checkpoint.

    The jobs are all that a sweep remembers. If the command ends, the trials go on; the same command goes on with them.
    Progress is printed to standard error, and the manifest, with the evidence in its comments, to standard output.

    Exit codes: 0 the manifest is printed, 3 an object or a value is refused, 4 a trial does not fit or
    needs more than its part of the budget, 5 no trial succeeded, 130 interrupted, 1 other errors.

    \b
    hone sweep job.yaml --vary training.learningRate=1e-5..1e-3:log > best.yaml
    hone sweep job.yaml --vary adapter.rank=8,16,32 --trials 6 --parallel 3 --budget 40gpuh
    hone list; hone compare NAME-1 NAME-2          look at the trials
    kubectl delete ftj -l hone.dev/sweep=NAME      once you have what you want
    """
    try:
        import optuna  # noqa: F401
    except ImportError:
        way = "in a clone of the repository, pip install '.[cli,sweep]'"
        raise CommandError(f"hone sweep needs optuna: {way}") from None
    from hone_cli.reach.kube import Kube
    from hone_cli.reach.objects import Objects
    from hone_cli.runs import manifests, varied
    from hone_cli.runs.prices import read
    from hone_cli.runs.trials import Sweep, best_of

    space = varied.read(vary)
    objects, table = Objects(Kube.load(context, namespace)), read(prices)
    bodies = manifests.read(files, objects.kube.namespace)
    jobs = [body for body in bodies if body["kind"] == "FineTuneJob"]
    if len(jobs) != 1:
        raise CommandError(f"a sweep takes one FineTuneJob, and the files have {len(jobs)}")
    running = _Running(objects, jobs[0], [body for body in bodies if body is not jobs[0]], name or "", metric or "")
    hours = None if budget is None else _hours(budget, running.base["spec"], table)
    first, best = varied.present(running.base, space), best_of(running.metric)
    running.sweep = Sweep(space, first, best, trials, parallel, hours, seed, early)
    if not running.look():
        _begin(running, table, yes=yes)
    try:
        found = running.to_the_end()
    except KeyboardInterrupt:
        typer.echo("The trials go on. The same command goes on with them.", err=True)
        raise typer.Exit(130) from None
    typer.echo(running.as_json(found) if output == "json" else running.recipe(found), nl=False)
    raise typer.Exit(CliExit.DONE if found.best else CliExit.RUN_FAILED)


def _hours(budget: str, spec: Mapping[str, Any], prices: Prices | None) -> float:
    """GPU-hours of a bound.

    Raises:
        CommandError: it cannot be read, or nobody knows what it buys.
    """
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(gpuh|[A-Z]{3})", budget)
    if not found or not float(found[1]):
        raise CommandError(f"--budget {budget}: write 40gpuh, or 200EUR with --prices FILE")
    resources = spec.get("resources") or {}
    if not resources.get("gpusPerNode"):
        raise CommandError("--budget counts GPU hours, and the job has no GPU: limit its trials by --trials")
    if found[2] == "gpuh":
        return float(found[1])
    if prices is None or prices.currency != found[2]:
        has = "needs --prices FILE" if prices is None else f"is not in {prices.currency}, as the prices are"
        raise CommandError(f"--budget {budget} {has}")
    products = resources.get("gpuProducts") or [""]
    each = [prices.of(str(product), spot=False) for product in products]
    if not all(each):
        unknown = ", ".join(str(p) for p, price in zip(products, each, strict=True) if not price)
        raise CommandError(f"--budget {budget}: the prices have no gpuHour of {unknown or 'a GPU that is not named'}")
    return float(found[1]) / max(price or 0.0 for price in each)


@dataclass
class _Running:
    """A sweep and its objects in the cluster."""

    objects: Objects
    base: dict[str, Any]
    others: list[dict[str, Any]]
    """What stands next to the job in the files."""
    name: str
    metric: str
    sweep: Sweep = field(init=False)
    trials: list[Trial] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    _versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    _said: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from hone_api.methods import METHODS

        spec = self.base.get("spec")
        if not isinstance(spec, dict) or not isinstance(spec.get("output"), dict):
            raise CommandError("the FineTuneJob has no spec with output.modelName")
        info = METHODS.get(spec.get("method", "SFT"))
        self.metric = self.metric or ("reward" if info and info.samples else "loss")
        self.name = self.name or f"{self.base['metadata']['name']}-sweep"
        if not _NAME.fullmatch(self.name):
            words = "begins with a letter, has lower-case letters, digits and -, and at most 45 characters"
            raise CommandError(f"the name of a sweep {words}: give another than {self.name!r} by --name")

    @property
    def definition(self) -> str:
        """Digest of what all trials share, of what stands next to the job, and of what they vary."""
        shared = {**self.base["spec"], "suspend": None, "budget": None}
        text = json.dumps([shared, self._kept, [repr(each) for each in self.sweep.space], self.metric], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def _kept(self) -> list[dict[str, Any]]:
        """What stands next to the job in a result that people commit: no Secrets."""
        return [body for body in self.others if body["kind"] != "Secret"]

    def look(self) -> list[Trial]:
        """The trials as they are now.

        Raises:
            CommandError: objects of these names are of something else.
        """
        from hone_cli.runs.trials import DEFINITION, SWEEP, trial_of

        jobs = self.objects.list("FineTuneJob", labels=f"{SWEEP}={self.name}")
        for job in jobs:
            if (job["metadata"].get("annotations") or {}).get(DEFINITION) != self.definition:
                words = "has trials of another manifest, --vary or --metric"
                way = f"name another by --name, or delete them: kubectl delete ftj -l {SWEEP}={self.name}"
                raise CommandError(f"sweep {self.name} {words}: {way}")
        found = [trial_of(job, self._version(job), self.metric) for job in jobs]
        for trial in found:
            if strange := {*trial.settings} - {each.path for each in self.sweep.space}:
                words = f"says that it varies {printable(', '.join(sorted(strange)))}, which the sweep does not"
                raise CommandError(f"FineTuneJob {trial.name} {words}: somebody has changed it; delete it")
        self.trials = sorted(found, key=lambda trial: trial.number)
        return self.trials

    def _version(self, job: Mapping[str, Any]) -> dict[str, Any] | None:
        """Of a job that is over; its record does not change."""
        name = (job.get("status") or {}).get("modelVersionName")
        if name and name not in self._versions and (version := self.objects.find("ModelVersion", name)):
            self._versions[name] = version
        return self._versions.get(name or "")

    def body(self, number: int, settings: Mapping[str, Any], hours: float | None) -> dict[str, Any]:
        """The job of a trial."""
        from hone_api.blocks.placement import Budget
        from hone_cli.runs import varied
        from hone_cli.runs.trials import DEFINITION, SETTINGS, SWEEP, TRIAL

        body = varied.put(self.base, settings)
        meta, spec = body["metadata"], body["spec"]
        meta["name"] = f"{self.name}-{number}"
        meta["labels"] = {**(meta.get("labels") or {}), SWEEP: self.name, TRIAL: str(number)}
        own = {SETTINGS: json.dumps(settings), DEFINITION: self.definition}
        meta["annotations"] = {**(meta.get("annotations") or {}), **own}
        spec.pop("suspend", None)
        spec["output"] = {"modelName": self.name, "deletionPolicy": "Delete"}
        evaluation = {key: value for key, value in (spec.get("evaluation") or {}).items() if key != "against"}
        first = next((trial.version for trial in self.trials if trial.number == 1), None)
        if first and (spec.get("deepspeed") or {}).get("zeroStage") != 3:  # a stage that cannot hold another model
            evaluation["against"] = first["metadata"]["name"]
        spec["evaluation"] = evaluation
        if hours is not None:
            own_hours = Budget.model_validate(spec["budget"]).hours if spec.get("budget") else hours
            spec["budget"] = {"gpuHours": f"{min(hours, own_hours):.4f}"}
        return body

    def start(self, number: int, settings: Mapping[str, Any], hours: float | None) -> bool:
        """Create the job of a trial; what another loop of the same sweep has created is not an error.

        Returns:
            whether it was answered; otherwise ask again later.

        Raises:
            CommandError: the API server does not let this person, or the name of the first is of something else.
        """
        from hone_cli.reach.kube import ServerRefusalError
        from hone_cli.runs.trials import SWEEP

        body = self.body(number, settings, hours)
        try:
            self.objects.create(body)
        except ServerRefusalError as error:
            there = self.objects.find("FineTuneJob", body["metadata"]["name"])
            if there and (there["metadata"].get("labels") or {}).get(SWEEP) == self.name:
                return True
            if there and number == 1:
                raise CommandError(f"{error}, and is not a trial: give the sweep another name by --name") from None
            if error.passes:
                return False
            if number == 1 or "forbidden" in str(error).lower().split(":")[0]:
                raise
            self.refused[number] = printable(str(error))
        return True

    def to_the_end(self) -> SweepVerdict:
        """Start, stop and look until no trial is left."""
        from hone_cli.runs.trials import STOPPED, next_step, verdict
        from hone_cli.runs.watch import patiently

        while True:
            patiently(self.look, SECONDS)
            self._say()
            now = datetime.now(UTC)
            step = next_step(self.sweep, self.trials, self.refused, now)
            for name, why in step.stop.items():
                change = {"metadata": {"annotations": {STOPPED: why}}, "spec": {"suspend": True}}
                self.objects.merge("FineTuneJob", name, change)
            if step.stop:
                continue
            if step.number is not None and self.start(step.number, step.settings, step.hours):
                continue
            if step.over:
                found = verdict(self.sweep, self.trials, now)
                _print(f"The sweep is over: {step.over}. {found.words[:1].upper()}{found.words[1:]}.")
                return found
            time.sleep(SECONDS)

    def _say(self) -> None:
        """A line for each trial that has changed."""
        now = datetime.now(UTC)
        lines = {trial.number: _line(trial, now) for trial in self.trials}
        lines |= {number: f"trial {number} is refused: {why}" for number, why in self.refused.items()}
        for number, line in sorted(lines.items()):
            if self._said.get(number) != line.partition("; ")[0]:
                self._said[number] = line.partition("; ")[0]
                _print(line)

    def recipe(self, found: SweepVerdict) -> str:
        """The manifest to keep, with the evidence as comments; empty if there is none."""
        from hone_cli.runs import manifests

        if found.chosen is None:
            return ""
        text = manifests.as_yaml([*self._kept, self._chosen(found)])
        return "".join(f"# {printable(line)}\n" for line in self._evidence(found)) + text

    def _chosen(self, found: SweepVerdict) -> dict[str, Any]:
        from hone_cli.runs import varied

        return varied.put(self.base, found.chosen.settings if found.chosen else {})

    def _evidence(self, found: SweepVerdict) -> Iterable[str]:
        now = datetime.now(UTC)
        yield f"Sweep {self.name} by {self.metric} ({self.sweep.best.lower()} is best): {found.words}."
        yield "Intervals: 95 %, of a trial minus trial 1, by the same held-out rows. The one in the sentence above is"
        yield "wider: it counts how many trials the best was chosen from."
        yield from (_line(trial, now) for trial in self.trials)
        yield from (f"trial {number} is not compared: {why}" for number, why in found.incomparable.items())
        digests = ((self.trials[0].job.get("status") or {}).get("resolved") or {}).get("datasetDigests") or {}
        yield from (f"rows of {name}: {digest}" for name, digest in sorted(digests.items()))
        secrets = [body["metadata"]["name"] for body in self.others if body["kind"] == "Secret"]
        yield from (f"Secret {name} is not repeated here" for name in secrets)

    def as_json(self, found: SweepVerdict) -> str:
        """The result for programs."""
        now = datetime.now(UTC)
        rows = [
            {
                "number": trial.number,
                "name": trial.name,
                "state": trial.state,
                "settings": dict(trial.settings),
                "value": trial.value,
                "difference": vars(trial.difference) if trial.difference else None,
                "gpuHours" if trial.gpus else "hours": round(trial.hours(now), 4),
                "why": found.incomparable.get(trial.number) or trial.why or None,
            }
            for trial in self.trials
        ]
        out = {
            "sweep": self.name,
            "metric": self.metric,
            "best": found.best.number if found.best else None,
            "chosen": found.chosen.number if found.chosen else None,
            "better": found.better,
            "words": found.words,
            "trials": rows,
            "refused": self.refused,
            "manifest": self._chosen(found) if found.chosen else None,
        }
        return json.dumps(out, indent=2) + "\n"


def _line(trial: Trial, now: datetime) -> str:
    """A trial for people."""
    settings = " ".join(f"{path}={value}" for path, value in trial.settings.items()) or "the manifest as it is"
    waits = f"is suspended, and goes on with: hone resume {trial.name}" if trial.is_suspended else "runs"
    words = {"Open": waits, "Stopped": "is stopped", "Failed": "has failed", "Finished": ""}[trial.state]
    if trial.value is not None:
        words = f"{trial.metric} {trial.value:.4g}"
        if found := trial.difference:
            words += f", {found.value:+.4g} [{found.low:.4g}, {found.high:.4g}]"
    why = f": {printable(trial.why)}" if trial.why else ""
    used = "" if trial.state == "Open" else f"; {trial.hours(now):.2g} {'GPU-hours' if trial.gpus else 'hours'}"
    return f"trial {trial.number} ({settings}) {words}{why}{used}"


def _begin(running: _Running, prices: Prices | None, *, yes: bool) -> None:
    """Check all values, print the plan, ask, and apply what stands next to the job."""
    from hone_api.base.wording import counted, visible
    from hone_cli.runs import planning
    from hone_cli.runs.plan import lines
    from hone_cli.runs.run import apply

    objects, sweep_ = running.objects, running.sweep
    if any(each["spec"].get("modelName") == running.name for each in objects.list("ModelVersion")):
        raise CommandError(f"model {running.name} has versions already: give the sweep another name by --name")
    share = None if sweep_.gpu_hours is None else sweep_.gpu_hours / sweep_.trials
    first = running.body(1, {}, share)
    planned = planning.plan([*running.others, first], objects, prices, spot=False)
    typer.echo(visible("\n".join(lines(planned))), err=True)
    _refuse_values(running, share)
    bound = f", {sweep_.gpu_hours:g} GPU-hours in all" if sweep_.gpu_hours is not None else ""
    words = f"up to {counted(sweep_.trials, 'trial')} like this, {sweep_.parallel} at a time{bound}"
    _print(f"\n{running.name}: {words}{_price(planned, sweep_.trials)}")
    if planned.exit_code:
        typer.echo("Nothing was started.", err=True)
        raise typer.Exit(planned.exit_code)
    if not yes and not sys.stdin.isatty():
        raise CommandError("nobody can be asked here, and nothing was started: add --yes")
    if not yes and not confirmed(f"Start in namespace {objects.kube.namespace}?"):
        typer.echo("Nothing was started.", err=True)
        raise typer.Exit(CliExit.FAILED)
    apply(objects, running.others)


def _price(planned: ApplyPlan, trials: int) -> str:
    job = planned.jobs[0] if planned.jobs else None
    if job is None or not job.gpu_hours:
        return ""
    most = job.gpu_hours.times(trials)
    money = f", {job.price.times(trials).high:.2g} {job.currency}" if job.price else ""
    return f"; at most about {most.high:.2g} GPU-hours{money} if each trains as long"


def _refuse_values(running: _Running, share: float | None) -> None:
    """Ask for each value, with the others as in the manifest, whether the API server would accept it.

    Raises:
        typer.Exit: it refuses one.
    """
    from hone_cli.reach.kube import ServerRefusalError
    from hone_cli.runs.planning import own_problems

    problems: list[str] = []
    for each in running.sweep.space:
        for value in each.samples:
            body = running.body(1, {each.path: value}, share)
            found = list(own_problems("FineTuneJob", body["metadata"]["name"], body, alone=True))
            try:
                if not found:
                    running.objects.create(body, dry_run=True)
            except ServerRefusalError as error:
                found = [str(error)]
            problems += [f"--vary {each.path}: {value} is refused: {printable(words)}" for words in found]
    if problems:
        typer.echo("\n".join([*problems, "Nothing was started."]), err=True)
        raise typer.Exit(CliExit.REFUSED)


def _print(line: str) -> None:
    typer.echo(line, err=True)
