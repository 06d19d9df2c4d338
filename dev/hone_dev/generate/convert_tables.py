"""`python -m hone_dev.generate.convert_tables` writes docs/guides/migrate.md from the tables of `hone convert`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hone_cli.convert.tables import KeyTable, ValueRow, tables

PAGE = Path(__file__).resolve().parents[3] / "docs/guides/migrate.md"
INTRODUCTION = """\
# Come from another tool

<!-- Generated from the tables in cli/hone_cli/convert by `make crds`. Do not edit. -->

`hone convert` prints a manifest, a Dataset and a FineTuneJob, for a configuration of another tool. It needs no cluster.

```bash
hone convert config.yaml > job.yaml
hone plan job.yaml
```

The tool is detected by its keys; `--from` names it. Each field of the manifest has a comment with the key that it comes
from. The comments at the top list every other key with the reason, in three groups: what is learned differs without it;
no table knows it; it is not needed. Nothing is left out silently.

| Exit code | Meaning |
| --- | --- |
| 0 | Each key is in the manifest or has a reason |
| 6 | Some keys are not known; the manifest is printed without them |
| 3 | No job of Hone does this, e.g. training on images; the message has the way out |

- **Rows** on a hub, in a bucket or behind `https://` are read from there. For a file, the first comment is the `hone
  upload` that copies it into the cluster; `hone check FILE` shows what Hone makes of it.
- **The model** must be one of a hub; `--model` names it where the source has a folder or a model of a hosted service.
- **A batch** of Hone has the rows of all GPUs together. `--gpus` multiplies a batch that the source counts for one GPU.
- **A value** that Hone has no counterpart for, or that the API refuses, is left out and listed, e.g. an optimizer other
  than AdamW.
- **Code** is not converted: rewards, prompt strategies and losses of your own.

## Prove that the open model answers as well

`hone migrate openai` takes what you hold of a hosted model: the job as JSON, its training file, and what the tuned
model answered. Record
answers while it still answers: send a hundred prompts or more that it was not trained on, e.g. the validation file,
as a batch.

```bash
hone migrate openai support.json -t train.jsonl --validation validation.jsonl -r answers.jsonl -m Qwen/Qwen3-8B \
--price 1.2
hone upload support-migration/support.jsonl support
hone upload support-migration/support-held.jsonl support-held
hone run support-migration/manifest.yaml
hone migrate report support-migration --gpu-hour 2.5 --tokens-per-second 1400
hone approve support-v1
```

| `-r` reads | Prompt and answer |
| --- | --- |
| `{"messages": [...]}` | The last assistant turn is the answer |
| Stored completions, also as a list in `data` | `messages` or `input`, and `choices[0].message` |
| A batch: name its input and its output file | Joined by `custom_id` |
| Logs | `request.messages` and `response.choices[0].message` |
| Output items of a run of an eval | `sample.input` and `sample.output`; graders read `datasource_item` |

- Prompts with a recorded answer are held out. They are those that the old model was not trained on; if there are no
  others, every tenth is taken
  out of the training rows, and the report says that the old model knows them.
- The run answers them with the open model and scores both answers by the same rewards ([recorded
  answers](evaluation.md#next-to-recorded-answers)):
  the job's grader, the criteria of `--eval`, otherwise exact match and chrF with the reference answer, with
  `--judge` also the grades of a model.
- `hone migrate report` prints both means, the 95 % interval of the difference, the prices, and what is not the same
  as in the old job. Parity
  is shown if the whole interval is above minus `--margin`, 0.05 by default; then the exit code is 0, otherwise 5. The
  gates of the Model
  judge the interval for its alias `champion`, which points to the version once a person has approved it.
  If all rows have the same difference, e.g. none, the interval has no width: report and gates then want
  3 rows divided by the margin, 60 for 0.05.
- A field that the criteria read, `item.NAME`, is taken from `datasource_item`. If no row has the only one that is
  missing, it is the reference answer, and this is said; if more are missing, the eval is refused.
- Without reference answers, grader and judge, nothing says which answers are better: the report has the similarity
  with the recorded ones.
- The price of the open model follows from the price of an hour of your GPUs and the tokens a second that you measure
  at your server.

| Testing criterion of an eval | Here |
| --- | --- |
| `string_check`, `python`, `text_similarity` (`fuzzy_match`, `rouge_1` to `rouge_5`, `rouge_l`), `multi` | A \
reward: 1 if the answer reaches `pass_threshold`, otherwise 0; without a threshold the score |
| `score_model`, `label_model` | A judge, with `--judge`: the mean score. \
`{{item.NAME}}` becomes `{{reference.NAME}}`, `{{sample.output_text}}` the name of the answer that the judge is shown |
| `text_similarity` by `cosine`, `bleu`, `gleu`, `meteor` | Left out, with the reason |

A job has at most four rewards in its evaluation; further criteria are listed. Answers that call tools, or rows with
images, sounds or files, are
listed and not compared.

## What was tried

[What was tried](../outside.md) has the shares of keys for about a thousand published configurations. `-o json` prints
the objects, and each key with its fate, for programs.
"""


def page() -> str:
    """The page as Markdown."""
    return INTRODUCTION + "".join(_section(name, table) for name, table in tables().items())


def _section(name: str, table: KeyTable) -> str:
    shared = "" if table.detect else " Several tools below take these keys."
    title = f"[{table.title}]({table.link})" if table.link else table.title
    uses = f" Also the keys of {', '.join(tables()[each].title for each in table.uses)}." if table.uses else ""
    text = (
        f"\n## {table.title}\n\nKeys of {title}, `--from {name}`.{uses}\n"
        if table.detect
        else f"\n## {table.title}\n\n{shared.strip()}\n"
    )
    if table.notes:
        text += f"\n{table.notes}\n"
    if table.defaults:
        fields = ", ".join(f"`{_field(target)}: {value}`" for target, value in table.defaults.items())
        text += f"\nWhere the source says nothing, its defaults are written: {fields}.\n"
    text += "\n| Key | Field of Hone |\n| --- | --- |\n"
    text += "".join(f"| `{key}` | {_to(row)} |\n" for key, row in table.keys.items())
    reasons = [(reason, "no", keys) for reason, keys in table.dropped.items()]
    reasons += [(reason, "yes", keys) for reason, keys in table.differs.items()]
    reasons += [(reason, "refused", keys) for reason, keys in table.refused.items()]
    if reasons:
        text += "\n| Keys without a field | Reason | Changes what is learned |\n| --- | --- | --- |\n"
        text += "".join(f"| {_keys(keys)} | {reason} | {changes} |\n" for reason, changes, keys in reasons)
    return text


def _keys(keys: Iterable[str]) -> str:
    return ", ".join(f"`{key}`" for key in keys)


def _to(row: str | list[str] | ValueRow) -> str:
    if not isinstance(row, ValueRow):
        return ", ".join(f"`{_field(each.partition(' ')[0])}`" for each in ([row] if isinstance(row, str) else row))
    field = f"`{_field(row.to)}`: " if row.to else ""
    return field + "; ".join(f"{_value(value)}: {_result(result)}" for value, result in row.values.items())


def _value(value: str) -> str:
    return {"*": "others", "": "not set"}.get(value, f"`{value}`")


def _result(result: Any) -> str:
    if isinstance(result, dict):
        return ", ".join(_setting(target, value) for target, value in result.items())
    text = str(result)
    if text.startswith(("differs: ", "refused: ", "dropped: ")):
        kind, _, reason = text.partition(": ")
        return f"refused, {reason}" if kind == "refused" else reason
    if text.startswith("partly: "):
        _, value, reason = text.split(": ", 2)
        return f"`{value}`, but {reason}"
    return "as Hone does" if text in ("null", "") else f"`{text}`"


def _setting(target: str, value: str) -> str:
    kind, _, key = target.partition("unless ")
    return f"without `{key}` {value}" if key else f"`{_field(kind)}: {value}`"


def _field(target: str) -> str:
    root, _, path = target.partition(".")
    computed = {"x.micro": "training.microBatchSize, training.batchSize", "x.accumulation": "training.batchSize"}
    computed |= {
        "x.batch": "training.batchSize",
        "x.total": "training.batchSize",
        "x.warmupSteps": "training.warmupRatio",
        "x.revision": "model.uri",
    }
    return computed.get(target) or (
        {"rows": "Dataset: ", "held": "held-out Dataset: "}[root] + path if root in ("rows", "held") else target
    )


if __name__ == "__main__":
    PAGE.write_text(page())
