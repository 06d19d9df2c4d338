"""Proximal policy optimisation with a reward model: RLHF in full (Ouyang et al. 2022). TRL has no PPO any more (removed
in 1.13), so this is our own, small: formulas in ppo_math.py, value head in critic.py, the loop in ppo_loop.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hone_api.methods import PpoMethod
from hone_api.plan import TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer import ranks
from hone_trainer.encoding.prompts import Prompt, PromptEncoder
from hone_trainer.errors import TrainerError
from hone_trainer.methods.arguments import common
from hone_trainer.methods.rl import compared_answers, critic
from hone_trainer.methods.rl.judge import ConversationReward
from hone_trainer.models import base_model, generate
from hone_trainer.models.base_model import Base
from hone_trainer.scoring import heldout
from hone_trainer.scoring.heldout import HeldOut
from hone_trainer.scoring.row_measure import Poll
from hone_trainer.scoring.scores import Mean, Score
from hone_trainer.training.batches import indexed
from hone_trainer.training.loop import Loop, Run
from hone_trainer.training.method import TrainerParts, TrainingMethod
from hone_trainer.training.settings import RunSettings

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from hone_trainer.methods.rl.ppo_loop import Ppo


def options(plan: TrainingPlan) -> PpoMethod:
    """The plan's block, which the API makes sure of."""
    assert plan.ppo is not None
    return plan.ppo


def encoder(plan: TrainingPlan, base: Base) -> PromptEncoder:
    return PromptEncoder.with_room(plan, base, options(plan).max_completion_length)


def build_dataset(plan: TrainingPlan, rows: Sequence[Prompt], max_length: int) -> Any:
    """The prompts' token ids.

    Raises:
        TrainerError: InvalidConfiguration, when they do not fill one batch.
    """
    if len(rows) < plan.training.batch_size:
        message = f"training.batchSize {plan.training.batch_size} is more than the {len(rows)} prompts: lower it"
        raise TrainerError(FailureCode.INVALID_CONFIGURATION, message)
    return indexed.dataset(len(rows), lambda index: {"prompt_ids": rows[index].prompt_ids})


def arguments(plan: TrainingPlan, settings: RunSettings) -> TrainingArguments:
    """transformers' TrainingArguments."""
    from transformers import TrainingArguments

    return TrainingArguments(**common(plan, settings), remove_unused_columns=False)


def build_trainer(run: Run, parts: TrainerParts) -> Loop:
    """A trainer that is ready to train."""
    from accelerate.utils import set_seed
    from peft import get_peft_model
    from trl.trainer.utils import add_fused_lm_head, disable_dropout_in_model

    from hone_trainer.methods.rl.ppo_loop import Ppo

    network, args, peft_config = parts["model"], parts["args"], parts["peft_config"]
    name = options(run.plan).reward_model_version
    judge = ConversationReward(name, run.plan.models[name].path, run.base, args.device)
    reference = None
    set_seed(args.seed)  # an adapter begins at random
    critic.install(network, frozen=peft_config is not None)
    head: dict[str, Any] = {
        "temperature": float(options(run.plan).temperature),
        "outputs": ("log_probs", "entropy"),
    }
    add_fused_lm_head(network, **head)
    if peft_config is None:
        # Weights as the policy has them: rounded ones would already be another model.
        settings = run.settings
        reference = base_model.load(run.base, bf16=settings.bf16, cpu=settings.cpu, quantize=False, frozen=False)
        reference = reference.eval().requires_grad_(False)
        add_fused_lm_head(reference, **head)
        if run.unpadded:
            run.unpadded.also(reference)
    else:
        peft_config.modules_to_save = peft_config.exclude_modules = [critic.NAME]
        network = get_peft_model(network, peft_config)
        if args.gradient_checkpointing:
            network.enable_input_require_grads()
    disable_dropout_in_model(network)  # policy and sampler are the same model, or their ratio is noise
    pad = run.base.tokenizer.pad_token_id
    ppo = Ppo(
        model=network,
        args=args,
        train_dataset=run.dataset,
        data_collator=lambda rows: generate.left_padded([row["prompt_ids"] for row in rows], pad),
        processing_class=run.base.tokenizer,
        callbacks=parts["callbacks"],
    )
    ppo.judge = judge.prepared(ppo.accelerator)
    ppo.reference = reference
    set_seed(args.seed, device_specific=True)  # ranks sample differently
    return ppo


def score(trainer: Ppo, split: HeldOut, poll: Poll) -> Score:
    """Mean reward of greedy answers to held-out prompts, and the KL divergence to the reference over their tokens in
    nats an answer; of the base that is 0. A collective."""
    run: Run = trainer.run
    pad, longest = run.base.tokenizer.pad_token_id, options(run.plan).max_completion_length

    def forward(batch: Sequence[Prompt]) -> list[list[float]]:
        prompts = [row.prompt_ids for row in batch]
        answers = generate.greedy(trainer.model, prompts, pad_id=pad, stop_ids=run.stop_ids, longest=longest)
        rewards = trainer.judge([p + a for p, a in zip(prompts, answers, strict=True)]).tolist()
        kl = _divergences(trainer, prompts, answers)
        return [[r, k, float(len(a))] for r, k, a in zip(rewards, kl, answers, strict=True)]

    values = heldout.sweep(trainer.model, split.rows, forward, bf16=run.settings.bf16, poll=poll)
    rewards, kl, lengths = ([float(v) for v in column] for column in zip(*values, strict=True))
    ones = [1.0] * len(rewards)
    return Score({"reward": Mean(rewards, ones), "kl": Mean(kl, ones)}, tokens=int(sum(lengths)))


def _divergences(trainer: Ppo, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> list[float]:
    """Of each answer, one at a time. Where weights are sharded, a rank with fewer answers than another repeats its last
    one: each forward pass needs all ranks."""
    turns = len(answers)
    if trainer.run.plan.shards_weights:
        turns = -int(ranks.least(-turns))
    last = len(answers) - 1
    return [_divergence(trainer, prompts[min(i, last)], answers[min(i, last)]) for i in range(turns)][: last + 1]


def _divergence(trainer: Ppo, prompt: list[int], answer: list[int]) -> float:
    import torch

    from hone_trainer.methods import divergence  # loads torch

    inputs = {"input_ids": torch.tensor([prompt + answer], device=trainer.args.device)}
    counts = torch.arange(1, len(prompt + answer), device=trainer.args.device)[None] >= len(prompt)
    ours, output = divergence.Side.of(trainer.model, trainer.scoring_model(), inputs, counts)
    kept = {**inputs, "use_cache": False, "logits_to_keep": len(answer) + 1}
    logits = None if ours.is_like(output) else trainer.scoring_model()(**kept).logits[0, :-1]
    with trainer.as_reference() as reference:
        if logits is not None:
            return float(divergence.of_logits(reference(**kept).logits[0, :-1], logits))
        network = trainer.model if trainer.reference is None else trainer.accelerator.unwrap_model(reference)
        theirs, _ = divergence.Side.of(network, reference, inputs, counts)
    longest = options(trainer.run.plan).max_completion_length
    return float(divergence.summed(theirs, ours, most=longest))  # of the reference from the policy


METHOD = TrainingMethod(
    encoder=encoder,
    dataset=build_dataset,
    arguments=arguments,
    trainer=build_trainer,
    score=score,
    compared=compared_answers.measure(
        longest=lambda run: options(run.plan).max_completion_length,
        rewarding=lambda trainer, prompts, answers: trainer.judge(
            [prompt.prompt_ids + answer for prompt, answer in zip(prompts, answers, strict=True)]
        ).tolist(),
        needs="judge",
    ),
    metrics={"reward": "Highest", "kl": "Lowest"},
    repeats=lambda plan: options(plan).iterations,
    logged={
        name: name
        for name in (
            "reward",
            "kl",
            "kl_coefficient",
            "policy_loss",
            "value_loss",
            "entropy",
            "clip_fraction",
            "completion_length",
        )
    },
    training_only=critic.NAME,
)
