"""Tool calls to labels: exactly what the template writes for the call and the end-of-turn token, or a refused row."""

import json

import pytest
from support.models.tool_templates import CALL, LLAMA, PLAIN, QWEN, TOOLS, asks, call, make_tokenizer

from hone_trainer.encoding.conversation import Encoder
from hone_trainer.encoding.preferences import JudgedEncoder, PairEncoder
from hone_trainer.encoding.row import IGNORED, RowRefusedError

pytestmark = pytest.mark.trainer

# DeepSeek's: arguments are joined as the JSON text that they are in OpenAI's API.
JOINED = QWEN.replace("{{- tool_call.arguments | tojson }}", "{{- '' + tool_call.arguments }}")
# A template that would show an object as Python writes it.
PYTHON = QWEN.replace("{{- tool_call.arguments | tojson }}", "{{- tool_call.arguments }}")
# Content next to a call is forgotten; only the first call is written.
FORGETS = QWEN.replace("{{- '\n' + message.content }}", "{{- '\n' }}")
FIRST = QWEN.replace("for tool_call in message.tool_calls", "for tool_call in message.tool_calls[:1]")

ROW = {
    "messages": [
        {"role": "user", "content": "Is it warm in Rome?"},
        asks(call("weather", city="Rome", days=2)),
        {"role": "tool", "content": '{"degrees": 31}'},
        {"role": "assistant", "content": "Yes, 31 degrees."},
    ],
    "tools": TOOLS,
}


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def encode(tokenizer):
    """Encodes a record under a template; gives the texts of each row's trained runs."""

    def run(template, record, train_on="Assistant"):
        tokenizer.chat_template = template
        rows = Encoder(tokenizer, train_on).encode(record)
        for row in rows:
            assert all(label in (IGNORED, token) for label, token in zip(row.labels, row.input_ids, strict=True))
        return [trained(tokenizer, row) for row in rows]

    return run


def trained(tokenizer, row):
    runs = [[]]
    for label in row.labels:
        runs.append([]) if label == IGNORED else runs[-1].append(label)
    return [tokenizer.decode(run) for run in runs if run]


def refusal(encode, template, record):
    with pytest.raises(RowRefusedError) as caught:
        encode(template, record)
    return caught.value.code


def test_the_call_as_the_template_writes_it_and_its_end_of_turn_token_count(encode):
    assert encode(QWEN, ROW) == [[CALL, "Yes, 31 degrees.<|im_end|>"]]


def test_what_a_tool_answers_and_the_tools_are_read_and_not_trained(encode, tokenizer):
    encode(QWEN, ROW)
    (row,) = Encoder(tokenizer).encode(ROW)
    masked = tokenizer.decode([t for t, label in zip(row.input_ids, row.labels, strict=True) if label == IGNORED])
    assert json.dumps(TOOLS[1]) in masked
    assert '<tool_response>\n{"degrees": 31}\n</tool_response>' in masked
    assert CALL not in masked


def test_the_prompt_of_a_call_is_what_the_model_is_given_when_served(encode, tokenizer):
    record = {**ROW, "messages": ROW["messages"][:2]}
    encode(QWEN, record)
    (row,) = Encoder(tokenizer).encode(record)
    served = tokenizer.apply_chat_template(
        ROW["messages"][:1], tools=TOOLS, add_generation_prompt=True, return_dict=False
    )
    assert row.prompt_ids == served
    assert tokenizer.decode(row.input_ids[len(served) :]) == CALL


def test_content_next_to_calls_and_several_calls(encode):
    both = asks(call("weather", city="Rome"), call("search", text='a "b"\nc é'), content="I look it up.")
    record = {"messages": [ROW["messages"][0], both], "tools": TOOLS}
    (runs,) = encode(QWEN, record)
    assert runs == [
        'I look it up.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
        '\n<tool_call>\n{"name": "search", "arguments": {"text": "a \\"b\\"\\nc é"}}\n</tool_call><|im_end|>'
    ]
    assert refusal(encode, FORGETS, record) == "NotProved"
    assert refusal(encode, FIRST, record) == "ToolsDropped"
    assert refusal(encode, LLAMA, record) == "TemplateRefused"


def test_a_call_of_another_shape(encode):
    assert encode(LLAMA, ROW) == [
        ['{"name": "weather", "parameters": {"city": "Rome", "days": 2}}<|im_end|>', "Yes, 31 degrees.<|im_end|>"]
    ]


def test_a_template_that_joins_arguments_gets_them_as_json_text(encode):
    assert encode(JOINED, ROW) == encode(QWEN, ROW)
    assert encode(PYTHON, ROW) == encode(QWEN, ROW)


def test_a_template_without_tools_refuses_the_row(encode):
    assert refusal(encode, PLAIN, ROW) == "ToolsDropped"
    assert refusal(encode, PLAIN, {"messages": ROW["messages"]}) == "ToolsDropped", "calls alone, too"
    talk = {"messages": [ROW["messages"][0], ROW["messages"][3]]}
    assert refusal(encode, PLAIN, {**talk, "tools": TOOLS}) == "ToolsDropped", "tools that nobody calls, too"
    assert encode(PLAIN, talk) == [["Yes, 31 degrees.<|im_end|>"]]


def test_control_tokens_in_arguments_and_tools_are_refused(encode):
    bad = asks(call("weather", city="Rome<|im_end|>"))
    assert refusal(encode, QWEN, {"messages": [ROW["messages"][0], bad], "tools": TOOLS}) == "ControlToken"
    tools = [{"type": "function", "function": {"name": "weather", "description": "<|im_start|>"}}]
    assert refusal(encode, QWEN, {"messages": ROW["messages"], "tools": tools}) == "ControlToken"


def turns(*weights):
    said = []
    for i, weight in enumerate(weights):
        said += [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": f"a{i}"}]
        if weight == 0:
            said[-1]["weight"] = 0
    return {"messages": said}


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        ((1, 1), ["a0<|im_end|>", "a1<|im_end|>"]),
        ((0, 1), ["a1<|im_end|>"]),
        ((1, 0), ["a0<|im_end|>"]),
        ((0, 1, 0, 1), ["a1<|im_end|>", "a3<|im_end|>"]),
    ],
)
def test_turns_of_weight_0_are_read_and_not_trained(encode, weights, found):
    assert encode(PLAIN, turns(*weights)) == [found]
    assert encode(PLAIN, turns(*weights), "LastAssistant") == [found[-1:]]


def test_a_turn_of_weight_0_stays_in_view_of_those_after_it(encode, tokenizer):
    encode(PLAIN, turns(0, 1))
    (row,) = Encoder(tokenizer).encode(turns(0, 1))
    assert "a0<|im_end|>" in tokenizer.decode(row.prompt_ids)
    assert row.input_ids == Encoder(tokenizer).encode(turns(1, 1))[0].input_ids


def test_no_turn_to_train_is_refused(encode):
    assert refusal(encode, PLAIN, turns(0, 0)) == "NoContent"


def test_a_name_is_given_to_the_template(encode, tokenizer):
    named = PLAIN.replace("m.role + '\n'", "m.role + (' ' + m.name if m.name else '') + '\n'")
    record = {"messages": [{"role": "user", "content": "hi", "name": "bob"}, {"role": "assistant", "content": "yes"}]}
    assert encode(named, record) == [["yes<|im_end|>"]]
    assert tokenizer.decode(Encoder(tokenizer).encode(record)[0].input_ids).startswith("<|im_start|>user bob\nhi")


PREFERENCE = {
    "prompt": ROW["messages"][:1],
    "chosen": [ROW["messages"][1]],
    "rejected": [{"role": "assistant", "content": "Perhaps."}],
    "tools": TOOLS,
}


def test_a_preference_shows_the_tools_and_compares_the_call(tokenizer):
    tokenizer.chat_template = QWEN
    (pair,) = PairEncoder(tokenizer).encode(PREFERENCE)
    assert tokenizer.decode(pair.chosen_ids) == CALL
    assert tokenizer.decode(pair.rejected_ids) == "Perhaps.<|im_end|>"
    assert '"name": "search"' in tokenizer.decode(pair.prompt_ids)
    judged = {key: PREFERENCE[key] for key in ("prompt", "tools")}
    (answer,) = JudgedEncoder(tokenizer).encode({**judged, "completion": PREFERENCE["chosen"], "label": True})
    assert (answer.prompt_ids, answer.completion_ids) == (pair.prompt_ids, pair.chosen_ids)


def test_a_preference_whose_tools_the_template_drops_is_refused(tokenizer):
    tokenizer.chat_template = PLAIN
    with pytest.raises(RowRefusedError) as caught:
        PairEncoder(tokenizer).encode(PREFERENCE)
    assert caught.value.code == "ToolsDropped"
