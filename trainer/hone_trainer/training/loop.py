"""What every method's trainer gets from us: whole checkpoints, a stop at the first non-finite number, our evaluation,
an orderly stop by signal. A mix-in for transformers' Trainer and TRL's trainers on top of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hone_api.dataset.dataset_status import DatasetUse
from hone_api.plan import TrainingPlan
from hone_api.words.failures import FailureCode
from hone_api.words.phases import SAVING
from hone_trainer import ranks
from hone_trainer.distributed.heartbeat import Heartbeat
from hone_trainer.encoding.split_file import Example
from hone_trainer.errors import TrainerError
from hone_trainer.models import generate, quantized
from hone_trainer.models.base_model import Base
from hone_trainer.models.network import Generating, Network
from hone_trainer.reporting.live import Reporters
from hone_trainer.scoring import early_stopping
from hone_trainer.scoring.heldout import HeldOut
from hone_trainer.scoring.scores import Score
from hone_trainer.signals import Stop
from hone_trainer.training import (
    deepspeed,
    finite,
    learning_rate,
    model_check,
    out_of_memory,
    resharding,
    same_weights,
    selfcheck,
)
from hone_trainer.training.batches import attention, batch_rows, samplers
from hone_trainer.training.batches.unpadded import Unpadded
from hone_trainer.training.checkpoints import Completion, RunCheckpoints, naming_disk_errors
from hone_trainer.training.settings import RunSettings
from hone_trainer.training.timing.forward import Forward

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Trainer

    from hone_trainer.harness.tasks import Benchmark
    from hone_trainer.scoring.probe_suite import Probe
    from hone_trainer.training.batches.shared_rows import RowGroup
    from hone_trainer.training.method import TrainingMethod
    from hone_trainer.training.selfcheck import Shown

    _Trainer = Trainer
else:
    _Trainer = object  # a mix-in: transformers is not imported, and TRL's trainers bring the real base

ZERO_STEPS = 20
"""Steps from the start after which a run is given up that never had a gradient."""
MOST_ROWS = 20
"""Rows that a message names."""


@dataclass
class Run:
    """Everything the parts of one run share."""

    plan: TrainingPlan
    method: TrainingMethod
    base: Base
    settings: RunSettings
    rows: Sequence[Example]
    dataset: Any
    """The rows as the method's trainer takes them."""
    held_out: list[HeldOut]
    checkpoints: RunCheckpoints
    reporters: Reporters
    stop: Stop
    stop_ids: frozenset[int]
    """Token ids that end a generation: the model's own, and the end-of-turn tokens that the rows train."""
    data: dict[str, str] = field(default_factory=dict)
    """What became of each split, in words."""
    used: list[DatasetUse] = field(default_factory=list)
    """What each Dataset gave to an epoch."""
    scores: dict[int, list[Score]] = field(default_factory=dict)
    """Scores of the held-out splits by the step they were measured at, of this attempt."""
    probes: list[Probe] = field(default_factory=list)
    """Probes that are measured in addition to the method's own metrics, before and after training."""
    prompts: list[HeldOut] = field(default_factory=list)
    """Held-out prompts whose answers evaluation.rewards score, before and after training."""
    benchmarks: Sequence[Benchmark] = ()
    """Tasks of lm-evaluation-harness, before and after training."""
    advice: list[str] = field(default_factory=list)
    """What looked wrong before the first step."""
    example: list[Shown] = field(default_factory=list)
    """A training row as the model reads it."""
    unpadded: Unpadded | None = None
    """The loaded model without padding in its passes, where it allows that."""
    group: RowGroup | None = None
    """The ranks that share this one's rows; None where each has rows of its own."""
    has_own_head: bool = False
    """Whether the loaded model computes its log-probabilities from its whole logits (see `model_check`)."""
    save_seconds: float = 0.0
    """For how long the last checkpoint stopped the run."""
    completion: Completion = field(default_factory=Completion)
    forward: Forward | None = None
    """The time of this rank's forward passes; None where it says nothing: with one rank, or sharded weights."""
    heart: Heartbeat = field(default_factory=Heartbeat.private)
    """Signs of life, for the process that watches this rank."""

    def advise(self, sentence: str | None) -> None:
        """Note advice for the log and the result; None for none. The same on every rank."""
        if sentence is None:
            return
        self.advice.append(sentence)
        if ranks.is_first():
            self.reporters.log(sentence)

    def report_complete(self, *, wait: bool = True) -> None:
        """Report the checkpoint that has become complete, if there is one; with `wait`, none is under way afterwards.

        Raises:
            TrainerError, OSError: it could not be made complete.
        """
        if done := self.completion.settle(wait=wait):
            self.reporters.update(checkpoint_step=done.step, checkpoint_bytes=done.size_bytes)

    @property
    def is_measured(self) -> bool:
        """Whether there is something to measure before and after."""
        return bool(self.held_out or self.probes or self.benchmarks)

    def begin_evaluation(self, stage: str, *, is_scored: bool = False) -> None:
        """Report that all rows are measured now, except those of benchmarks.

        Args:
            is_scored: whether the scores of the held-out rows are known.
        """
        parts = (*(() if is_scored else self.held_out), *self.probes, *self.prompts)
        self.reporters.begin_rows(stage, sum(len(part.rows) for part in parts))


class StopRequested(Exception):  # noqa: N818 - not an error
    """A stop was asked for in the middle of an evaluation."""


@dataclass(frozen=True)
class RunPoll:
    """The `Poll` of work within a run: it shows that the rank goes on, and how many rows are done."""

    run: Run
    stopped: Callable[[], Exception] = StopRequested
    """The error for a stop that was asked for."""

    def __call__(self) -> None:
        self.run.heart.again()
        if ranks.any_rank(self.run.stop.requested):
            raise self.stopped()

    def count(self, done: int, begun: int = 0) -> None:
        self.run.reporters.add_rows(done, begun)


def _leave_out(folder: str) -> None:
    """In place of a model card in a checkpoint: nothing reads it."""


class Loop(_Trainer):
    """Mix-in; goes before the trainer class in the bases. `attach` must be called before `train`."""

    run: Run
    is_empty = False
    """Whether the pass is of a row that does not count (see `Dealt`)."""
    MEANS: ClassVar[bool] = False
    """Whether its loss head returns the mean logits."""
    PRIVATE: ClassVar[tuple[str, ...]] = ("training_args.bin",)
    """Files that transformers and TRL put into a checkpoint and nothing reads; this one is a pickle."""

    def attach(self, run: Run) -> None:
        from hone_trainer.training import chunked_loss  # loads torch

        self.run = run
        self.poll = RunPoll(run)
        self._is_checked = False
        self._zero_steps: int | None = 0
        """Steps without a gradient so far; None once there was one."""
        self._computed: Any = 0
        self._useful: Any = 0
        """Tokens of the forward passes since the last log, and those of rows among them."""
        self._micro_batches: list[tuple[Any, Any]] = []
        """Inputs and loss of the step's micro batches so far."""
        if chunked_loss.is_installed(self.model):
            self.put_head_on(self.model)
            if run.has_own_head:
                run.advise(
                    "the loss is computed from the whole logits, because the loss heads that save memory leave out a "
                    f"part of a {run.base.config.model_type}: a step needs more memory than estimated"
                )
        if run.forward:
            run.forward.watch(self.model)
        if hasattr(self.model, "create_or_update_model_card"):  # of peft, which would render it for each checkpoint
            self.model.create_or_update_model_card = _leave_out

    @property
    def head_temperature(self) -> float:
        """By which the loss head divides logits."""
        return float(getattr(self.args, "temperature", 1.0))

    def put_head_on(self, model: Generating) -> None:
        """Give a model that has TRL's loss head the one that this run computes by."""
        from hone_trainer.training import chunked_loss  # loads torch

        if self.run.has_own_head:
            chunked_loss.use_logits(model, self.head_temperature)
        else:
            chunked_loss.install(model, self.head_temperature, means=self.MEANS)

    def get_train_dataloader(self) -> Any:
        """The library's, without a Python object for each row of the data."""
        loader = super().get_train_dataloader()
        samplers.compact(loader)
        return loader

    # A stop at the first non-finite number, before it reaches the weights

    def training_step(self, model: Network, inputs: Any, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        gradients = None if self._is_checked else self._before_first_step(inputs)
        by_bounds = isinstance(inputs, Mapping) and "cu_seq_lens_q" in inputs
        choice, unpadded = self.run.settings.attention if by_bounds else None, self.run.unpadded
        if by_bounds:  # a stand-in for rows comes from no loader, which would have moved it to the device
            inputs = self._prepare_inputs(inputs)
            inputs = self.run.group.filled(inputs) if self.run.group else inputs
        try:
            with (
                attention.by_row(self.model.config, choice, inputs, self.run.group) if choice else nullcontext(),
                unpadded.with_backward() if unpadded else nullcontext(),
            ):
                loss = super().training_step(model, inputs, num_items_in_batch)
        except generate.NotFiniteError as error:
            raise self._diverged(str(error), [inputs]) from None
        except (MemoryError, RuntimeError) as error:
            spent = out_of_memory.in_step(error, self.run, self.state.global_step + 1)
            if (failure := spent or model_check.without_gradient(error, self.run)) is None:
                raise
            raise failure from error
        if gradients is not None:
            needs_all = ranks.world_size() > 1 and not self.is_deepspeed_enabled
            self.run.advise(gradients.check(needs_all=needs_all))
        computed, useful = batch_rows.tokens(inputs)
        self._computed = self._computed + (useful if unpadded else computed)
        self._useful = self._useful + (0 if self.is_empty else useful)
        # It is read at the end of the step: reading it here would make the host wait for the device each time.
        self._micro_batches.append((None if self.is_empty else inputs, loss.detach()))
        return loss

    def _before_first_step(self, inputs: Any) -> model_check.Gradients:
        self._is_checked = True
        if self.run.plan.learning_rate_halvings:
            learning_rate.set_rate(self.lr_scheduler, self.run.settings.learning_rate)
        if isinstance(inputs, Mapping) and not self.is_empty:
            selfcheck.batch(inputs)
        if quantized.is_in_4_bits(self.model):
            quantized.check_gradient(self.model)
        return model_check.Gradients(self.model)

    def _get_grad_norm(self, model: Network, grad_norm: Any = None) -> float | None:
        """The gradient norm of a step, read together with the losses of its micro batches. The optimizer comes next."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        micro, self._micro_batches = self._micro_batches, []
        *losses, total_norm = finite.read([*(loss for _, loss in micro), 0.0 if norm is None else norm])
        for (inputs, _), loss in zip(micro, losses, strict=True):
            if not math.isfinite(loss):
                raise self._diverged(f"the loss is {loss}", [inputs])
        if not math.isfinite(total_norm):
            raise self._diverged(f"the gradient norm is {total_norm}", [inputs for inputs, _ in micro])
        if norm is not None:
            self._count_zero(total_norm)
        return None if norm is None else total_norm

    def _count_zero(self, norm: float) -> None:
        """GRPO can have steps without a gradient, and looks at their reasons itself; DeepSpeed's norm is not of all
        stages and precisions."""
        if self._zero_steps is None or norm or self.run.plan.grpo or self.is_deepspeed_enabled:
            self._zero_steps = None
            return
        self._zero_steps += 1
        step, patience = self.state.global_step + 1, min(ZERO_STEPS, self.run.settings.total_steps)
        if self._zero_steps >= patience:
            message = f"the gradient was 0 in each of the {self._zero_steps} steps so far: no weight has changed"
            raise TrainerError(FailureCode.NO_GRADIENT, message, rank=ranks.rank(), step=step)

    def _diverged(self, what: str, micro: Sequence[Any]) -> TrainerError:
        step = self.state.global_step + 1
        numbers = list(dict.fromkeys(n for inputs in micro for n in batch_rows.numbers(inputs, self.run.rows)))
        where = "its micro batch" if len(micro) == 1 else "the step"
        rows = f", rows {', '.join(map(str, numbers[:MOST_ROWS]))}" if numbers else ""
        more = " and more" if len(numbers) > MOST_ROWS else ""
        words = f"{rows}{more} of {where}" if rows else ""
        return TrainerError(FailureCode.DIVERGED, f"{what} at step {step}{words}", rank=ranks.rank(), step=step)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            useful, computed = finite.read([self._useful, self._computed])
            logs = {**logs, **({"useful_tokens": useful / computed} if computed else {})}
            self._computed, self._useful = 0, 0
        super().log(logs, start_time)

    # Checkpoints

    def _get_output_dir(self, trial: Any = None) -> str:
        return str(self.run.checkpoints.partial)

    def _save_checkpoint(self, model: Network, trial: Any = None) -> None:
        """transformers' checkpoint, written aside by all ranks; the first makes it complete meanwhile. A collective."""
        from transformers import Trainer

        store, step, since = self.run.checkpoints, self.state.global_step, time.monotonic()
        with self.run.reporters.clock.within(SAVING), naming_disk_errors(store.folder):  # a slow store is not a hang
            if not self.run.plan.shards_weights:
                unlike = same_weights.check(self.model, step)
                self.run.advise(unlike if unlike not in self.run.advice else None)
            if ranks.is_first():
                self.run.report_complete()
                store.begin()
            ranks.barrier()
            Trainer._save_checkpoint(self, model, trial)  # not TRL's, which adds a model card
            ranks.barrier()
            if ranks.is_first():
                self.run.completion.begin(store, step, self.best_step(), self.PRIVATE)
        self.run.save_seconds = time.monotonic() - since

    # Evaluation

    def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
        """Scores on the held-out rows; called by transformers every `evaluation_every` steps."""
        self.run.reporters.begin_rows("Evaluating", sum(len(split.rows) for split in self.run.held_out))
        step = self.state.global_step
        try:
            scores = self.scores()
        except StopRequested:
            self.control.should_save = self.control.should_training_stop = True
            return {}
        self.run.scores = {step: scores}
        total = sum(scores[1:], scores[0])
        metrics = {f"eval_{name}": total.value(name) for name in self.run.method.metrics}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        loss = metrics.pop("eval_loss", None)
        self.run.reporters.update(stage="Training", eval_step=step, eval_loss=loss, metrics=metrics)
        return metrics

    def scores(self) -> list[Score]:
        """One score a held-out split, of the model as it is. A collective."""
        method, step = self.run.method, self.state.global_step
        scores = [method.score(self, split, self.poll) for split in self.run.held_out]
        for split, score in zip(self.run.held_out, scores, strict=True):
            value = score.value(method.goal.metric)
            if not math.isfinite(value):
                message = f"the {method.goal.metric} on {split.name} is {value} after step {step}"
                raise TrainerError(FailureCode.DIVERGED, message, step=step)
        return scores

    def scoring_model(self) -> Network:
        """The model to run forward: DeepSpeed's engine where weights are sharded."""
        model: Network = self.model_wrapped if self.is_deepspeed_enabled else self.model
        return model

    def best_step(self) -> int | None:
        """Step with the best held-out value so far; None without early stopping."""
        early, goal = self.run.plan.early_stopping, self.run.method.goal
        return early_stopping.best_step(self.state.log_history, float(early.min_delta), goal) if early else None

    # Control flow

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        """The library's. It is called when DeepSpeed's engine exists, and has loaded no checkpoint yet."""
        if self.run.plan.deepspeed is not None:
            resharding.allow_other_ranks(self.accelerator.deepspeed_engine_wrapped.engine)
        return super().create_scheduler(*args, **kwargs)

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        prepared = super()._prepare_for_training(*args, **kwargs)
        if self.run.plan.deepspeed is not None:
            deepspeed.assert_sharded(self)
        return prepared

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is trained beyond the last step: transformers would do one more when resumed at the end."""
        if self.finished():
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def finished(self) -> bool:
        """Whether no step is left: the last was done, early stopping fired, or a stop was asked for."""
        state = self.state
        early = self.run.plan.early_stopping
        return bool(
            state.global_step >= self.run.settings.total_steps
            or (
                early
                and early_stopping.should_stop(
                    state.log_history, early.patience, float(early.min_delta), self.run.method.goal
                )
            )
            or ranks.any_rank(self.run.stop.requested)
        )

    def load_step(self, path: Path) -> None:
        """Put the weights of a checkpoint into the model; a collective."""
        self.state.best_model_checkpoint = str(path)
        self._load_best_model()
