"""Estimates the memory of a run, term by term, from the plan and the model's sizes. Pure; no torch.

Activations are the tensors that autograd keeps, counted on transformers' Llama with `saved_tensors_hooks` (with SDPA,
which keeps no attention matrix): exact for its family, approximate for other decoders. States are those of AdamW in
float32. `tests/api/estimate/test_memory.py` compares the estimate with the peaks of real runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hone_api.blocks.shape import ModelShape
from hone_api.blocks.training import AdapterType, Recompute
from hone_api.methods import METHODS, Method

_APART = """
cohere cohere2 deepseek_v3 ernie4_5 exaone4 gemma gemma3_text glm glm4 glm4_moe gpt2 gpt_neox granite granitemoe helium
llama ministral3 minimax_m2 mistral mixtral nemotron olmo olmo2 olmo3 olmoe phi phi3 qwen2 qwen2_moe qwen3 qwen3_moe
seed_oss smollm3 stablelm starcoder2
"""
APART = frozenset(_APART.split())
"""Model types, among those in wide use, whose rows attend by their bounds on every device, so that no mask is made
(`tests/trainer/training/batches/test_attention.py`). Of others, the estimate assumes masks."""
NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
"""Bytes of a weight: 4 bits, an 8-bit scale for 64 weights, and a 32-bit one for 256 scales (QLoRA, section 3)."""
ADAM_BYTES = 8
ADAM_8BIT_BYTES = 2 + 2 * 4 / 256
"""Two bytes of state for a weight, and a scale of each for 256 weights (bitsandbytes)."""
MASTER_BYTES = 4
HEAD_CHUNK = 128
"""Tokens whose logits are in memory at the same time, with their exponentials and gradients."""
HEAD_COPIES = 3
TAUGHT_COPIES = 16
"""As many of them where a teacher's distribution is learned: two models' logits, scaled, as log-probabilities and as
probabilities, and the student's gradients. Fitted to the runs in `tests/api/estimate/test_memory.py`."""
GPU_TILE = (4096, 32_768)
"""Tokens and vocabulary whose logits are in memory at the same time on a GPU."""
RUNTIME_GPU = int(0.9 * 2**30)
"""CUDA context, cuBLAS workspaces, NCCL."""
RUNTIME_CPU = 2**30
"""Python with torch, transformers, TRL and datasets."""
FRAGMENTATION = 0.05
"""Fraction of allocated and freed GPU memory that the caching allocator cannot reuse."""
QLORA_HOLES = 1.2
"""Factor on it for 4-bit weights, which every forward pass expands temporarily."""
HEAP_HOLES = {(True, False): 1.0, (True, True): 4.0, (False, False): 0.25, (False, True): 0.7}
"""Fraction of the activations, by whether the model is adapted and whether it checkpoints, that is lost to
fragmentation of the C library's heap on a CPU: small results of adapters are allocated between large ones that are
freed, and with checkpointing every recomputed layer leaves some. Measured."""
QLORA_LEFT = 0.5
"""Fraction of the weights as loaded that stays in the C library's heap after they were rounded to 4 bits.
Measured, see `tests/api/estimate/test_memory.py`."""
DORA_HOLES = 1.25
"""Factor on them for DoRA with checkpointing: each recomputed layer normalises its matrices."""
ROW_BYTES = 6
"""Most bytes for each token of the training rows in the host's memory: ids of 2 or 4 bytes, and runs of labels, in
files that all ranks of a node map, so that they share the pages. Long rows take half of it."""
EXPERT_NAMES = frozenset({"experts", "gate_up_proj", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})
"""Last parts of targets that reach routed experts."""


@dataclass(frozen=True)
class Setup:
    """Everything that determines the memory of a rank. Batches in rows, lengths in tokens."""

    shape: ModelShape
    method: str
    adapter: str
    rank: int
    targets: frozenset[str] | None
    """Linear layers that are adapted; None: all."""
    dropout: bool
    bf16: bool
    gpu: bool
    max_length: int
    micro_batch: int
    checkpointing: bool
    zero_stage: int
    """0: no sharding."""
    offload: str
    ranks: int
    keeps_start: bool = False
    """Whether a copy of the initial weights is kept."""
    teacher: ModelShape | None = None
    """For Distillation at level Logits: a second model next to the trained one."""
    padded: bool = False
    """Whether rows are padded whatever the model is."""
    packed: bool = False
    """Whether a micro batch is one padding-free sequence, with a mask of all tokens by all tokens."""
    generated: int | None = None
    """Rows whose samples are generated together; None: those of a micro batch."""
    reference: bool = False
    """Whether a second model is held in float32: for PPO and GRPO in full fine-tuning."""
    reward_models: int = 0
    """For GRPO: assumed to have the size of the base, since its own sizes are unknown here."""
    row_tokens: int = 0
    """Tokens of all training rows; 0: unknown."""
    selective: bool = False
    """Whether checkpointing leaves out every second layer."""
    offloads_inputs: bool = False
    """Whether checkpointing keeps the layers' inputs in the host's memory."""
    in_8_bits: bool = False
    """Whether the optimizer's state is."""
    ranks_of_row: int = 1
    """Ranks that have a part of each row."""
    may_share_rows: int = 1
    """Ranks of a node that could have a part of each row; 1: the run cannot have training.sequenceParallel."""

    @property
    def recompute(self) -> Recompute:
        """Layers that are recomputed."""
        if not self.checkpointing:
            return Recompute.NONE
        if self.offloads_inputs:
            return Recompute.OFFLOADED
        return Recompute.SELECTIVE if self.selective else Recompute.FULL

    def with_recompute(self, kind: Recompute) -> Setup:
        """The same with other layers recomputed."""
        return replace(
            self,
            checkpointing=kind != Recompute.NONE,
            selective=kind == Recompute.SELECTIVE,
            offloads_inputs=kind == Recompute.OFFLOADED and self.gpu,
        )

    @property
    def adapted(self) -> bool:
        return self.adapter != AdapterType.NONE

    @property
    def tokens(self) -> int:
        """Tokens of a forward pass on this rank."""
        rows = self.micro_batch * (2 if METHODS[Method(self.method)].paired else 1)
        return -(-rows * self.max_length // self.ranks_of_row)

    @property
    def trained(self) -> int:
        """Number of trained weights."""
        if not self.adapted:
            return self.shape.parameters
        if self.shape.experts:
            return self.rank * self._mixture
        adapted_sizes = [s for name, s in self.shape.linear.items() if self.targets is None or name in self.targets]
        # Unusual layer names: assume that all layers are adapted, which is the maximum.
        sizes = adapted_sizes or list(self.shape.linear.values())
        dora = sum(out for _, out in sizes) if self.adapter == AdapterType.DORA else 0
        return self.shape.layers * (self.rank * sum(i + o for i, o in sizes) + dora)

    @property
    def adapts_experts(self) -> bool:
        """Whether routed experts have an adapter."""
        return self.adapted and self.shape.experts > 0 and any(map(reaches_experts, self.targets or EXPERT_NAMES))

    @property
    def _mixture(self) -> int:
        """Weights of a rank-1 adapter on a mixture of experts: each expert has the full rank."""
        shape, names = self.shape, {name.rsplit(".", 1)[-1] for name in self.targets or ()}
        attention = [size for name, size in shape.attention.items() if not names or name in names]
        total = shape.layers * sum(i + o for i, o in attention)
        if not self.adapts_experts:
            return total
        sparse = shape.layers - shape.dense_layers
        total += sparse * shape.experts * (2 * shape.hidden + 3 * shape.expert_width)  # gate and up share one
        if shape.shared_width:
            total += sparse * 3 * (shape.hidden + shape.shared_width)
        return total + shape.dense_layers * 3 * (shape.hidden + shape.dense_width)


@dataclass(frozen=True)
class Estimate:
    """Peak bytes of one rank, by term."""

    terms: dict[str, int]
    host: int = 0
    """Bytes of offloaded data in the host's memory."""
    rows: int = 0
    """Bytes of the rows of a run on a GPU in the host's memory, which all ranks of a node share."""
    loading: int = 0
    """The peak while the weights are loaded, if it can be higher."""

    @property
    def training(self) -> int:
        return sum(self.terms.values())

    @property
    def total(self) -> int:
        return max(self.training, self.loading)

    def words(self) -> str:
        """The terms that matter, largest first, e.g. 'weights 14.0 GiB, activations 3.2 GiB'."""
        large = sorted(self.terms.items(), key=lambda t: -t[1])
        return ", ".join(f"{name} {gib(size)}" for name, size in large if size > self.total / 100)


def estimate(s: Setup) -> Estimate:
    """The peak of one rank, by term."""
    frozen, trained = s.shape.parameters, s.trained
    sharded = s.zero_stage
    master = MASTER_BYTES if sharded and s.bf16 else 0  # DeepSpeed keeps bfloat16 weights and float32 master weights
    width = 2 if master else 4
    split = s.ranks if sharded else 1
    weights, copies = _weights(s, width)
    weights = weights // split if sharded == 3 else weights
    gradients = trained * width // (split if sharded >= 2 else 1)
    optimizer = (adam_bytes(s) + trained * master) // split
    host = _layer_inputs(s) if s.offloads_inputs else 0
    if s.offload != "None":
        host, optimizer = host + optimizer, 0
    reference, reward_model = _held_fixed(s, width)
    if s.offload == "OptimizerAndParameters":
        host, weights, reference = host + weights + reference, 0, 0
        if s.method == Method.PPO:
            host, reward_model = host + reward_model, 0
    if s.ranks > 1 and not sharded:
        gradients *= 2  # DDP's buckets
    teacher = s.teacher.parameters * (2 if s.bf16 else 4) if s.teacher else 0
    terms = {
        "weights": weights,
        "reference": reference,
        "rewardModel": reward_model,
        "teacher": teacher,
        "start": weights if s.keeps_start else 0,
        "gradients": gradients,
        "optimizer": optimizer,
        "activations": _activations(s),
        "masks": _masks(s),
        "experts": _experts(s),
        "workspace": _workspace(s) + copies,
        "logits": _logits(s),
        "kvCache": _kv_cache(s) if METHODS[Method(s.method)].samples else 0,
        "runtime": RUNTIME_GPU if s.gpu else RUNTIME_CPU,
        "rows": 0 if s.gpu else ROW_BYTES * s.row_tokens,
    }
    if s.ranks_of_row > 1:  # one rank scores a whole held-out row, with no activations kept
        alone = _workspace(replace(s, micro_batch=1, ranks_of_row=1)) + copies
        terms["workspace"] = max(terms["workspace"], alone - terms["activations"])
    # On a CPU a 4-bit base is loaded in full and then rounded.
    unrounded = (s.shape.parameters - s.shape.embeddings) * (2 if s.bf16 else 4) * (s.adapter == AdapterType.QLORA)
    if s.gpu:
        moving = terms["activations"] + terms["masks"] + terms["workspace"] + terms["logits"]
        terms["fragmentation"] = int(FRAGMENTATION * (moving + gradients))
    else:
        holes = HEAP_HOLES[s.adapted, s.checkpointing] * (QLORA_HOLES if s.adapter == AdapterType.QLORA else 1)
        holes *= DORA_HOLES if s.adapter == AdapterType.DORA and s.checkpointing else 1
        terms["fragmentation"] = int(holes * terms["activations"]) + int(QLORA_LEFT * unrounded)
    # On a CPU the pages of the open file also count, until it is closed.
    loading = 0 if s.gpu else terms["runtime"] + weights + unrounded + max(frozen * (2 if s.bf16 else 4), 2 * teacher)
    shared = ROW_BYTES * s.row_tokens if s.gpu else 0
    return Estimate({name: size for name, size in terms.items() if size}, host=host, rows=shared, loading=loading)


def adam_bytes(s: Setup) -> int:
    """Bytes of the optimizer's state, which bitsandbytes leaves in 32 bits for a trained embedding."""
    if not s.in_8_bits:
        return s.trained * ADAM_BYTES
    embedding = 0 if s.adapted else s.shape.vocabulary * s.shape.hidden
    return int((s.trained - embedding) * ADAM_8BIT_BYTES) + embedding * ADAM_BYTES


def _held_fixed(s: Setup, width: int) -> tuple[int, int]:
    """Bytes of the reference, and of reward models.

    Args:
        width: bytes of a trained weight. DeepSpeed holds the reference in the same type.
    """
    frozen, split = s.shape.parameters, s.ranks if s.zero_stage == 3 else 1
    reference = width * frozen // split if s.reference else 0
    of_base = frozen * (2 if s.bf16 else 4)
    if s.method == Method.PPO:  # the same base as the policy's, otherwise its tokenizer would differ
        return reference, of_base // split
    return reference, s.reward_models * of_base


def _weights(s: Setup, width: int) -> tuple[int, int]:
    """Bytes of the weights, and of the converted copies that autocast makes."""
    shape = s.shape
    if not s.adapted:
        copies = 2 * shape.parameters if s.bf16 and width == 4 else 0
        return width * shape.parameters, copies
    held = 2 if s.bf16 else 4
    linear = shape.parameters - shape.embeddings
    frozen = (
        int(NF4_BYTES * linear) + held * shape.embeddings if s.adapter == AdapterType.QLORA else held * shape.parameters
    )
    return frozen + 4 * s.trained, 0


def _activations(s: Setup) -> int:
    """Bytes that autograd keeps from a forward pass."""
    shape = s.shape
    if s.bf16:
        by_hidden, by_query, by_other = (18, 6, 2) if s.adapted else (26, 4, 2)
    else:
        by_hidden, by_query, by_other = (16, 8, 4) if s.adapted else (24, 8, 4)
    layer = by_hidden * shape.hidden + by_query * shape.query + 2 * by_other * shape.key_value
    layer += (4 if shape.matrices == 3 else 3) * by_other * shape.intermediate
    if s.adapted:
        adapters = len(s.targets or shape.linear)
        layer += adapters * s.rank * by_other
        widths = 2 * shape.hidden + shape.query + 2 * shape.key_value + 2 * shape.intermediate
        layer += widths * (by_other * s.dropout + 4 * (s.adapter == AdapterType.DORA))  # its magnitudes are float32
    residual = (2 if s.bf16 and s.adapted else 4) * shape.hidden
    ends = 3 * residual
    whole = shape.layers // 2 if s.selective else 0
    kept = whole * layer + layer if s.checkpointing else shape.layers * layer
    inputs = 0 if s.offloads_inputs else _layer_inputs(s)
    return s.tokens * (kept + ends) + inputs


def _layer_inputs(s: Setup) -> int:
    """Bytes of the inputs of the layers that are recomputed."""
    recomputed = s.shape.layers - (s.shape.layers // 2 if s.selective else 0) if s.checkpointing else 0
    return s.tokens * recomputed * (2 if s.bf16 and s.adapted else 4) * s.shape.hidden


def reaches_experts(target: str) -> bool:
    """Whether an entry of adapter.targets names routed experts: only by the last part, or below `experts`."""
    *path, last = target.split(".")
    return (last in EXPERT_NAMES and path[-1:] in ([], ["experts"])) or last == "experts"


def _experts(s: Setup) -> int:
    """Sums of expert weights and their updates, which PEFT computes.

    Autograd keeps the sums of all layers (with checkpointing, of one layer), and backward computes the gradient of one.
    """
    shape = s.shape
    if not s.adapts_experts:
        return 0
    layers = shape.layers - shape.dense_layers
    kept = (1 + (layers // 2 if s.selective else 0) if s.checkpointing else layers) + 1
    return kept * (shape.expert_parameters // max(1, layers)) * (2 if s.bf16 else 4)


def _masks(s: Setup) -> int:
    """SDPA makes a matrix from the mask in every layer, and autograd keeps it: for all tokens of packed rows, and for
    each padded row. Rows that attend by their bounds need none (`hone_trainer.training.batches.attention`). A run sees
    that in the loaded model; before, it is known of some families."""
    if s.shape.model_type in APART and not (s.padded and not s.packed):
        return 0
    if s.packed:
        numbers = s.tokens**2
    elif s.gpu and s.micro_batch > 1:
        numbers = s.tokens * s.max_length
    else:
        return 0
    kept = 1 + (s.shape.layers // 2 if s.selective else 0) if s.checkpointing else s.shape.layers
    return numbers * (2 if s.bf16 else 4) * kept


def _workspace(s: Setup) -> int:
    """Temporary memory of one layer's backward pass, and the matrix that 4-bit weights are expanded to."""
    shape, width = s.shape, 2 if s.bf16 else 4
    moment = s.tokens * width * (3 * shape.intermediate + 2 * shape.hidden)
    largest = max(i * o for i, o in shape.linear.values())
    if s.adapter == AdapterType.QLORA:
        moment += 2 * largest * width
    if s.adapter == AdapterType.DORA:
        moment += 2 * largest * 4
    if s.zero_stage == 3:
        moment += 2 * largest * width * len(shape.linear)  # two layers are gathered at the same time
    return moment


def _logits(s: Setup) -> int:
    """The loss head processes some tokens at a time. A reward model has no such head. Where a teacher's distribution is
    learned, the gradients of a trained head are summed in float32 before backward begins
    (`hone_trainer.methods.divergence`)."""
    if s.method == Method.REWARD:
        return 0
    if not s.teacher:
        return _head_chunk(s)
    vocabulary = max(s.shape.vocabulary, s.teacher.vocabulary)
    trained_head = 0 if s.adapted else 2 * 4 * s.shape.vocabulary * s.shape.hidden
    return min(s.tokens, HEAD_CHUNK) * vocabulary * 4 * TAUGHT_COPIES + trained_head


def _head_chunk(s: Setup) -> int:
    """Our loss head on a CPU, TRL's on a GPU (trl.kernels.chunked_logprob): a tile of logits, and the gradients of the
    hidden states and of a trained head in float32."""
    if not s.gpu:
        return min(s.tokens, HEAD_CHUNK) * s.shape.vocabulary * 4 * HEAD_COPIES
    rows, columns = min(s.tokens, GPU_TILE[0]), min(s.shape.vocabulary, GPU_TILE[1])
    trained_head = 0 if s.adapted else 4 * s.shape.vocabulary * s.shape.hidden
    return rows * columns * (2 if s.bf16 else 4) + 4 * s.tokens * s.shape.hidden + trained_head


def _kv_cache(s: Setup) -> int:
    """Keys and values of answers that are generated together: PPO's of a micro batch, GRPO's of a step (TRL's
    `steps_per_generation`); vLLM has its own memory."""
    tokens = s.tokens if s.generated is None else s.generated * s.max_length
    return 2 * s.shape.layers * s.shape.key_value * (2 if s.bf16 else 4) * tokens


def of_vllm(s: Setup) -> int:
    """Least bytes for a vLLM that shares the rank's GPU: its own weights, and the cache of one sample."""
    width = 2 if s.bf16 else 4
    return width * (s.shape.parameters + 2 * s.shape.layers * s.shape.key_value * s.max_length)


def gib(size: float) -> str:
    """A size for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 or not size else f"{size / 2**20:.0f} MiB"
