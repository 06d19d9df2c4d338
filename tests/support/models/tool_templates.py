"""Chat templates that show tools and their calls, and a tokenizer for them."""

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

IM = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# Qwen2.5's template, shortened to what it does with roles, tools and calls.
QWEN = """{%- if tools %}{{- '<|im_start|>system\n' }}{%- if messages[0]['role'] == 'system' %}\
{{- messages[0]['content'] }}{%- endif %}{{- "\n\n# Tools\n<tools>" }}{%- for tool in tools %}{{- "\n" }}\
{{- tool | tojson }}{%- endfor %}{{- "\n</tools><|im_end|>\n" }}{%- elif messages[0]['role'] == 'system' %}\
{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}{%- endif %}{%- for message in messages %}\
{%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and \
not message.tool_calls) %}{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}\
{%- elif message.role == "assistant" %}{{- '<|im_start|>' + message.role }}{%- if message.content %}\
{{- '\n' + message.content }}{%- endif %}{%- for tool_call in message.tool_calls %}\
{%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}\
{{- '\n<tool_call>\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}{{- tool_call.arguments | tojson }}\
{{- '}\n</tool_call>' }}{%- endfor %}{{- '<|im_end|>\n' }}{%- elif message.role == "tool" %}\
{%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}\
{{- '\n<tool_response>\n' }}{{- message.content }}{{- '\n</tool_response>' }}{%- if loop.last or \
(messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\n' }}{%- endif %}{%- endif %}{%- endfor %}\
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""
# Llama 3.1's: one call a turn, and what a tool answered as a JSON string.
LLAMA = """{%- if tools %}{{- '<|im_start|>system\n' }}{%- for t in tools %}{{- t | tojson }}{{- '\n' }}{%- endfor %}\
{{- '<|im_end|>' }}{%- endif %}{%- for message in messages %}{%- if message.tool_calls %}\
{%- if message.tool_calls | length != 1 %}{{- raise_exception("This model only supports single tool-calls at once!") }}\
{%- endif %}{%- set call = message.tool_calls[0].function %}{{- '<|im_start|>assistant\n\n' }}\
{{- '{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}{{- '}<|im_end|>' }}\
{%- elif message.role == 'tool' %}{{- '<|im_start|>ipython\n\n' }}{{- message.content | tojson }}{{- '<|im_end|>' }}\
{%- else %}{{- '<|im_start|>' + message.role + '\n\n' + message.content | trim + '<|im_end|>' }}{%- endif %}\
{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n\n' }}{%- endif %}"""
PLAIN = """{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome", "days": 2}}\n</tool_call><|im_end|>'

TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}},
    {"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}},
]


def call(name: str, **arguments: Any) -> dict[str, Any]:
    """A call of a tool."""
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def asks(*calls: dict[str, Any], content: str = "") -> dict[str, Any]:
    """An assistant turn with calls of tools."""
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Qwen2.5's marks over bytes; set `chat_template`."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=list(IM), initial_alphabet=alphabet)
    raw.train_from_iterator(["Is it warm in Rome? Yes, the weather is warm."] * 20, trainer)
    # As in Qwen2.5's vocabulary: added, and not special.
    raw.add_tokens([AddedToken(t, special=False, normalized=False) for t in ("<tool_call>", "</tool_call>")])
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|im_end|>")
