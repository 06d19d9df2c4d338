"""What becomes of each kind of answer. The server is real and what it says is known: a model that is told its lines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from inspect import isawaitable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from hone_api.plan import MaterializePlan
from hone_dev.threaded import served
from hone_trainer.datasets import materialize
from hone_trainer.endpoints.addresses import Resolution
from hone_trainer.endpoints.client import Access, Endpoint, PromptRefusedError
from hone_trainer.errors import ConfigError, DataError, SourceError

pytestmark = pytest.mark.trainer

KEY = "sk-0123456789"
SEEDS = [
    {"prompt": "How many moons has Mars?", "completion": "Mars has 2 moons."},
    {"prompt": "Who wrote the play Hamlet?", "completion": "William Shakespeare."},
]
DOCUMENTS = [
    {"text": "The tower of Oslo was built in 1890. It is 40 metres high."},
    {"text": "The museum of Lima opens at nine. It is closed on Mondays."},
    {"text": "The river of Bern is called Aare. It flows into the Rhine."},
]
Said = str | tuple[int, dict[str, Any]]
"""The text of an answer, or a status and the body that goes with it."""


class Script:
    """A server that says the next line at each request; the last one again and again."""

    def __init__(self) -> None:
        self.lines: list[Said | Callable[[str], Said | Awaitable[Said]]] = ["…"]
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.headers.append(dict(request.headers))
        body = await request.json()
        self.asked.append(body)
        line = self.lines.pop(0) if len(self.lines) > 1 else self.lines[0]
        shown = body["messages"][-1]["content"]
        said = line(shown) if callable(line) else line
        said = await said if isawaitable(said) else said
        if isinstance(said, tuple):
            return web.json_response(said[1], status=said[0], headers={"Retry-After": "0"})
        whole = not said.endswith("…")
        message = {"role": "assistant", "content": said}
        choice = {"index": 0, "message": message, "finish_reason": "stop" if whole else "length"}
        return web.json_response({"choices": [choice]})

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "scripted"}]})


@pytest.fixture
def script() -> Iterator[Script]:
    """A `Script` on loopback, its base URL in `url`."""
    made, app = Script(), web.Application()
    app.router.add_post("/v1/chat/completions", made.answer)
    app.router.add_get("/v1/models", made.models)
    with served(app) as url:
        made.url = f"{url}/v1"
        yield made


@pytest.fixture
def plan(tmp_path: Path, script: Script) -> Callable[..., MaterializePlan]:
    """Makes a plan whose rows are not reviewed; keyword arguments go into synthesis."""

    def make(template: str, rows: list[dict[str, Any]], wanted: int = 1, **synthesis: Any) -> MaterializePlan:
        source = tmp_path / "source.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        raft = synthesis.pop("raft", None)
        body = {"template": template, "endpoint": script.url, "rows": wanted, "parallel": 1}
        body |= {"review": {"required": False}}
        plan = {
            "name": "made",
            "source": {"uri": "pvc://data/source.jsonl"},
            "sourcePath": str(source),
            "synthesis": body | synthesis,
            "splits": {"validation": "0%"},
            "store": str(tmp_path / "store"),
            "limits": {"allowPrivateAddresses": True},
        }
        return MaterializePlan.model_validate(plan | ({"raft": raft} if raft else {}))

    return make


def made(plan: MaterializePlan) -> tuple[Any, list[dict[str, Any]]]:
    """(result, rows) of a run."""
    result = materialize.run(plan)
    lines = (Path(plan.store) / result.path / "train.jsonl").read_text().splitlines()
    return result, [json.loads(line) for line in lines]


def filtered(result: Any) -> dict[str, int]:
    return {f.reason: f.count for f in result.synthetic.filtered}


# -- templates -------------------------------------------------------------------------------------------------


def test_self_instruct_shows_seeds_and_reads_a_question_and_its_answer(plan, script):
    script.lines = ["**Question:** Who painted the Mona Lisa?\n**Answer:** Leonardo da Vinci."]
    _, rows = made(plan("SelfInstruct", SEEDS, instructions="A quiz."))
    assert rows == [{"prompt": "Who painted the Mona Lisa?", "completion": "Leonardo da Vinci."}]
    shown = script.asked[0]["messages"][-1]["content"]
    assert all(text in shown for seed in SEEDS for text in seed.values())
    assert "A quiz." in shown


def test_a_paraphrase_keeps_the_answer_of_its_seed(plan, script):
    script.lines = ["Tell me the number of moons of Mars."]
    _, rows = made(plan("Paraphrase", SEEDS[:1]))
    assert rows == [{"prompt": "Tell me the number of moons of Mars.", "completion": "Mars has 2 moons."}]


def test_a_preference_pair_is_the_seed_against_the_model(plan, script):
    script.lines = ["It has no moons at all."]
    _, rows = made(plan("Preference", SEEDS[:1]))
    (row,) = rows
    assert (row["chosen"], row["rejected"]) == ("Mars has 2 moons.", "It has no moons at all.")
    assert script.asked[0]["messages"] == [{"role": "user", "content": "How many moons has Mars?"}]


def test_a_question_from_a_document_comes_with_a_quote_that_is_in_it(plan, script):
    script.lines = [
        "Question: When was the tower built?\nAnswer: In 1890.\nQuote: The tower of Oslo was built in 1890."
    ]
    _, rows = made(plan("QuestionsFromDocuments", DOCUMENTS[:1]))
    assert rows == [{"prompt": "When was the tower built?", "completion": "In 1890."}]


def about_the_document(shown: str) -> str:
    sentence = shown.split("Document:\n")[1].split(". ")[0] + "."
    return f"Question: What does it say?\nReasoning: ##begin_quote##{sentence}##end_quote##\nAnswer: That."


def test_raft_has_the_oracle_distractors_and_reasoning_that_quotes(plan, script):
    script.lines = [about_the_document]
    settings = {"distractors": 2, "withoutOracle": "0%"}
    result, rows = made(plan("RAFT", DOCUMENTS, raft=settings))
    text = json.dumps(rows[0])
    assert all(document["text"] in text for document in DOCUMENTS)
    assert "##begin_quote##" in text
    record = json.loads((Path(plan("RAFT", DOCUMENTS).store) / result.path / "synthetic.jsonl").read_text())
    assert record["provenance"]["template"] == "RAFT"
    assert len(record["row"]["distractors"]) == 2


def test_the_provenance_of_a_row_has_no_personal_data(plan, script):
    script.lines = ["Question: Who knows the way?\nAnswer: Ask ann@example.com."]
    wanted = plan("SelfInstruct", SEEDS)
    wanted = wanted.model_copy(update={"curation": wanted.curation.model_copy(update={"personal_data": "Redact"})})
    result, rows = made(wanted)
    assert rows[0]["completion"] == "Ask [EMAIL]."
    record = json.loads((Path(wanted.store) / result.path / "synthetic.jsonl").read_text())
    assert record["row"] == rows[0]
    assert record["provenance"]["endpoint"] == "127.0.0.1"


# -- filters ---------------------------------------------------------------------------------------------------

GOOD = "Question: What is the name of the river of Bern?\nAnswer: Aare.\nQuote: The river of Bern is called Aare."


@pytest.mark.parametrize(
    ("template", "source", "answer", "good", "reason"),
    [
        ("SelfInstruct", SEEDS, "Here is a poem.", "Question: Who?\nAnswer: Ann.", "WrongFormat"),
        ("SelfInstruct", SEEDS, "Question: Who?\nAnswer:", "Question: Who?\nAnswer: Ann.", "WrongFormat"),
        ("SelfInstruct", SEEDS, "Question: Who?\nAnswer: An endless …", "Question: Who?\nAnswer: Ann.", "Truncated"),
        (
            "SelfInstruct",
            SEEDS,
            "Question: Who wrote the play Hamlet?\nAnswer: William Shakespeare!",
            "Question: Which river flows through Paris?\nAnswer: The Seine.",
            "Duplicate",
        ),
        ("QuestionsFromDocuments", DOCUMENTS[2:], GOOD.replace("called", "named"), GOOD, "NotVerified"),
        ("Preference", SEEDS[:1], "Mars has 2 moons.", "None that I know of.", "NotVerified"),
    ],
)
def test_an_answer_that_is_no_row_is_filtered_with_its_reason(plan, script, template, source, answer, good, reason):
    script.lines = [answer, good]
    result, rows = made(plan(template, source))
    assert filtered(result) == {reason: 1}
    assert len(rows) == 1


def test_a_paraphrase_that_changes_a_number_is_not_verified(plan, script):
    seeds = [{"prompt": "What is 17 percent of 250?", "completion": "42.5"}]
    script.lines = ["Work out 18 percent of 250, please.", "Please work out how much 17 percent of 250 is."]
    result, _ = made(plan("Paraphrase", seeds))
    assert filtered(result) == {"NotVerified": 1}


def test_a_row_of_the_model_that_comes_again_is_a_duplicate(plan, script):
    script.lines = [
        "Question: Which river flows through Paris?\nAnswer: The Seine.",
        "Question: Which river flows through Paris?\nAnswer: The Seine!",
        "Question: How tall is the Eiffel tower?\nAnswer: About 330 metres.",
    ]
    result, rows = made(plan("SelfInstruct", SEEDS, wanted=2))
    assert filtered(result) == {"Duplicate": 1}
    assert len(rows) == 2


def test_the_judge_decides_and_its_score_stays_with_the_row(plan, script):
    script.lines = [
        "Question: Who?\nAnswer: Nobody knows.",
        "2",
        "Question: Which river flows through Paris?\nAnswer: The Seine.",
        "Score: 5",
    ]
    wanted = plan("SelfInstruct", SEEDS, filters={"judge": {"minScore": 4}})
    result, _ = made(wanted)
    assert filtered(result) == {"LowScore": 1}
    record = json.loads((Path(wanted.store) / result.path / "synthetic.jsonl").read_text())
    assert record["provenance"]["score"] == 5
    assert script.asked[1]["temperature"] == 0


def test_a_model_that_never_keeps_to_the_form_is_told_instead_of_asked_for_ever(plan, script):
    script.lines = ["No."]
    with pytest.raises(DataError) as caught:
        materialize.run(plan("SelfInstruct", SEEDS, wanted=2))
    assert caught.value.code == "NothingGenerated"
    assert "20 WrongFormat" in caught.value.message
    assert len(script.asked) == 20


FILTERED = (400, {"error": {"message": "The prompt was filtered."}})
RIVERS = [f"Question: Which river is number {n} of {'abcdefghijklmnopqrstuvwxyz'[n]}?\nAnswer: {n}." for n in range(26)]


def test_a_prompt_that_is_refused_costs_no_rows_and_is_not_asked_again(plan, script):
    wanted = plan("SelfInstruct", SEEDS, wanted=20, filters={"maxSimilarity": "100%"})
    script.lines = [RIVERS[0], FILTERED, *RIVERS[1:10], (401, {"error": "Who are you?"})]
    with pytest.raises(SourceError, match="answers 401"):
        materialize.run(wanted)
    script.lines, script.asked = RIVERS[10:], []
    result, rows = made(wanted)
    assert filtered(result) == {"Refused": 1}
    assert (len(rows), len(script.asked)) == (20, 10)


def test_a_row_that_the_judge_refuses_is_filtered(plan, script):
    script.lines = [RIVERS[0], FILTERED, *(line for river in RIVERS[1:21] for line in (river, "5"))]
    result, rows = made(plan("SelfInstruct", SEEDS, 20, filters={"maxSimilarity": "100%", "judge": {"minScore": 4}}))
    assert (filtered(result), len(rows)) == ({"Refused": 1}, 20)


def test_a_server_that_refuses_many_prompts_is_told_and_may_be_mended(plan, script):
    wanted = plan("SelfInstruct", SEEDS, wanted=20, filters={"maxSimilarity": "100%"})
    script.lines = [FILTERED]
    with pytest.raises(
        SourceError, match=r"2 of 2 prompts are refused, the last one: .* The prompt was filtered\."
    ) as caught:
        materialize.run(wanted)
    assert caught.value.code == "EndpointRefused"
    script.lines = list(RIVERS)
    assert filtered(made(wanted)[0]) == {"Refused": 1}


# -- the endpoint ----------------------------------------------------------------------------------------------


def endpoint(script: Script, key: str | None = KEY) -> Endpoint:
    return Endpoint(script.url, Access(allow_private=True, key=key, pause=lambda seconds: None))


def ask(server: Endpoint) -> str:
    return server.chat("m", [{"role": "user", "content": "Hi"}], temperature=0.5, max_tokens=9, seed=1).text


def test_what_may_pass_is_tried_again(script):
    busy = (429, {"error": {"message": "slow down"}})
    script.lines = [busy, (503, {"error": "starting"}), "Hello."]
    assert ask(endpoint(script)) == "Hello."
    assert len(script.asked) == 3


def test_what_does_not_pass_is_told_after_some_tries(script):
    script.lines = [(503, {"error": {"message": "overloaded"}})]
    with pytest.raises(SourceError, match="after 6 tries: answers 503: overloaded") as caught:
        ask(endpoint(script))
    assert caught.value.code == "EndpointUnreachable"


OLD_NAME = (400, {"error": {"message": "'max_tokens' is not supported, use 'max_completion_tokens' instead."}})


def test_newer_models_have_another_name_for_the_longest_length(script):
    script.lines = [OLD_NAME, "Hello.", "Hello."]
    server = endpoint(script)
    assert [ask(server), ask(server)] == ["Hello.", "Hello."]
    assert ["max_completion_tokens" in body for body in script.asked] == [False, True, True]


def test_the_other_name_is_learned_by_those_who_ask_at_the_same_time(script):
    """The second request has the old name, too, and is refused after the first one was asked again by the new name."""
    second_came, first_came_again = asyncio.Event(), asyncio.Event()

    async def first(_: str) -> Said:
        await second_came.wait()
        return OLD_NAME

    async def second(_: str) -> Said:
        second_came.set()
        await first_came_again.wait()
        return OLD_NAME

    def again(_: str) -> Said:
        first_came_again.set()
        return "Hello."

    script.lines = [first, second, again, "Hello."]
    server = endpoint(script)
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda _: ask(server), range(2))) == ["Hello.", "Hello."]


def test_the_key_goes_to_the_server_and_nowhere_else(script):
    script.lines = [(401, {"error": {"message": f"Incorrect API key provided: {KEY}."}})]
    with pytest.raises(SourceError) as caught:
        ask(endpoint(script))
    assert caught.value.code == "EndpointRefused"
    assert "Incorrect API key provided" in caught.value.message
    assert KEY not in caught.value.message
    assert script.headers[0]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("body", [lambda words: {"error": words}, lambda words: {"detail": words}])
def test_no_part_of_a_key_is_left_where_long_words_are_cut(script, body):
    """Wherever the cut falls."""
    for before in range(270, 300):
        script.lines = [(401, body("x" * before + KEY + "y" * 300))]
        with pytest.raises(SourceError) as caught:
            ask(endpoint(script))
        assert KEY[:4] not in caught.value.message
        assert len(caught.value.message) < 350


@pytest.mark.parametrize(
    ("status", "of_the_prompt"), [(400, True), (413, True), (422, True), (401, False), (403, False), (404, False)]
)
def test_what_is_refused_of_one_prompt_is_told_from_what_is_refused_of_all(script, status, of_the_prompt):
    script.lines = [(status, {"error": {"message": "No."}})]
    with pytest.raises(SourceError, match=f"answers {status}: No.") as caught:
        ask(endpoint(script))
    assert caught.value.code == "EndpointRefused"
    assert isinstance(caught.value, PromptRefusedError) == of_the_prompt
    assert len(script.asked) == 1


def test_an_answer_that_a_filter_cut_is_none(script):
    cut = {"choices": [{"message": {"content": "Once upon a"}, "finish_reason": "content_filter"}]}
    script.lines = [(200, cut)]
    with pytest.raises(PromptRefusedError, match="content filter"):
        ask(endpoint(script))


def test_a_redirect_is_not_followed(script):
    script.lines = [(307, {"error": "elsewhere"})]
    with pytest.raises(SourceError, match="answers 307"):
        ask(endpoint(script))
    assert len(script.asked) == 1


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": [{"text": "old"}]}])
def test_another_kind_of_answer_is_told(script, body):
    script.lines = [(200, body)]
    with pytest.raises(SourceError, match="answers something else than a completion"):
        ask(endpoint(script))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://models.example.org/v1", "plain http:// goes to Services of the cluster only; use https://"),
        ("http://localhost:11434/v1", "validate with --allow-private-addresses; in a cluster its administrator sets"),
        ("http://127.0.0.1:8000/v1", "validate with --allow-private-addresses"),
        ("http://[::1]:8000/v1", "validate with --allow-private-addresses"),
        ("http://192.168.1.7:8000/v1", "limits.allowPrivateAddresses of the chart"),
        ("http://169.254.169.254/v1", "use https://"),
        ("https://models.example.org/v1?key=1", "is not the base URL of an API"),
    ],
)
def test_an_endpoint_that_cannot_be_is_told(url, words):
    with pytest.raises(ConfigError, match=words):
        Endpoint(url, Access())


@pytest.mark.parametrize(
    ("address", "words"), [("10.0.0.7", "public; for a server in your own network"), ("169.254.169.254", "public$")]
)
def test_who_may_lift_a_refusal_is_told_where_it_can_be(address: str, words: str) -> None:
    server = Endpoint("https://models.example.org/v1", Access(resolver=lambda *_: Resolution([address])))
    with pytest.raises(SourceError, match=words):
        ask(server)


def test_the_log_counts_tokens_of_answers_and_judges(plan, script, caplog):
    """Those that a filter drops are paid for, too."""

    def completion(text: str, read: Any, written: Any) -> Said:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return 200, {"choices": [choice], "usage": {"prompt_tokens": read, "completion_tokens": written}}

    script.lines = [
        completion("no question at all", 1000, 100),
        completion("Question: Who painted the Mona Lisa?\nAnswer: Leonardo.", 1000, 100),
        completion("5", 200, 1),
        completion("Question: How high is the Brocken?\nAnswer: 1,141 metres.", "many", 10),
        completion("5", 200, 1),
    ]
    with caplog.at_level("INFO", "hone.trainer"):
        made(plan("SelfInstruct", SEEDS, 2, filters={"judge": {"minScore": 3}}))
    told = "2,400 tokens read and 202 written, 1 answers not counted by the server"
    assert any(f"2 of 2 rows from 3 answers, 1 WrongFormat; in this run {told}" in line for line in caplog.messages)


def test_without_counts_the_log_is_silent_about_tokens(plan, script, caplog):
    script.lines = ["Question: Who painted the Mona Lisa?\nAnswer: Leonardo."]
    with caplog.at_level("INFO", "hone.trainer"):
        made(plan("SelfInstruct", SEEDS))
    assert any(line.endswith("1 of 1 rows from 1 answers") for line in caplog.messages)


def test_a_table_of_a_document_is_shown_without_its_tags(plan, script):
    table = (
        '<table class="wide"><tr><th>Tower</th><th>Built</th></tr>\n<tr><td>Oslo</td><td><b>1890</b></td></tr></table>'
    )
    script.lines = ["Question: When was the tower built?\nAnswer: In 1890.\nQuote: Oslo | 1890"]
    _, rows = made(plan("QuestionsFromDocuments", [{"text": f"# Towers\n\n{table}\n\n`<td>` is a cell of HTML."}]))
    assert rows == [{"prompt": "When was the tower built?", "completion": "In 1890."}]
    shown = script.asked[0]["messages"][-1]["content"]
    assert "# Towers\n\nTower | Built\nOslo | 1890\n\n`<td>` is a cell of HTML." in shown


def test_a_public_name_with_a_private_address_is_refused():
    server = Endpoint("https://models.example.org/v1", Access(resolver=lambda *_: Resolution(["169.254.169.254"])))
    with pytest.raises(SourceError, match="which is not public") as caught:
        ask(server)
    assert caught.value.code == "SourceRefused"
