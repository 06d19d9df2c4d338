"""One rank of one run, from top to bottom."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hone_api.base.wording import counted
from hone_api.contract.report import TrainingResult
from hone_api.contract.termination import TerminationMessage
from hone_api.estimate.advice import advise
from hone_api.plan import TrainingPlan
from hone_api.words.failures import FailureCode
from hone_api.words.phases import SAVING
from hone_api.words.states import Reason
from hone_trainer import device, ranks
from hone_trainer.artifacts import export
from hone_trainer.artifacts.run_summary import Effort
from hone_trainer.distributed.heartbeat import Heartbeat
from hone_trainer.encoding import mapped, rendering
from hone_trainer.endpoints.tracker import NoTracker, Tracker, tracker_of
from hone_trainer.errors import TrainerError
from hone_trainer.evaluation import baseline, other_version, reward_scores
from hone_trainer.evaluation.final import FinalEvaluation, run_final_evaluation
from hone_trainer.evaluation.other_version import OtherVersion
from hone_trainer.harness import measuring
from hone_trainer.methods import METHODS
from hone_trainer.methods.arguments import recompute
from hone_trainer.models import adapters, base_model, generate, quantized, rope_scaling, targets
from hone_trainer.models.network import Generating
from hone_trainer.reporting import live
from hone_trainer.reporting.prometheus import PrometheusReporter
from hone_trainer.run import auto_micro_batch, estimate, leaks, preflight, resolve, rows, rows_in_one_pass, tracked
from hone_trainer.scoring import probe_suite
from hone_trainer.signals import Stop, interrupted
from hone_trainer.store import fence, finished
from hone_trainer.training import callbacks, deepspeed, learning_rate, model_check, selfcheck, settings
from hone_trainer.training.checkpoints import RunCheckpoints, ranks_of, step_of
from hone_trainer.training.l2sp import L2ToStart
from hone_trainer.training.loop import Loop, Run
from hone_trainer.training.method import TrainerParts
from hone_trainer.training.timing.forward import Forward
from hone_trainer.training.timing.hang_guard import HangGuard
from hone_trainer.training.timing.stragglers import Stragglers

if TYPE_CHECKING:
    from transformers import TrainerCallback, TrainingArguments

LONGEST_SENTENCE = 600
"""Characters of a sentence in the result."""


def run_plan(plan: TrainingPlan, stop: Stop, heart: Heartbeat | None = None) -> TrainingResult | None:
    """Carry out the training plan. Every rank calls this; the first one returns the result, the others None.

    Args:
        heart: where this rank shows that it goes on, for whoever watches it.

    Raises:
        TrainerError: with the code of the failure; Interrupted after a checkpoint when a stop was asked for.
    """
    started = time.monotonic()
    reporters = live.from_environment() if ranks.is_first() else live.Reporters()
    if plan.metrics_port is not None and ranks.is_first():
        reporters.add(PrometheusReporter(plan.run, plan.metrics_port))
    tracker = tracker_of(plan, reporters.log) if ranks.is_first() else NoTracker()
    try:
        with rendering.of_run(plan.template_date, plan.training.thinking):
            result = _run(plan, stop, reporters, tracker, heart or Heartbeat.private(), started)
        tracker.close(tracked.status_after(None))
    except BaseException as error:
        tracker.close(tracked.status_after(error))
        raise
    finally:
        reporters.close()
    return result


def _run(
    plan: TrainingPlan, stop: Stop, reporters: live.Reporters, tracker: Tracker, heart: Heartbeat, started: float
) -> TrainingResult | None:
    run = replace(prepare(plan, stop, reporters), heart=heart)
    if ranks.is_first():
        rows.claim(plan)
    run = auto_micro_batch.resolve(run)
    training = _train(run, tracker)
    run = training.trainer.run
    final = run_final_evaluation(training.trainer, training.base, training.other, training.exported)
    peak = _peak_memory(run)
    run.reporters.update(stage="Exporting")
    weights = export.weights(training.trainer)
    result = _result(run, training, final, peak)
    tracker.measure(result.steps, tracked.measured(result.numbers))
    result.tracking, missing = tracker.settle()
    result.advice += [missing[:LONGEST_SENTENCE]] if missing else []
    if ranks.is_first():
        fence.check(plan)
        folder = finished.begin(plan)
        for sentence in (*final.advice, *filter(None, [final.rejected])):
            run.reporters.log(sentence)
        effort = _effort(run, training, peak, time.monotonic() - started)
        record = _record(run, training, final, result, effort)
        result.artifacts = export.write(run, weights, training.trainer.model, record, folder)
        fence.check(plan)
        finished.keep(plan, TerminationMessage(result=result))
        finished.close(folder)
    ranks.barrier()
    return result if ranks.is_first() else None


@dataclass(frozen=True)
class FinishedTraining:
    """A run whose last step is done; the model is that of step `exported`."""

    trainer: Loop
    base: baseline.Baseline
    other: OtherVersion
    speed: callbacks.Report
    start: int
    """The step it went on from."""
    step: int
    exported: int
    loss: float
    """Mean over the steps of this attempt."""


def _train(run: Run, tracker: Tracker) -> FinishedTraining:
    """Train to the end, from the newest checkpoint where there is one, and load the best step."""
    newest = run.checkpoints.newest_valid(run.reporters.log)
    arguments = run.method.arguments(run.plan, run.settings)  # from here on the ranks can talk to each other
    other = other_version.measure(run)
    run, network = load(run, arguments)
    run = rows_in_one_pass.decided(run, network, arguments)
    arguments = run.method.arguments(run.plan, run.settings)
    chosen = chosen_numbers(run)
    tracker.describe(tracked.params(run.plan, chosen), step_of(newest) if newest else 0)
    base, speed = baseline.Baseline(run), callbacks.Report(run)
    schedule, early = callbacks.SaveAndEvaluateSchedule(run), callbacks.StopEarly(run)
    hooks: list[TrainerCallback] = [base, schedule, early, HangGuard(run), speed, Stragglers(run)]
    hooks.append(tracked.LogSteps(tracker, base, run.reporters))
    hooks += penalties(run.plan)
    trainer = build_trainer(run, arguments, network, hooks, newest)
    base.trainer = trainer
    settings.check_alike(run.settings)
    run.stop.check("while loading")
    if newest is not None:
        run.reporters.log(f"resuming from {newest.name}{_on_other_ranks(run, newest)}")
    if ranks.is_first():
        run.checkpoints.clear_partial()
    with run.completion.before_error():
        outcome = trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    with run.reporters.clock.within(SAVING):
        run.report_complete()
        ranks.barrier()
    step = trainer.state.global_step
    if ranks.any_rank(run.stop.requested):
        raise interrupted(f"after the checkpoint of step {step}", step=step)
    if not step:
        raise TrainerError(
            FailureCode.SELF_CHECK_FAILED, f"training ended without a step: {len(run.dataset)} rows gave no batch"
        )

    exported = trainer.best_step() or step
    if exported != step:
        trainer.load_step(run.checkpoints.path(exported))
    return FinishedTraining(
        trainer, base, other, speed, step_of(newest) if newest else 0, step, exported, outcome.training_loss
    )


def _on_other_ranks(run: Run, checkpoint: Path) -> str:
    """What changes where another number of ranks saved the checkpoint, for the end of a sentence."""
    saved, now = ranks_of(checkpoint), run.settings
    if saved in (0, now.world_size):
        return ""
    passes = counted(now.accumulation, "forward pass", "forward passes")
    part, before = ("all" if ranks == 1 else f"1/{ranks}" for ranks in (now.world_size, saved))
    parts = f"; each holds {part} of what ZeRO divides, no longer {before}" if run.plan.deepspeed else ""
    return (
        f" of {saved} ranks on {now.world_size}: a step still has {run.plan.training.batch_size} rows, now "
        f"{passes} of {now.micro_batch_size} on each rank; the order of the rows and the learning "
        f"rate stay, dropout draws other numbers{parts}"
    )


def penalties(plan: TrainingPlan) -> list[TrainerCallback]:
    """What adds to the gradient besides the loss."""
    return [L2ToStart(float(plan.training.l2_to_start))] if plan.training.l2_to_start else []


def load(run: Run, arguments: TrainingArguments) -> tuple[Run, Generating]:
    """The base model with its weights, which has shown that it can be trained, and the run with what it has shown.

    Raises:
        TrainerError: ModelUnsuitable.
    """
    plan = run.plan
    network = base_model.load(
        run.base,
        bf16=run.settings.bf16,
        cpu=run.settings.cpu,
        quantize=adapters.is_quantized(plan.adapter),
        frozen=adapters.is_adapter(plan.adapter),
        head=run.method.head,
        seed=plan.training.seed,
    )
    generate.guard(network, run.reporters.go_on)
    if not (plan.shards_weights or quantized.is_in_4_bits(network)):
        network.to(arguments.device)
    if run.method.head != "LanguageModel":
        return run, network
    look = model_check.Look.of(run, network, arguments.device)
    model_check.check_causal(look)
    return replace(run, has_own_head=model_check.has_own_head(look)), network


def build_trainer(
    run: Run, arguments: TrainingArguments, network: Generating, hooks: list[TrainerCallback], newest: Path | None
) -> Loop:
    """The method's trainer around the loaded model, to go on from the checkpoint `newest`."""
    from transformers import PrinterCallback

    plan, method = run.plan, run.method
    adapted = adapters.is_adapter(plan.adapter)
    if not adapted:
        targets.freeze_other_parts(network)
    parts = TrainerParts(
        model=network,
        args=arguments,
        train_dataset=run.dataset,
        processing_class=run.base.tokenizer,
        peft_config=adapters.to_peft(plan.adapter, network, method.head, newest) if adapted else None,
        callbacks=hooks,
    )
    recompute(network, run.settings.recompute)
    trainer = method.trainer(run, parts)
    trainer.remove_callback(PrinterCallback)  # our reporters report
    trainer.attach(run)
    if plan.deepspeed is None or plan.deepspeed.zero_stage < 3:  # ZeRO-3 wants one type, and has float32 masters
        adapters.in_float32(trainer.model)
    return trainer


def _result(run: Run, training: FinishedTraining, final: FinalEvaluation, peak: int) -> TrainingResult:
    """What the operator gets; without artifacts yet."""
    early = training.step < run.settings.total_steps
    speed = training.speed.tokens_per_second
    return TrainingResult(
        artifacts=[],
        numbers=final.numbers,
        samples=final.samples,
        steps=training.exported,
        stopped_early=early,
        reason=Reason.EARLY_STOPPED if early else Reason.COMPLETED,
        start_step=training.start,
        peak_memory_bytes=peak,
        estimated_memory_bytes=estimate.of_run(run),
        advice=[sentence[:LONGEST_SENTENCE] for sentence in (*run.advice, *final.advice)],
        rejected=final.rejected[:LONGEST_SENTENCE] or None,
        train_loss=f"{training.loss:.6f}" if training.step > training.start else None,
        tokens_per_second=f"{speed:.1f}" if speed else None,
        resolved={
            **chosen_numbers(run),
            **targets.describe(training.trainer.model),
            **final.resolved,
        },
        datasets=run.used,
    )


def chosen_numbers(run: Run) -> dict[str, int | str]:
    """What the plan leaves open."""
    plan = run.plan
    scaling = rope_scaling.resolved(run.base.config, plan.training)
    return {**run.settings.to_resolved(), **adapters.resolved(plan.adapter), **scaling}


def _effort(run: Run, training: FinishedTraining, peak: int, seconds: float) -> Effort:
    return Effort(
        seconds=round(seconds, 1),
        gpus=0 if run.settings.cpu else ranks.world_size(),
        peak_memory_bytes=peak,
        tokens_per_second=training.speed.tokens_per_second,
        useful_tokens=training.speed.useful_tokens,
        mfu=training.speed.mfu,
        estimated_memory_bytes=estimate.of_run(run),
        start_step=training.start,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _record(
    run: Run, training: FinishedTraining, final: FinalEvaluation, result: TrainingResult, effort: Effort
) -> export.RunRecord:
    """The content of the model's card and report."""
    return export.RunRecord(
        numbers=result.numbers,
        samples=final.samples,
        resolved=result.resolved,
        steps=training.exported,
        curves=[*training.base.curve(), *training.trainer.state.log_history],
        data=run.data,
        example=run.example,
        advice=result.advice,
        rejected=final.rejected,
        interpolation=final.curve,
        lowest=measuring.lowest(run.benchmarks),
        effort=effort,
    )


def prepare(plan: TrainingPlan, stop: Stop, reporters: live.Reporters) -> Run:
    """Everything before the weights are loaded: whatever can be refused is refused here.

    Raises:
        TrainerError: with the code of what is wrong.
    """
    reporters.update(stage="Loading")
    hardware = device.here()
    preflight.check_plan(plan, hardware, methods=METHODS)
    base = base_model.open_base(plan.model_path, training=plan.training)
    preflight.check_base(plan, base)
    if plan.deepspeed is not None:
        deepspeed.prepare(cpu=not hardware.cuda)
    data = rows.load(plan, base, reporters)
    reporters.update(stage="Loading")  # what was reported last may be that rows were encoded
    example = selfcheck.shown(data.train[0], base.tokenizer)
    benchmarks = measuring.load(plan, base)
    dataset, resolved = resolve.resolve_run(plan, base, data, hardware)
    advice = [
        *learning_rate.advice(plan, resolved.learning_rate),
        *advise(plan, len(data.train), data.tokens, resolved.max_length),
        *selfcheck.stretched(base, mapped.lengths(data.train)),
        *rope_scaling.advice(base.config, plan.training, mapped.lengths(data.train)),
        # Rows that are many were encoded before the run, which said so: the other ranks would wait for it here.
        *(leaks.advice(plan) if ranks.is_first() and plan.encoded_path is None else ()),
    ]
    if ranks.is_first():
        about_rows = (*data.sentences, *selfcheck.advice(base), *selfcheck.dated(base, plan.template_date))
        for sentence in (*about_rows, selfcheck.in_words(example), *benchmarks.sentences, *advice):
            reporters.log(sentence)
    run = Run(
        plan=plan,
        method=METHODS[plan.method],
        base=base,
        settings=resolved,
        rows=data.train,
        dataset=dataset,
        held_out=data.held_out,
        checkpoints=RunCheckpoints(Path(plan.work_path) / "checkpoints", plan.checkpoints.keep, plan),
        reporters=reporters,
        stop=stop,
        stop_ids=base.stop_ids | data.end_of_turn_ids,
        forward=None if ranks.world_size() == 1 or plan.waits_in_passes else Forward(cuda=hardware.cuda),
        data=data.summaries,
        used=data.used,
        probes=probe_suite.probes(plan, base),
        prompts=reward_scores.prompts(plan, base),
        benchmarks=benchmarks.benchmarks,
        advice=[*data.warnings, *selfcheck.advice(base), *advice],
        example=example,
    )
    if ranks.is_first():
        export.rehearse(run)
    return run


def _peak_memory(run: Run) -> int:
    """Peak bytes of one pod: of its GPUs' memory where there are GPUs, else resident memory. A collective."""
    import torch

    if run.settings.cpu:
        mine = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kibibytes on Linux
    else:
        mine = torch.cuda.max_memory_reserved()
    return int(ranks.add_up([float(mine)])[0] / run.plan.nodes)
