"""`hone migrate`: from a hosted model to one of your own, with a proof that it answers as well."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from hone_cli.errors import CliExit, CommandError, printable
from hone_cli.reach.options import ContextOption, NamespaceOption, OutputOption, tell
from hone_cli.reach.writing import write_whole
from hone_cli.rows import place

if TYPE_CHECKING:
    from hone_cli.convert.engine import Converted
    from hone_cli.convert.graders import ConvertedEval
    from hone_cli.convert.recorded import Left, Recorded, Row

app = typer.Typer(help="Leave a hosted model: rows, manifest, and a proof of parity.", no_args_is_help=True)
_METHODS = {"supervised": "SFT", "dpo": "DPO", "reinforcement": "GRPO"}
_RECORD = "migration.json"
_OUTPUT = "{{sample.output_text}}"
_OF_EVALS = {
    **dict.fromkeys(("id", "object", "created_at", "name", "metadata"), "it is a record of the old eval"),
    "data_source_config": "the rows that are graded are those with a recorded answer",
}
_MOST_HELD = 512
_FEW_ROWS = 100


class RowDivision(NamedTuple):
    """Rows to train on, and held-out rows with the recorded answers."""

    train: list[Row]
    held: list[Row]
    notes: list[str]
    referenced: bool
    """Whether the held-out rows have reference answers."""


@app.command()
def openai(
    job: Annotated[Path, typer.Argument(help="The fine-tuning job as JSON, as the API returns it.")],
    training: Annotated[list[Path], typer.Option("--training", "-t", help="The job's training file.")],
    recorded: Annotated[
        list[Path],
        typer.Option(
            "--recorded",
            "-r",
            help="What the tuned model answered: messages, stored completions, batches, output items of an eval.",
        ),
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="The open model to train, e.g. Qwen/Qwen3-8B.")],
    validation: Annotated[list[Path] | None, typer.Option(help="The job's validation file.")] = None,
    evals: Annotated[
        list[Path] | None, typer.Option("--eval", help="An eval as JSON: its criteria become gates.")
    ] = None,
    judge: Annotated[str | None, typer.Option(help="Server of a model that grades answers.")] = None,
    margin: Annotated[float, typer.Option(min=0, max=1, help="How much worse the open model may be.")] = 0.05,
    price: Annotated[float | None, typer.Option(min=0, help="Price of a million tokens of the old model.")] = None,
    gpus: Annotated[int, typer.Option(min=0, max=64, help="GPUs of the run.")] = 1,
    name: Annotated[str | None, typer.Option(help="Name of the objects; default: the job's file.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", "-o", help="Where to write; default: NAME-migration.")
    ] = None,
) -> None:
    """Write rows and manifest that leave a model of OpenAI, and the steps to a proof of parity.

    Prompts with a recorded answer are held out: nothing is trained on them. The run answers them with the open model
    and scores both answers by the same rewards: those of the job's grader and of the evals, otherwise exact match and
    chrF with the reference answer. A gate of the Model keeps the alias champion from a version that is worse by more
    than the margin. Nothing in a cluster is read or changed, and no other server is asked.

    Exit codes: 0 the folder is written, 3 no job does this, 6 keys of the job are not known (the folder is written).

    \b
    hone migrate openai job.json -t train.jsonl -r answers.jsonl -m Qwen/Qwen3-8B --price 1.2
    hone migrate report job-migration       after the run: the proof
    """
    from hone_cli.convert import command, engine, graders, reading, tables
    from hone_cli.convert import recorded as records

    chosen = place.checked(name or place.suggested(str(job)))
    target = folder or Path(f"{chosen}-migration")
    files = target / f"{chosen}.jsonl", target / f"{chosen}-held.jsonl"
    there = {*(target.iterdir() if target.is_dir() else [target] if target.exists() else ())}
    if there and target / _RECORD not in there and there != {*files}:  # these alone: an earlier try was refused
        raise CommandError(f"{target} exists and is not of hone migrate: name another place by --folder")
    document = reading.read(job)
    if "training_file" not in document:
        raise CommandError(
            f"{job} is not a fine-tuning job: it has no training_file. GET /v1/fine_tuning/jobs/ID prints one"
        )
    method = _METHODS.get(str((document.get("method") or {}).get("type") or "supervised"))
    if method is None:
        raise CommandError(
            f"{job}: method {document['method']['type']} has no counterpart; there are {', '.join(_METHODS)}"
        )
    left: Left = {}
    divided = _divide(method, training, validation or [], records.recorded_answers(recorded, left), left)
    bodies = [_eval(file) for file in evals or ()]
    criteria = [each for body in bodies for each in body["testing_criteria"]]
    made = graders.convert_criteria(criteria, judge, f"{chosen}-evals")
    _fill(divided, made.fields)
    target.mkdir(parents=True, exist_ok=True)
    for file, rows in zip(files, (divided.train, divided.held), strict=True):
        write_whole(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    document |= {"training_file": str(files[0]), "validation_file": str(files[1])}
    request = engine.ConvertRequest(chosen, model, None, gpus, judge)
    try:
        converted = engine.Conversion(tables.tables()["openai"], request).convert(document)
    except engine.NoJobError as error:
        typer.echo(f"hone: {job}: {error}", err=True)
        raise typer.Exit(CliExit.REFUSED) from None
    for key in dict.fromkeys(key for body in bodies for key in body if key != "testing_criteria"):
        known = key in _OF_EVALS
        words = _OF_EVALS.get(key, "not a key that Hone knows")
        converted.keys[f"eval.{key}"] = engine.KeyFate(engine.Fate.DROPPED if known else engine.Fate.UNKNOWN, words)
    parity = _compare(converted, chosen, divided, made, judge, margin)
    write_whole(target / "manifest.yaml", command.manifest(converted, f"OpenAI, {job.name}").encode())
    unmapped = {fate: command.by_reason(converted, fate) for fate in ("differs", "unknown", "dropped")}
    notes = [*divided.notes, *_left_out(left)]
    body = {"name": chosen, "margin": margin, "price": price, "parity": parity, "notes": notes, "unmapped": unmapped}
    write_whole(target / _RECORD, (json.dumps(body, indent=2, ensure_ascii=False) + "\n").encode())
    typer.echo(f"{len(divided.train)} rows to train on, {len(divided.held)} held out with recorded answers.")
    typer.echo("\n".join([*map(printable, notes), *_not_mapped(unmapped), "", "Next:"]))
    uploads = [f"hone upload {shlex.quote(str(file))} {file.stem}" for file in files]
    quoted = shlex.quote(str(target))
    typer.echo(
        "\n".join([*uploads, f"hone run {shlex.quote(str(target / 'manifest.yaml'))}", f"hone migrate report {quoted}"])
    )
    is_unknown = any(key.fate == engine.Fate.UNKNOWN for key in converted.keys.values())
    raise typer.Exit(CliExit.UNKNOWN_KEYS if is_unknown else CliExit.DONE)


def _left_out(left: Left) -> Iterator[str]:
    for why, at in left.items():
        yield f"{len(at)} left out or not used: {why} ({', '.join(at[:5])}{', …' if at[5:] else ''})"


def _not_mapped(unmapped: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
    differs = {**unmapped["differs"], **unmapped["unknown"]}
    lines = [printable(f"  {', '.join(keys)}: {reason}") for reason, keys in differs.items()]
    return ["", "Not the same as in the old job:", *lines] if lines else []


def _eval(file: Path) -> dict[str, Any]:
    """An eval, with its list of testing criteria."""
    from hone_cli.runs.manifests import documents

    bodies = documents(file)[1]
    body = bodies[0] if len(bodies) == 1 and isinstance(bodies[0], dict) else {}
    found = body.get("testing_criteria")
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise CommandError(f"{file} is not an eval: it has no list testing_criteria. GET /v1/evals/ID prints one")
    return body


def _fill(divided: RowDivision, fields: Sequence[str]) -> None:
    """Give the items the reference answer by the name that the eval has for it: that of its only field that none has.

    Raises:
        CommandError: it reads what nobody knows.
    """
    missing = [name for name in fields if any(name not in row["item"] for row in divided.held)]
    if not missing:
        return
    nowhere = all(missing[0] not in row["item"] and "reference" in row["item"] for row in divided.held)
    if len(missing) > 1 or not nowhere or not divided.referenced:
        raise CommandError(
            f"the eval reads {', '.join(f'item.{name}' for name in missing)}, which held-out rows do not have: record "
            "the output items of a run of the eval, which have them (-r), or take these criteria out of the eval"
        )
    for row in divided.held:
        row["item"] |= {missing[0]: row["item"]["reference"]}
    divided.notes.append(f"No row has item.{missing[0]}, which the eval reads: it is the reference answer here.")


def _divide(
    method: str, training: Sequence[Path], validation: Sequence[Path], answers: Mapping[str, Recorded], left: Left
) -> RowDivision:
    """Hold out the prompts with recorded answers, those that the old model did not learn from if there are any."""
    from hone_cli.convert.recorded import LeftOutError, key_of, learned_prompts, lines, prompt_of

    train: list[tuple[set[str], Row]] = []
    rows: dict[str, Row] = {}
    for files, learned in ((training, True), (validation, False)):
        for where, row in (each for file in files for each in lines(file)):
            try:
                key = key_of(prompt_of(row, method)[0])
            except (LeftOutError, AttributeError, TypeError, KeyError) as error:
                key = ""
                if not learned:
                    left.setdefault(f"a validation row: {error}", []).append(where)
            if key:
                rows.setdefault(key, row)
            if learned:
                train.append((learned_prompts(row, method), row))
    learned_keys = {key for keys, _ in train for key in keys}
    chosen, notes = [key for key in answers if key not in learned_keys], []
    if not chosen:
        chosen = [*answers][::10]
        notes = (
            ["Every recorded answer is to a prompt that the old model was trained on, so it has an advantage here."]
            if chosen
            else []
        )
    if method != "SFT":
        chosen = [key for key in chosen if key in rows]  # a pair and the fields of a grader are in no recorded answer
    referenced = method != "SFT" or any(key in rows for key in chosen)
    if method == "SFT" and referenced and (without := [key for key in chosen if key not in rows]):
        notes.append(
            f"{len(without)} recorded answers have no reference answer in the files of the job and are not compared."
        )
        chosen = [key for key in chosen if key in rows]
    if len(chosen) > _MOST_HELD:
        notes.append(f"The first {_MOST_HELD} of {len(chosen)} recorded answers are compared.")
    chosen = chosen[:_MOST_HELD]
    held_keys = {*chosen}
    kept = [row for keys, row in train if not keys & held_keys]
    if not chosen or not kept:
        what = "no recorded answer is to a prompt that can be held out" if not chosen else "no row is left to train on"
        raise CommandError(f"{what}: {len(train)} training rows, {len(answers)} recorded answers" + _sentences(left))
    if len(chosen) < _FEW_ROWS:
        notes.append(f"{len(chosen)} held-out rows give a wide interval: record {_FEW_ROWS} answers or more.")
    return RowDivision(kept, [_held(rows.get(key), answers[key], method) for key in chosen], notes, referenced)


def _sentences(left: Left) -> str:
    return "".join(f"; {len(at)} left out: {why}" for why, at in left.items())


def _held(row: Row | None, answer: Recorded, method: str) -> Row:
    """A held-out row with the recorded answer, and in `item` what graders read."""
    if row is None:
        row = {"messages": [*answer.turns, {"role": "assistant", "content": answer.answer}]}
    asked = ("messages", "input", "preferred_output", "non_preferred_output", "tools", "parallel_tool_calls")
    item = {key: value for key, value in row.items() if key not in asked} | dict(answer.item or {})
    last = row["preferred_output"][-1] if method == "DPO" else row["messages"][-1]
    reference = None if method == "GRPO" else last.get("content")
    item = {**({"reference": reference} if reference else {}), **item}
    return {**row, "item": item or {"reference": ""}, "recorded": answer.answer}  # an empty one would be no answer


def _compare(
    converted: Converted,
    name: str,
    divided: RowDivision,
    made: ConvertedEval,
    judge: str | None,
    margin: float,
) -> list[str]:
    """Add the evaluation and the gates to the objects; names of the rewards that compare with the recorded answers."""
    from hone_cli.convert import graders
    from hone_cli.convert.engine import Fate, KeyFate

    job = next(body["spec"] for body in converted.objects if body["kind"] == "FineTuneJob")
    held = next(body["spec"] for body in converted.objects if body["metadata"]["name"] == f"{name}-held")
    own = [
        {key: value for key, value in each.items() if key != "weight"}
        for each in job.get("grpo", {}).get("rewards", ())
    ]
    if any(each != mine for each, mine in zip(own, job.get("grpo", {}).get("rewards", ()), strict=True)):
        own = [{**each, "name": f"{each['name'][:18]}_alone"} for each in own]
    for key, (graded, reason) in made.reasons.items():
        converted.keys[key] = KeyFate(Fate.DIFFERS, reason) if reason or not graded else KeyFate(Fate.MAPPED, "rewards")
    rewards, code = [*own, *made.rewards], dict(made.code)
    alike: list[dict[str, Any]] = []
    if not rewards:
        rewards, code = _by_text(name, divided.referenced)
        alike = [] if divided.referenced else [*rewards]
        if judge:
            rewards.append({"type": "Judge", "name": "judge", "judge": {"endpoint": judge}})
    graders.rename_equal(rewards)
    compared = [each["name"] for each in rewards if each not in alike]
    held["format"] = held.get("format", "Chat")
    columns = {"messages": "messages"} if held["format"] == "Chat" else held.get("columns", {})
    held["columns"] = {**columns, "answer": "item", **({"recorded": "recorded"} if compared else {})}
    longest = max(len(row["recorded"]) for row in divided.held)
    job["evaluation"] = {
        **job.get("evaluation", {}),
        "maxRows": max(len(divided.held), 1),
        "maxNewTokens": min(max(256, longest), 8192),
        "rewards": rewards[: graders.MOST_REWARDS],
    }
    for each in compared[graders.MOST_REWARDS :]:
        converted.keys[f"reward {each}"] = KeyFate(Fate.DIFFERS, f"a job has at most {graders.MOST_REWARDS}")
    compared = [each for each in compared if each in {reward["name"] for reward in rewards[: graders.MOST_REWARDS]}]
    added: list[dict[str, Any]] = []
    if code:
        added.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-evals"}, "data": code})
    if compared:
        gates = [{"metric": f"parity_{each}", "value": "Against", "atLeast": f"{-margin:g}"} for each in compared]
        promotion = {"policy": "Automatic", "aliases": ["champion"], "gates": gates}
        model = {
            "apiVersion": "hone.dev/v1alpha1",
            "kind": "Model",
            "metadata": {"name": name},
            "spec": {"promotion": promotion},
        }
        added.append(model)
    for body in added:
        converted.objects.insert(0, body)
        converted.origins.insert(0, {})
    _require_valid(converted)
    return compared


def _require_valid(converted: Converted) -> None:
    from hone_cli.runs.planning import own_problems

    for body in converted.objects:
        if body["kind"] in ("Dataset", "FineTuneJob", "Model"):
            for problem in own_problems(body["kind"], body["metadata"]["name"], body, alone=True):
                raise CommandError(f"{body['kind']} {body['metadata']['name']} would be refused: {problem}")


def _by_text(name: str, referenced: bool) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rewards for jobs without a grader: similarity with the reference answer, or with the recorded one."""
    from hone_cli.convert import graders

    same = {"type": "string_check", "name": "exact", "operation": "eq"}
    near = {"type": "text_similarity", "name": "chrf", "evaluation_metric": "chrf"}
    rewards: list[dict[str, Any]] = []
    code: dict[str, str] = {}
    for grader in (same, near):
        title = grader["name"] if referenced else f"agreement_{grader['name']}"
        body = {**grader, "name": title, "input": _OUTPUT, "reference": "{{item.reference}}"}
        rewards.append(graders.python_reward(body, f"{name}-evals", code))
    return rewards, code


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="The folder that hone migrate openai wrote.")],
    gpu_hour: Annotated[float | None, typer.Option(min=0, help="Price of an hour of the GPUs that serve.")] = None,
    speed: Annotated[
        float | None,
        typer.Option("--tokens-per-second", min=0, help="Tokens a second of your server under your load, as measured."),
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Price of a million tokens of the old model.")] = None,
    output: OutputOption = "text",
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Print the proof of parity, the prices, and what could not be mapped, after the run.

    Exit codes: 0 with the whole 95 % interval no number is worse by more than the margin, 5 that is not shown, 1 other
    errors.
    """
    from hone_api.words.states import ApprovalState
    from hone_cli.reach.kube import Kube
    from hone_cli.versions import chosen

    try:
        body = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CommandError(f"{folder} has no {_RECORD}: name the folder that hone migrate openai wrote") from None
    version = chosen(Kube.load(context, namespace), body["name"])
    numbers = (version["spec"].get("evaluation") or {}).get("numbers") or []
    lines, shown = parity_lines(numbers, body["parity"], body["margin"])
    old = body["price"] if price is None else price
    name, prices = version["metadata"]["name"], price_lines(old, gpu_hour, speed)
    text = [f"{name} next to the recorded answers of the old model:", "", *map(printable, lines), "", *prices]
    text += ["", *map(printable, body["notes"])] if body["notes"] else []
    facts = {"modelVersion": name, "shown": shown, "margin": body["margin"], "parity": lines, "prices": prices}
    facts |= {"notes": body["notes"], "unmapped": body["unmapped"], "numbers": numbers}
    state = (version["spec"].get("approval") or {}).get("state")
    following = [f"Next: hone approve {name}, then the alias champion points to it"]
    last = ["", *following] if shown and state != ApprovalState.APPROVED else []
    tell(output, "\n".join([*text, *_not_mapped(body["unmapped"]), *last]), facts)
    raise typer.Exit(CliExit.DONE if shown else CliExit.RUN_FAILED)


def parity_lines(numbers: Sequence[Mapping[str, Any]], rewards: Sequence[str], margin: float) -> tuple[list[str], bool]:
    """Each number in a line, and whether parity is shown with all of them."""
    from hone_api.verdicts.gates import UNSEEN

    lines, shown = [], bool(rewards)
    for each in (n for n in numbers if n["name"] in ("reward_agreement_exact", "reward_agreement_chrf")):
        low, high = each.get("low", "?"), each.get("high", "?")
        lines.append(
            f"{each['name']}: {each['tuned']} ({low} to {high}) of {each.get('rows')} rows; similar, not as good"
        )
    if not rewards:
        lines.append("It is not known which answers are better: give reference answers, a grader or a judge.")
    for reward in rewards:
        found = [n for n in numbers if n["name"] == f"parity_{reward}" and n.get("againstLow") and n.get("againstHigh")]
        if not found:
            shown = False
            lines.append(f"{reward}: was not measured")
        for n in found:
            low, high, rows = float(n["againstLow"]), float(n["againstHigh"]), int(n.get("rows") or 1)
            worst = low - UNSEEN / rows if low == high else low
            word = "shown" if worst >= -margin else "no, worse" if high < -margin else "not shown, record more answers"
            shown = shown and worst >= -margin
            lines.append(
                f"{reward}: new {float(n['tuned']):.4f}, old {float(n['against']):.4f}, difference {low:+.4f} to "
                f"{high:+.4f} (95 %), {n.get('rows')} rows: parity within {margin:g}: {word}"
            )
    return lines, shown


def price_lines(old: float | None, gpu_hour: float | None, speed: float | None) -> list[str]:
    """Price per million tokens of both models, as far as it is known."""
    lines = [f"Old model: {old:g} for a million tokens" if old is not None else "Old model: no --price was given"]
    if gpu_hour is None:
        return [*lines, "Open model: name --gpu-hour and --tokens-per-second"]
    if speed:
        lines.append(
            f"Open model: {gpu_hour / (speed * 3600) * 1e6:.4g} for a million tokens at {speed:g} tokens a second"
        )
    else:
        lines.append("Open model: name --tokens-per-second, as measured at your server")
    if old:
        lines.append(f"Both cost the same at {gpu_hour / old * 1e6 / 3600:.4g} tokens a second of these GPUs")
    return lines
