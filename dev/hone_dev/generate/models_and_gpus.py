"""`python -m hone_dev.generate.models_and_gpus` writes docs/guides/models-and-gpus.md: which GPU for which model."""

from dataclasses import dataclass, replace

from hone_api.estimate.cost import seconds
from hone_api.estimate.gpus import TABLE, Gpu
from hone_api.estimate.known_models import MODELS
from hone_api.estimate.memory import Setup, estimate, gib
from hone_api.estimate.micro_batch import setup
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_dev.tools import paths

PAGE = paths.SOURCE / "docs" / "guides" / "models-and-gpus.md"
LENGTH = 2048
"""Tokens of each row in the tables."""
TIGHT = 0.95
"""Fraction of a GPU's memory from which the operator warns that memory is tight."""
SEVERAL = (1, 2, 4, 8, 16, 32)
"""Numbers of GPUs that are tried for full fine-tuning."""


@dataclass(frozen=True)
class Recipe:
    """A job that fits on one GPU, by the estimate."""

    title: str
    gpu: str
    model: str
    spec: str
    """The fields under `spec` besides model, datasets and output, as YAML."""


RECIPES = (
    Recipe(
        "16 GB: a 1.5B model, LoRA",
        "Tesla-T4",
        "Qwen/Qwen2.5-1.5B-Instruct",
        """\
  adapter: {type: LoRA, rank: 16}
  training: {epochs: 3, learningRate: "2e-4", batchSize: 16, maxLength: 2048, gradientCheckpointing: true}
  resources: {gpusPerNode: 1, gpuProducts: [Tesla-T4], cpu: "4", memory: 16Gi}
""",
    ),
    Recipe(
        "24 GB: an 8B model, LoRA on a base in 4 bits",
        "NVIDIA-L4",
        "meta-llama/Llama-3.1-8B-Instruct",
        """\
  adapter: {type: QLoRA, rank: 16}
  training: {epochs: 3, learningRate: "2e-4", batchSize: 16, maxLength: 2048, gradientCheckpointing: true}
  resources: {gpusPerNode: 1, gpuProducts: [NVIDIA-L4], cpu: "8", memory: 32Gi}
""",
    ),
    Recipe(
        "48 GB: a 14B model, LoRA",
        "NVIDIA-L40S",
        "microsoft/phi-4",
        """\
  adapter: {type: LoRA, rank: 16}
  training: {epochs: 3, learningRate: "1e-4", batchSize: 16, maxLength: 2048, gradientCheckpointing: true}
  resources: {gpusPerNode: 1, gpuProducts: [NVIDIA-L40S], cpu: "8", memory: 64Gi}
""",
    ),
    Recipe(
        "80 GB: a 70B model, LoRA on a base in 4 bits",
        "NVIDIA-A100-80GB",
        "meta-llama/Llama-3.3-70B-Instruct",
        """\
  adapter: {type: QLoRA, rank: 16}
  training: {epochs: 2, learningRate: "1e-4", batchSize: 16, maxLength: 2048, gradientCheckpointing: true}
  resources: {gpusPerNode: 1, gpuProducts: [NVIDIA-A100-SXM4-80GB], cpu: "16", memory: 192Gi}
""",
    ),
    Recipe(
        "8 × 80 GB: an 8B model, all weights",
        "NVIDIA-H100-80GB",
        "meta-llama/Llama-3.1-8B-Instruct",
        """\
  adapter: {type: None}
  training: {epochs: 2, learningRate: "1e-5", batchSize: 64, maxLength: 2048, gradientCheckpointing: true}
  deepspeed: {zeroStage: 3}
  resources: {gpusPerNode: 8, gpuProducts: [NVIDIA-H100-80GB-HBM3], cpu: "64", memory: 512Gi}
""",
    ),
)


def manifest(recipe: Recipe) -> str:
    """The recipe as a FineTuneJob."""
    return (
        "apiVersion: hone.dev/v1alpha1\nkind: FineTuneJob\nmetadata:\n  name: support-1\nspec:\n"
        f"  model: {{uri: hf://{recipe.model}, secretName: hone-hub}}\n  datasets: [{{name: my-rows}}]\n"
        f"{recipe.spec}  output: {{modelName: support}}\n"
    )


def needs(model: str, adapter: str, *, gpus: int = 1) -> Setup:
    """The setup of the tables: SFT, one row in a micro batch, gradient checkpointing.

    Args:
        gpus: of one run; several divide all states (`deepspeed.zeroStage: 3`).
    """
    training = {"microBatchSize": 1, "maxLength": LENGTH, "gradientCheckpointing": True}
    spec = FineTuneJobSpec.model_validate(
        {
            "model": {"uri": f"hf://{model}"},
            "datasets": [{"name": "rows"}],
            "adapter": {"type": adapter},
            "training": training,
            "output": {"modelName": "tuned"},
            **({"deepspeed": {"zeroStage": 3}} if gpus > 1 else {}),
        }
    )
    return setup(spec, MODELS[model], ranks=gpus, gpu=True, bf16=True, longest=LENGTH)


def smallest(s: Setup) -> Gpu | None:
    """The smallest GPU on which one rank fits with some room; None: none of the known ones."""
    fitting = (gpu for gpu in TABLE if estimate(replace(s, bf16=gpu.bf16)).total <= TIGHT * gpu.memory)
    return min(fitting, key=lambda gpu: gpu.memory, default=None)


def page() -> str:
    """The page as Markdown."""
    rows = "".join(_row(model) for model in MODELS)
    recipes = "".join(f"\n### {recipe.title}\n\n```yaml\n{manifest(recipe)}```\n" for recipe in RECIPES)
    return f"{INTRODUCTION}{rows}{NOTES}{recipes}{PREREQUISITES}"


def _row(model: str) -> str:
    cells = [f"{MODELS[model].parameters / 1e9:.1f}B"]
    for adapter in ("QLoRA", "LoRA"):
        s = needs(model, adapter)
        gpu = smallest(s)
        on_it = replace(s, bf16=gpu.bf16) if gpu else s
        cells.append(f"{gib(estimate(on_it).total)}, {f'`{gpu.name}`' if gpu else 'none of the known ones'}")
    cells.append(_full(model))
    h100 = next(gpu for gpu in TABLE if gpu.name == "NVIDIA-H100-80GB")
    minutes = seconds(needs(model, "LoRA"), 1_000_000, h100.tflops) / 60
    cells.append(f"{minutes:.1f} min" if minutes >= 0.1 else "< 0.1 min")
    return f"| `{model}` | {' | '.join(cells)} |\n"


def _full(model: str) -> str:
    """The fewest GPUs of 80 GB for full fine-tuning, and what each needs."""
    room = TIGHT * next(gpu for gpu in TABLE if gpu.name == "NVIDIA-H100-80GB").memory
    for gpus in SEVERAL:
        size = estimate(needs(model, "None", gpus=gpus)).total
        if size <= room:
            return f"{gpus} × {gib(size)}"
    return f"more than {SEVERAL[-1]} GPUs"


INTRODUCTION = f"""\
# Models and GPUs

Which GPU is large enough for which model, and manifests to start from.

All numbers on this page are computed by [Hone's estimate](estimate.md), which the operator also uses before a run.
They were not measured on GPUs; on CPUs [they were](estimate.md#how-good-it-is). For your
own model and rows, `hone_trainer validate --model` [prints the same](estimate.md).

The table is for SFT on rows of {LENGTH:,} tokens, one row in a micro batch, `gradientCheckpointing: true`, and an
adapter of rank 16 on all layers. Shorter rows need less memory. Each cell has the estimated peak of a GPU, and the
smallest known GPU with at least 5 % of its memory to spare.

| Model | Weights | QLoRA | LoRA | All weights, on GPUs of 80 GB | LoRA, a million tokens on an H100 |
| --- | --- | --- | --- | --- | --- |
"""

NOTES = """
*All weights* (`adapter.type: None`) keeps weights, gradients and the states of AdamW in 32 bits. Several GPUs
divide them with `deepspeed.zeroStage: 3`. The time assumes 17 to 41 % of the GPU's peak, by the size of the model, so
it is an order of magnitude.

DPO, ORPO and Reward read two answers for each row, so they need about twice the memory for activations. PPO and
GRPO need room for further models and for the answers that they generate: see [the terms](estimate.md#the-terms).

Any other causal language model of transformers works: [model families](../reference/families.md) has what was
tested.

## Recipes

Each manifest fits the GPU in its title, by the estimate; a test holds that. `my-rows` and the Secret `hone-hub` are
those of [your own data and model](own-data.md); without a gated model, remove `secretName`.
"""

PREREQUISITES = """
## What the cluster needs

- A driver and a device plugin that offers `nvidia.com/gpu`, such as NVIDIA's GPU operator. The trainer image has
  its own CUDA libraries.
- The node label `nvidia.com/gpu.product`, which GPU feature discovery sets. Without `resources.gpuProducts`, and
  for a product that Hone does not know, a run is not checked against a GPU's memory before it starts.
- For a slice of a GPU (MIG), name its resource in `resources.gpuResourceName`, e.g. `nvidia.com/mig-3g.40gb`. Its
  memory is not checked. Several slices in a pod are refused, because CUDA shows a process only one. Where slices are
  offered as `nvidia.com/gpu`, Hone knows of them only by `resources.gpuProducts`; of slices that
  come by `resources.claims`, Hone does not know.
- Consumer cards that do not reach each other directly (RTX 40 series under drivers before 550.40.07) send through the
  host.
- GPUs before Ampere (T4, V100) have no bfloat16; Hone then computes in float32, which is slower and needs more
  memory. The table takes that into account.
- The image is built for NVIDIA GPUs. AMD and Intel GPUs are not supported.
"""


if __name__ == "__main__":
    PAGE.write_text(page())
