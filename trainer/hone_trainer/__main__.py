"""`python -m hone_trainer`: what a pod of the trainer image runs, and a person on a laptop.

Whatever happens ends as a `TerminationMessage` and an exit code of `hone_api.words.failures`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from hone_api import RELEASE
from hone_api.contract.plan_reading import read_plan
from hone_api.contract.report import DatasetResult, Result
from hone_api.contract.termination import TerminationMessage
from hone_api.plan import (
    PLAN_SHA256_ENV,
    DeliverPlan,
    FetchPlan,
    ImportPlan,
    LookupPlan,
    MaterializePlan,
    MeasurePlan,
    MixPlan,
    PlanFields,
    RegisterPlan,
    RowsPlan,
    SignPlan,
    SweepPlan,
    TasksPlan,
    TrainingPlan,
    VerifyPlan,
    plan_paths,
)
from hone_api.words.failures import FailureCode
from hone_trainer.commands import command_line
from hone_trainer.commands import options as command_options
from hone_trainer.errors import ConfigError, TrainerError, to_outcome
from hone_trainer.models.imports import uncollected
from hone_trainer.reporting import log_lines, phases, termination
from hone_trainer.secrets import remember_variables

OWN_OPTIONS = ("ask", "chat", "evaluate", "export", "follow")
"""Commands that parse the rest of the arguments themselves."""
log = logging.getLogger("hone.trainer")
AnyPlan = TypeVar("AnyPlan", bound=PlanFields)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code.
    """
    parser = command_line.parser()
    options, rest = parser.parse_known_args(arguments)
    remember_variables()
    log_lines.set_up()
    if rest and options.command not in OWN_OPTIONS:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    signal.signal(signal.SIGTERM, _interrupted)  # `run` has a handler of its own, which saves first
    try:
        outcome = TerminationMessage(result=_COMMANDS[options.command](options, rest))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except SystemExit:  # of a command's own argument parser
        raise
    except BaseException as error:
        outcome = to_outcome(error)
        _explain(outcome, error)
    outcome.phases = phases.outcome()
    termination.write(outcome)
    return outcome.exit_code


def _interrupted(*_: object) -> None:
    raise TrainerError(FailureCode.INTERRUPTED, "stopped by SIGTERM; what was begun is removed and can be begun again")


def _run(options: argparse.Namespace, _: list[str]) -> Result | None:
    since = phases.process_start()
    plan = _read_plan(options.plan, TrainingPlan)
    from hone_trainer.run import launch, libraries

    libraries.hide_unused(plan)
    return launch.run(plan, options.plan.resolve().parent, since)


def _materialize(options: argparse.Namespace, _: list[str]) -> Result | None:
    plan = _read_plan(options.plan, MaterializePlan)
    from hone_trainer.datasets import materialize, publishing
    from hone_trainer.workers.pods import this_pod

    if not (pod := this_pod(plan.pods)).leads:
        materialize.share(plan, pod)
        return None
    if plan.incoming is None:
        return materialize.run(plan)
    publishing.hand_over(plan, partial(materialize.make, plan))
    return None


def _mix(options: argparse.Namespace, _: list[str]) -> Result | None:
    plan = _read_plan(options.plan, MixPlan)
    from hone_trainer.datasets import mix, publishing

    if plan.incoming is None:
        return mix.run(plan)
    publishing.hand_over(plan, partial(mix.make, plan))
    return None


def _publish(options: argparse.Namespace, _: list[str]) -> Result | None:
    plan = _read_plan(options.plan, RowsPlan)
    from hone_trainer.datasets import publishing
    from hone_trainer.workers.pods import this_pod

    pods = plan.pods if isinstance(plan, MaterializePlan) else None
    return publishing.run(plan) if this_pod(pods).leads else None


def _fetch(options: argparse.Namespace, _: list[str]) -> Result:
    plan = _read_plan(options.plan, FetchPlan)
    from hone_trainer.models import fetch

    if plan.rows is None:
        return fetch.run(plan)
    from hone_trainer.run import encode

    return fetch.run(plan, partial(encode.try_rows, plan.rows))


def _encode(options: argparse.Namespace, _: list[str]) -> Result | None:
    plan = _read_plan(options.plan, TrainingPlan)
    from hone_trainer.run import launch, libraries

    os.environ.update(launch.OFFLINE)
    libraries.hide_unused(plan)
    with uncollected():
        from hone_trainer.run import encode  # its libraries read OFFLINE when they are imported

    return encode.run(plan)


def _verify(options: argparse.Namespace, _: list[str]) -> Result:
    from hone_trainer.store import verify

    if bool(options.plan) == bool(options.folder):
        raise ConfigError("verify takes a plan or --folder, and not both", FailureCode.INVALID_ARGUMENT)
    return verify.run(_read_plan(options.plan, VerifyPlan) if options.plan else verify.of_folders(options.folder))


def _tasks(options: argparse.Namespace, rest: list[str]) -> Result | None:
    if bool(options.plan) == bool(options.list):
        raise ConfigError("tasks takes a plan or --list, and not both", FailureCode.INVALID_ARGUMENT)
    if options.plan:
        return _with_plan(*PLANNED["tasks"])(options, rest)
    for uri in _imported("harness.catalogue", "addresses")(options.list):
        print(uri)
    return None


def _validate(options: argparse.Namespace, _: list[str]) -> Result:
    if options.model and not options.out:
        raise ConfigError(
            "--model needs --out: the plan that it estimates is kept there, next to the rows",
            FailureCode.INVALID_ARGUMENT,
        )
    with contextlib.redirect_stdout(sys.stderr if options.json else sys.stdout):
        result = _validated(options)
    if options.json:
        print(json.dumps(result.to_json()))
    if options.model and result.path:
        from hone_trainer.run import estimate, first_plan

        file = first_plan.write(options.out, options.model, result)
        print(f"plan:       {file}")
        estimate.show(_read_plan(file, TrainingPlan))
    return result


def _validated(options: argparse.Namespace) -> DatasetResult:
    from hone_trainer.datasets import validate

    return validate.run(
        validate.ValidationRequest(
            sources=options.sources,
            format=options.format,
            columns=options.column,
            ignored=options.ignore_column,
            dataset=options.dataset,
            against=options.against,
            html=options.html,
            out=options.out,
            synthesis=options.synthesis,
            private_addresses=options.allow_private_addresses,
        )
    )


_Command = Callable[[argparse.Namespace, list[str]], Result | None]


def _with_plan(kind: type[PlanFields], module: str, function: str = "run") -> _Command:
    """A command that reads its plan, and only then imports what carries it out."""

    def command(options: argparse.Namespace, _: list[str]) -> Result | None:
        plan = _read_plan(options.plan, kind)
        result: Result | None = _imported(module, function)(plan)
        return result

    return command


def _with_options(name: str) -> _Command:
    """A command that parses its arguments, and only then imports what carries it out."""

    def command(_: argparse.Namespace, rest: list[str]) -> None:
        arguments = getattr(command_options, name)(rest)
        _imported(f"commands.{name}", "main")(arguments)

    return command


def _imported(module: str, function: str) -> Callable[..., Any]:
    with uncollected():
        imported: Callable[..., Any] = getattr(import_module(f"hone_trainer.{module}"), function)
    return imported


PLANNED: dict[str, tuple[type[PlanFields], str, str]] = {
    "plan": (TrainingPlan, "run.estimate", "show"),
    "sweep": (SweepPlan, "datasets.sweep", "run"),
    "lookup": (LookupPlan, "models.lookup", "run"),
    "tasks": (TasksPlan, "harness.staging", "run"),
    "sign": (SignPlan, "artifacts.sign", "run"),
    "deliver": (DeliverPlan, "artifacts.delivery.deliver", "run"),
    "register": (RegisterPlan, "endpoints.mlflow.registry", "register"),
    "import": (ImportPlan, "commands.import_model", "run"),
    "measure": (MeasurePlan, "commands.measure", "run"),
}
"""Commands that carry out one plan: its kind, module and function."""
_COMMANDS: dict[str, _Command] = {
    **{name: _with_plan(*planned) for name, planned in PLANNED.items()},
    **{name: _with_options(name) for name in OWN_OPTIONS},
    "run": _run,
    "materialize": _materialize,
    "mix": _mix,
    "publish": _publish,
    "fetch": _fetch,
    "encode": _encode,
    "verify": _verify,
    "tasks": _tasks,
    "validate": _validate,
}


def _read_plan(path: Path, *kinds: type[AnyPlan]) -> AnyPlan:
    """The plan in a file, which is of one of these kinds, with absolute paths."""
    try:
        text = path.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        code = FailureCode.FILE_NOT_FOUND if missing else FailureCode.INVALID_ARGUMENT
        raise ConfigError(f"the plan {path} cannot be read: {error.strerror}", code) from None
    promised = os.environ.get(PLAN_SHA256_ENV)
    if promised and hashlib.sha256(text).hexdigest() != promised:
        raise ConfigError(
            f"{path} is not the plan that this pod was made for ({PLAN_SHA256_ENV}): somebody replaced the ConfigMap. "
            "Delete that ConfigMap and the Job; the operator makes both again"
        )
    plan, unknown = read_plan(text)
    if unknown:
        log.warning(
            "the plan is of Hone %s, this trainer of %s: it does not know %s and goes on without. "
            "Give the pods the image of the operator's release",
            plan.release,
            RELEASE,
            ", ".join(unknown),
        )
    if not isinstance(plan, kinds):
        names = " or ".join(kind.__name__.removesuffix("Plan") for kind in kinds)
        raise ConfigError(
            f"{path} is a {plan.kind} plan, this command takes a {names} plan",
            FailureCode.INVALID_ARGUMENT,
        )
    return plan_paths.absolute(plan, path.resolve().parent)


def _explain(outcome: TerminationMessage, error: BaseException) -> None:
    """The failure for people; a traceback only for what we do not know."""
    failure = outcome.failure
    assert failure is not None
    if failure.code == FailureCode.TRAINER_ERROR:
        log.error("unexpected error", exc_info=error)
    print(f"{failure.code}: {failure.message}\n  {failure.hint}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
