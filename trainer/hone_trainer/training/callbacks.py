"""Hooks into transformers' loop. None has state that a resumed run needs."""

from __future__ import annotations

import time
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hone_api.estimate import gpus
from hone_api.estimate.cost import model_flops
from hone_api.methods import METHODS as INFOS
from hone_trainer import ranks
from hone_trainer.encoding import mapped
from hone_trainer.models import read_shape
from hone_trainer.scoring import early_stopping
from hone_trainer.training import checkpoint_interval

if TYPE_CHECKING:
    from hone_trainer.training.loop import Run


class SaveAndEvaluateSchedule(TrainerCallback):
    """When to evaluate and to save; the last step is always evaluated and saved. On a signal, all ranks agree to save
    and end. Comes first among ours."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._interval = checkpoint_interval.CheckpointInterval(run) if run.settings.checkpoint_auto else None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._interval:
            self._interval.begin(state.global_step)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._run.stop.hold()
        self._run.report_complete(wait=False)
        if self._interval:
            self._interval.begin_step()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._interval:
            self._interval.saved(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        step, settings = state.global_step, self._run.settings
        last = step >= state.max_steps
        control.should_evaluate = bool(self._run.held_out) and (last or step % settings.evaluation_every == 0)
        due = self._interval.is_due(step) if self._interval else step % settings.checkpoint_every == 0
        control.should_save = last or due
        if ranks.any_rank(self._run.stop.requested):
            self._run.stop.requested = True
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False


class StopEarly(TrainerCallback):
    """Saves each new best and stops when patience is at its end."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        early = self._run.plan.early_stopping
        if early is None:
            return
        goal = self._run.method.goal
        if early_stopping.best_step(state.log_history, float(early.min_delta), goal) == state.global_step:
            control.should_save = True
        if early_stopping.should_stop(state.log_history, early.patience, float(early.min_delta), goal):
            control.should_save = control.should_training_stop = True


def _of_peak(run: Run) -> float | None:
    """The share of the GPUs' peak that one token a second is; None where peak or sizes are unknown, or a step is more
    than a pass of the model forward and back."""
    if run.settings.cpu or not INFOS[run.plan.method].by_tokens or run.plan.distillation:
        return None
    import torch

    gpu, shape = gpus.find(torch.cuda.get_device_name().replace(" ", "-")), read_shape.shape(run.base.path)
    if gpu is None or shape is None:
        return None
    length = float(mapped.lengths(run.rows).mean())
    flops = model_flops(shape, length, frozen=run.plan.adapter.type != "None")
    return flops / (gpu.tflops * 1e12 * ranks.world_size())


class Report(TrainerCallback):
    """Progress and speed: one report a step, with what was measured up to that step. The clock runs from the end of one
    step to the end of the next, so it counts data loading, and not evaluation and checkpoints."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._mark = 0.0
        self._seconds = self._first_seconds = self._logged_seconds = 0.0
        self._tokens = self._earlier_tokens = 0.0
        self._first_step = 0
        self._useful = list[float]()
        self._of_peak = _of_peak(run)

    @property
    def tokens_per_second(self) -> float | None:
        """Mean over this attempt and all ranks."""
        tokens = self._tokens - self._earlier_tokens
        return tokens / self._seconds if self._seconds and tokens else None

    @property
    def useful_tokens(self) -> float | None:
        """Share of the computed tokens that are no padding: the mean of what was logged in this attempt."""
        return fmean(self._useful) if self._useful else None

    @property
    def mfu(self) -> float | None:
        """Share of the GPUs' peak, likewise; None where it is not known."""
        return self._mfu(self.tokens_per_second)

    def _mfu(self, speed: float | None) -> float | None:
        return speed * self._of_peak if speed and self._of_peak else None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._first_step = state.global_step
        self._tokens = self._earlier_tokens = float(
            state.num_input_tokens_seen
        )  # GRPO continues its count when resumed
        first = state.global_step
        self._run.reporters.update(
            stage="Training",
            step=first,
            start_step=first,
            total_steps=state.max_steps,
            checkpoint_bytes=self._run.checkpoints.size_bytes(),
        )
        self._mark = time.monotonic()

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._run.reporters.clock.begin_step()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._run.reporters.clock.end_step()
        now = time.monotonic()
        self._seconds += now - self._mark
        self._mark = now
        steps_done = state.global_step - self._first_step
        if steps_done == 1 and not INFOS[self._run.plan.method].samples:  # there, every n-th step also samples
            self._first_seconds = self._seconds  # compiles kernels and reserves memory, as no later step does
        skipped = 1 if steps_done > 1 and self._first_seconds else 0
        each = (self._seconds - skipped * self._first_seconds) / (steps_done - skipped)
        left = each * (state.max_steps - state.global_step)
        self._run.reporters.note(step=state.global_step, epoch=state.epoch, eta_seconds=round(left))
        if not control.should_log:  # else `on_log` reports the step, with its loss
            self._run.reporters.update()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        speed = self._run.reporters.progress.tokens_per_second or self.tokens_per_second
        ours = {ours: logs.get(theirs) for theirs, ours in self._run.method.logged.items()}
        if "num_tokens" in logs:  # GRPO counts them when it samples, and not at the further steps on the same samples
            tokens, elapsed = logs["num_tokens"], self._seconds - self._logged_seconds
            speed = (tokens - self._tokens) / elapsed if elapsed else None
            self._tokens, self._logged_seconds = tokens, self._seconds
        if "useful_tokens" in logs:
            self._useful.append(logs["useful_tokens"])
        self._run.reporters.update(
            loss_step=state.global_step,
            loss=logs["loss"],
            learning_rate=logs.get("learning_rate"),
            grad_norm=logs.get("grad_norm"),
            tokens_per_second=speed,
            useful_tokens=logs.get("useful_tokens"),
            gpu_memory_bytes=None if self._run.settings.cpu else torch.cuda.max_memory_reserved(),
            mfu=self._mfu(speed),
            metrics={name: value for name, value in ours.items() if value is not None},
        )

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._mark = time.monotonic()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._mark = time.monotonic()
