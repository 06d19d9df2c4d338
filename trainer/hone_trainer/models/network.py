"""What Hone relies on of models and tokenizers, as protocols: their classes are of several libraries, and untyped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from torch import Tensor, device
    from torch.nn import Module
    from transformers import GenerationConfig, PreTrainedConfig


class Network(Protocol):
    """A model: transformers', PEFT's around it, or DeepSpeed's engine around either."""

    training: bool

    def __call__(self, **inputs: Any) -> Any:
        """The output of a forward pass, whose fields depend on the model and on the inputs."""

    def parameters(self) -> Iterator[Tensor]: ...
    def named_parameters(self) -> Iterator[tuple[str, Tensor]]: ...
    def modules(self) -> Iterator[Module]: ...
    def named_modules(self) -> Iterator[tuple[str, Module]]: ...
    def get_submodule(self, target: str) -> Module: ...
    def state_dict(self) -> dict[str, Tensor]: ...
    def eval(self) -> Self: ...
    def train(self, mode: bool = True) -> Self: ...


class Generating(Network, Protocol):
    """A model that answers: transformers', or PEFT's around it."""

    config: PreTrainedConfig
    base_model: Network
    """The part before the head."""
    device: device
    generation_config: GenerationConfig
    all_tied_weights_keys: dict[str, str]

    forward: Callable[..., Any]
    generate: Callable[..., Tensor]
    """Token ids of prompts with their answers: (rows, tokens)."""

    def get_input_embeddings(self) -> Module: ...
    def get_output_embeddings(self) -> Module | None: ...
    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None: ...
    def dequantize(self) -> Self: ...

    activation_checkpointing_enable: Callable[..., None]

    def enable_input_require_grads(self) -> None: ...
    def cuda(self) -> Self: ...
    def to(self, device: device) -> Self: ...
    def requires_grad_(self, requires_grad: bool = True) -> Self: ...


class Adapted(Generating, Protocol):
    """PEFT's model around another one."""

    peft_config: dict[str, Any]
    """Configuration of each adapter, by its name."""
    prefix: str
    """Part of the names of the adapter's own weights."""


class Tokenizer(Protocol):
    """transformers' tokenizer of a base model, as `base_model.open_base` returns it: with EOS and padding tokens."""

    eos_token: str
    eos_token_id: int
    pad_token: str
    pad_token_id: int
    bos_token_id: int | None
    chat_template: str | None
    name_or_path: str
    model_max_length: int
    all_special_tokens: list[str]
    added_tokens_decoder: dict[int, Any]

    def __call__(self, text: str, **options: Any) -> Any: ...
    def __len__(self) -> int: ...
    def apply_chat_template(self, conversation: list[Any], **options: Any) -> Any: ...
    def batch_decode(self, sequences: Any, **options: Any) -> list[str]: ...
    def decode(self, token_ids: Any, **options: Any) -> str: ...
    def encode(self, text: str, **options: Any) -> list[int]: ...
    def get_chat_template(self, chat_template: str | None = None, tools: list[Any] | None = None) -> str: ...
    def get_vocab(self) -> dict[str, int]: ...
    def save_pretrained(self, save_directory: str | Path) -> Any: ...
