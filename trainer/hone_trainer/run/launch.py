"""Starts the ranks of one node: a fork of this process when there is one, else under torch's elastic agent.

`launch.run` is what `python -m hone_trainer run` calls. With several ranks it is also the program of each rank:
`python -m hone_trainer.run.launch <plan.json> <folder for results>`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NoReturn

from hone_api.contract.plan_reading import parse_plan
from hone_api.contract.report import TrainingResult
from hone_api.contract.termination import TerminationMessage
from hone_api.plan import TrainingPlan, plan_paths
from hone_api.words.failures import FailureCode
from hone_trainer.distributed import loopback, messages
from hone_trainer.distributed.heartbeat import Heartbeat
from hone_trainer.encoding import rendering
from hone_trainer.errors import ConfigError, TrainerError, to_outcome
from hone_trainer.models import merge_base
from hone_trainer.models.imports import uncollected
from hone_trainer.reporting import log_lines, phases, termination
from hone_trainer.run import ask_teacher, hangs, libraries, template_date
from hone_trainer.secrets import remember_variables, scrub
from hone_trainer.signals import Stop, die_with_parent, interrupted
from hone_trainer.store import contents, fence, finished

RENDEZVOUS_TIMEOUT = 900
"""Seconds that nodes wait for each other; images are pulled at different speeds."""
SHUTDOWN_ENV = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
"""Seconds from SIGTERM to SIGKILL of the ranks (torch: 30). The operator sets it a little below the pod's grace."""
NODE_ENV = "JOB_COMPLETION_INDEX"
"""Index of this pod in its Indexed Job; 0 without one."""
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "DISABLE_KUBEFLOW_INTEGRATION": "TRUE",
}
"""Training reads only what was staged, and TRL reports nothing to its makers. transformers' reporter to
Kubeflow would post next to ours, and says 100 % at any end, also after SIGTERM."""
LOOK = 0.1
"""Seconds between two looks whether the only rank has ended."""
UNKILLABLE = 30.0
"""Seconds in which a rank that was killed ends, unless the kernel cannot end it."""
BEFORE_A_STEP = "before the first step: there was nothing to save"
_LOST_PEER = re.compile(r"connection (closed|reset)|broken pipe|timed out waiting|\[.*gloo.*\]|socket timeout", re.I)


def run(plan: TrainingPlan, plan_dir: Path, since: float | None = None) -> TrainingResult | None:
    """Carry out the training plan on this node's ranks.

    Args:
        plan_dir: folder that the plan's relative paths are relative to.
        since: when the run began, by `time.monotonic()`; default: now.

    Returns:
        The result on node 0; None on the other nodes.

    Raises:
        TrainerError: the failure of the rank that failed first.
    """
    if plan.pods:
        raise ConfigError("`pods` of a plan is for `encode`: a run shares its work with no other pods")
    plan = plan_paths.absolute(plan, plan_dir)
    clock = phases.begin(Path(plan.work_path), plan.attempt, since)
    stop = Stop().install().leave_at_once(partial(_leave, plan))
    os.environ.update(OFFLINE)
    with uncollected():
        from hone_trainer.run import encode  # its libraries read OFFLINE when they are imported

    first = _node() == 0
    if first:
        fence.take_folder(plan)
    if (finished_run := finished.result(plan)) is not None:
        return finished_run if first else None
    finished.place(plan)  # what cannot be exported is not trained
    try:
        plan = template_date.fixed(plan, stop, first)
        ready = merge_base.prepare(contents.verify_datasets(plan), first)
        answered = ask_teacher.prepare(ready, stop, first)
        result = _run(encode.prepare(answered, stop, first), stop)
    except Exception as error:
        _keep_outcome(plan, _with_phases(to_outcome(fence.explain(plan, error))))
        raise
    finally:
        if first:
            clock.keep(Path(plan.work_path), plan.attempt)
    if result is not None:
        _keep_outcome(plan, _with_phases(TerminationMessage(result=result)))
    return result


def _with_phases(outcome: TerminationMessage) -> TerminationMessage:
    """The outcome with where the time of the attempt went."""
    return outcome.model_copy(update={"phases": phases.outcome()})


def _leave(plan: TrainingPlan) -> NoReturn:
    """End without a step, from within a signal handler: no library can take it for an error of its own."""
    os.write(2, f"Interrupted: stopped by a signal {BEFORE_A_STEP}\n".encode())  # print fails if it was interrupted
    _end_run(plan, to_outcome(interrupted(BEFORE_A_STEP)))


def _end_run(plan: TrainingPlan, failed: TerminationMessage) -> NoReturn:
    """End this process at once, with everything that a run leaves."""
    outcome = _with_phases(failed)
    _keep_outcome(plan, outcome)
    if _node() == 0:
        phases.of_process().keep(Path(plan.work_path), plan.attempt)
    termination.write(outcome)
    os._exit(outcome.exit_code)


def _run(plan: TrainingPlan, stop: Stop) -> TrainingResult | None:
    world = plan.nodes * plan.processes_per_node
    with tempfile.TemporaryDirectory(prefix="hone-ranks-") as folder:
        if world == 1 and plan.deepspeed is None:  # DeepSpeed wants a process group even for one rank
            return _run_here(plan, Path(folder), stop)
        return _run_ranks(plan, Path(folder), stop)


def _run_here(plan: TrainingPlan, folder: Path, stop: Stop) -> TrainingResult | None:
    """The only rank is a child, forked before it imports what trains; this process stays small, and looks after it."""
    rank = _fork(plan, folder, stop)
    watch = _NodeWatch(folder, plan.hang_timeout)
    watcher = watch.start()
    try:
        exit_code = _exit_code(rank, watch)
    finally:
        watcher.close()
    _, outcome = _outcomes(folder).get(0, (0.0, TerminationMessage()))
    phases.of_process().take_over(outcome.phases)
    if watch.failure:
        raise watch.failure
    if failure := outcome.failure:
        named = {"rank": failure.rank, "step": failure.step, "micro_batch_size": failure.micro_batch_size}
        raise TrainerError(FailureCode(failure.code), failure.message, **named)
    if not isinstance(outcome.result, TrainingResult):
        _end_as(exit_code or 1)
    return outcome.result


def _fork(plan: TrainingPlan, folder: Path, stop: Stop) -> int:
    """The process id of the rank, which gets the signals that this process gets."""
    signals, parent = (signal.SIGTERM, signal.SIGINT), os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # until each has its handlers
    rank = os.fork()
    if rank == 0:
        os.setsid()  # a terminal's Ctrl-C comes from the parent, and once
        stop.leave_at_once(lambda: _end(folder, 0, to_outcome(interrupted(BEFORE_A_STEP))))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        die_with_parent(parent)
        _carry_out(plan, folder, 0, stop, expected=set(FailureCode) - {FailureCode.TRAINER_ERROR})
    stop.pass_on(rank)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    return rank


def _exit_code(rank: int, watch: _NodeWatch) -> int:
    """That of the rank, once it has ended; one that hung may not even end when it is killed, inside of the kernel."""
    patience = UNKILLABLE
    while patience > 0:
        ended, status = os.waitpid(rank, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(LOOK)
        patience -= LOOK if watch.failure else 0
    return 1


def _end_as(exit_code: int) -> NoReturn:
    """End as the rank did, which left no report: whoever looks at this process sees the kernel's signal."""
    if exit_code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-exit_code, signal.SIG_DFL)
        os.kill(os.getpid(), -exit_code)
        exit_code = 128 - exit_code  # the first process of a container gets no such signal
    os._exit(exit_code)


def _log_hang(seen: Mapping[int, hangs.Seen], silent: float) -> TrainerError:
    """The failure, once the stacks are in the log."""
    error = hangs.describe(seen, silent)
    stacks = "".join(f"Rank {rank}:\n{one.stacks}\n" for rank, one in seen.items() if one.stacks)
    print(scrub(f"{stacks}{error.code}: {error}"), file=sys.stderr, flush=True)
    return error


def _node() -> int:
    """Index of this node."""
    return int(os.environ.get(NODE_ENV, "0"))


def _keep_outcome(plan: TrainingPlan, outcome: TerminationMessage) -> None:
    """outcome.json in the work folder: the whole outcome, for people without a cluster."""
    file = Path(plan.work_path) / "outcome.json"
    with contextlib.suppress(OSError):  # the disk may be what failed
        if outcome.failure:
            finished.keep(plan, outcome)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(outcome.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n")


def _run_ranks(plan: TrainingPlan, folder: Path, stop: Stop) -> TrainingResult | None:
    with uncollected():
        from torch.distributed.elastic.multiprocessing import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import elastic_launch

    node = _node()
    plan_file = folder / "plan.json"
    plan_file.write_text(plan.model_dump_json(by_alias=True))
    stop.check("before the ranks were started")
    stop.hold()  # torch's agent has handlers of its own, and passes the signal on to the ranks
    command = ("-u", "-m", "hone_trainer.run.launch", str(plan_file), str(folder))
    clock = phases.of_process()
    os.environ[phases.ENV] = clock.to_json()
    watch = _NodeWatch(folder, plan.hang_timeout)
    watcher = watch.start()
    try:
        elastic_launch(_launch_config(plan, node), sys.executable)(*command)
    except ChildFailedError as error:
        watcher.close()
        if watch.failure:
            raise watch.failure from error
        exits = {rank: failure.exitcode for rank, failure in error.failures.items()}
        raise first_failure(_outcomes(folder), exits, signalled=False) from error
    except SignalException as error:
        raise first_failure(_outcomes(folder), {}, signalled=True) from error
    finally:
        watcher.close()
        del os.environ[phases.ENV]
        if node == 0:
            _, rank_zero = _outcomes(folder).get(0, (0.0, TerminationMessage()))
            clock.take_over(rank_zero.phases)
    if node != 0:
        return None
    result = _outcomes(folder)[0][1].result
    assert isinstance(result, TrainingResult)
    return result


@dataclass
class _NodeWatch:
    """The ranks that the agent has started on this node, as the watcher sees them."""

    folder: Path
    hang_timeout: float | None
    failure: TrainerError | None = None
    _hearts: dict[int, Heartbeat] = field(default_factory=dict)
    _waited: bool = False

    def start(self) -> hangs.Watcher:
        return hangs.Watcher(self.hearts, self.on_hang, self.hang_timeout or hangs.STOPPED).start()

    def hearts(self) -> Mapping[int, Heartbeat]:
        for rank, heart in Heartbeat.ranks(self.folder).items():
            self._hearts.setdefault(rank, heart)
        return self._hearts

    def on_hang(self, silent: float) -> None:
        """Kill the ranks, so that the agent ends. If one has ended already, the agent may act by itself until the next
        call."""
        seen = hangs.look(self.folder, self._hearts)
        if seen and (len(seen) == len(self._hearts) or self._waited):
            self.failure = _log_hang(seen, silent)
            hangs.end(seen)
        self._waited = True


def _launch_config(plan: TrainingPlan, node: int) -> object:
    from torch.distributed.launcher.api import LaunchConfig

    several = plan.nodes > 1
    if several and not plan.master_address:
        raise TrainerError(FailureCode.INVALID_CONFIGURATION, "nodes > 1 needs masterAddress, the host name of node 0")
    endpoint, fd = (f"{plan.master_address}:{plan.master_port}", None) if several else loopback.listen()
    return LaunchConfig(
        min_nodes=plan.nodes,
        max_nodes=plan.nodes,
        nproc_per_node=plan.processes_per_node,
        run_id=f"{plan.run}-{plan.attempt}",
        rdzv_backend="static" if several else loopback.BACKEND,
        rdzv_endpoint=endpoint,
        rdzv_configs={"rank": node, "timeout": RENDEZVOUS_TIMEOUT, loopback.FD: fd},
        max_restarts=0,  # any rank's end ends the attempt; the operator decides about the next
        local_addr=None if several else "127.0.0.1",
        signals_to_handle="SIGTERM,SIGINT",
    )


Outcomes = dict[int, tuple[float, TerminationMessage]]
"""Time by `time.monotonic()`, and outcome, by rank, of the ranks that wrote one."""


def first_failure(outcomes: Outcomes, exits: dict[int, int], *, signalled: bool) -> TrainerError:
    """The failure that explains the end of all ranks. Pure.

    The others lose contact (RankFailed) or are stopped by the agent (Interrupted); the cause is the earliest
    report of another kind, else a rank that died without a report, else an orderly stop.

    Args:
        exits: exit codes of the ranks that failed (negative: signal).
        signalled: whether this node received a signal to stop.
    """
    failed = sorted((when, rank, o.failure) for rank, (when, o) in outcomes.items() if o.failure)
    causes = [(rank, f) for _, rank, f in failed if f.code not in (FailureCode.RANK_FAILED, FailureCode.INTERRUPTED)]
    stops = [(rank, f) for _, rank, f in failed if f.code == FailureCode.INTERRUPTED]
    if not causes and signalled:
        causes = stops
        if not causes:
            return interrupted("before its first checkpoint")
    silent = [rank for rank in sorted(exits) if rank not in outcomes]
    if not causes and any(exits[rank] == -signal.SIGPROF for rank in silent):
        return rendering.endless()
    if not causes and silent:
        return TrainerError(FailureCode.RANK_FAILED, f"rank {silent[0]} {_death(exits[silent[0]])}", rank=silent[0])
    causes = causes or stops or [(rank, f) for _, rank, f in failed]
    if not causes:
        return TrainerError(FailureCode.RANK_FAILED, "the ranks ended without a report")
    rank, failure = causes[0]
    at = rank if failure.rank is None else failure.rank
    micro = failure.micro_batch_size
    return TrainerError(FailureCode(failure.code), failure.message, rank=at, step=failure.step, micro_batch_size=micro)


def _death(exit_code: int) -> str:
    if exit_code >= 0:
        return f"ended with exit code {exit_code} and no report"
    name = signal.Signals(-exit_code).name
    cause = " (most often the kernel, out of memory)" if name == "SIGKILL" else ""
    return f"was killed by {name}{cause}"


def _outcomes(folder: Path) -> Outcomes:
    """What the ranks of this node wrote, with the time."""
    outcomes = {}
    for file in folder.glob("rank-*.json"):
        rank = int(file.stem.removeprefix("rank-"))
        outcomes[rank] = (file.stat().st_mtime, TerminationMessage.model_validate_json(file.read_text()))
    return outcomes


def _rank_main(plan_file: Path, folder: Path) -> None:
    """One rank: run, leave the outcome in a file, and end at once (a broken process group can hang at exit)."""
    rank = int(os.environ["RANK"])
    remember_variables()
    log_lines.set_up(logging.INFO if os.environ["LOCAL_RANK"] == "0" else logging.WARNING)
    phases.of_process()  # a signal may end this process before it trains
    stop = Stop().install().leave_at_once(lambda: _end(folder, rank, to_outcome(interrupted(BEFORE_A_STEP))))
    die_with_parent()  # no rank outlives a killed run
    plan = parse_plan(plan_file.read_bytes())
    assert isinstance(plan, TrainingPlan)
    messages.speak_json()
    libraries.hide_unused(plan)
    libraries.leave_out_peer_to_peer()
    _carry_out(plan, folder, rank, stop, expected={FailureCode.INTERRUPTED})


def _carry_out(plan: TrainingPlan, folder: Path, rank: int, stop: Stop, expected: Collection[FailureCode]) -> NoReturn:
    """Run, and end with the outcome.

    Args:
        expected: failures that are printed without a traceback.
    """
    hangs.write_stacks_to(folder, rank)
    heart = Heartbeat.create(folder, rank)
    try:
        with uncollected():
            from hone_trainer.run import pipeline

        outcome = TerminationMessage(result=pipeline.run_plan(plan, stop, heart))
    except KeyboardInterrupt:  # a second Ctrl-C
        os._exit(130)
    except BaseException as error:
        import traceback

        outcome = to_outcome(fence.explain(plan, _or_lost_peer(error)))
        if outcome.failure and outcome.failure.code not in expected:
            print(scrub(traceback.format_exc()), file=sys.stderr, flush=True)
    _end(folder, rank, outcome)


def _end(folder: Path, rank: int, outcome: TerminationMessage) -> NoReturn:
    temporary = folder / f".rank-{rank}"
    temporary.write_text(_with_phases(outcome).model_dump_json(by_alias=True))
    os.utime(temporary, (now := time.monotonic(), now))  # the node's clock may jump: which rank failed first?
    temporary.rename(folder / f"rank-{rank}.json")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(outcome.exit_code)


def _or_lost_peer(error: BaseException) -> BaseException:
    """RankFailed for what collectives raise when another rank is gone."""
    from torch.distributed import DistError

    if isinstance(error, DistError) or (isinstance(error, RuntimeError) and _LOST_PEER.search(str(error))):
        text = str(error).splitlines()[0][:300]
        return TrainerError(
            FailureCode.RANK_FAILED, f"lost contact with the other ranks at {time.strftime('%H:%M:%S')}: {text}"
        )
    return error


if __name__ == "__main__":
    _rank_main(Path(sys.argv[1]), Path(sys.argv[2]))
