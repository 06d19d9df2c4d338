"""Group-relative policy optimisation (Shao et al. 2024, arXiv 2402.03300) and its relatives: DAPO (Yu et al. 2025,
arXiv 2503.14476), Dr. GRPO (Liu et al. 2025, arXiv 2503.20783), GSPO (Zheng et al. 2025, arXiv 2507.18071), CISPO
(MiniMax-M1, arXiv 2506.13585) and RLOO (Ahmadian et al. 2024, arXiv 2402.14740), by TRL's GRPOTrainer and RLOOTrainer.
They get the prompts as our own token ids, and the rewards of `hone_trainer.rewards`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone_api.estimate.micro_batch import longest_sequence
from hone_api.methods import GrpoMethod
from hone_api.plan import TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer import ranks
from hone_trainer.encoding.prompts import Prompt, PromptEncoder
from hone_trainer.errors import TrainerError
from hone_trainer.methods.arguments import common
from hone_trainer.methods.rl import compared_answers, generation, rewarding, samples, served
from hone_trainer.models.base_model import Base
from hone_trainer.models.network import Network
from hone_trainer.training import unread
from hone_trainer.training.batches import indexed
from hone_trainer.training.batches.samplers import PromptOrder
from hone_trainer.training.loop import Loop, Run
from hone_trainer.training.method import TrainerParts, TrainingMethod
from hone_trainer.training.settings import RunSettings

if TYPE_CHECKING:
    from transformers import TrainingArguments

LOSSES: dict[str, dict[str, str]] = {
    "GRPO": {"loss_type": "grpo"},
    "DAPO": {"loss_type": "dapo"},
    "DrGRPO": {"loss_type": "dr_grpo"},
    "BNPO": {"loss_type": "bnpo"},
    "GSPO": {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    "CISPO": {"loss_type": "cispo"},
}
"""Our names -> fields of TRL's GRPOConfig."""


def options(plan: TrainingPlan) -> GrpoMethod:
    """The plan's block, which the API makes sure of."""
    assert plan.grpo is not None
    return plan.grpo


def encoder(plan: TrainingPlan, base: Base) -> PromptEncoder:
    return PromptEncoder.with_room(plan, base, options(plan).max_completion_length)


def build_dataset(plan: TrainingPlan, rows: Sequence[Prompt], max_length: int) -> Any:
    """The prompts' token ids, each with the position of its row.

    Raises:
        TrainerError: InvalidConfiguration, when they do not fill one step.
    """
    samples, generations = plan.training.batch_size, options(plan).generations
    if len(rows) < samples // generations:
        message = (
            f"training.batchSize {samples} at grpo.generations {generations} wants {samples // generations} prompts a "
            f"step, and there are {len(rows)}: lower batchSize, or raise generations"
        )
        raise TrainerError(FailureCode.INVALID_CONFIGURATION, message)
    return indexed.dataset(len(rows), lambda index: {"prompt": rows[index].prompt_ids, "row": index})


def arguments(plan: TrainingPlan, settings: RunSettings) -> TrainingArguments:
    """TRL's GRPOConfig, or its RLOOConfig for advantages that leave one out."""
    from trl import GRPOConfig, RLOOConfig

    grpo = options(plan)
    both = {
        **common(plan, settings),
        "num_generations": grpo.generations,
        "num_iterations": grpo.iterations,
        "max_completion_length": grpo.max_completion_length,
        "temperature": float(grpo.temperature),
        "top_p": float(grpo.top_p),
        "beta": float(grpo.beta),
        **_bounds(grpo),
        "mask_truncated_completions": grpo.mask_truncated_completions,
        **generation.arguments(grpo.generation, longest_sequence(plan, settings.max_length)),
    }
    if grpo.advantage == "LeaveOneOut":
        return RLOOConfig(**both)
    return GRPOConfig(
        **both,
        **generation.WEIGHED,
        **LOSSES[grpo.loss or "DAPO"],
        scale_rewards=(grpo.scale_rewards or "Group").lower(),
    )


def _bounds(grpo: GrpoMethod) -> dict[str, float]:
    """Of the ratio to the sampling model, as TRL names them; its epsilon_high of CISPO is the ratio itself."""
    low, high = grpo.clip_range
    return {"epsilon": low, "epsilon_high": 1 + high if grpo.loss == "CISPO" else high}


def _trainer_class(leaves_one_out: bool) -> Any:
    """TRL's RLOOTrainer for advantages that leave one out, else its GRPOTrainer, with what Hone does otherwise."""
    from trl import GRPOTrainer, RLOOTrainer

    library = RLOOTrainer if leaves_one_out else GRPOTrainer

    class Grpo(Loop, library):  # type: ignore[misc, valid-type]
        """TRL's, with our loop, our prompts and an order that a resumed run finds again."""

        rewards: rewarding.Rewards
        at_end: ExitStack
        """Closed when training ends, also by an error."""
        sampler: served.ServedGeneration | None = None
        """A server that generates the samples."""
        order: PromptOrder

        def train(self, *positional: Any, **named: Any) -> Any:
            with self.at_end:
                return super().train(*positional, **named)

        def _tokenize_prompts(self, prompts: list[list[int]]) -> tuple[list[list[int]], None, dict[str, Any]]:
            return prompts, None, {}

        def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
            batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
            for name, value in self.sampler.measured.items() if self.sampler else ():
                self._metrics["train"][name].append(value)
            if leaves_one_out:
                return batch
            return rewarding.leave_out(batch, self.rewards.kept, lambda count: self.accelerator.gather(count).sum())

        def _compute_loss(self, model: Network, inputs: dict[str, Any]) -> Any:
            with unread.leave_on_device(self):
                return super()._compute_loss(model, inputs)

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            unread.read_lists(self._metrics["train" if self.model.training else "eval"])
            super().log(logs, start_time)

        def _get_train_sampler(self, dataset: Any = None) -> Any:
            self.order = PromptOrder(super()._get_train_sampler(dataset), self.args.seed)
            return self.order

        def upcoming(self) -> list[list[int]]:
            """This rank's prompts of the samples after the newest ones; none at the end of the run."""
            batch = self.state.global_step // self.num_iterations + 1
            if batch * self.num_iterations >= self.state.max_steps:
                return []
            rows = self.order.batch(batch)
            each = len(rows) // ranks.world_size()
            return [self.train_dataset[row]["prompt"] for row in rows[ranks.rank() * each :][:each]]

        def _save_checkpoint(self, *positional: Any, **named: Any) -> None:
            if self.sampler:
                self.sampler.settle()  # the run would wait for them next
            super()._save_checkpoint(*positional, **named)

        def _save_rng_state(self, output_dir: str) -> None:
            super()._save_rng_state(output_dir)
            if self.num_iterations > 1:
                samples.save(_file(output_dir), self._buffered_inputs)
            if self.sampler:
                self.sampler.save(_ahead(output_dir))

        def _load_rng_state(self, checkpoint: str | None) -> None:
            super()._load_rng_state(checkpoint)
            if checkpoint is not None and self.num_iterations > 1:
                self._buffered_inputs = samples.load(_file(checkpoint), self.args.device)
                self._step = self.state.global_step * self.args.gradient_accumulation_steps
            if checkpoint is not None and self.sampler:
                self.sampler.load(_ahead(checkpoint))

    return Grpo


def build_trainer(run: Run, parts: TrainerParts) -> Loop:
    """A trainer that is ready to train, after the rewards have shown that they know the right answers."""
    from hone_trainer.methods.rl import reward_guards

    unread.replace_extremes()
    rewards = rewarding.Rewards(run)
    rewards.check()
    parts["model"].generation_config.eos_token_id = sorted(run.stop_ids)
    generation.end_at(parts["args"], run.stop_ids)
    guards = [reward_guards.Differences(run), reward_guards.Cut(run)]
    parts["callbacks"] = [reward_guards.Means(run), *parts["callbacks"], *guards]
    grpo = _trainer_class(options(run.plan).advantage == "LeaveOneOut")(reward_funcs=[rewards.score], **parts)
    grpo.rewards, grpo.at_end = rewards, ExitStack()
    if run.unpadded and grpo.ref_model is not None:
        run.unpadded.also(grpo.accelerator.unwrap_model(grpo.ref_model))
    if options(run.plan).generation.is_colocated:
        generation.attach(grpo, run.plan)
    elif options(run.plan).generation.is_vllm:
        served.attach(grpo, run)
    loop: Loop = grpo
    return loop


def _file(folder: str) -> Path:
    return Path(folder) / f"samples-{ranks.rank()}.safetensors"


def _ahead(folder: str) -> Path:
    return Path(folder) / f"ahead-{ranks.rank()}.json"


METHOD = TrainingMethod(
    encoder=encoder,
    dataset=build_dataset,
    arguments=arguments,
    trainer=build_trainer,
    score=rewarding.score_greedy,
    compared=compared_answers.measure(
        longest=lambda run: options(run.plan).max_completion_length,
        rewarding=lambda trainer, prompts, answers: trainer.rewards(prompts, answers).totals,
        needs="rewards",
    ),
    metrics={"reward": "Highest"},
    repeats=lambda plan: options(plan).generations * options(plan).iterations,
    logged={
        "reward": "reward",
        "reward_std": "reward_std",
        "kl": "kl",
        "completions/mean_length": "completion_length",
        rewarding.CLIPPED: "clipped_ratio",
        rewarding.CONSTANT: "constant_groups",
        rewarding.MASKED: "masked_samples",
        rewarding.FAILED: "failed_samples",
        **generation.LOGGED,
        served.STALENESS: served.STALENESS,
        served.WAITING: served.WAITING,
    },
)
