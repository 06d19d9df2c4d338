"""The loop of PPO on transformers' Trainer, whose step is one optimiser step.

Every `iterations` steps the policy samples an answer to each prompt of a batch; the steps between learn from the same
answers. These are kept in checkpoints, so that a resumed run continues with the same answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from transformers import Trainer
from trl.models import prepare_deepspeed
from trl.trainer.utils import RepeatSampler

from hone_api.words.failures import FailureCode
from hone_trainer import ranks
from hone_trainer.errors import TrainerError
from hone_trainer.methods.reference import TOLERANCE
from hone_trainer.methods.rl import critic, ppo_math, rollouts
from hone_trainer.methods.rl.judge import ConversationReward
from hone_trainer.methods.rl.rollouts import Rollout
from hone_trainer.models import generate
from hone_trainer.models.network import Generating, Network
from hone_trainer.training import finite
from hone_trainer.training.batches.samplers import PromptOrder
from hone_trainer.training.loop import Loop, Run


class Ppo(Loop, Trainer):
    """transformers' loop over answers that the policy samples."""

    judge: ConversationReward
    reference: Any
    """The model that training starts from; None: the model without its adapter."""

    def attach(self, run: Run) -> None:
        super().attach(run)
        assert run.plan.ppo is not None
        self.ppo = run.plan.ppo
        if self.reference is not None:
            self.put_head_on(self.reference)
            self.reference = self._held_fixed(self.reference)
        self.epsilon = float(self.ppo.epsilon)
        self.kl = ppo_math.KlCoefficient(float(self.ppo.kl), float(self.ppo.target_kl) if self.ppo.target_kl else None)
        self.prompts: list[dict[str, Any]] = []
        self.rollouts: list[Rollout] = []
        self.answer_tokens = 0.0
        """Of the rollouts of all ranks."""
        self.seen_tokens: Any = 0
        self.noted: dict[str, list[Any]] = {}

    @property
    def head_temperature(self) -> float:
        assert self.run.plan.ppo is not None
        return float(self.run.plan.ppo.temperature)

    def _held_fixed(self, model: Generating) -> Network:
        """The reference as the policy is: under ZeRO in its precision, in stage 3 sharded."""
        if self.is_deepspeed_enabled:
            engine: Network = prepare_deepspeed(model, self.accelerator)
            return engine
        prepared: Network = self.accelerator.prepare_model(model, evaluation_mode=True)
        return prepared

    # Answers

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        """Each batch of prompts as often as there are steps on its answers."""
        rows, seed = self.run.plan.training.batch_size, self.args.seed
        return PromptOrder(RepeatSampler(self.train_dataset, 1, rows, self.ppo.iterations, seed=seed), seed)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], None]:
        self.prompts, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return [{**batch, "part": part} for part, batch in enumerate(self.prompts)], None

    def training_step(self, model: Network, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        # Not before: a resumed run gets its rollouts and random state back after `get_batch_samples`.
        if inputs["part"] == 0 and (self.state.global_step % self.ppo.iterations == 0 or not self.rollouts):
            try:
                self.rollouts = self._sample()
            except generate.NotFiniteError as error:
                raise self._diverged(str(error), self.prompts) from None
            self.answer_tokens = self._count()
        return super().training_step(model, self.rollouts[inputs["part"]], num_items_in_batch)

    def _sample(self) -> list[Rollout]:
        """Rollouts of a whole step; their advantages are whitened together. A collective."""
        batches = [self._answers(super(Ppo, self)._prepare_inputs(batch)) for batch in self.prompts]
        kl = _mean([part["kl"] for part in batches])
        self._check_kl(kl)
        self._check_rewards(torch.cat([part["raw"] for part in batches]))
        for part in batches:
            mask, values = part["mask"], part["values"]
            rewards = ppo_math.token_rewards(part["scores"], part["log_ratio"], mask, self.kl.value)
            advantages = ppo_math.advantages(rewards, values, mask, float(self.ppo.gamma), float(self.ppo.gae_lambda))
            part |= {"advantages": advantages, "returns": advantages + values}
        whitened = ppo_math.whitened([p["advantages"] for p in batches], [p["mask"] for p in batches], ranks.add_up)
        self._note(
            reward=_mean([part["raw"] for part in batches]),
            completion_length=_mean([part["mask"].sum(1) for part in batches]),
            kl=kl,
            kl_coefficient=self.kl.value,
        )
        self.kl.update(kl)
        for part, advantages in zip(batches, whitened, strict=True):
            part["advantages"] = advantages
        return [Rollout(**{field.name: part[field.name] for field in fields(Rollout)}) for part in batches]

    @torch.no_grad()
    def _answers(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Sampled answers to prompts, with the outputs of policy, reference and reward model for them."""
        stop_ids, start = self.run.stop_ids, batch["input_ids"].shape[1]
        pad = self.run.base.tokenizer.pad_token_id
        model = self.scoring_model()
        model.eval()
        with self.compute_loss_context_manager():
            ids = generate.sampled(
                self.model,
                batch,
                temperature=self.head_temperature,
                pad_id=pad,
                stop_ids=stop_ids,
                longest=self.ppo.max_completion_length,
            )
            mask = rollouts.answer_mask(ids[:, start:], stop_ids)
            whole = torch.cat([batch["attention_mask"], mask], 1)
            inputs = {"input_ids": ids, "attention_mask": whole, **rollouts.positions(whole)}
            ours = critic.views(model, inputs, start, valued=True)
            with self.as_reference() as reference:
                theirs = critic.views(reference, inputs, start)
        raw = self.judge(rollouts.conversations(ids, whole))
        unfinished = ~rollouts.ended(ids[:, start:], mask, stop_ids)
        log_ratio = (ours.log_probs - theirs.log_probs) * mask
        return {
            "input_ids": ids,
            "attention_mask": whole,
            "mask": mask,
            "log_probs": ours.log_probs,
            "values": ours.values * mask,
            "log_ratio": log_ratio,
            "kl": ppo_math.kl_estimate(log_ratio).sum(1),
            "raw": raw,
            "scores": raw - float(self.ppo.missing_end_penalty) * unfinished,
        }

    @contextmanager
    def as_reference(self) -> Iterator[Any]:
        """The reference, to run forward."""
        if self.reference is not None:
            yield self.reference
        else:
            with self.model.disable_adapter():
                yield self.scoring_model()

    def _check_kl(self, kl: float) -> None:
        step = self.state.global_step + 1
        if step == 1 and not kl <= TOLERANCE[self.run.settings.bf16]:
            message = f"the first answers' KL to the reference is {kl:.3g} nats; of equal models it is 0"
            raise TrainerError(FailureCode.REFERENCE_MISMATCH, message, rank=ranks.rank(), step=step)
        if not kl <= float(self.ppo.max_kl):
            message = (
                f"an answer's KL to the reference is {kl:.1f} nats at step {step}, above ppo.maxKl {self.ppo.max_kl}: "
                "raise ppo.kl, set ppo.targetKl, or lower training.learningRate"
            )
            raise TrainerError(FailureCode.DIVERGED, message, rank=ranks.rank(), step=step)

    def _check_rewards(self, rewards: Any) -> None:
        """Stop if the reward model gives all answers the same score: there is nothing to learn."""
        if self.state.global_step or len(rewards) == 1 or ranks.any_rank(bool((rewards != rewards[0]).any())):
            return
        message = (
            f"ppo.rewardModelVersion {self.ppo.reward_model_version} gives every answer of the first step the reward "
            f"{float(rewards[0]):g}: see its reward_accuracy"
        )
        raise TrainerError(FailureCode.REWARD_CONSTANT, message, rank=ranks.rank(), step=1)

    def _count(self) -> float:
        return ranks.add_up([float(sum(rollout.mask.sum() for rollout in self.rollouts))])[0]

    # Learning

    def compute_loss(self, model: Network, inputs: Rollout, *_: Any, **__: Any) -> Any:
        """The mean over all tokens of the step: transformers divides by the micro batches, DDP and ZeRO by the
        ranks."""
        now = critic.views(model, inputs.inputs, inputs.answers_from, valued=True)
        policy = ppo_math.policy_losses(now.log_probs, inputs.log_probs, inputs.advantages, self.epsilon)
        value = ppo_math.value_losses(now.values, inputs.values, inputs.returns, self.epsilon)
        share = inputs.mask * (len(self.rollouts) * ranks.world_size() / self.answer_tokens)
        with torch.no_grad():
            self._note(
                policy_loss=(policy * share).sum(),
                value_loss=(value * share).sum(),
                entropy=(now.entropy * share).sum(),
                clip_fraction=(ppo_math.is_clipped(now.log_probs, inputs.log_probs, self.epsilon) * share).sum(),
            )
        self.seen_tokens = self.seen_tokens + inputs.attention_mask.sum()
        return ((policy + float(self.ppo.value_weight) * value) * share).sum()

    def _prepare_inputs(self, inputs: Any) -> Any:
        return inputs  # rollouts are where the model is

    # What is reported and what is kept

    def _note(self, **numbers: Any) -> None:
        """Numbers, or tensors that are read when they are logged."""
        for name, value in numbers.items():
            self.noted.setdefault(name, []).append(value)

    def log(self, logs: dict[str, float], *args: Any) -> None:
        if "loss" in logs:
            *means, seen = finite.read([*(sum(v) / len(v) for v in self.noted.values()), self.seen_tokens])
            *means, tokens = ranks.add_up([*means, seen])
            logs |= {name: mean / ranks.world_size() for name, mean in zip(self.noted, means, strict=True)}
            logs["num_tokens"] = tokens
            self.noted = {}
        super().log(logs, *args)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        rollouts.save(_file(output_dir), self.rollouts, self.kl.value)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is not None:
            self.rollouts, self.kl.value = rollouts.load(_file(checkpoint), self.args.device)
            self.answer_tokens = self._count()


def _file(folder: str) -> str:
    return f"{folder}/rollouts-{ranks.rank()}.safetensors"


def _mean(parts: Sequence[Any]) -> float:
    """The mean over all rows, of all ranks."""
    total, count = ranks.add_up([float(sum(p.sum() for p in parts)), float(sum(len(p) for p in parts))])
    return total / count
