"""The base model: inspected without its weights, then loaded."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hone_api.blocks.training import Training
from hone_api.words.failures import FailureCode
from hone_trainer.errors import TrainerError
from hone_trainer.models import quantized, rope_scaling, safe_config, weights
from hone_trainer.models.imports import uncollected
from hone_trainer.models.network import Generating, Tokenizer

UNBOUNDED = 1_000_000_000
"""Context of a model whose config has none (state-space models)."""
Head = Literal["LanguageModel", "Reward"]
"""The output of a model: logits over the vocabulary, or one number for the whole sequence."""


@dataclass(frozen=True)
class Base:
    """Config and tokenizer of a base model, without its weights."""

    path: Path
    config: Any
    tokenizer: Tokenizer
    is_scaled: bool = False
    """Whether the config is not that of the folder (see `rope_scaling`)."""

    @property
    def context(self) -> int:
        """Tokens that the model can attend to."""
        limit = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        return int(limit) if limit else UNBOUNDED

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding: ids must be below it."""
        return int(self.config.get_text_config().vocab_size)

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end a generation: the tokenizer's EOS and those of the generation config.

        Raises:
            TrainerError: UnsupportedModel.
        """
        ids = {self.tokenizer.eos_token_id}
        generation = self.path / "generation_config.json"
        if generation.is_file():
            eos = json.loads(generation.read_text()).get("eos_token_id")
            named = eos if isinstance(eos, list) else [eos]
            if not all(i is None or type(i) is int for i in named):
                message = f"{generation}: eos_token_id is {eos!r:.80}, not a token id or a list of token ids"
                raise TrainerError(FailureCode.UNSUPPORTED_MODEL, message)
            ids |= set(named)
        return frozenset(i for i in ids if i is not None)


def open_base(
    path: str | Path,
    head: Head = "LanguageModel",
    tokenizer_path: str | Path | None = None,
    *,
    with_weights: bool = True,
    training: Training | None = None,
) -> Base:
    """Read config and tokenizer of the model in folder `path`.

    Args:
        head: the output that the model must have.
        tokenizer_path: folder of the tokenizer, where it is not the model's own.
        with_weights: whether the weights must be there too.
        training: settings of the run whose base it is.

    Raises:
        TrainerError: ModelNotFound, UnsafeModel (pickled weights, or code in the repository), UnsupportedModel,
            InvalidConfiguration (files that this user cannot read); ModelUnsuitable (positions that cannot be scaled).
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        why = "" if folder.is_dir() else f": there is no such folder{_IMAGE_HINT}"
        raise TrainerError(FailureCode.MODEL_NOT_FOUND, f"{folder} holds no config.json{why}")
    _refuse_unreadable(folder)
    _refuse_unsafe(folder, with_weights=with_weights)
    with uncollected():
        from transformers import AutoConfig, AutoTokenizer
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
            MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        )

    with weights.naming_foreign_errors(folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(
            tokenizer_path or folder, trust_remote_code=False, local_files_only=True
        )
    families, kind = {
        "LanguageModel": (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, "causal language model"),
        "Reward": (MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, "reward model"),
    }[head]
    supported = families.get(config.model_type, ())
    supported = (supported,) if isinstance(supported, str) else supported
    architectures = config.architectures or supported[:1]
    # E.g. BERT could be loaded as a causal model, but its attention sees later tokens.
    if not set(architectures) & set(supported) or (head == "Reward" and config.num_labels != 1):
        name = ", ".join(architectures) or config.model_type
        raise TrainerError(FailureCode.UNSUPPORTED_MODEL, f"{folder}: {name} is not a {kind}")
    if tokenizer.eos_token is None:
        raise TrainerError(FailureCode.UNSUPPORTED_MODEL, f"{folder}: the tokenizer has no end-of-sequence token")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # only pads; labels are masked by position, so EOS stays trained
    if training and training.rope_scaling:
        rope_scaling.stretch(config, tokenizer, training)
    return Base(folder, config, tokenizer, is_scaled=bool(training and training.rope_scaling))


_IMAGE_HINT = (
    ". If the base is oci://, the image has no folder /models, or the cluster mounts no images: that needs "
    "Kubernetes 1.35, or the feature gate ImageVolume, and containerd 2.1 or CRI-O 1.33"
)


def _refuse_unreadable(folder: Path) -> None:
    """Refuse files that only their owner may read, as save_pretrained writes them; a loader would report them as
    missing."""
    files = sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")])
    if closed := [f.name for f in files if not os.access(f, os.R_OK, effective_ids=True)]:
        raise TrainerError(
            FailureCode.INVALID_CONFIGURATION,
            f"model.uri: user {os.geteuid()} may not read {', '.join(closed[:5])} in {folder}: "
            "let others read the files (chmod -R o+rX)",
        )


def _refuse_unsafe(folder: Path, *, with_weights: bool) -> None:
    """Refuse code in the model's folder, weights that are not safetensors, and an adapter next to the weights."""
    safe_config.refuse_code(folder)
    if with_weights and not any(folder.glob("*.safetensors")):
        raise TrainerError(FailureCode.UNSAFE_MODEL, f"{folder} holds no *.safetensors file")
    if (folder / "adapter_config.json").exists():
        way_out = "transformers would apply it silently; name a base model, or one with the adapter merged"
        raise TrainerError(FailureCode.UNSUPPORTED_MODEL, f"{folder} holds an adapter (adapter_config.json): {way_out}")


def load(
    base: Base, *, bf16: bool, cpu: bool, quantize: bool, frozen: bool, head: Head = "LanguageModel", seed: int = 0
) -> Generating:
    """The model with its weights.

    Args:
        bf16: whether the run computes in bfloat16. Frozen weights are then loaded in bfloat16; trained weights stay
            in float32 (bfloat16 would lose updates smaller than 1/256 of a weight).
        quantize: 4-bit NF4 with double quantisation (Dettmers et al. 2023, QLoRA).
        frozen: whether only an adapter is trained.
        head: a reward head that the base does not have is initialised randomly.
        seed: for a new head.

    Raises:
        TrainerError: UnsupportedModel, if the files are not the weights of the model.
    """
    with uncollected():
        import torch
        from transformers import set_seed

    dtype = torch.bfloat16 if bf16 and frozen else torch.float32
    options: dict[str, Any] = {}
    if quantize or getattr(base.config, "quantization_config", None):
        check_weights(base, head)  # for rounded weights transformers compares neither sizes nor scales
    if quantize:
        options["quantization_config"] = nf4(dtype, head)
        options["device_map"] = {"": "cpu" if cpu else torch.cuda.current_device()}
    elif kind := _rounded_type(base):
        options["quantization_config"] = kind(dequantize=True)  # their kernels have no gradient, and come from a hub
    if head == "Reward":
        set_seed(seed)
        # The reward is read at the last token that is not padding.
        options |= {"num_labels": 1, "pad_token_id": base.tokenizer.pad_token_id}
    if base.is_scaled:
        options["config"] = config = copy.deepcopy(base.config)
        for name in {"num_labels", "pad_token_id"} & options.keys():  # with a config, they are not options of it
            setattr(config, name, options.pop(name))
    network: Generating = weights.load(
        _auto_class(head), base.path, new_head=_is_head_new(base, head), dtype=dtype, **options
    )
    if quantized.is_in_4_bits(network):
        quantized.keep_layout(network)
    return network


def check_weights(base: Base, head: Head = "LanguageModel") -> None:
    """Check by the headers of its files that the base has the weights of the model, and no others.

    Raises:
        TrainerError: UnsupportedModel, UnsafeModel.
    """
    weights.check(_auto_class(head), base.path, base.config, new_head=_is_head_new(base, head))


def _auto_class(head: Head) -> Any:
    with uncollected():
        from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    return AutoModelForCausalLM if head == "LanguageModel" else AutoModelForSequenceClassification


def _rounded_type(base: Base) -> Any:
    """The class of a quantisation whose weights are only rounded to a smaller type; None for others."""
    from transformers import FineGrainedFP8Config, Mxfp4Config

    stored = getattr(base.config, "quantization_config", None) or {}
    return {"fp8": FineGrainedFP8Config, "mxfp4": Mxfp4Config}.get(str(stored.get("quant_method")))


def _is_head_new(base: Base, head: Head) -> bool:
    """Whether a reward head is put on a model of another kind."""
    names = base.config.architectures or ()
    return head == "Reward" and not any("ForSequenceClassification" in name for name in names)


def nf4(compute_dtype: Any, head: Head = "LanguageModel") -> Any:
    """bitsandbytes' NF4 with double quantisation; a reward head is trained, so it is not quantised."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=["score"] if head == "Reward" else None,
    )
