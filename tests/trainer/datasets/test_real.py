"""Public sets in every format they come in: Auto is right, each row is what the format's own definition makes of it.

The definitions are written here again, from the peers' code, and not taken from what is tested.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hone_api.plan import MaterializePlan
from hone_trainer.datasets import materialize
from hone_trainer.datasets.texts import language
from hone_trainer.errors import DataError

pytestmark = pytest.mark.trainer
SHARED = Path(__file__).parents[4] / "shared" / "data"
Row = dict[str, Any]


@pytest.fixture
def few_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    """To tell the languages of 2,000 rows takes longer than to read all of them."""
    monkeypatch.setattr(language, "SAMPLE_ROWS", 20)


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


def self_instruct(row: Row) -> Row:
    """yizhongw/self-instruct: the first instance of a task; its input may be empty."""
    instance = row["instances"][0]
    prompt = f"{row['instruction']}\n\n{instance['input']}" if instance["input"].strip() else row["instruction"]
    return {"prompt": prompt, "completion": instance["output"]}


def llmbar(row: Row) -> Row:
    """princeton-nlp/LLMBar, README: label says which of the two outputs is better, 1 or 2."""
    worse = 3 - row["label"]
    return {"prompt": row["input"], "chosen": row[f"output_{row['label']}"], "rejected": row[f"output_{worse}"]}


def text(row: Row) -> Row:
    return {"text": row["text"]}


def checked_by(**roles: str) -> Callable[[Row], Row]:
    """Texts that an answer is checked by, as they are."""
    return lambda row: {"prompt": row[roles["prompt"]], **{role: row[column] for role, column in roles.items()}}


def _turn(turn: Row) -> Row:
    return {"role": {"human": "user", "gpt": "assistant", "system": "system"}[turn["from"]], "content": turn["value"]}


def llama_factory_pairs(row: Row) -> Row:
    """hiyouga/LLaMA-Factory, converter.py, ranking: the conversation is the prompt, chosen and rejected a turn each."""
    prompt = [_turn(turn) for turn in row["conversations"]]
    return {"prompt": prompt, "chosen": [_turn(row["chosen"])], "rejected": [_turn(row["rejected"])]}


def llama_factory_kto(row: Row) -> Row:
    """The same, kto_tag: the last turn of messages is the answer that is judged."""
    *prompt, answer = [{"role": turn["role"], "content": turn["content"]} for turn in row["messages"]]
    return {"prompt": prompt, "completion": [answer], "label": row["label"]}


def hh_rlhf(row: Row) -> Row | None:
    """anthropics/hh-rlhf, README: two transcripts up to the last answer; an empty one is none."""
    (prompt, chosen), (other, rejected) = (row[name].rsplit("\n\nAssistant:", 1) for name in ("chosen", "rejected"))
    assert prompt == other
    if not chosen.strip() or not rejected.strip():
        return None
    parts = re.split(r"\n\n(Human|Assistant):", prompt)[1:]
    turns = [
        {"role": {"Human": "user", "Assistant": "assistant"}[who], "content": said.strip()}
        for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]
    if not all(turn["content"] for turn in turns):
        return None
    answers = {name: [{"role": "assistant", "content": said.strip()}] for name, said in
               (("chosen", chosen), ("rejected", rejected))}  # fmt: skip
    return {"prompt": turns, **answers}


# -- what the sets are --------------------------------------------------------------------------

QUESTION = {"prompt": "question", "completion": "answer"}
QUESTION_ANSWER = {"prompt": "question", "answer": "answer"}
TRANSLATE = {"prompt": "question", "completion": "translated_question"}
INSTANCES = {"prompt": "lines(instruction, instances[0].input)", "completion": "instances[0].output"}
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
CODE = {"tests": "test", "entryPoint": "entry_point", "solution": "canonical_solution"}
# file, columns, format, definition, rows
SETS: list[tuple[str, dict[str, str], str, Callable[[Row], Row | None], int]] = [
    ("gsm8k/train.jsonl", QUESTION, "PromptCompletion", pair("question", "answer"), 7473),
    ("gsm8k/test_rows_0000-0659.jsonl", {}, "PromptCompletion", pair("question", "answer"), 660),
    ("k8s_stackoverflow/k8s_so_messages_rows_0000-4399.parquet", {}, "Chat", chat, 4400),
    ("k8s_stackoverflow/k8s_so_messages_rows_0000-0499.jsonl", {}, "Chat", chat, 500),
    ("self_instruct/seed_tasks_alpaca.json", {}, "Alpaca", alpaca, 175),
    ("llamafactory_demo/identity.json", {}, "Alpaca", alpaca, 91),
    ("self_instruct/seed_tasks.jsonl", {}, "PromptCompletion", self_instruct, 175),
    ("llmbar/Processed_FairEval.json", {}, "Preference", llmbar, 66),
    ("self_instruct/seed_tasks.jsonl", INSTANCES, "PromptCompletion", self_instruct, 175),
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
    ("llamafactory_demo/dpo_en_demo.json", {}, "Preference", llama_factory_pairs, 300),
    ("hh_rlhf/harmless_test_rows_0000-1155.jsonl.gz", {}, "Preference", hh_rlhf, 1156),
    ("llamafactory_demo/kto_en_demo.json", {}, "KTO", llama_factory_kto, 300),
    ("humaneval/HumanEval_rows_000-081.jsonl", CODE, "Verifiable", checked_by(prompt="prompt", **CODE), 82),
    ("mbpp_sanitized/mbpp_sanitized_train.jsonl", CODE, "Verifiable", checked_by(prompt="prompt", **CODE), 170),
    *(
        (name, QUESTION_ANSWER, "Verifiable", checked_by(**QUESTION_ANSWER), rows)
        for name, rows in (("gsm8k/train.jsonl", 7473), ("gsm8k/test_rows_0000-0659.jsonl", 660))
    ),
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


@pytest.mark.usefixtures("few_languages")
@pytest.mark.parametrize(
    ("name", "columns", "format", "definition", "rows"), SETS, ids=[f"{format}-{name}" for name, _, format, *_ in SETS]
)
def test_every_row_is_what_its_format_says(
    plan: Any, name: str, columns: dict[str, str], format: str, definition: Callable[[Row], Row | None], rows: int
) -> None:
    asked = plan(name, columns=columns, splits={"validation": "10%", "seed": 1})
    result = materialize.run(asked)
    assert result.format_detected is not None
    assert result.format_detected.startswith(f"{format} (Auto: the first ")
    defined = [made for row in raw_rows(SHARED / name) if (made := definition(row)) is not None]
    assert (result.rows, result.rejected) == (len(defined), rows - len(defined))
    assert result.rejected <= 0.005 * rows
    found: dict[str, list[str]] = {}
    for split in ("train", "validation"):
        with open(Path(asked.store) / str(result.path) / f"{split}.jsonl", encoding="utf-8") as file:
            found[split] = [json.dumps(json.loads(line), sort_keys=True) for line in file]
    held_out = set(found["validation"])
    expected: dict[str, list[str]] = {"train": [], "validation": []}
    for made in defined:
        line = json.dumps(made, sort_keys=True)
        expected["validation" if line in held_out else "train"].append(line)
    assert found == expected, "every row, in the order of the source"
    assert (len(found["validation"]), str(result.digest)[7:23]) == STABLE[format, name]


STABLE: dict[tuple[str, str], tuple[int, str]] = {
    ("PromptCompletion", "gsm8k/train.jsonl"): (746, "c54b8e706ea51ea9"),
    ("PromptCompletion", "gsm8k/test_rows_0000-0659.jsonl"): (59, "5ce033f3cc293b20"),
    ("Chat", "k8s_stackoverflow/k8s_so_messages_rows_0000-4399.parquet"): (438, "ad42d0d85ad4d118"),
    ("Chat", "k8s_stackoverflow/k8s_so_messages_rows_0000-0499.jsonl"): (60, "c417515451aa734f"),
    ("Preference", "llmbar/Processed_FairEval.json"): (8, "5c3e1d2581dd30c7"),
    ("PromptCompletion", "self_instruct/seed_tasks.jsonl"): (11, "be12ac9b2401fc22"),
    ("Alpaca", "self_instruct/seed_tasks_alpaca.json"): (11, "be12ac9b2401fc22"),
    ("Alpaca", "llamafactory_demo/identity.json"): (11, "3becfc7f009b7e40"),
    ("Alpaca", "medquad/5_NIDDK_QA.jsonl"): (123, "275633680be8761b"),
    ("Alpaca", "medquad/6_NINDS_QA.jsonl"): (104, "a181f2a507619f33"),
    ("Alpaca", "medquad/9_CDC_QA.jsonl"): (25, "904ed2585a2285fd"),
    ("ShareGPT", "fastchat/dummy_conversation.json"): (49, "339e49abf73b417d"),
    ("ShareGPT", "llamafactory_demo/glaive_toolcall_en_demo.json"): (26, "9ed5cc63e8a05ef2"),
    ("PromptCompletion", "p3_prompt_completion/cosmos_qa_description_context_question_answer_text.jsonl"): (
        25,
        "950ddc1c64e30082",
    ),
    ("PromptCompletion", "p3_prompt_completion/quartz_answer_question_below.jsonl"): (19, "f5242e10c95ead77"),
    ("PromptCompletion", "p3_prompt_completion/ropes_prompt_beginning.jsonl"): (21, "032f264b46857c76"),
    ("PromptCompletion", "banking77/train.csv"): (1005, "c1851388924fb560"),
    ("PromptCompletion", "afriqa/queries.afriqa.yor.en.train.json"): (32, "4cd161cdcbee5fb5"),
    ("PromptCompletion", "afriqa/queries.afriqa.yor.en.dev.json"): (39, "2435ace524e5896a"),
    ("PromptCompletion", "afriqa/queries.afriqa.swa.en.train.json"): (33, "f9d306b225e85ee6"),
    ("PromptCompletion", "afriqa/queries.afriqa.swa.en.dev.json"): (39, "1f55c3cf16b2694c"),
    ("Text", "kueue_docs/corpus.jsonl"): (18, "49cc759216ed3c4c"),
    ("Text", "llamafactory_demo/c4_demo.jsonl"): (32, "3d87ad3cab8caa5b"),
    ("Preference", "llamafactory_demo/dpo_en_demo.json"): (28, "525e67c17242e89d"),
    ("Preference", "hh_rlhf/harmless_test_rows_0000-1155.jsonl.gz"): (96, "448c063b4272c541"),
    ("KTO", "llamafactory_demo/kto_en_demo.json"): (22, "34d1e9dd262f116e"),
    ("Verifiable", "humaneval/HumanEval_rows_000-081.jsonl"): (9, "aac739a03650b3f4"),
    ("Verifiable", "mbpp_sanitized/mbpp_sanitized_train.jsonl"): (21, "00b36ce7b2856a74"),
    ("Verifiable", "gsm8k/train.jsonl"): (749, "d02771850d17a70d"),
    ("Verifiable", "gsm8k/test_rows_0000-0659.jsonl"): (50, "59624bd75bc8bd88"),
}
"""Validation rows and the start of the digest: ModelVersions name them, so a new version of Hone must find the same."""


@pytest.mark.parametrize(("name", "rows"), [("tinyshakespeare/input.txt", 7222), ("kueue_docs/md", 146)])
def test_documents(plan: Any, name: str, rows: int) -> None:
    result = materialize.run(plan(name))
    assert str(result.format_detected).startswith("Text (Auto: the first 100 rows have a text")
    assert (result.rows, result.rejected) == (rows, 0)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("banking77/train.csv", "Perhaps spec.columns {prompt: text, completion: category} is meant, or format Text."),
        ("humaneval/HumanEval_rows_000-081.jsonl", "{prompt: prompt, completion: canonical_solution} is meant"),
        ("mbpp_sanitized/mbpp_sanitized_train.jsonl", "{prompt: prompt, completion: canonical_solution} is meant"),
        ("afriqa/queries.afriqa.yor.en.train.json", "the rows have the columns answers, id, lang, question"),
        ("afriqa/gold_span_passages.afriqa.yor.en.train.json", "the rows have the columns answer_lang, answer_pivot"),
        ("fastchat/vicuna_bench_question.jsonl", "the rows have the columns category, question_id, turns"),
        ("gsm8k/example_model_solutions_first_half.jsonl", "the rows have the columns 175b_finetuning"),
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


def test_languages_are_detected(plan: Any) -> None:
    name = "afriqa/queries.afriqa.swa.en.train.json"
    columns = {"prompt": "question", "completion": "answers"}
    result = materialize.run(plan(name, columns=columns, checks={"languages": ["sw"], "minLanguageShare": "80%"}))
    assert result.languages[0].language == "sw"
    with pytest.raises(DataError, match=r"of the rows with a known language are en, .*: sw \d") as caught:
        materialize.run(plan(name, columns=columns, checks={"languages": ["en"]}))
    assert caught.value.code == "WrongLanguage"
