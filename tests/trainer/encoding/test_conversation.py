"""Rows to labels: exactly the assistant content and its end-of-turn token, or a refused row. Every template style."""

import random
import re
from copy import copy

import pytest
from support.models.chat_templates import (
    CHATML,
    HEADER,
    HEADS,
    IM,
    LLAMA3,
    TOKENIZERS,
    byte_level,
    chat,
    sentence_piece,
)
from tokenizers import AddedToken

from hone_trainer.encoding import rendering
from hone_trainer.encoding.conversation import Encoder
from hone_trainer.encoding.row import IGNORED, Row, RowRefusedError
from hone_trainer.errors import TrainerError

pytestmark = pytest.mark.trainer
QUESTION = {"conversation": chat("1 + 2 = ?")["messages"], "add_generation_prompt": True, "return_dict": False}


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
    assert trained(tokenizer, row) == [HEADS.get(name, "") + "A pod has containers." + mark]
    assert len(runs(row)[0]) < len(row.input_ids) - 3


@pytest.mark.parametrize("name", [n for n in TOKENIZERS if n != "Marked"])
def test_the_prompt_is_what_the_model_is_given_when_served(tokenizers, name):
    tokenizer = tokenizers[name]
    encoder = Encoder(tokenizer)
    record = chat("What is a pod?", "A pod has containers.", "And France?", "Paris.")
    row = encoder.encode(record)[-1]
    served = tokenizer.apply_chat_template(record["messages"][:-1], add_generation_prompt=True, return_dict=False)
    assert row.prompt_ids == served
    assert encoder.prompt(record["messages"][:-1]) == served


@pytest.mark.parametrize("name", [n for n in TOKENIZERS if n != "Qwen3"])
def test_every_assistant_turn_counts_and_nothing_else(tokenizers, name):
    tokenizer, mark = tokenizers[name], TOKENIZERS[name][1]
    (row,) = Encoder(tokenizer).encode(chat("hi", "hello you", "1 + 2 = ?", "3", "stop", "never\nstop"))
    check_shape(row)
    assert trained(tokenizer, row) == [HEADS.get(name, "") + text + mark for text in ("hello you", "3", "never\nstop")]
    masked = tokenizer.decode([t for t, label in zip(row.input_ids, row.labels, strict=True) if label == IGNORED])
    assert all(text in masked for text in ("hi", "1 + 2 = ?", "stop"))
    assert "hello you" not in masked


@pytest.mark.parametrize("name", TOKENIZERS)
def test_last_assistant_trains_the_last_turn_alone(tokenizers, name):
    tokenizer, mark = tokenizers[name], TOKENIZERS[name][1]
    (row,) = Encoder(tokenizer, "LastAssistant").encode(chat("hi", "hello you", "1 + 2 = ?", "3"))
    check_shape(row)
    assert trained(tokenizer, row) == [HEADS.get(name, "") + "3" + mark]


def test_a_template_that_rewrites_history_gives_a_row_per_turn(tokenizers):
    tokenizer = tokenizers["Qwen3"]
    encoder = Encoder(tokenizer)
    rows = encoder.encode(chat("hi", "hello you", "1 + 2 = ?", "3"), number=7)
    head = HEADS["Qwen3"]
    assert [trained(tokenizer, row) for row in rows] == [[head + "hello you<|im_end|>"], [head + "3<|im_end|>"]]
    assert [row.number for row in rows] == [7, 7]
    # The later turn sees the earlier one without the reasoning block, as when served.
    assert tokenizer.decode(rows[1].input_ids).count("<think>") == 1


def test_reasoning_is_trained_when_it_is_written_as_the_template_writes_it(tokenizers):
    tokenizer = tokenizers["Qwen3"]
    encoder = Encoder(tokenizer)
    answer = "<think>\n1 and 2 are 3\n</think>\n\n3"
    (row,) = encoder.encode(chat("1 + 2 = ?", answer))
    assert trained(tokenizer, row) == [answer + "<|im_end|>"]
    # Written otherwise, the template changes the content: refused, not trained as something else.
    assert refusal(Encoder(tokenizer), chat("1 + 2 = ?", "Well: <think>no</think> 3")) == "NotProved"


@pytest.mark.parametrize(
    ("thinking", "prompt"), [("Auto", ""), ("Enabled", ""), ("Disabled", "<think>\n\n</think>\n\n")]
)
def test_the_switch_for_thinking_holds_for_prompts_and_rows(tokenizers, thinking, prompt):
    tokenizer = tokenizers["Qwen3"]
    with rendering.of_run(None, thinking):
        encoder = Encoder(tokenizer)
        asked = encoder.prompt("1 + 2 = ?")
        (row,) = encoder.encode(chat("1 + 2 = ?", "3"))
    assert tokenizer.decode(asked).endswith("<|im_start|>assistant\n" + prompt)
    assert row.prompt_ids == asked
    assert tokenizer.decode(row.input_ids).endswith("<think>\n\n</think>\n\n3<|im_end|>")
    assert rendering.switched(tokenizer, thinking) == {
        "Enabled": {"enable_thinking": True},
        "Disabled": {"enable_thinking": False},
    }.get(thinking, {})
    assert rendering.switched(tokenizers["ChatML"], thinking) == {}


@pytest.mark.parametrize("thinking", ["Auto", "Enabled", "Disabled"])
def test_an_exported_template_makes_the_prompts_of_the_run_by_default(tokenizers, thinking):
    tokenizer = copy(tokenizers["Qwen3"])
    with rendering.of_run(None, thinking):
        trained_on = Encoder(tokenizer).prompt("1 + 2 = ?")
    asked = {wish: tokenizer.apply_chat_template(**QUESTION, enable_thinking=wish) for wish in (True, False)}
    tokenizer.chat_template = rendering.with_default(tokenizer.chat_template, thinking)
    assert tokenizer.apply_chat_template(**QUESTION) == trained_on
    assert {wish: tokenizer.apply_chat_template(**QUESTION, enable_thinking=wish) for wish in asked} == asked
    assert rendering.with_default(CHATML, thinking) == CHATML


@pytest.mark.parametrize("start", ["\n", "\n\n  {% if true %}A{% endif %}", "    {% if true %}A{% endif %}", "", "\tA"])
def test_an_exported_template_changes_nothing_but_its_default(tokenizers, start):
    """Whatever it begins with, and whichever of two names a request uses."""
    tokenizer = copy(tokenizers["ChatML"])
    is_on = "{{ thinking if thinking is defined else enable_thinking|default('unset') }}"
    template = tokenizer.chat_template = f"{start}{CHATML}{is_on}"
    requests = [{"thinking": True}, {"thinking": False}, {"enable_thinking": True}, {"enable_thinking": False}]
    asked = [tokenizer.apply_chat_template(**QUESTION, **request) for request in requests]
    tokenizer.chat_template = rendering.with_default(template, "Enabled")
    assert tokenizer.apply_chat_template(**QUESTION) == asked[0]
    assert [tokenizer.apply_chat_template(**QUESTION, **request) for request in requests] == asked


def test_a_prompt_whose_turn_the_template_drops_is_refused(tokenizers):
    with pytest.raises(RowRefusedError, match="drops the system turn: move its text into the next user turn"):
        Encoder(tokenizers["Llama2"]).prompt([{"role": "system", "content": "Be brief."}, *chat("hi")["messages"]])


@pytest.mark.parametrize("name", ["ChatML", "Llama3", "Phi3", "Qwen3", "Marked"])
def test_a_system_turn_is_read_and_not_trained(tokenizers, name):
    tokenizer, mark = tokenizers[name], TOKENIZERS[name][1]
    (row,) = Encoder(tokenizer).encode(chat("hi", "hello", system="Answer as a pirate."))
    assert trained(tokenizer, row) == [HEADS.get(name, "") + "hello" + mark]
    assert "Answer as a pirate." in tokenizer.decode(row.input_ids)


def test_what_the_template_refuses_is_refused_with_its_words(tokenizers):
    encoder = Encoder(tokenizers["Gemma"])
    with pytest.raises(RowRefusedError, match="System role not supported"):
        encoder.encode(chat("hi", "hello", system="Be brief."))
    two = {"messages": [{"role": "user", "content": "a"}] * 2 + [{"role": "assistant", "content": "b"}]}
    with pytest.raises(RowRefusedError, match="must alternate"):
        encoder.encode(two)


@pytest.mark.parametrize(
    "fault", ["messages[0].content.index('no such part')", "'{a}'.format(b=1)", "'a' + none", "2**20000"]
)
def test_a_template_that_fails_refuses_rows_and_prompts(tokenizers, fault):
    tokenizer = copy(tokenizers["ChatML"])
    tokenizer.chat_template = f"{{{{ {fault} }}}}{CHATML}"
    for encoded in (Encoder(tokenizer).encode, lambda row: Encoder(tokenizer).prompt(row["messages"][:1])):
        with pytest.raises(RowRefusedError, match="the chat template fails") as caught:
            encoded(chat("hi", "hello"))
        assert caught.value.code == "TemplateRefused"


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


def test_an_end_of_turn_token_that_is_not_one_token_is_refused():
    """ChatML pasted onto a model without its tokens: the model could never stop at it."""
    tokenizer = byte_level(["<|endoftext|>"], CHATML, eos_token="<|endoftext|>")
    assert refusal(Encoder(tokenizer), chat("hi", "hello")) == "NotProved"


def test_a_template_without_an_end_of_turn_token_is_refused():
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


def test_the_line_break_after_the_last_end_of_turn_token_is_cut(tokenizers):
    (row,) = Encoder(tokenizers["ChatML"]).encode(chat("hi", "hello"))
    assert tokenizers["ChatML"].decode(row.input_ids).endswith("hello<|im_end|>")


def test_turns_after_the_last_answer_are_left_out(tokenizers):
    (row,) = Encoder(tokenizers["ChatML"]).encode(chat("hi", "hello", "unanswered"))
    assert "unanswered" not in tokenizers["ChatML"].decode(row.input_ids)


def test_the_end_of_turn_token_is_trained_though_it_is_the_pad_token(tokenizers):
    tokenizer = tokenizers["ChatML"]
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    encoder = Encoder(tokenizer)
    (row,) = encoder.encode(chat("hi", "hello"))
    assert row.labels[-1] == tokenizer.eos_token_id
    assert encoder.end_of_turn_ids == {tokenizer.eos_token_id}


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
    """Right is computed here from the rendered text alone: what is between the prompt and the end-of-turn token."""
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
        answers = [text.removeprefix(HEADS.get(name, "")).replace("▁", " ").strip() for text in found]
        assert answers == normal[1::2]
        for row in rows:
            check_shape(row)
            assert all(tokenizer.decode(run[-1:]).strip() == mark for run in runs(row))
    assert kept >= 50


def test_conversations_need_a_chat_template():
    tokenizer = byte_level(IM, "", eos_token="<|im_end|>")
    tokenizer.chat_template = None
    with pytest.raises(TrainerError, match="no chat template") as caught:
        Encoder(tokenizer).encode(chat("hi", "hello"))
    assert caught.value.code == "UnsupportedModel"


def test_a_tokenizer_without_an_end_is_refused():
    with pytest.raises(TrainerError, match="no end-of-sequence"):
        Encoder(byte_level(IM, CHATML))


TURNS = "{% for m in messages[-4:] %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


@pytest.mark.parametrize("texts", [("yes", "yes", "yes"), ("ok", "okay", "okay, thanks"), ("a", "no", "was it?")])
def test_a_turn_that_is_left_out_is_missed_although_another_says_the_same(texts: tuple[str, ...]) -> None:
    encoder = Encoder(byte_level(IM, TURNS + PROMPT, eos_token="<|im_end|>"))
    turns = [turn for text in texts for turn in chat(text, "Really?")["messages"]]
    assert len(encoder.encode({"messages": turns[:4]})) == 1
    for attempt in (lambda: encoder.encode({"messages": turns}), lambda: encoder.prompt(turns[:5])):
        with pytest.raises(RowRefusedError, match="drops the user turn"):
            attempt()


@pytest.mark.parametrize("mark", ["{% generation %}", ""])
def test_a_model_without_a_generation_prompt_learns_the_header_that_it_has_to_write(mark: str) -> None:
    text = mark + "{{ m.content }}<|im_end|>" + mark.replace(" g", " endg")
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}TEXT{% else %}"
        "{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
    ).replace("TEXT", text)
    encoder = Encoder(tok := byte_level(IM, template, eos_token="<|im_end|>"))
    (row,) = encoder.encode(chat("hi", "hello"))
    assert row.prompt_ids == encoder.prompt("hi")
    assert trained(tok, row) == ["<|im_start|>assistant\nhello<|im_end|>"]
