"""Each reward on right, wrong and hostile answers."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hone_api.blocks.rewards import REWARDS, RewardType
from hone_api.blocks.rewards import Reward as RewardSpec
from hone_trainer import rewards
from hone_trainer.errors import ConfigError, TrainerError
from hone_trainer.rewards import Masked, Sample, answers
from hone_trainer.rewards.base import Scored
from hone_trainer.sandbox import SandboxWorkers, WorkerRequest

pytestmark = pytest.mark.trainer
DATA = Path(__file__).parents[4] / "shared" / "data"


def test_every_type_has_its_record_and_its_scorer() -> None:
    assert set(REWARDS) == set(rewards.REWARDS) == set(RewardType)


@pytest.fixture(scope="module")
def workers() -> Iterator[SandboxWorkers]:
    """Some answers below compute until the limit, which is shorter here."""
    with SandboxWorkers(2, cpu_seconds=1) as made:
        yield made


def scores(
    workers: SandboxWorkers,
    spec: Mapping[str, Any],
    record: Mapping[str, Any],
    *completions: str,
    path: Path | None = None,
) -> list[Scored]:
    """What one reward gives to completions of one record."""
    reward = RewardSpec.model_validate(spec)
    made = rewards.make([reward], {reward.title: str(path)} if path else {}, workers)
    samples = [Sample(text, {"prompt": "?", **record}, len(text.split())) for text in completions]
    return made(samples).parts[reward.title]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("He pays 3 * 6 = $18.\n#### 18", 18),
        ("#### 1,234", 1234),
        ("so it is \\boxed{\\frac{3}{4}} of 12", Fraction(3, 4)),
        ("#### 5\nno: \\boxed{6}", 6),
        ("\\boxed{5} no:\n#### 6", 6),
        ("about 0.5", Fraction(1, 2)),
        ("3/4", Fraction(3, 4)),
        ("-7 degrees", -7),
        ("x = −7", -7),
        ("1e3", 1000),
        ("first 1, then 2", 2),
        ("1/0", None),
        ("none", None),
        ("9" * 500, None),
        ("\\boxed{", None),
    ],
)
def test_the_last_number_of_a_text(text: str, number: Fraction | None) -> None:
    final = answers.marked(text)
    assert answers.last_number(text if final is None else final) == number


def test_number(workers: SandboxWorkers) -> None:
    record = {"answer": "2 + 2 = <<2+2=4>>4\n#### 4"}
    assert scores(workers, {"type": "Number"}, record, "4", "it is 4.0", "5", "", "#### 4") == [1, 1, 0, 0, 1]
    marked = {"type": "Number", "final": {"marked": True}}
    assert scores(workers, marked, record, "4", "#### 4", "\\boxed{4}", "#### 5") == [0, 1, 1, 0]
    assert scores(workers, {"type": "Number"}, {"answer": "none"}, "none", "0") == [0, 0]


def test_exact_match(workers: SandboxWorkers) -> None:
    record = {"answer": "Card arrival"}
    right = ("card  arrival", "Card arrival.", "It is:\ncard arrival", "#### CARD ARRIVAL")
    assert scores(workers, {"type": "ExactMatch"}, record, *right) == [1, 1, 1, 1]
    assert scores(workers, {"type": "ExactMatch"}, record, "card", "", "card arrival or not") == [0, 0, 0]


def test_math(workers: SandboxWorkers) -> None:
    pairs = [("\\frac{1}{2}", "0.5"), ("(x+1)^2", "x^2+2x+1"), ("\\{1,2\\}", "\\{2,1\\}"), ("\\sqrt{8}", "2\\sqrt{2}")]
    for answer, other in pairs:
        found = scores(workers, {"type": "Math"}, {"answer": answer}, f"So \\boxed{{{other}}}", f"${other}$", "$7$", "")
        assert found == [1, 1, 0, 0], answer


CODE = "__import__('os').system('touch CANARY')"
MATHS = {
    "dollars": "$" * 4000,
    "openings": "\\(" * 4000,
    "boxes": "\\boxed{" * 1000,
    "code": CODE,
    "code in a box": f"\\boxed{{{CODE}}}",
    "code in dollars": f"${CODE}$",
    "code as text": f"\\boxed{{\\text{{{CODE}}}}}",
    "code as an operator": f"\\boxed{{\\operatorname{{{CODE}}}(1)}}",
    "eval": "\\boxed{eval(\"open('CANARY', 'w')\")}",
    "lambda": "\\boxed{(lambda: open('CANARY', 'w'))()}",
    "attributes": "\\boxed{().__class__.__base__.__subclasses__()}",
    "input": "\\boxed{\\input{/etc/passwd}}",
    "write18": "\\boxed{\\write18{touch CANARY}}",
    "macro without end": "\\def\\a{\\a\\a}\\boxed{\\a}",
    "factorial": "\\boxed{1000000000000!}",
    "tower": "\\boxed{9^{9^{9^{9^{9}}}}}",
    "power": "\\boxed{(x+y+z)^{100000}}",
    "sum": "\\boxed{\\sum_{n=1}^{10^{12}} \\frac{1}{n}}",
    "product": "\\boxed{\\prod_{n=1}^{10^{9}} n}",
    "integral": "\\boxed{\\int_0^1 e^{e^{x^x}} \\sin(x^x) dx}",
    "braces": "\\boxed{" + "{" * 5000 + "2" + "}" * 5000 + "}",
    "brackets": "\\boxed{" + "(" * 5000 + "2" + ")" * 5000 + "}",
    "fractions": "\\boxed{" + "\\frac{1}{" * 1000 + "2" + "}" * 1000 + "}",
    "digits": "\\boxed{" + "9" * 100_000 + "}",
    "matrix": "\\boxed{\\begin{pmatrix}" + "2 & " * 5000 + "2\\end{pmatrix}}",
    "nothing but NUL": "\x00" * 1000,
    "what is no character": "\\boxed{\ufffd\uffff}",
    "other digits": "\\boxed{\u0662}",
}


@pytest.mark.attack("math rewards")
@pytest.mark.parametrize("case", MATHS)
def test_math_runs_nothing_and_comes_back_from_what(workers: SandboxWorkers, tmp_path: Path, case: str) -> None:
    """No point for it, no file by it, and the next answer of the same batch is scored."""
    canary = tmp_path / "canary"
    hostile = MATHS[case].replace("CANARY", str(canary))
    found = scores(workers, {"type": "Math"}, {"answer": "1"}, hostile, "\\boxed{1}")
    assert found[0] == 0 or isinstance(found[0], Masked)
    assert found[1] == 1
    assert not canary.exists()


@pytest.mark.attack("math rewards")
@pytest.mark.parametrize("case", ["tower", "factorial", "code in a box", "braces"])
def test_math_comes_back_from_a_gold_answer_that_is(workers: SandboxWorkers, tmp_path: Path, case: str) -> None:
    canary = tmp_path / "canary"
    found = scores(workers, {"type": "Math"}, {"answer": MATHS[case].replace("CANARY", str(canary))}, "\\boxed{1}")
    assert found[0] == 0 or isinstance(found[0], Masked)
    assert not canary.exists()
    assert scores(workers, {"type": "Math"}, {"answer": "1"}, "\\boxed{1}") == [1]


def test_regex_takes_linear_time(workers: SandboxWorkers) -> None:
    full = {"type": "Regex", "regex": {"pattern": "(a+)+b"}}
    assert scores(workers, full, {}, "aab", "xaab", "a" * 100_000) == [1, 0, 0]
    search = {"type": "Regex", "regex": {"pattern": "(?i)yes", "match": "Search"}}
    assert scores(workers, search, {}, "Oh YES", "no") == [1, 0]


def test_format(workers: SandboxWorkers) -> None:
    def style(name: str, *texts: str) -> list[Scored]:
        return scores(workers, {"type": "Format", "format": {"style": name}}, {}, *texts)

    right = "<think>\n1 < 2 and 2 <3\n</think>\nYes."
    wrong = ("<think></think>", "no", "<think>a</think>b<think>c</think>d", "x<think>a</think>b", "<think>a")
    assert style("Think", right, *wrong) == [1, 0, 0, 0, 0, 0]
    tagged = "<think>a</think><answer>b</answer>"
    assert style("ThinkAnswer", tagged, tagged + "c", "<answer>b</answer>", "<think>a</think>b") == [1, 0, 0, 0]
    assert style("Boxed", "so \\boxed{\\frac{1}{2}}.", "\\boxed{1} or \\boxed{2}", "1") == [1, 0, 0]
    assert style("Marked", "so\n#### 4\n", "#### 4", "so #### 4", "#### 4\nor 5") == [1, 1, 0, 0]


def test_length(workers: SandboxWorkers) -> None:
    def spec(**bounds: int) -> dict[str, Any]:
        return {"type": "Length", "length": bounds}

    texts = ("", "a", "a a", "a a a", "a a a a")
    assert scores(workers, spec(max=2), {}, *texts) == [1, 1, 1, 0, 0]
    assert scores(workers, spec(min=2, max=2, slope=2), {}, *texts) == [0, 0.5, 1, 0.5, 0]


def test_json_schema(workers: SandboxWorkers) -> None:
    schema = json.dumps({"type": "object", "required": ["a"], "properties": {"a": {"pattern": "^(x+)+$"}}})
    spec = {"type": "JsonSchema", "jsonSchema": {"schema": schema}}
    fenced = 'Here:\n```json\n{"a": "x"}\n```\n'
    hostile = ("[" * 100_000, '{"a": "' + "x" * 40 + 'y"}')
    assert scores(workers, spec, {}, '{"a": "x"}', fenced, "{}", "no", *hostile) == [1, 1, 0, 0, 0, 0]


@pytest.fixture(scope="module")
def canary() -> Iterator[tuple[str, list[str]]]:
    """Address of a server that gives a secret to anybody, and the paths that were asked for."""
    asked: list[str] = []

    class Canary(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"SecretAccessKey": "canary"}')

    server = ThreadingHTTPServer(("127.0.0.1", 0), Canary)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


@pytest.mark.attack("JSON Schema rewards")
@pytest.mark.parametrize("reference", ["HTTP/key#/nope", "HTTP/key", "FILE#/nope", "FILE", "nowhere.json", "#/nope"])
def test_a_worker_fetches_nothing_and_quotes_nothing(
    workers: SandboxWorkers, tmp_path: Path, canary: tuple[str, list[str]], reference: str
) -> None:
    (tmp_path / "key.json").write_text('{"SecretAccessKey": "canary"}')
    address, asked = canary
    target = reference.replace("HTTP", address).replace("FILE", (tmp_path / "key.json").as_uri())
    (reply,) = workers.run([WorkerRequest("jsonSchema", {"schema": {"$ref": target}, "instance": '{"a": "row"}'})])
    assert reply.outcome == "Broken"
    assert reply.message.split() == [reply.message.split()[0], "in", "the", "sandbox"]
    assert "canary" not in reply.message
    assert not asked
    if not reference.startswith("#"):
        with pytest.raises(ConfigError, match="nothing is fetched: copy what it needs to"):
            scores(workers, {"type": "JsonSchema", "jsonSchema": {"schema": json.dumps({"$ref": target})}}, {}, "1")


def test_code(workers: SandboxWorkers) -> None:
    record = {"prompt": "Add.", "tests": "assert add(1, 2) == 3\nassert add(-1, 1) == 0"}
    right = "Sure:\n```python\ndef add(a, b):\n    return a + b\n```"
    spec = {"type": "Code", "code": {"seconds": 1}}
    wrong = [
        right.replace("+", "-"),
        "```python\ndef add(a, b):\n    while True: pass\n```",
        "```python\nimport sys\nsys.exit(0)\n```",
        "```python\nimport os\nos._exit(0)\n```",
        "```python\ndef add(a, b):\n    import os; os._exit(0)\n```",
        "no code",
        "",
    ]
    assert scores(workers, spec, record, right, *wrong) == [1, 0, 0, 0, 0, 0, 0, 0]


def test_code_in_humanevals_form(workers: SandboxWorkers) -> None:
    record = {
        "prompt": 'def twice(x):\n    """Twice x."""\n',
        "entryPoint": "twice",
        "tests": "def check(candidate):\n    assert candidate(2) == 4",
    }
    whole = "def twice(x):\n    return 2 * x"
    assert scores(workers, {"type": "Code"}, record, "    return 2 * x", whole, "    return x") == [1, 1, 0]


@pytest.mark.skipif(not DATA.is_dir(), reason="the public data sets are not next to the repository")
def test_humanevals_own_solutions_pass(workers: SandboxWorkers) -> None:
    rows = [json.loads(line) for line in (DATA / "humaneval/HumanEval_rows_000-081.jsonl").read_text().splitlines()]
    for row in rows[:24]:
        record = {"prompt": row["prompt"], "entryPoint": row["entry_point"], "tests": row["test"]}
        assert scores(workers, {"type": "Code"}, record, row["canonical_solution"]) == [1], row["task_id"]


@pytest.mark.skipif(not DATA.is_dir(), reason="the public data sets are not next to the repository")
def test_gsm8ks_own_answers_are_right(workers: SandboxWorkers) -> None:
    rows = [json.loads(line) for line in (DATA / "gsm8k/train.jsonl").read_text().splitlines()]
    reward = rewards.make([RewardSpec(type="Number", final={"marked": True})], {}, workers)
    samples = [Sample(row["answer"], {"prompt": row["question"], "answer": row["answer"]}, 1) for row in rows]
    assert reward(samples).totals == [1.0] * len(rows)


USER = {
    "works": ("def reward(completion, **_): return len(completion)", [1.0, 2.0]),
    "has the record": ("def reward(prompt, answer, **_): return prompt == '?' and answer == 'b'", [1.0, 1.0]),
    "returns None": ("def reward(completion, **_): return None if completion == 'a' else 1", [None, 1.0]),
    "raises for one": ("def reward(completion, **_): return 1 / (len(completion) - 1)", [None, 1.0]),
    "loops for one": ("def reward(completion, **_):\n while completion == 'a': pass\n return 1", [None, 1.0]),
    "exits for one": (
        "import os\ndef reward(completion, **_):\n completion == 'a' and os._exit(0)\n return 1",
        [None, 1.0],
    ),
    "returns text": ("def reward(**_): return '1'", [None, None]),
    "returns infinity": ("def reward(**_): return float('inf')", [None, None]),
    "returns no JSON": ("def reward(**_): return object()", [None, None]),
    "forks": ("import os\ndef reward(**_): return os.fork()", [None, None]),
    "opens a socket": (
        "import socket\ndef reward(**_): return socket.socket().connect(('127.0.0.1', 80))",
        [None, None],
    ),
    "returns an integer beyond every float": ("def reward(**_): return 10**400", [None, None]),
    "returns a negative one": ("def reward(**_): return -2**1024", [None, None]),
    "returns one that Python does not write out": ("def reward(**_): return 10**5000", [None, None]),
    "is missing": ("def other(**_): return 1", [None, None]),
    "is no Python": ("def reward(", [None, None]),
}


@pytest.mark.attack("sandbox")
@pytest.mark.parametrize("what", USER)
def test_a_function_of_the_users_that(workers: SandboxWorkers, tmp_path: Path, what: str) -> None:
    source, expected = USER[what]
    file = tmp_path / "reward.py"
    file.write_text(source)
    spec = {"type": "Python", "python": {"configMapName": "mine", "seconds": 1}}
    found = scores(workers, spec, {"answer": "b"}, "a", "bb", path=file)
    assert [None if isinstance(score, Masked) else score for score in found] == expected


def test_the_sum_is_weighted_and_masked_as_a_whole(workers: SandboxWorkers, tmp_path: Path) -> None:
    file = tmp_path / "reward.py"
    file.write_text("def reward(completion, **_): return None if 'no' in completion else 10")
    specs = [
        RewardSpec.model_validate(spec)
        for spec in (
            {"type": "Number", "weight": "2"},
            {"type": "Length", "length": {"max": 1}, "weight": "-0.5", "name": "short"},
            {"type": "Python", "python": {"configMapName": "mine"}, "weight": "0.1"},
        )
    ]
    made = rewards.make(specs, {"python": str(file)}, workers)
    samples = [Sample(text, {"prompt": "?", "answer": "4"}, len(text.split())) for text in ("4", "5", "no 4")]
    found = made(samples)
    assert found.totals == [2 - 0.5 + 1, -0.5 + 1, None]
    assert dict(made.counts) == {"python: the function returned None": 1}


def test_a_sandbox_that_fails_masks_the_sample_and_never_scores_0() -> None:
    record = {"prompt": "?", "tests": "assert f() == 1"}
    right = Sample("```python\ndef f(): return 1\n```", record, 9)
    with SandboxWorkers(1) as workers:
        reward = rewards.make([RewardSpec(type="Code")], {}, workers)
        assert reward([right]).totals == [1]
        worker = workers._idle.get()
        assert worker is not None
        os.kill(worker._process.pid, signal.SIGKILL)
        workers._idle.put(worker)
        (score,) = reward([right]).parts["code"]
        assert isinstance(score, Masked)
        assert score.broken
        assert reward([right]).totals == [1]


def test_all_rewards_that_cannot_be_are_named_at_once(workers: SandboxWorkers) -> None:
    specs = [
        RewardSpec.model_validate(spec)
        for spec in (
            {"type": "Regex", "regex": {"pattern": "(?=a)"}},
            {"type": "Regex", "regex": {"pattern": "("}, "name": "open"},
            {"type": "JsonSchema", "jsonSchema": {"schema": '{"'}},
            {"type": "JsonSchema", "jsonSchema": {"schema": '{"type": "wrong"}'}, "name": "unknown"},
        )
    ]
    with pytest.raises(ConfigError) as raised:
        rewards.make(specs, {}, workers)
    for name in ("regex", "open", "jsonschema", "unknown"):
        assert f"reward {name}: " in raised.value.message


def test_a_config_map_key_that_is_not_text_is_named(workers: SandboxWorkers, tmp_path: Path) -> None:
    file = tmp_path / "reward.py"
    file.write_bytes(b"def reward(**_):\n    return '\xff'\n")
    with pytest.raises(TrainerError, match=r"ConfigMap key mine/reward\.py is not UTF-8 text") as caught:
        scores(workers, {"type": "Python", "python": {"configMapName": "mine"}}, {}, "a", path=file)
    assert caught.value.code == "InvalidConfiguration"


def test_a_config_map_key_that_is_missing_is_named(workers: SandboxWorkers) -> None:
    spec = {"type": "Python", "python": {"configMapName": "mine", "key": "other.py"}}
    with pytest.raises(TrainerError, match=r"there is no ConfigMap key mine/other\.py"):
        scores(workers, spec, {}, "a")
