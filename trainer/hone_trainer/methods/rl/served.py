"""A server of vLLM as what generates the samples of GRPO and RLOO, in place of TRL's VLLMGeneration.

After each optimiser step it gets the adapter by its API for adapters at run time (docs.vllm.ai, "LoRA Adapters"), as
files in the store that both mount; prompts go to it as token ids. So the trainer needs no vLLM, and the two no
connection between their GPUs.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from itertools import count, groupby
from pathlib import Path
from typing import Any, Protocol

from hone_api.verdicts.servable import GPT_OSS
from hone_api.words.failures import FailureCode
from hone_trainer import ranks
from hone_trainer.encoding import mapped
from hone_trainer.endpoints.addresses import network_of
from hone_trainer.endpoints.client import Access, Endpoint, in_parallel
from hone_trainer.errors import ConfigError, SourceError
from hone_trainer.methods.rl.rewarding import Rewards
from hone_trainer.models.network import Adapted, Generating
from hone_trainer.signals import Stop
from hone_trainer.store import folders
from hone_trainer.store.hub import secret_key
from hone_trainer.store.ranged import TRIES
from hone_trainer.training.checkpoints import naming_disk_errors
from hone_trainer.training.loop import Run

PARALLEL = 64
"""Prompts of a rank that are under way at a time; vLLM makes one batch of them."""
SECONDS = 1500.0
"""Until the samples of a step, or an adapter, must be there, all tries together: before the other ranks give up."""
GRACE = 30.0
"""Seconds of waiting after a signal. A server that is well answers in them, and the step ends with a checkpoint."""
FORGET_SECONDS = 10.0
"""For what the run can do without."""
BYTES = 2**28
"""Most of the samples of a prompt as JSON, in which a token is about 100 bytes."""
RESTART = 16
"""Tries of a request once training has begun: about ten minutes, in which a restarting server loads its model."""
FOLDER = "served"
"""Of the adapters in the run's work folder."""
EXPERTS_AS_SAVED = frozenset({GPT_OSS})
"""Model types whose experts vLLM loads as PEFT writes them."""
_LOADED = "has already been loaded"
"""vLLM's messages about an adapter's name."""
_NEEDS = "start it with --enable-lora, --max-lora-rank and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
NEUTRAL = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
"""The server would sample by the model's generation_config.json else, which training knows nothing of."""

Sample = tuple[list[int], list[float | None]]
"""Token ids including the end-of-turn token, and the log-probability of each, in nats; None: unknown."""


class ServedGeneration:
    """TRL's `VLLMGeneration` by its two methods.

    Args:
        network: the model in training, with its adapter.
        folder: where the server reads adapters from; it must see the same path.
        run: name of the run, for people who look at the server.
        sampling: of each request.
        check: called each second of waiting; ends it by an exception.
        log: called with the reason if a prompt has no samples.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        network: Generating,
        folder: Path,
        run: str,
        sampling: Mapping[str, Any],
        check: Callable[[], None],
        log: Callable[[str], None],
    ) -> None:
        self._endpoint, self._network, self._folder, self._sampling = endpoint, network, folder, dict(sampling)
        self._check, self._log = check, log
        self.failed: list[bool] = []
        """Of the samples that were generated last, which stand for those of a prompt that the server failed on."""
        # A new name each time: vLLM would read an adapter that is loaded in place again at each forward pass, and the
        # file system of another node may remember what was at a path.
        self._names = (f"{run}-{uuid.uuid4().hex[:12]}-{number}" for number in count())
        self._name = ""

    def sync_weights(self) -> None:
        """Let the server have the adapter as it is now; a collective.

        Raises:
            SourceError: EndpointUnreachable or EndpointRefused.
            StoreError: DiskFull or StorageError.
            TrainerError: Interrupted.
        """
        self._name = ranks.text_of_first(self._load() if ranks.is_first() else "")

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        images: None = None,
        num_generations: int = 1,
        profiler: AbstractContextManager[Any] | None = None,
    ) -> tuple[Any, list[list[int]], list[list[list[float | None]]], list[list[list[int]]]]:
        """A sample for each prompt: prompts, samples, log-probabilities of their tokens, and the ids of those tokens.

        A prompt that the server fails on has the last token of the prompt as its samples, and `failed` marks which
        they are. A collective.

        Raises:
            SourceError: EndpointUnreachable or EndpointRefused, when the server failed on every prompt of all ranks.
            TrainerError: Interrupted.
        """
        groups = [(list(ids), len(list(same))) for ids, same in groupby(prompts)]
        until = time.monotonic() + SECONDS
        with profiler or nullcontext():
            answers = in_parallel(lambda group: self._try(*group, until), groups, PARALLEL, self._check)
        errors = [answer for answer in answers if isinstance(answer, SourceError)]
        if not ranks.any_rank(len(errors) < len(groups)):
            raise errors[0]
        for words in dict.fromkeys(error.message for error in errors):
            self._log(f"samples of a prompt are left out: {words}")
        samples: list[Sample] = []
        self.failed = []
        for (prompt, number), answer in zip(groups, answers, strict=True):
            samples += [(prompt[-1:], [None])] * number if isinstance(answer, SourceError) else answer
            self.failed += [isinstance(answer, SourceError)] * number
        completions = [ids for ids, _ in samples]
        return (
            prompts,
            completions,
            [[[x] for x in values] for _, values in samples],
            [[[i] for i in c] for c in completions],
        )

    def close(self) -> None:
        """Leave nothing at the server; the first rank alone has something to do."""
        if ranks.is_first():
            self._forget(self._name)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _load(self) -> str:
        name, previous = next(self._names), self._name
        self._write(name)
        tries, until = RESTART if previous else TRIES, time.monotonic() + SECONDS
        in_parallel(lambda name: self._load_adapter(name, tries, until), [name], 1, self._check)
        self._forget(previous)
        return name

    def _write(self, name: str) -> None:
        with naming_disk_errors(self._folder), folders.work_folder(self._folder) as work:
            self._network.save_pretrained(work / name, selected_adapters=["default"], save_embedding_layers=False)
            (work / name).rename(self._folder / name)

    def _load_adapter(self, name: str, tries: int, until: float) -> None:
        """Load the adapter; the server may have it already if an answer was lost or another thread asked."""
        path = self._folder / name
        try:
            self._endpoint.ask("POST", "/load_lora_adapter", {"lora_name": name, "lora_path": str(path)}, tries, until)
        except SourceError as error:
            if _LOADED in error.message:
                return
            way_out = f"{_NEEDS}, and the store mounted so that it sees {path}"
            raise SourceError(error.code, f"grpo.generation.endpoint: {error.message}; {way_out}") from None

    def _forget(self, name: str) -> None:
        if name:
            with suppress(SourceError):
                until = time.monotonic() + FORGET_SECONDS
                self._endpoint.ask("POST", "/unload_lora_adapter", {"lora_name": name}, 1, until)
            shutil.rmtree(self._folder / name, ignore_errors=True)

    def _try(self, prompt: list[int], number: int, until: float) -> list[Sample] | SourceError:
        """The samples of one prompt, or why there are none."""
        try:
            return self._ask(prompt, number, until)
        except SourceError as error:
            return error

    def _ask(self, prompt: list[int], number: int, until: float) -> list[Sample]:
        """The samples of one prompt; a server that was restarted meanwhile gets the adapter again."""
        body = {**self._sampling, "model": self._name, "prompt": prompt, "n": number}
        try:
            answer = self._endpoint.request("POST", "/completions", body, RESTART, until)
        except SourceError as error:
            if self._name not in error.message:  # which it names when it does not know it
                raise
            self._load_adapter(self._name, RESTART, until)
            answer = self._endpoint.request("POST", "/completions", body, RESTART, until)
        return _samples(answer, number, self._endpoint.host)


class Patience:
    """Ends waiting for the server some time after a signal.

    Raises:
        TrainerError: Interrupted.
    """

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._until: float | None = None

    def __call__(self) -> None:
        if self._stop.requested and self._until is None:
            self._until = time.monotonic() + GRACE
        if self._until is not None and time.monotonic() >= self._until:
            self._stop.check("while waiting for vLLM")


class ServedTrainer(Protocol):
    """What `attach` reads and sets of TRL's GRPOTrainer and RLOOTrainer."""

    model: Adapted
    rewards: Rewards
    at_end: ExitStack
    use_vllm: bool
    vllm_mode: str
    vllm_generation: Any
    _last_loaded_step: int


def attach(trainer: ServedTrainer, run: Run) -> None:
    """Let the plan's server generate the samples of TRL's GRPOTrainer or RLOOTrainer.

    Args:
        trainer: `at_end` is closed when training ends.

    Raises:
        SourceError: EndpointUnreachable; EndpointRefused, also when its model is too short; SourceRefused;
            SecretNotFound, SecretKeyNotFound.
        TrainerError: Interrupted.
        ConfigError: a URL that cannot be, or an adapter of experts that vLLM would not use.
    """
    plan = run.plan
    assert plan.grpo is not None
    refuse_experts(trainer.model, run.base.config.model_type)
    endpoint = _connect(run)
    folder = Path(plan.work_path).absolute() / FOLDER
    if ranks.is_first():
        shutil.rmtree(folder, ignore_errors=True)
    sampling = {
        **NEUTRAL,
        "max_tokens": plan.grpo.max_completion_length,
        "temperature": float(plan.grpo.temperature),
        "top_p": float(plan.grpo.top_p),
        "stop_token_ids": sorted(run.stop_ids),
        "logprobs": 0,
        "return_token_ids": True,
    }
    served = ServedGeneration(
        endpoint, trainer.model, folder, plan.run, sampling, Patience(run.stop), run.reporters.log
    )
    trainer.rewards.unanswered = lambda: served.failed
    trainer.use_vllm, trainer.vllm_mode, trainer.vllm_generation, trainer._last_loaded_step = True, "server", served, -1
    trainer.at_end.callback(served.close)


def refuse_experts(network: Adapted, model_type: str) -> None:
    """Refuse an adapter of experts that a server would refuse or, of Mixtral, ignore silently.

    vLLM takes experts that are held together only with a setting for each adapter, and by the names of a checkpoint
    (docs/reference/families.md has what was run).

    Raises:
        ConfigError
    """
    experts = network.peft_config["default"].target_parameters
    if experts and model_type not in EXPERTS_AS_SAVED:
        raise ConfigError(
            f"grpo.generation.endpoint: vLLM does not serve the adapter of this {model_type}'s experts "
            f"({', '.join(experts)}) as training writes it: adapt attention layers alone, e.g. adapter.targets: "
            "[q_proj, k_proj, v_proj, o_proj], or leave out grpo.generation.endpoint",
        )


def _connect(run: Run) -> Endpoint:
    plan = run.plan
    assert plan.grpo is not None
    key = secret_key(plan.generation_secret_path, "API_KEY") if plan.generation_secret_path else None
    access = Access(network_of(plan), key, PARALLEL, most_bytes=BYTES, most_seconds=SECONDS)
    url = str(plan.grpo.generation.endpoint).rstrip("/").removesuffix("/v1")
    endpoint = Endpoint(f"{url}/v1", access)
    try:
        (served,) = in_parallel(endpoint.models, [time.monotonic() + SECONDS], 1, Patience(run.stop))
    except SourceError as error:
        raise SourceError(error.code, f"grpo.generation.endpoint: {error.message}") from None
    longest = mapped.most(run.rows) + plan.grpo.max_completion_length
    lengths = [model["max_model_len"] for model in served if isinstance(model.get("max_model_len"), int)]
    if not lengths:
        raise SourceError(
            FailureCode.ENDPOINT_REFUSED, f"grpo.generation.endpoint: {endpoint.host} is not a vLLM server"
        )
    if max(lengths) < longest:
        raise SourceError(
            FailureCode.ENDPOINT_REFUSED,
            f"grpo.generation.endpoint: {endpoint.host} takes {max(lengths)} tokens, prompt and sample are up to "
            f"{longest}: start it with --max-model-len {longest} or more",
        )
    return endpoint


def _samples(answer: Mapping[str, Any], number: int, host: str) -> list[Sample]:
    try:
        choices = [(choice["token_ids"], choice["logprobs"]["token_logprobs"]) for choice in answer["choices"]]
        if len(choices) == number and all(len(ids) == len(values) for ids, values in choices):
            return choices
    except (KeyError, TypeError):
        pass
    raise SourceError(
        FailureCode.ENDPOINT_REFUSED, f"grpo.generation.endpoint: {host} returns no token ids with its logprobs"
    )
