"""A server of vLLM as what generates the samples of GRPO and RLOO, in place of TRL's VLLMGeneration.

After each optimiser step it gets the adapter by its API for adapters at run time (docs.vllm.ai, "LoRA Adapters"), as
files in the store that both mount; prompts go to it as token ids. So the trainer needs no vLLM, and the two no
connection between their GPUs: TRL's mode `server` (1.16) needs both, and its requests keep to no permitted address.

With `generation.overlap`, the prompts of the next step go out as soon as the samples of this one are there, so that the
server generates while the job trains. The samples that come back are of the weights before that step: one step, with
`iterations` one round of steps, older than those that learn from them. TRL weights each token by the ratio of the new
weights' probability to the one that the server reports (see `generation.WEIGHED`): the behaviour policy's weight of
decoupled PPO (Hilton et al. 2021, arXiv 2110.00641; Fu et al. 2025, arXiv 2505.24298).
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import count, groupby
from pathlib import Path
from typing import Any, Protocol

from hone_api.verdicts.servable import GPT_OSS
from hone_api.words.failures import FailureCode
from hone_trainer import ranks
from hone_trainer.encoding import mapped
from hone_trainer.endpoints.addresses import network_of
from hone_trainer.endpoints.client import Access, Endpoint, begin, collect, in_parallel
from hone_trainer.errors import ConfigError, SourceError, TrainerError
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
STALENESS, WAITING = "staleness", "sample_wait"
"""Of the newest samples: optimiser steps from the weights that sampled to those that begin to learn from them; the
share of the time since the samples before that training waited for them, including for the server to load the
adapter."""


@dataclass
class AskedSamples:
    """Samples that the server was asked for."""

    prompts: list[list[int]]
    step: int
    """Optimiser steps of the weights that sample."""
    answers: list[Future[list[Sample] | SourceError]]
    """Of each group of equal prompts."""


class ServedGeneration:
    """TRL's `VLLMGeneration` by its two methods.

    Args:
        network: the model in training, with its adapter.
        folder: where the server reads adapters from; it must see the same path.
        run: name of the run, for people who look at the server.
        sampling: of each request.
        check: called each second of waiting; ends it by an exception.
        log: called with the reason if a prompt has no samples.
        step: optimiser steps so far.
        upcoming: the prompts that are next, which go out while the job trains; None: it waits for all its samples.
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
        step: Callable[[], int] = lambda: 0,
        upcoming: Callable[[], list[list[int]]] | None = None,
    ) -> None:
        self._endpoint, self._network, self._folder, self._sampling = endpoint, network, folder, dict(sampling)
        self._check, self._log, self._step, self._upcoming = check, log, step, upcoming
        self._ahead: AskedSamples | None = None
        self._settled: list[list[Sample]] | None = None
        """Those of `_ahead`, if each of its prompts has some."""
        self._since: float | None = None
        """When the newest samples were there."""
        self._waited = 0.0
        """Seconds of waiting since."""
        self.measured: dict[str, float] = {}
        """Of the newest samples, by the names above."""
        self.failed: list[bool] = []
        """Of the samples that were generated last, which stand for those of a prompt that the server failed on."""
        # A new name each time: vLLM would read an adapter that is loaded in place again at each forward pass, and the
        # file system of another node may remember what was at a path.
        self._names = (f"{run}-{uuid.uuid4().hex[:12]}-{number}" for number in count())
        self._name = ""

    def sync_weights(self) -> None:
        """Let the server have the adapter as it is now, once it has sampled with the one before; a collective.

        Raises:
            SourceError: EndpointUnreachable or EndpointRefused.
            StoreError: DiskFull or StorageError.
            TrainerError: Interrupted.
        """
        with self._waiting():
            if self._ahead:
                collect(self._ahead.answers, self._check)
            if self._upcoming:
                ranks.barrier()
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
        asked = self._ahead if self._ahead and self._ahead.prompts == prompts else self._ask_for(prompts)
        self._ahead = None
        with self._waiting(), profiler or nullcontext():
            answers = collect(asked.answers, self._check)
            errors = [answer for answer in answers if isinstance(answer, SourceError)]
            if not ranks.any_rank(len(errors) < len(answers)):
                raise errors[0]
        self._measure(asked)
        if self._upcoming and (prompts_ahead := self._upcoming()):
            self._ahead = self._ask_for(prompts_ahead)
        for words in dict.fromkeys(error.message for error in errors):
            self._log(f"samples of a prompt are left out: {words}")
        samples: list[Sample] = []
        self.failed = []
        for (prompt, number), answer in zip(_groups(prompts), answers, strict=True):
            samples += [(prompt[-1:], [None])] * number if isinstance(answer, SourceError) else answer
            self.failed += [isinstance(answer, SourceError)] * number
        completions = [ids for ids, _ in samples]
        return (
            prompts,
            completions,
            [[[x] for x in values] for _, values in samples],
            [[[i] for i in c] for c in completions],
        )

    def settle(self) -> None:
        """Wait for the samples that are under way, so that `save` has them. Errors are left to `generate`."""
        self._settled = None
        if self._ahead is None:
            return
        with self._waiting(), suppress(TrainerError):  # of the waiting, after a signal
            answers = collect(self._ahead.answers, self._check)
            samples = [answer for answer in answers if not isinstance(answer, SourceError)]
            self._settled = samples if len(samples) == len(answers) else None

    def save(self, path: Path) -> None:
        """Write what `settle` waited for, if no rank lacks any of it; a collective."""
        if not ranks.any_rank(self._settled is None) and self._ahead:
            ahead = {"step": self._ahead.step, "prompts": self._ahead.prompts, "samples": self._settled}
            path.write_text(json.dumps(ahead))

    def load(self, path: Path) -> None:
        """Go on with what `save` wrote, if it wrote anything: with the samples that the run would have had."""
        if self._upcoming and path.exists():
            saved = json.loads(path.read_text())
            answers: list[Future[list[Sample] | SourceError]] = [Future() for _ in saved["samples"]]
            for answer, samples in zip(answers, saved["samples"], strict=True):
                answer.set_result(samples)
            self._ahead = AskedSamples(saved["prompts"], saved["step"], answers)

    def close(self) -> None:
        """Leave nothing at the server."""
        for answer in self._ahead.answers if self._ahead else ():
            answer.cancel()
        if ranks.is_first():
            shutil.rmtree(self._folder, ignore_errors=True)  # first: a thread that still asks cannot load it again
            self._forget(self._name)

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

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self._waited += time.monotonic() - begun

    def _measure(self, asked: AskedSamples) -> None:
        now = time.monotonic()
        self.measured = {STALENESS: self._step() - asked.step}
        if self._since is not None:
            self.measured[WAITING] = self._waited / (now - self._since)
        self._since, self._waited = now, 0.0

    def _ask_for(self, prompts: Sequence[Sequence[int]]) -> AskedSamples:
        """Begin to ask for a sample for each prompt."""
        name, until = self._name, time.monotonic() + SECONDS
        answers = begin(lambda group: self._try(name, *group, until), _groups(prompts), PARALLEL)
        return AskedSamples([list(prompt) for prompt in prompts], self._step(), answers)

    def _try(self, name: str, prompt: list[int], number: int, until: float) -> list[Sample] | SourceError:
        """The samples of one prompt, or why there are none."""
        try:
            return self._ask(name, prompt, number, until)
        except SourceError as error:
            return error

    def _ask(self, name: str, prompt: list[int], number: int, until: float) -> list[Sample]:
        """The samples of one prompt; a server that was restarted meanwhile gets the adapter again."""
        body = {**self._sampling, "model": name, "prompt": prompt, "n": number}
        try:
            answer = self._endpoint.request("POST", "/completions", body, RESTART, until)
        except SourceError as error:
            if name not in error.message:  # which it names when it does not know it
                raise
            self._load_adapter(name, RESTART, until)
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
    state: Any
    rewards: Rewards
    sampler: ServedGeneration | None
    at_end: ExitStack
    use_vllm: bool
    vllm_mode: str
    vllm_generation: Any
    _last_loaded_step: int

    def upcoming(self) -> list[list[int]]:
        """This rank's prompts of the samples after the newest ones; none at the end of the run."""


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
        endpoint,
        trainer.model,
        folder,
        plan.run,
        sampling,
        Patience(run.stop),
        run.reporters.log,
        step=lambda: trainer.state.global_step,
        upcoming=trainer.upcoming if plan.grpo.generation.overlap else None,
    )
    trainer.sampler = served
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


def _groups(prompts: Sequence[Sequence[int]]) -> list[tuple[list[int], int]]:
    """Equal prompts that follow each other as one, with their number."""
    return [(list(prompt), len(list(same))) for prompt, same in groupby(prompts)]


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
