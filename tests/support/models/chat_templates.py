"""Tokenizers with the chat templates of the model families, made here: vocabulary of a few hundred, in milliseconds."""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "You are a helpful assistant. What is the capital of France? The capital of France is Paris.",
    "Kubernetes runs containers in pods;\n\n  a pod has one or more containers.\nuser assistant system model",
    "def add(a, b):\n    return a + b\n\n# 1 + 2 = 3, <think>\n\n</think>\n\n don't stop",
] * 20

CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The shapes of real templates, without their tool calls.
CHATML = """{%- if messages[0]['role'] != 'system' %}{{- '<|im_start|>system\nYou are a helpful AI assistant named\
 SmolLM<|im_end|>\n' }}{%- endif %}{%- for message in messages %}{{- '<|im_start|>' + message['role'] + '\n' + \
message['content'] + '<|im_end|>' + '\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}\
{%- endif %}"""
LLAMA3 = """{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + \
'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}\
{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}\
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""
GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}\
{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}\
{% if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}\
{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""
MISTRAL = """{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}{% if message['role'] == 'user' %}\
{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}\
{% endfor %}"""
LLAMA2 = """{% for message in messages %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + \
message['content'].strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + \
message['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""
PHI3 = """{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"""
QWEN3 = """{%- set ns = namespace(last=-1) %}{%- for message in messages %}{%- if message.role == 'user' %}\
{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}{%- for message in messages %}\
{%- if message.role == 'assistant' %}{%- set content = message.content %}{%- set reasoning = '' %}\
{%- if '</think>' in content %}{%- set reasoning = content.split('</think>')[0].rstrip('\n').split('<think>')[-1]\
.lstrip('\n') %}{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}\
{%- if loop.index0 > ns.last %}{{- '<|im_start|>assistant\n<think>\n' + reasoning.strip('\n') + '\n</think>\n\n' + \
content.lstrip('\n') }}{%- else %}{{- '<|im_start|>assistant\n' + content }}{%- endif %}{{- '<|im_end|>\n' }}\
{%- else %}{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}\
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- if enable_thinking is defined and \
enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"""
# No generation prompt, but generation marks.
MARKED = """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}\
{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"""


def byte_level(special: list[str], template: str, plain: tuple[str, ...] = (), **names: str) -> PreTrainedTokenizerFast:
    """GPT-2's kind of BPE, as of SmolLM2, Llama 3, Qwen."""
    raw = Tokenizer(models.BPE())
    raw.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(CL100K), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    raw.decoder = decoders.ByteLevel()
    raw.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet)
    raw.train_from_iterator(CORPUS, trainer)
    raw.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    return PreTrainedTokenizerFast(tokenizer_object=raw, chat_template=template, **names)


def sentence_piece(special: list[str], template: str, **names: str) -> PreTrainedTokenizerFast:
    """Llama 2's kind of BPE with byte fallback, as of Mistral and Gemma; it adds a beginning-of-sequence token."""
    raw = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokens = ["<unk>", "<s>", "</s>", *special, *(f"<0x{byte:02X}>" for byte in range(256))]
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")  # for training: no merge over a space
    raw.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=700, special_tokens=tokens[:3]))
    raw.pre_tokenizer = None
    vocabulary = dict(raw.get_vocab())
    for token in tokens:
        vocabulary.setdefault(token, len(vocabulary))
    merges = json.loads(raw.to_str())["model"]["merges"]
    raw.model = models.BPE(vocabulary, [tuple(m) for m in merges], byte_fallback=True, unk_token="<unk>")
    raw.add_special_tokens(["<unk>", "<s>", "</s>", *special])
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **names}
    return PreTrainedTokenizerFast(tokenizer_object=raw, chat_template=template, **names)


IM = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PHI = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
HEADER = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
TOKENIZERS = {
    "ChatML": (lambda: byte_level(IM, CHATML, eos_token="<|im_end|>", pad_token="<|im_end|>"), "<|im_end|>"),
    "Llama3": (lambda: byte_level(HEADER, LLAMA3, bos_token=HEADER[0], eos_token="<|eot_id|>"), "<|eot_id|>"),
    "Gemma": (lambda: sentence_piece(["<start_of_turn>", "<end_of_turn>"], GEMMA), "<end_of_turn>"),
    "Mistral": (lambda: sentence_piece([], MISTRAL), "</s>"),
    "Llama2": (lambda: sentence_piece([], LLAMA2), " </s>"),
    "Phi3": (lambda: byte_level(PHI, PHI3, eos_token="<|endoftext|>"), "<|end|>"),
    "Qwen3": (lambda: byte_level(IM, QWEN3, ("<think>", "</think>"), eos_token="<|im_end|>"), "<|im_end|>"),
    "Marked": (lambda: byte_level(IM, MARKED, eos_token="<|im_end|>"), "<|im_end|>"),
}

HEADS = {"Qwen3": "<think>\n\n</think>\n\n", "Marked": "<|im_start|>assistant\n"}
"""What a template writes after its generation prompt, before an answer without reasoning."""


def chat(*contents: str, system: str | None = None) -> dict:
    """A row of turns, user and assistant in turn."""
    roles = ["user", "assistant"] * len(contents)
    turns = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    return {"messages": ([{"role": "system", "content": system}] if system else []) + turns}


def write(path: Path, records: list[dict]) -> str:
    """Write JSON Lines; return the path."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)
