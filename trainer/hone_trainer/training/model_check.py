"""What a loaded model shows on a few tokens before it is trained, whatever its family: that no token sees later ones,
that rows of one pass do not see each other, that the loss head computes the model's own log-probabilities.

transformers has some 200 causal families. Which of them keep packed rows apart, and what stands between their backbone
and the logits, changes with its releases: so the model itself is asked. The passes are a few tokens long. All ranks run
the same ones, because ZeRO-3 gathers the weights for each.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hone_api.words.failures import FailureCode
from hone_trainer import ranks
from hone_trainer.errors import TrainerError, classify
from hone_trainer.models.network import Generating, Network
from hone_trainer.training import deepspeed, out_of_memory
from hone_trainer.training.batches import attention
from hone_trainer.training.batches.attention import AttentionChoice, AttentionKernel
from hone_trainer.training.batches.unpadded import body_of

if TYPE_CHECKING:
    from hone_trainer.training.batches.shared_rows import RowGroup
    from hone_trainer.training.loop import Run

TOKENS = 32
"""Most tokens of a row."""
ROWS = 3
SEEN = {False: 0.01, True: 0.1}
"""What must not move a prediction may move it by this fraction of what must, in float32 and, True, in bfloat16: passes
round differently, and mixtures compute other tokens together. A mean over positions and vocabulary, in nats."""
LEAST = 1e-3
"""Nats that a visible token counts as moving predictions at least."""
HEAD = {False: 1e-4, True: 0.05}
"""Largest mean difference between the head's log-probabilities and the logits', of the spread of the logits."""
GRADIENT = 0.5
"""By what fraction of itself the gradient of all rows may differ, alone and in one pass: in bfloat16 it is far less
exact than predictions."""
LONG = 256
"""Tokens of the row whose gradient a card computes: more than fit in one block of a kernel."""
SHOWN = 3
"""Names in a message."""


@dataclass(frozen=True)
class Look:
    """A model and the tokens that it is asked about.

    Args:
        rows: token ids of a few training rows, cut; the longest first.
        device: on which the passes run.
        bf16: whether training computes in bfloat16.
        sharded: whether ZeRO-3 has divided the weights.
        beyond: tokens that a pass of several rows may have, where they are more than the model's context; else 0.
        long: tokens of the row whose gradient is compared, alone and in one pass; 0 for none.
    """

    network: Generating
    rows: list[list[int]]
    device: Any
    bf16: bool = False
    sharded: bool = False
    beyond: int = 0
    long: int = 0

    @classmethod
    def of(cls, run: Run, network: Generating, device: Any) -> Look:
        """At the model of a run."""
        examples = run.rows
        rows = [list(examples[index].sequences[0][:TOKENS]) for index in range(min(ROWS, len(examples)))]
        rows = sorted((row for row in rows if len(set(row)) > 1), key=len, reverse=True)
        context, sizes = run.base.context, run.settings
        most = sizes.pass_tokens or sizes.micro_batch_size * sizes.max_length
        beyond = context + 1 if most > context else 0
        sharded = run.plan.shards_weights
        if run.method.head != "LanguageModel":
            network = body_of(network)
        long = min(LONG, context) if device.type == "cuda" and not sharded else 0
        return cls(network, rows, device, sizes.bf16, sharded, beyond, long)

    def alone(self, row: list[int]) -> Any:
        """Log-probabilities of the vocabulary after each token of a row, (tokens, vocabulary)."""
        return _log_softmax(_of_tokens(self.run(self.network, **self._inputs(row)))[0])

    def asked(self) -> attention.AttentionNeeds:
        """What the layers ask of attention, in training; nothing without a row to look at. A collective."""
        import torch

        eye, row = attention.AttentionEye(), self.rows[0] if self.rows else [0, 1]
        cards = [self.device] if self.device.type == "cuda" else []
        with eye.watching(self.network.config), torch.random.fork_rng(cards):  # dropout draws numbers
            self.run(self.network, training=True, **self._inputs(row))
        return eye.asked

    def together(self, rows: list[list[int]], choice: AttentionChoice) -> list[Any]:
        """The same of each row, in one pass as packed and padding-free training has it."""
        logits = _of_tokens(self.one_pass(self.network, rows, choice))[0]
        return list(_log_softmax(logits).split([len(row) for row in rows]))

    def gradients(self, rows: list[list[int]], choice: AttentionChoice) -> list[Any]:
        """Of a sum of the logits, at the embeddings of each row in one pass: (tokens, size). No weight gets one."""
        import torch

        embedded: list[Any] = []

        def keep(_module: Any, _inputs: Any, output: Any) -> Any:
            embedded.append(output.detach().requires_grad_())
            return embedded[-1].clone()  # a model may change it in place

        hook = self.network.get_input_embeddings().register_forward_hook(keep)
        try:
            logits = _of_tokens(self.one_pass(self.network, rows, choice, learns=True))
        finally:
            hook.remove()
        (found,) = torch.autograd.grad(logits.float().square().sum(), embedded[:1])
        return list(found[0].float().split([len(row) for row in rows]))

    def one_pass(
        self, network: Network, rows: list[list[int]], choice: AttentionChoice, *, learns: bool = False
    ) -> Any:
        """The output of the network, or of a part of it, for rows in one pass."""
        from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

        inputs = DataCollatorForLanguageModeling(0, padding_free=True)([{"input_ids": row} for row in rows])
        del inputs["labels"]
        inputs = {name: value.to(self.device) if hasattr(value, "to") else value for name, value in inputs.items()}
        with attention.by_row(self.network.config, choice, inputs):
            return self.run(network, learns=learns, **inputs)

    def by_head(self, row: list[int]) -> Any:
        """Log-probabilities of a row's tokens but the first, by the head that training uses."""
        inputs, config = self._inputs(row), self.network.config.get_text_config()
        coefficient: float = getattr(config, "router_aux_loss_coef", 0.0)
        if hasattr(config, "output_router_logits") and coefficient:
            inputs["output_router_logits"] = True  # as TRL's trainers have it
        return self.run(self.network, **inputs, labels=inputs["input_ids"], fused_lm_head=True).log_probs[0]

    def run(self, network: Network, *, training: bool = False, learns: bool = False, **inputs: Any) -> Any:
        """A forward pass as in training, without gradients unless `learns`, and without dropout unless `training`."""
        import torch

        was_training = self.network.training
        self.network.train(training)
        try:
            cast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)
            with torch.set_grad_enabled(learns), cast, self._gather_weights():
                return network(**inputs, use_cache=False)
        finally:
            self.network.train(was_training)

    def _inputs(self, row: list[int]) -> dict[str, Any]:
        import torch

        ids = torch.tensor([row], device=self.device)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def _gather_weights(self) -> AbstractContextManager[None]:
        return deepspeed.gathered_by_module(self.network) if self.sharded else nullcontext()


def check_causal(look: Look) -> None:
    """That tokens do not change what the model predicts before them. A collective.

    Raises:
        TrainerError: ModelUnsuitable, also if the model fails on the tokens.
    """
    if not look.rows:
        return
    row, half = look.rows[0], len(look.rows[0]) // 2
    start, end = row[:half], row[half:]
    try:
        plain, later, earlier = (look.alone(r) for r in (row, start + _changed(end, row), _changed(start, row) + end))
    except Exception as error:
        message = f"{_kind(look)}: the model cannot compute the logits of a row of text: {_unless_memory(error)}"
        raise TrainerError(FailureCode.MODEL_UNSUITABLE, message) from error
    visible = _distance(plain[half:], earlier[half:])
    if _any(_distance(plain[:half], later[:half]) > SEEN[look.bf16] * max(visible, LEAST)):
        message = (
            f"{_kind(look)}: tokens change what the model predicts before them, so it would learn from the tokens that "
            "it is asked for: use a causal model (an encoder needs is_decoder in its config)"
        )
        raise TrainerError(FailureCode.MODEL_UNSUITABLE, message)


def attention_of(look: Look, on: attention.AttentionDevice | None = None) -> AttentionChoice:
    """How rows of one pass of this model attend, as this rank chooses. A collective.

    Args:
        on: what computes; None: this process's device.
    """
    try:
        asked = look.asked()
    except Exception as error:
        why = f"what its attention asks for is not known: {_unless_memory(error)}"
        return AttentionChoice(AttentionKernel.MASKS, why)
    return attention.choose(asked, on or attention.card(look.bf16))


def choose_attention(look: Look, *, is_packed: bool = False) -> tuple[AttentionChoice, str]:
    """How rows of one pass attend, and why they change each other all the same; empty if they do not. A
    collective."""
    choice, why = attention_of(look), ""
    for kernel in _of_all_ranks(choice.kernel):
        if kernel != choice.kernel and not why:
            choice = AttentionChoice(kernel, "the card of another rank has no faster kernel for it")
        tried = replace(choice, kernel=kernel)
        if kernel == AttentionKernel.MASKS and not is_packed:
            return tried, ""
        why = ranks.text_of_first(why_mixed(look, tried) or "")
        if not why:
            return tried, ""
        choice = AttentionChoice(kernel, why)
    return choice, why


def _of_all_ranks(fastest: AttentionKernel) -> list[AttentionKernel]:
    """The kernels that every rank can have, the fastest first: ranks must try the same, because they compute together.
    A collective.

    Args:
        fastest: that this rank can have.
    """
    slower = [AttentionKernel.ROWS] if fastest == AttentionKernel.VARLEN else []
    mine = {fastest, *slower, AttentionKernel.MASKS}
    votes = ranks.add_up([float(kernel in mine) for kernel in AttentionKernel])
    return [kernel for kernel, of_all in zip(AttentionKernel, votes, strict=True) if of_all == max(votes)]


def why_mixed(look: Look, choice: AttentionChoice) -> str | None:
    """Why rows must not be in one pass of this model; None if each is computed as if it were alone. A collective.

    Args:
        choice: how they attend.
    """
    if len(look.rows) < 2:
        return None
    (first, *rest), half = look.rows, len(look.rows[0]) // 2
    try:
        alone = [look.alone(row) for row in rest]
        own, *together = look.together([first, *rest], choice)
        own_moved, *moved = look.together([_changed(first[:half], first) + first[half:], *rest], choice)
        if look.beyond:
            _compute_beyond(look, first, choice)
        unlike = look.long > 0 and _learns_otherwise(look, choice)
    except Exception as error:
        raised: str | None = _unless_memory(error)
    else:
        raised, visible = None, _distance(own[half:], own_moved[half:])
        pairs = zip((*alone, *moved), (*together, *together), strict=True)
        unlike |= max(_distance(*pair) for pair in pairs) > SEEN[look.bf16] * max(visible, LEAST)
    if _any(raised is not None):
        return f"{_kind(look)} cannot compute several rows in one pass ({raised or 'on another rank'})"
    return f"in one pass, rows of {_kind(look)} change each other" if _any(unlike) else None


def _compute_beyond(look: Look, row: list[int], choice: AttentionChoice) -> None:
    """A pass of more tokens than the context: some models have masks of that size. Where memory runs out it is not
    tried, because training may have shorter passes: the micro batch may not be known yet, or is halved."""
    try:
        look.one_pass(look.network.base_model, [row] * -(-look.beyond // len(row)), choice)
    except Exception as error:
        if look.sharded or classify(error).code not in out_of_memory.CODES:  # the other ranks would wait for weights
            raise


def _learns_otherwise(look: Look, choice: AttentionChoice) -> bool:
    """Whether rows have other gradients in one pass than alone, one of them as long as in training. It is not tried
    where memory does not suffice: a look has no checkpoints of activations."""
    import torch

    first, *rest = look.rows
    rows = [(first * look.long)[: look.long], *rest]
    plain = AttentionChoice(AttentionKernel.MASKS, "")
    try:
        together = look.gradients(rows, choice)
        alone = [gradient for row in rows for gradient in look.gradients([row], plain)]
    except Exception as error:
        if classify(error).code not in out_of_memory.CODES:
            raise
        return False
    one, other = torch.cat(alone), torch.cat(together)
    return not _distance(one, other) <= GRADIENT * float(one.abs().mean())


def check_shared(look: Look, choice: AttentionChoice, group: RowGroup, longest: int) -> None:
    """That ranks compute the tokens of a row as if each had the whole row, also where positions are many: some models
    choose their embeddings by the largest position that they see. A collective.

    Args:
        longest: tokens of the longest row.

    Raises:
        TrainerError: ModelUnsuitable.
    """
    way_out = f"remove training.sequenceParallel {group.size}"
    why = "" if choice.is_ours else f"its attention takes whole rows only ({choice.why})"
    lengths = [longest >> halved for halved in range(longest.bit_length()) if longest >> halved >= TOKENS]
    for length in () if why else lengths or [longest]:
        why = _why_not_shared(look, choice, group, length)
        if why:
            break
    if why:
        words = f"{group.size} ranks cannot compute rows of a {_kind(look)} together"
        raise TrainerError(FailureCode.MODEL_UNSUITABLE, f"{words}: {why}: {way_out}")


def _why_not_shared(look: Look, choice: AttentionChoice, group: RowGroup, length: int) -> str:
    """Why a row of few tokens, at positions spread over `length`, has other last states in parts; empty if not. An
    error of one rank alone is one of all, which would wait for its part. A collective.

    Raises:
        TrainerError: OutOfMemory or GpuOutOfMemory.
    """
    import torch

    from hone_trainer.training.batches.shared_rows import Asking, OtherRankError

    tokens = min(2 * TOKENS, length)
    row = (look.rows[0] if look.rows else [0, 1]) * tokens
    bounds = torch.tensor([0, tokens], dtype=torch.int32, device=look.device)
    inputs = {
        "input_ids": torch.tensor([row[:tokens]], device=look.device),
        "position_ids": torch.linspace(0, length - 1, tokens, device=look.device).long()[None],
        **{"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": tokens, "max_length_k": tokens},
    }
    body, asking, own = look.network.base_model, Asking(group.group, group.size), None
    try:
        with attention.by_row(look.network.config, choice, inputs):
            whole = group.mine(look.run(body, **inputs).last_hidden_state)
        with attention.by_row(look.network.config, choice, inputs, asking):
            part = look.run(body, **group.part(inputs)).last_hidden_state
        is_like = _distance(whole, part) <= SEEN[look.bf16] * float(whole.float().abs().mean())
        unlike = "" if is_like else "it mixes tokens outside of attention, or computes them otherwise in a longer row"
    except OtherRankError:
        has_failed = True
    except Exception as error:
        own, has_failed = classify(error), ranks.any_rank(True)
    else:
        has_failed = ranks.any_rank(False)
    if not has_failed:
        return ranks.text_of_any(unlike)
    code, _, words = ranks.text_of_any(f"{own.code} {own.message}" if own else "").partition(" ")
    if code in out_of_memory.CODES:
        raise own or TrainerError(FailureCode(code), f"on another rank: {words}")
    return words


def has_own_head(look: Look) -> bool:
    """Whether the loss heads that save memory compute other log-probabilities than the model's logits. A collective.

    Args:
        look: at a causal model as it was loaded.
    """
    import torch
    from trl.trainer.utils import add_fused_lm_head

    from hone_trainer.training import chunked_loss  # loads torch

    if not look.rows:
        return False
    row, model = look.rows[0], look.network
    every = look.alone(row)[:-1]
    expected = every.gather(1, torch.tensor(row[1:], device=look.device)[:, None])[:, 0]
    add_fused_lm_head(model)
    chunked_loss.install(model)
    try:
        is_unlike = _distance(look.by_head(row), expected) > HEAD[look.bf16] * float(every.std(1).mean())
    except Exception as error:
        _unless_memory(error)
        is_unlike = True
    finally:
        del model.forward
    return _any(is_unlike)


def _changed(tokens: list[int], row: list[int]) -> list[int]:
    """Other tokens of the row that they are from, which has several: for each the next larger one."""
    ids = sorted(set(row))
    after = dict(zip(ids, [*ids[1:], ids[0]], strict=True))
    return [after[token] for token in tokens]


def _kind(look: Look) -> str:
    return str(look.network.config.get_text_config().model_type)


def _of_tokens(output: Any) -> Any:
    """What a model says of each token: its logits; without a head over the vocabulary, what the head would get."""
    return output.logits if "logits" in output else output.last_hidden_state


def _log_softmax(logits: Any) -> Any:
    return logits.float().log_softmax(-1)


def _distance(one: Any, other: Any) -> float:
    return float((one.float() - other.float()).abs().mean())


def _any(flag: Any) -> bool:
    return ranks.any_rank(bool(flag))


def _unless_memory(error: Exception) -> str:
    """The error in words, unless it is that memory ran out."""
    if classify(error).code in out_of_memory.CODES:
        raise error
    return f"{type(error).__name__}: {error}"


def without_gradient(error: Exception, run: Run) -> TrainerError | None:
    """The failure of a backward pass in which no trained weight takes part; None for another error."""
    if "does not require grad" not in str(error):
        return None
    message = f"{run.base.config.model_type}: no trained weight takes part in the loss: name other adapter.targets"
    return TrainerError(FailureCode.MODEL_UNSUITABLE, message)


class Gradients:
    """Which trained tensors get a gradient in a step, also where DeepSpeed or DDP takes it away at once."""

    def __init__(self, model: Network) -> None:
        self._missing = {name for name, weight in model.named_parameters() if weight.requires_grad}
        self._hooks = [
            weight.register_hook(lambda _, name=name: self._missing.discard(name))
            for name, weight in model.named_parameters()
            if weight.requires_grad
        ]

    def check(self, *, needs_all: bool) -> str | None:
        """After the backward pass of a micro batch.

        Args:
            needs_all: whether data parallelism waits for every gradient.

        Returns:
            For people, what gets no gradient.

        Raises:
            TrainerError: ModelUnsuitable, if training cannot go on without.
        """
        for hook in self._hooks:
            hook.remove()
        if not self._missing:
            return None
        names = sorted(self._missing)
        shown = ", ".join(names[:SHOWN]) + (" and more" if len(names) > SHOWN else "")
        what = f"{len(names)} trained tensors had no gradient in the first pass ({shown})"
        if needs_all:
            way_out = "ranks that share gradients wait for all: name other adapter.targets, use deepspeed, or one rank"
            raise TrainerError(FailureCode.MODEL_UNSUITABLE, f"{what}, and {way_out}", rank=ranks.rank())
        return f"{what}: they stay as they are unless other rows reach them"
