"""Every chat template that TRL and Axolotl ship: what is trained, after which prompt, and what is refused.

What must be true of a row is computed here from the templates alone, by transformers' own rendering. TRL's training
templates, which mark what to train, are a second opinion. The page of model families has what each template trains.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from jinja2.exceptions import TemplateError
from support.models.family_templates import CASES, CONVERSATIONS, FILES, MARKED, NAMES, record, tokenizer

from hone_trainer.encoding import rendering
from hone_trainer.encoding.conversation import Encoder
from hone_trainer.encoding.prompts import PromptEncoder
from hone_trainer.encoding.row import IGNORED, Row, RowRefusedError

pytestmark = pytest.mark.trainer

DOCS = Path(__file__).parents[3] / "docs"
SAMPLE = [
    "qwen3",
    "qwen3_5_think",
    "nemotron_3_nano",
    "glm4moe",
    "deepseek_r1_distill",
    "cohere2",
    "gemma4_v4",
    "smolvlm",
    "muse_glimmer",
]
SAMPLED = [("Plain", "three"), ("System", "two"), ("Reasoning", "two"), ("Tools", "answered")]
REFUSED_OF_SAMPLE = {
    "deepseek_r1_distill": {"Plain": "NoReasoning", "System": "NoReasoning", "Tools": "ToolsDropped"},
    "cohere2": {"Tools": "TemplateRefused"},
    "smolvlm": {"Tools": "ToolsDropped"},
}
IN_PARTS = {FILES[name].read_text() for name in ("idefics3", "llava_next", "smolvlm")}
"""Chat templates that take content only as a list of parts."""
WORDS = set(
    re.findall(
        r"\w+", "assistant model thought to assistantto self user weather analysis final commentary json functions"
    )
)
"""What templates write into headers within an answer."""


def runs(row: Row) -> list[list[int]]:
    """The token ids of each trained run."""
    spans: list[list[int]] = [[]]
    for label in row.labels:
        spans.append([]) if label == IGNORED else spans[-1].append(label)
    return [span for span in spans if span]


def parts(turn: dict[str, Any]) -> tuple[str, str]:
    """Reasoning and answer of a turn."""
    block = re.match(r"<think>\n(.*?)\n</think>\n\n", turn["content"], re.DOTALL)
    return (block[1], turn["content"][block.end() :]) if block else ("", turn["content"])


def bare(text: str) -> str:
    """Without white space, in the form that the tokenizers of these tests normalise to."""
    return re.sub(r"\s", "", text.replace("e\u0301", "é"))


def check_run(tok: Any, text: str, turn: dict[str, Any]) -> None:
    """The text is the turn's reasoning, its answer or calls, and control tokens: nothing else of the conversation."""
    reasoning, answer = map(bare, parts(turn))
    rest = bare(text)
    assert rest.find(reasoning) <= rest.rfind(answer)
    for part in (reasoning, answer):
        assert part in rest
        rest = rest.replace(part, " ", 1)
    if turn.get("tool_calls"):
        assert all(call["function"]["name"] in text for call in turn["tool_calls"])
        assert all(key in text for call in turn["tool_calls"] for key in call["function"]["arguments"])
        return
    for token in sorted((t.content for t in tok.added_tokens_decoder.values()), key=len, reverse=True):
        rest = rest.replace(token, " ")
    assert set(re.findall(r"\w+", rest.replace("<think>", "").replace("</think>", ""))) <= WORDS, rest


def check(name: str, kind: str, title: str, thinking: str = "Auto") -> str:
    """Encode a conversation and compare its rows with the template; the code of a refusal, or an empty text."""
    tok, row = tokenizer(name), record(kind, title)
    messages, tools = row["messages"], row.get("tools")
    with rendering.of_run(None, thinking):
        options = rendering.switched(tok, thinking)
        try:
            rows = Encoder(tok).encode(row)
        except RowRefusedError as error:
            return error.code
        last_prompt = Encoder(tok).prompt(messages[: 1 + [m["role"] for m in messages].index("user")], tools or ())
    trained = [i for i, turn in enumerate(messages) if turn["role"] == "assistant" and turn.get("weight") != 0]
    spans = [(span, encoded) for encoded in rows for span in runs(encoded)]
    assert len(spans) == len(trained)
    for index, (span, encoded) in zip(trained, spans, strict=True):
        served = tok.apply_chat_template(
            shown(tok, messages[:index]), tools=tools, add_generation_prompt=True, tokenize=False, **options
        )
        text = tok.decode(encoded.input_ids)
        assert bare(text).startswith(bare(served)), "the row goes on after the prompt that a server makes"
        if index == trained[-1]:
            assert encoded.prompt_ids == tok(served, add_special_tokens=False)["input_ids"]
        check_run(tok, served_block(served) + tok.decode(span), messages[index])
        assert tok.added_tokens_decoder[span[-1]].special
    first = tok.apply_chat_template(
        shown(tok, messages)[: 1 + [m["role"] for m in messages].index("user")],
        tools=tools,
        add_generation_prompt=True,
        return_dict=False,
        **options,
    )
    assert last_prompt == first, "a rollout's prompt is the server's"
    return ""


def served_block(prompt: str) -> str:
    return "<think>" if prompt.rstrip().endswith("<think>") else ""


def shown(tok: Any, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The turns as a client sends them back: reasoning in a field if the template or its prompt knows it."""
    clean = [{key: turn[key] for key in turn if key != "weight"} for turn in messages]
    if tok.chat_template in IN_PARTS:
        return [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in clean]
    question, thought = {"role": "user", "content": "a"}, {"reasoning_content": "tortoise", "thinking": "tortoise"}
    answered = [question, {"role": "assistant", "content": "b", **thought}]
    prompt = tok.apply_chat_template([question], add_generation_prompt=True, tokenize=False)
    if "tortoise" not in tok.apply_chat_template(answered, tokenize=False) and not served_block(prompt):
        return clean
    apart = [(turn, *parts(turn)) if turn["role"] == "assistant" else (turn, "", "") for turn in clean]
    return [{**turn, "content": answer, **dict.fromkeys(thought, own)} if own else turn for turn, own, answer in apart]


@pytest.mark.parametrize("name", SAMPLE)
def test_a_template_trains_turns_after_the_prompts_of_a_server(name: str) -> None:
    codes = {kind: check(name, kind, title) for kind, title in SAMPLED}
    assert {kind: code for kind, code in codes.items() if code} == REFUSED_OF_SAMPLE.get(name, {})


@pytest.mark.parametrize(
    "name", ["qwen3", "qwen3_5_nothink", "qwen3_8", "nemotron_3_super", "glm4moe", "exaone4", "gemma4"]
)
@pytest.mark.parametrize("thinking", ["Enabled", "Disabled"])
def test_the_switch_for_thinking_holds_for_prompts_and_rows(name: str, thinking: str) -> None:
    kind = "Reasoning" if thinking == "Enabled" else "Plain"
    assert check(name, kind, "one", thinking) == ""


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("deepseek_r1_distill", "Plain", "opens <think>, and the turn has no reasoning: add it"),
        (
            "qwen3_5_nothink",
            "Reasoning",
            "closes its reasoning, and the turn has one: train with training.thinking Enabled",
        ),
        ("mistral_v3_tekken", "System", "drops the system turn: move its text into the next user turn"),
    ],
)
def test_a_refusal_has_the_reason(name: str, kind: str, words: str) -> None:
    with pytest.raises(RowRefusedError, match=words):
        Encoder(tokenizer(name)).encode(record(kind, "two" if kind == "System" else "one"))


@pytest.mark.parametrize("name", ["qwen3_5_think", "qwen3_6", "qwen3_8", "glm4moe"])
def test_an_empty_answer_is_not_ended_by_the_mark_of_its_reasoning(name: str) -> None:
    encoder = Encoder(tokenizer(name))
    try:
        encoder.encode({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": ""}]})
    except RowRefusedError:
        return
    assert all(encoder.tokenizer.added_tokens_decoder[id].special for id in encoder.end_of_turn_ids)


@pytest.mark.parametrize(
    "name", ["qwen3", "qwen3_5_think", "nemotron_3_nano", "qwen3_8", "deepseek_r1_distill", "glm4moe"]
)
def test_the_prompt_of_a_rollout_is_what_a_server_makes(name: str) -> None:
    tok = tokenizer(name)
    encoder = PromptEncoder(tok, 1000)
    (prompt,) = encoder.encode({"prompt": "What is 2+2?", "answer": "4"}, 1)
    asked = [{"role": "user", "content": "What is 2+2?"}]
    assert prompt.prompt_ids == tok.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    assert encoder.end_of_turn_ids == (
        {tok.convert_tokens_to_ids("<|user|>")} if name == "glm4moe" else {tok.eos_token_id}
    )


def marked_texts(name: str, messages: list[dict[str, Any]], tools: Any) -> str:
    """What TRL's training template marks of a conversation; empty where it refuses it."""
    tok = tokenizer(f"{name}_training")
    try:
        out = tok.apply_chat_template(messages, tools=tools, return_dict=True, return_assistant_tokens_mask=True)
    except (TemplateError, TypeError):
        return ""
    pairs = zip(out["input_ids"], out["assistant_masks"], strict=True)
    spans = ([id for id, _ in span] for is_marked, span in groupby(pairs, key=lambda pair: pair[1]) if is_marked)
    return bare("\n".join(map(tok.decode, spans)))


def compared(name: str, kind: str, title: str) -> str:
    """Whether each trained run is within what TRL marks; or who does not train the conversation."""
    tok, row = tokenizer(name), record(kind, title)
    try:
        spans = [bare(tok.decode(span)) for encoded in Encoder(tok).encode(row) for span in runs(encoded)]
    except RowRefusedError:
        return "refused"
    turns = [i for i, turn in enumerate(row["messages"]) if turn["role"] == "assistant"]
    for index, span in zip(turns, spans, strict=True):
        until = row["messages"][: index + 1]
        marked = "".join(marked_texts(name, form, row.get("tools")) for form in (until, shown(tok, until)))
        if not all(bare(part) in marked for part in parts(until[-1])):
            return "left out by TRL"
        # DiffusionGemma ends a call with the next turn's token, which servers stop at, and its prompt after a result
        # has no header, which a model must then write: TRL marks neither.
        if span.removesuffix("<|tool_response>").removeprefix("<|turn>model") not in marked:
            return f"{name}, {kind}, {title}: {span} is not in {marked}"
    return "same"


@pytest.mark.outside
@pytest.mark.long
def test_every_template_trains_what_the_page_of_families_says() -> None:
    rows, held = [], 0
    for name in NAMES:
        codes = {case: check(name, *case) for case in CASES}
        held += list(codes.values()).count("")
        cells = [cell([codes[kind, title] for title in titles]) for kind, titles in CONVERSATIONS.items()]
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    table = "\n".join(rows)
    print(table)
    assert table in (DOCS / "reference/families.md").read_text()
    page = (DOCS / "outside.md").read_text()
    assert f"{len(NAMES)} templates with {len(CASES)} conversations" in page
    assert f"| {len(codes) * len(NAMES):,} | {held:,} trained" in page


def cell(codes: list[str]) -> str:
    """Of the page: yes, or why not."""
    refused = sorted({code for code in codes if code})
    return ", ".join(refused) + (" (some)" if "" in codes else "") if refused else "yes"


@pytest.mark.outside
@pytest.mark.long
def test_what_is_trained_is_within_the_marks_of_trl() -> None:
    cases = [(name, *case) for name in MARKED for case in CASES if case != ("Plain", "weight 0")]
    verdicts = Counter(compared(*case) for case in cases)
    print(verdicts)
    assert set(verdicts) <= {"same", "refused", "left out by TRL"}
    assert len(MARKED) == len([name for name in FILES if name.endswith("_training")])
    assert f"| {len(cases)} | {verdicts['same']} trained alike" in (DOCS / "outside.md").read_text()
