"""Public sets in every format they come in: Auto is right, each row is what the format's own definition makes of it.

The definitions are written here again, from the peers' code, and not taken from what is tested.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hone_api.plan import MaterializePlan
from hone_trainer.datasets import materialize
from hone_trainer.errors import DataError

pytestmark = pytest.mark.trainer
SHARED = Path(__file__).parents[3] / "shared" / "data"
Row = dict[str, Any]


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., MaterializePlan]:
    """Makes a plan for a shared file; skips where it is not."""

    def make(name: str, **fields: Any) -> MaterializePlan:
        if not (SHARED / name).exists():
            pytest.skip(f"{name} is not on this machine")
        body = {
            "name": "rows",
            "store": str(tmp_path / "store"),
            "source": {"uri": "pvc://claim/rows"},
            "sourcePath": str(SHARED / name),
            **fields,
        }
        return MaterializePlan.model_validate(body)

    return make


# -- the formats' own definitions ---------------------------------------------------------------


def chat(row: Row) -> Row:
    """OpenAI: messages as they are."""
    return {"messages": [{"role": m["role"], "content": m["content"]} for m in row["messages"]]}


def alpaca(row: Row) -> Row:
    """tatsu-lab/stanford_alpaca, whose input is optional; without its frame."""
    prompt = row["instruction"] + (f"\n\n{row['input']}" if row.get("input") else "")
    return {"prompt": prompt, "completion": row["output"]}


def fastchat(row: Row) -> Row:
    """lm-sys/FastChat, train.py, preprocess: roles human and gpt; what comes before the first human is left out."""
    roles = {"human": "user", "gpt": "assistant"}
    turns = row["conversations"]
    if roles[turns[0]["from"]] != "user":
        turns = turns[1:]
    for i, turn in enumerate(turns):
        assert roles[turn["from"]] == ("user", "assistant")[i % 2]
    return {"messages": [{"role": roles[turn["from"]], "content": turn["value"]} for turn in turns]}


def llama_factory(row: Row) -> Row:
    """hiyouga/LLaMA-Factory, converter.py: function_call and observation, tools as a JSON text of bare functions."""
    messages: list[Row] = []
    for i, turn in enumerate(row["conversations"]):
        assert turn["from"] in (("human", "observation"), ("gpt", "function_call"))[i % 2]
        if turn["from"] == "function_call":
            call = json.loads(turn["value"])
            assert set(call) == {"name", "arguments"}
            messages.append(
                {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]}
            )
        else:
            role = {"human": "user", "gpt": "assistant", "observation": "tool"}[turn["from"]]
            messages.append({"role": role, "content": turn["value"]})
    tools = [{"type": "function", "function": tool} for tool in json.loads(row["tools"])]
    return {"messages": messages, **({"tools": tools} if tools else {})}


def legacy(row: Row) -> Row:
    """OpenAI's completion format of 2022: the completion ends in <|endoftext|>, which the tokenizer adds by itself."""
    return {"prompt": row["prompt"], "completion": row["completion"].removesuffix("<|endoftext|>")}


def pair(prompt: str, completion: str) -> Callable[[Row], Row]:
    return lambda row: {"prompt": row[prompt], "completion": row[completion]}


def text(row: Row) -> Row:
    return {"text": row["text"]}


# -- what the sets are --------------------------------------------------------------------------

QUESTION = {"prompt": "question", "completion": "answer"}
TRANSLATE = {"prompt": "question", "completion": "translated_question"}
INTENT = {"prompt": "text", "completion": "category"}
P3 = [
    f"p3_prompt_completion/{name}.jsonl"
    for name in (
        "cosmos_qa_description_context_question_answer_text",
        "quartz_answer_question_below",
        "ropes_prompt_beginning",
    )
]
AFRIQA = [
    f"afriqa/queries.afriqa.{language}.en.{split}.json" for language in ("yor", "swa") for split in ("train", "dev")
]
# file, columns, format, definition, rows
SETS: list[tuple[str, dict[str, str], str, Callable[[Row], Row], int]] = [
    ("gsm8k/train.jsonl", QUESTION, "PromptCompletion", pair("question", "answer"), 7473),
    ("gsm8k/test_rows_0000-0659.jsonl", QUESTION, "PromptCompletion", pair("question", "answer"), 660),
    ("k8s_stackoverflow/k8s_so_messages_rows_0000-4399.parquet", {}, "Chat", chat, 4400),
    ("k8s_stackoverflow/k8s_so_messages_rows_0000-0499.jsonl", {}, "Chat", chat, 500),
    ("self_instruct/seed_tasks_alpaca.json", {}, "Alpaca", alpaca, 175),
    ("llamafactory_demo/identity.json", {}, "Alpaca", alpaca, 91),
    ("medquad/5_NIDDK_QA.jsonl", {}, "Alpaca", alpaca, 1192),
    ("medquad/6_NINDS_QA.jsonl", {}, "Alpaca", alpaca, 1088),
    ("medquad/9_CDC_QA.jsonl", {}, "Alpaca", alpaca, 270),
    ("fastchat/dummy_conversation.json", {}, "ShareGPT", fastchat, 500),
    ("llamafactory_demo/glaive_toolcall_en_demo.json", {}, "ShareGPT", llama_factory, 300),
    *((name, {}, "PromptCompletion", legacy, 200) for name in P3),
    ("banking77/train.csv", INTENT, "PromptCompletion", pair("text", "category"), 10003),
    *(
        (name, TRANSLATE, "PromptCompletion", pair("question", "translated_question"), rows)
        for name, rows in zip(AFRIQA, (360, 361, 415, 417), strict=True)
    ),
    ("kueue_docs/corpus.jsonl", {}, "Text", text, 146),
    ("llamafactory_demo/c4_demo.jsonl", {}, "Text", text, 300),
]


def raw_rows(path: Path) -> Iterator[Row]:
    """The rows by another reader than ours."""
    if path.suffix == ".parquet":
        import pyarrow.parquet

        yield from pyarrow.parquet.read_table(path).to_pylist()
    elif path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)
    else:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if content.lstrip().startswith(b"["):
            yield from json.loads(content)
        else:
            yield from (json.loads(line) for line in content.decode().split("\n") if line.strip())


@pytest.mark.parametrize(("name", "columns", "format", "definition", "rows"), SETS, ids=[name for name, *_ in SETS])
def test_every_row_is_what_its_format_says(
    plan: Any, name: str, columns: dict[str, str], format: str, definition: Callable[[Row], Row], rows: int
) -> None:
    asked = plan(name, columns=columns, splits={"validation": "0%"})
    result = materialize.run(asked)
    assert result.format_detected is not None
    assert result.format_detected.startswith(f"{format} (Auto: the first ")
    assert (result.rows, result.rejected) == (rows, 0)
    with open(Path(asked.store) / str(result.path) / "train.jsonl", encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    assert found == [definition(row) for row in raw_rows(SHARED / name)]


STABLE = {
    "gsm8k/test_rows_0000-0659.jsonl": (59, "5ce033f3cc293b20"),
    "k8s_stackoverflow/k8s_so_messages_rows_0000-0499.jsonl": (60, "c417515451aa734f"),
    "medquad/9_CDC_QA.jsonl": (25, "904ed2585a2285fd"),
    "llamafactory_demo/glaive_toolcall_en_demo.json": (28, "01a37faecb4ed99c"),
    "fastchat/dummy_conversation.json": (47, "b0a4c89e97ada03b"),
    "kueue_docs/corpus.jsonl": (18, "49cc759216ed3c4c"),
}
"""Validation rows and the start of the digest: ModelVersions name them, so a new version of Hone must find the same."""


@pytest.mark.parametrize("name", STABLE)
def test_splits_and_digests_are_stable(plan: Any, name: str) -> None:
    columns = next(columns for file, columns, *_ in SETS if file == name)
    result = materialize.run(plan(name, columns=columns, splits={"validation": "10%", "seed": 1}))
    held_out = next(split.rows for split in result.splits if split.name == "validation")
    assert (held_out, str(result.digest)[7:23]) == STABLE[name]


@pytest.mark.parametrize(("name", "rows"), [("tinyshakespeare/input.txt", 7222), ("kueue_docs/md", 146)])
def test_documents(plan: Any, name: str, rows: int) -> None:
    result = materialize.run(plan(name))
    assert str(result.format_detected).startswith("Text (Auto: the first 100 rows have a text")
    assert (result.rows, result.rejected) == (rows, 0)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gsm8k/train.jsonl", "Perhaps spec.columns {prompt: question, completion: answer} is meant."),
        ("banking77/train.csv", "Perhaps spec.columns {prompt: text, completion: category} is meant, or format Text."),
        ("humaneval/HumanEval_rows_000-081.jsonl", "{prompt: prompt, completion: canonical_solution} is meant"),
        ("mbpp_sanitized/mbpp_sanitized_train.jsonl", "{prompt: prompt, completion: canonical_solution} is meant"),
        ("afriqa/queries.afriqa.yor.en.train.json", "the rows have the columns answers, id, lang, question"),
        ("afriqa/gold_span_passages.afriqa.yor.en.train.json", "the rows have the columns answer_lang, answer_pivot"),
        ("self_instruct/seed_tasks.jsonl", "the rows have the columns id, instances, instruction"),
        ("fastchat/vicuna_bench_question.jsonl", "the rows have the columns category, question_id, turns"),
        ("gsm8k/example_model_solutions_first_half.jsonl", "the rows have the columns 175b_finetuning"),
        ("llmbar/Processed_FairEval.json", "the rows have the columns input, label, output_1, output_2"),
    ],
)
def test_what_could_be_several_things_is_not_guessed(plan: Any, name: str, words: str) -> None:
    with pytest.raises(DataError) as caught:
        materialize.run(plan(name))
    assert caught.value.code == "UnknownFormat"
    assert words in caught.value.message


def test_openais_own_example_of_errors(plan: Any) -> None:
    """Its row 4 has no user turn, its row 5 is long: the cookbook's checks find both, and so do ours."""
    with pytest.raises(DataError) as caught:
        materialize.run(plan("openai_cookbook/toy_chat_fine_tuning.jsonl", checks={"maxTokens": 4096}))
    assert caught.value.code == "TooManyBadRows"
    assert caught.value.result is not None
    assert {e.code: e.rows for e in caught.value.result.errors} == {"NoUserTurn": [4], "TooLong": [5]}


def test_languages_are_told(plan: Any) -> None:
    name = "afriqa/queries.afriqa.swa.en.train.json"
    columns = {"prompt": "question", "completion": "answers"}
    result = materialize.run(plan(name, columns=columns, checks={"languages": ["sw"], "minLanguageShare": "80%"}))
    assert result.languages[0].language == "sw"
    with pytest.raises(DataError, match=r"of the rows whose language can be told are en, .*: sw \d") as caught:
        materialize.run(plan(name, columns=columns, checks={"languages": ["en"]}))
    assert caught.value.code == "WrongLanguage"
