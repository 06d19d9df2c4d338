"""Rows to labels: exactly the assistant content and its end mark, or the row is refused. Every template style."""

import json
import random
import re

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from hone_trainer.encode import encode_split
from hone_trainer.encode_pairs import JudgedEncoder, Pair, PairEncoder
from hone_trainer.encoder import IGNORED, Encoder, Row, RowRefusedError
from hone_trainer.errors import DataError, TrainerError

pytestmark = pytest.mark.trainer

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


@pytest.fixture(scope="module")
def tokenizers():
    return {name: make() for name, (make, _) in TOKENIZERS.items()}


def chat(*contents: str, system: str | None = None) -> dict:
    roles = ["user", "assistant"] * len(contents)
    turns = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    return {"messages": ([{"role": "system", "content": system}] if system else []) + turns}


def runs(row: Row) -> list[list[int]]:
    """The trained runs of a row, as token ids."""
    found: list[list[int]] = [[]]
    for label in row.labels:
        if label == IGNORED:
            found.append([])
        else:
            found[-1].append(label)
    return [run for run in found if run]


def trained(tokenizer, row: Row) -> list[str]:
    return [tokenizer.decode(run).strip() for run in runs(row)]


def check_shape(row: Row) -> None:
    assert len(row.input_ids) == len(row.labels)
    assert all(label in (IGNORED, token) for label, token in zip(row.labels, row.input_ids, strict=True))
    assert row.labels[0] == IGNORED
    assert row.labels[-1] != IGNORED


def refusal(encoder: Encoder, record: dict) -> str:
    with pytest.raises(RowRefusedError) as caught:
        encoder.encode(record)
    return caught.value.code


@pytest.mark.parametrize("name", TOKENIZERS)
def test_one_turn(tokenizers, name):
    tokenizer, mark = tokenizers[name], TOKENIZERS[name][1]
    (row,) = Encoder(tokenizer).encode({"prompt": "What is a pod?", "completion": "A pod has containers."})
    check_shape(row)
    assert trained(tokenizer, row) == ["A pod has containers." + mark]
    assert len(runs(row)[0]) < len(row.input_ids) - 3


@pytest.mark.parametrize("name", [n for n in TOKENIZERS if n != "Marked"])
def test_the_prompt_is_what_the_model_is_given_when_served(tokenizers, name):
    tokenizer = tokenizers[name]
    encoder = Encoder(tokenizer)
    record = chat("What is a pod?", "A pod has containers.", "And France?", "Paris.")
    row = encoder.encode(record)[-1]
    served = tokenizer.apply_chat_template(
        record["messages"][:-1], add_generation_prompt=True, return_dict=False, **encoder.prompt_options
    )
    assert row.prompt_ids == served


@pytest.mark.parametrize("name", [n for n in TOKENIZERS if n != "Qwen3"])
def test_every_assistant_turn_counts_and_nothing_else(tokenizers, name):
    tokenizer, mark = tokenizers[name], TOKENIZERS[name][1]
    (row,) = Encoder(tokenizer).encode(chat("hi", "hello you", "1 + 2 = ?", "3", "stop", "never\nstop"))
    check_shape(row)
    assert trained(tokenizer, row) == ["hello you" + mark, "3" + mark, "never\nstop" + mark]
    masked = tokenizer.decode([t for t, label in zip(row.input_ids, row.labels, strict=True) if label == IGNORED])
    assert all(text in masked for text in ("hi", "1 + 2 = ?", "stop"))
    assert "hello you" not in masked


@pytest.mark.parametrize("name", TOKENIZERS)
def test_last_assistant_trains_the_last_turn_alone(tokenizers, name):
    tokenizer, mark = tokenizers[name], TOKENIZERS[name][1]
    (row,) = Encoder(tokenizer, "LastAssistant").encode(chat("hi", "hello you", "1 + 2 = ?", "3"))
    check_shape(row)
    assert trained(tokenizer, row) == ["3" + mark]


def test_a_template_that_rewrites_history_gives_a_row_per_turn(tokenizers):
    tokenizer = tokenizers["Qwen3"]
    encoder = Encoder(tokenizer)
    rows = encoder.encode(chat("hi", "hello you", "1 + 2 = ?", "3"), number=7)
    assert [trained(tokenizer, row) for row in rows] == [["hello you<|im_end|>"], ["3<|im_end|>"]]
    assert [row.number for row in rows] == [7, 7]
    # The later turn sees the earlier one without the reasoning block, as when served.
    assert tokenizer.decode(rows[1].input_ids).count("<think>") == 1
    assert encoder.prompt_options == {"enable_thinking": False}


def test_reasoning_is_trained_when_it_is_written_as_the_template_writes_it(tokenizers):
    tokenizer = tokenizers["Qwen3"]
    encoder = Encoder(tokenizer)
    answer = "<think>\n1 and 2 are 3\n</think>\n\n3"
    (row,) = encoder.encode(chat("1 + 2 = ?", answer))
    assert trained(tokenizer, row) == [answer + "<|im_end|>"]
    assert encoder.prompt_options == {}
    # Written otherwise, the template changes the content: refused, not trained as something else.
    assert refusal(Encoder(tokenizer), chat("1 + 2 = ?", "Well: <think>no</think> 3")) == "NotProved"


@pytest.mark.parametrize("name", ["ChatML", "Llama3", "Phi3", "Qwen3", "Marked"])
def test_a_system_turn_is_read_and_not_trained(tokenizers, name):
    tokenizer, mark = tokenizers[name], TOKENIZERS[name][1]
    (row,) = Encoder(tokenizer).encode(chat("hi", "hello", system="Answer as a pirate."))
    assert trained(tokenizer, row) == ["hello" + mark]
    assert "Answer as a pirate." in tokenizer.decode(row.input_ids)


def test_what_the_template_refuses_is_refused_with_its_words(tokenizers):
    encoder = Encoder(tokenizers["Gemma"])
    with pytest.raises(RowRefusedError, match="System role not supported"):
        encoder.encode(chat("hi", "hello", system="Be brief."))
    two = {"messages": [{"role": "user", "content": "a"}] * 2 + [{"role": "assistant", "content": "b"}]}
    with pytest.raises(RowRefusedError, match="must alternate"):
        encoder.encode(two)


def test_a_system_turn_that_the_template_drops_is_not_refused_silently(tokenizers):
    """Llama 2's template above ignores system turns: then the content is not in the row, and nobody would notice."""
    assert refusal(Encoder(tokenizers["Llama2"]), chat("hi", "hello", system="Answer as a pirate.")) == "TurnDropped"


@pytest.mark.parametrize("name", ["Llama3", "Gemma", "Mistral", "Llama2"])
def test_exactly_one_beginning_of_sequence(tokenizers, name):
    tokenizer = tokenizers[name]
    (row,) = Encoder(tokenizer).encode(chat("hi", "hello"))
    assert row.input_ids[0] == tokenizer.bos_token_id
    assert row.input_ids.count(tokenizer.bos_token_id) == 1


def test_a_template_that_doubles_the_beginning_is_refused():
    tokenizer = byte_level(HEADER, "{{ bos_token }}" + LLAMA3, bos_token=HEADER[0], eos_token="<|eot_id|>")
    assert refusal(Encoder(tokenizer), chat("hi", "hello")) == "DoubleBos"


def test_an_end_mark_that_is_not_one_token_is_refused():
    """ChatML pasted onto a model without its tokens: the model could never stop at it."""
    tokenizer = byte_level(["<|endoftext|>"], CHATML, eos_token="<|endoftext|>")
    assert refusal(Encoder(tokenizer), chat("hi", "hello")) == "NotProved"


def test_a_template_without_an_end_mark_is_refused():
    tokenizer = byte_level(
        IM, "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}", eos_token=IM[2]
    )
    assert refusal(Encoder(tokenizer), chat("hi", "hello")) == "NotProved"


def test_control_tokens_in_content_are_refused(tokenizers):
    encoder = Encoder(tokenizers["ChatML"])
    assert refusal(encoder, chat("hi<|im_end|>\n<|im_start|>assistant\nno", "hello")) == "ControlToken"
    assert refusal(encoder, chat("hi", "hello<|im_end|>")) == "ControlToken"
    assert refusal(encoder, {"prompt": "hi <|im_start|>", "completion": "a"}) == "ControlToken"


@pytest.mark.parametrize("content", ["\nhello", "\n\nhello", " hello", "\n" * 5 + "hello"])
def test_a_token_over_the_border_of_prompt_and_content_is_split_there(tokenizers, content):
    """The prompt ends in a line break, as served; content that starts with one would share a token with it."""
    tokenizer = tokenizers["ChatML"]
    record = chat("hi", content)
    assert len(tokenizer("\n\n")["input_ids"]) == 1
    (row,) = Encoder(tokenizer).encode(record)
    served = tokenizer.apply_chat_template(record["messages"][:1], add_generation_prompt=True, return_dict=False)
    assert row.prompt_ids == served
    assert tokenizer.decode(row.input_ids[len(served) :]) == content + "<|im_end|>"


def test_the_line_break_after_the_last_end_mark_is_cut(tokenizers):
    (row,) = Encoder(tokenizers["ChatML"]).encode(chat("hi", "hello"))
    assert tokenizers["ChatML"].decode(row.input_ids).endswith("hello<|im_end|>")


def test_turns_after_the_last_answer_are_left_out(tokenizers):
    (row,) = Encoder(tokenizers["ChatML"]).encode(chat("hi", "hello", "unanswered"))
    assert "unanswered" not in tokenizers["ChatML"].decode(row.input_ids)


def test_the_end_mark_is_trained_though_it_is_the_pad_token(tokenizers):
    tokenizer = tokenizers["ChatML"]
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    encoder = Encoder(tokenizer)
    (row,) = encoder.encode(chat("hi", "hello"))
    assert row.labels[-1] == tokenizer.eos_token_id
    assert encoder.end_marks == {tokenizer.eos_token_id}


@pytest.mark.parametrize("prompt", ["Question: 1 + 2 =", "Question: 1 + 2 = ", "Q"])
@pytest.mark.parametrize("kind", [byte_level, sentence_piece])
def test_prompt_and_completion_without_a_template(kind, prompt):
    tokenizer = kind(IM, "", eos_token="<|im_end|>")
    tokenizer.chat_template = None
    (row,) = Encoder(tokenizer).encode({"prompt": prompt, "completion": " 3, don't stop"})
    check_shape(row)
    assert tokenizer.decode(row.input_ids, skip_special_tokens=True).strip() == prompt + " 3, don't stop"
    assert trained(tokenizer, row) == ["3, don't stop<|im_end|>"]
    assert row.prompt_ids == tokenizer(prompt)["input_ids"]


def test_a_completion_that_cannot_be_tokenised_apart_is_refused():
    """One token spans the border, and this kind of tokenizer adds a space to text that it is given apart."""
    tokenizer = sentence_piece([], "")
    tokenizer.chat_template = None
    tokenizer.add_tokens([AddedToken("=3", normalized=False)])
    assert refusal(Encoder(tokenizer), {"prompt": "1 + 2 =", "completion": "3"}) == "NotProved"
    assert Encoder(tokenizer).encode({"prompt": "1 + 2 =", "completion": " 3"})


@pytest.mark.parametrize("name", ["ChatML", "Mistral"])
def test_text_trains_every_token_and_the_end(tokenizers, name):
    tokenizer = tokenizers[name]
    text = "a pod </s> has <|im_end|> containers"
    (row,) = Encoder(tokenizer).encode({"text": text})
    assert row.labels[1:] == row.input_ids[1:]
    assert row.input_ids[-1] == tokenizer.eos_token_id
    assert row.input_ids.count(tokenizer.eos_token_id) == 1, "a control token in a document is plain characters"
    if name == "Mistral":
        assert row.input_ids[0] == tokenizer.bos_token_id
    assert text in tokenizer.decode(row.input_ids)


PIECES = [
    "a",
    "Paris",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t",
    "é",
    "e\u0301",
    "你好",
    "🙂",
    "👩‍👩‍👧",
    "<think>",
    "[INST]",
    "don't",
    "```",
    "\u00a0",
    "▁",
    "0",
]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_whatever_the_content_the_labels_are_right_or_the_row_is_refused(tokenizers, name):
    """Right is computed here from the rendered text alone: what lies between the prompt and the end mark."""
    tokenizer, mark = tokenizers[name], TOKENIZERS[name][1].strip()
    draw = random.Random(name)
    encoder = Encoder(tokenizer)
    kept = 0
    for _ in range(150):
        contents = ["".join(draw.choices(PIECES, k=draw.randint(1, 12))) for _ in range(draw.choice([2, 2, 4]))]
        if not all(content.strip() for content in contents):
            continue
        try:
            rows = encoder.encode(chat(*contents))
        except RowRefusedError:
            continue
        kept += 1
        found = [re.sub(rf"\s*{re.escape(mark)}$", "", text) for row in rows for text in trained(tokenizer, row)]
        normal = [
            tokenizer.backend_tokenizer.normalizer.normalize_str(c.strip()).replace("▁", " ").strip() for c in contents
        ]
        assert [text.replace("▁", " ").strip() for text in found] == normal[1::2]
        for row in rows:
            check_shape(row)
            assert all(tokenizer.decode(run[-1:]).strip() == mark for run in runs(row))
    assert kept >= 50


def write(path, records) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def long(words: int) -> dict:
    return chat("hi", " ".join(["pod"] * words))


def test_truncation_drop_counts_rows_and_tokens(tmp_path, tokenizers):
    path = write(tmp_path / "t.jsonl", [long(3), long(200), long(4)])
    free = encode_split(path, Encoder(tokenizers["ChatML"]), max_length=None)
    limit = len(free.rows[2].input_ids)
    found = encode_split(path, Encoder(tokenizers["ChatML"]), max_length=limit)
    assert [row.number for row in found.rows] == [1, 3]
    counts = found.counts
    assert (counts.lines, counts.rows, counts.too_long, counts.truncated) == (3, 2, 1, 0)
    assert counts.tokens_lost == len(free.rows[1].input_ids) == counts.longest
    assert counts.tokens + counts.tokens_lost == free.counts.tokens
    assert "1 over the maximal length (0 truncated, 1 dropped" in counts.summary()


def test_truncation_truncate_cuts_the_end_and_drops_what_has_no_label_left(tmp_path, tokenizers):
    path = write(tmp_path / "t.jsonl", [long(3), long(200), chat("pod " * 300, "never seen")])
    free = encode_split(path, Encoder(tokenizers["ChatML"]), max_length=None)
    limit = len(free.rows[0].input_ids) + 5
    found = encode_split(path, Encoder(tokenizers["ChatML"]), max_length=limit, truncation="Truncate")
    assert [len(row.input_ids) for row in found.rows] == [limit - 5, limit]
    assert found.rows[1].input_ids == free.rows[1].input_ids[:limit]
    counts = found.counts
    assert (counts.too_long, counts.truncated, counts.without_labels, counts.rows_with_end_mark) == (2, 1, 1, 1)
    assert counts.tokens + counts.tokens_lost == free.counts.tokens


def test_truncation_refuse_names_the_row(tmp_path, tokenizers):
    path = write(tmp_path / "t.jsonl", [long(3), long(200)])
    with pytest.raises(DataError, match=r"t\.jsonl, line 2: \d+ tokens, training\.maxLength is 50") as caught:
        encode_split(path, Encoder(tokenizers["ChatML"]), max_length=50, truncation="Refuse")
    assert caught.value.code == "RowTooLong"


def test_refused_rows_are_counted_with_their_lines(tmp_path, tokenizers):
    bad = chat("hi", "hello <|im_end|>")
    found = encode_split(
        write(tmp_path / "t.jsonl", [bad, long(1), bad]), Encoder(tokenizers["ChatML"]), max_length=None
    )
    refused = found.counts.refused["ControlToken"]
    assert (refused.count, refused.lines) == (2, [1, 3])
    assert "2 refused: ControlToken (e.g. line 1:" in found.counts.summary()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ('{"messages": ', "InvalidRow"),
        ('{"question": "a"}\n', "DatasetFormatMismatch"),
        ('{"prompt": "a"}\n', "DatasetFormatMismatch"),
        ("[1]\n", "InvalidRow"),
        ("", "NoTrainableRows"),
        (json.dumps(chat("hi", "<|im_end|>")) + "\n", "NoTrainableRows"),
    ],
)
def test_files_that_cannot_be_trained_on(tmp_path, tokenizers, content, code):
    (tmp_path / "t.jsonl").write_text(content)
    with pytest.raises(DataError) as caught:
        encode_split(tmp_path / "t.jsonl", Encoder(tokenizers["ChatML"]), max_length=None)
    assert caught.value.code == code


def test_conversations_need_a_chat_template():
    tokenizer = byte_level(IM, "", eos_token="<|im_end|>")
    tokenizer.chat_template = None
    with pytest.raises(TrainerError, match="no chat template") as caught:
        Encoder(tokenizer).encode(chat("hi", "hello"))
    assert caught.value.code == "UnsupportedModel"


def test_a_tokenizer_without_an_end_is_refused():
    with pytest.raises(TrainerError, match="no end-of-sequence"):
        Encoder(byte_level(IM, CHATML))


def pair(question: str, chosen: str, rejected: str) -> dict:
    answers = {"chosen": chosen, "rejected": rejected}
    turns = {name: [{"role": "assistant", "content": text}] for name, text in answers.items()}
    return {"prompt": [{"role": "user", "content": question}], **turns}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_pair_is_one_prompt_and_two_answers_with_their_end_marks(tokenizers, name):
    tokenizer, mark = tokenizers[name], TOKENIZERS[name][1]
    (found,) = PairEncoder(tokenizer).encode(pair("What is a pod?", "Containers in pods.", "I don't know, 3"))
    for ids, text in ((found.chosen_ids, "Containers in pods."), (found.rejected_ids, "I don't know, 3")):
        assert tokenizer.decode(ids).strip() == text + mark
        (row,) = Encoder(tokenizer).encode(chat("What is a pod?", text))
        assert row.input_ids == found.prompt_ids + ids
        assert row.labels == [IGNORED] * len(found.prompt_ids) + ids
    assert found.trained == len(found.chosen_ids) + len(found.rejected_ids)


def test_only_the_last_answer_of_a_longer_prompt_is_compared(tokenizers):
    record = pair("And nodes?", "Machines.", "Pods.")
    record["prompt"] = [*chat("What is a pod?", "A group.")["messages"], *record["prompt"]]
    (found,) = PairEncoder(tokenizers["ChatML"]).encode(record)
    assert tokenizers["ChatML"].decode(found.chosen_ids) == "Machines.<|im_end|>"
    assert "A group.<|im_end|>" in tokenizers["ChatML"].decode(found.prompt_ids)


def test_pairs_of_texts_are_read_with_and_without_a_template(tokenizers):
    record = {"prompt": "What is a pod?", "chosen": "A group.", "rejected": "No."}
    assert PairEncoder(tokenizers["ChatML"]).encode(record) == PairEncoder(tokenizers["ChatML"]).encode(
        pair("What is a pod?", "A group.", "No.")
    )
    plain = byte_level(IM, "", eos_token="<|im_end|>")
    plain.chat_template = None
    (found,) = PairEncoder(plain).encode(record)
    assert plain.decode(found.prompt_ids) == "What is a pod?"
    assert plain.decode(found.rejected_ids) == "No.<|im_end|>"


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (pair("Hi", "Hello", "Hello"), "SameAnswers"),
        (pair("Hi", "Hello", "<|eot_id|>"), "ControlToken"),
        (pair("Hi", "Hello ", " Hello"), "SameAnswers"),  # the template trims
    ],
)
def test_pairs_that_prefer_nothing_or_say_too_much_are_refused(tokenizers, record, code):
    with pytest.raises(RowRefusedError) as caught:
        PairEncoder(tokenizers["Llama3"]).encode(record)
    assert caught.value.code == code


def test_a_pair_is_two_judged_answers(tokenizers):
    (whole,) = PairEncoder(tokenizers["ChatML"]).encode(pair("Hi", "Hello", "No"))
    good, bad = JudgedEncoder(tokenizers["ChatML"]).encode(pair("Hi", "Hello", "No"), 7)
    assert (good.prompt_ids, good.completion_ids, good.label, good.number) == (
        whole.prompt_ids,
        whole.chosen_ids,
        True,
        7,
    )
    assert (bad.completion_ids, bad.label) == (whole.rejected_ids, False)


def test_a_cut_pair_must_still_differ():
    whole = Pair([1, 2], [3, 4, 5], [3, 6], 1)
    assert whole.cut(4) == Pair([1, 2], [3, 4], [3, 6], 1)
    assert whole.cut(3) is None
    assert whole.cut(2) is None


@pytest.mark.parametrize(
    ("encoder", "record"),
    [(PairEncoder, chat("hi", "hello")), (JudgedEncoder, {"text": "a"}), (Encoder, pair("Hi", "Hello", "No"))],
)
def test_rows_of_another_kind_are_refused_with_their_line(tmp_path, tokenizers, encoder, record):
    path = write(tmp_path / "t.jsonl", [record])
    with pytest.raises(DataError, match=r"t\.jsonl, line 1: has n") as caught:
        encode_split(path, encoder(tokenizers["ChatML"]), max_length=None)
    assert caught.value.code == "DatasetFormatMismatch"
