"""The commands of `python -m hone_trainer`, and the arguments of those that take a plan or rows."""

from __future__ import annotations

import argparse
from pathlib import Path

from hone_api.dataset.dataset import Format

_EXAMPLES = """\
examples:
  python -m hone_trainer validate rows.jsonl              what Hone makes of a file: format, splits, rejected rows
  python -m hone_trainer validate rows.csv --column prompt=question --column completion=answer --html report.html
  python -m hone_trainer validate 'data/*.jsonl' --dataset dataset.yaml --out checked
  python -m hone_trainer validate rows.jsonl --out kept --model SmolLM2-135M    also memory, GPUs, time of a run
  python -m hone_trainer validate rows.jsonl --against exam.jsonl    rows that hold a row of an exam
  python -m hone_trainer validate hf://owner/name         the same of a data set of the hub
  python -m hone_trainer materialize dataset.json         rows -> store/datasets/<digest>
  python -m hone_trainer fetch model.json                 hf:// model -> store/base-models/<owner>--<name>/<commit>
  python -m hone_trainer tasks tasks.json                 data sets of evaluation.harness -> store/evaluation-tasks/
  python -m hone_trainer encode plan.json                 its rows as tokens, for this run and others
  python -m hone_trainer plan plan.json                   what the run needs: memory, disk, time, and which GPUs fit
  python -m hone_trainer run plan.json                    train; the same plan as in the cluster
  python -m hone_trainer ask out/adapter 'What is a Pod?'   one answer of an exported model
  python -m hone_trainer chat out/adapter                 a conversation with the model and its base, side by side
  python -m hone_trainer evaluate out/adapter --data rows.jsonl   the numbers of a finished run again
  python -m hone_trainer evaluate new --data rows.jsonl --against old   two exported models on the same rows
  python -m hone_trainer export work/checkpoints/step-000400 --output out   a checkpoint as a model, later
  python -m hone_trainer verify artifacts.json            every file against its manifest
  python -m hone_trainer register registration.json       versions and aliases in MLflow's model registry
  python -m hone_trainer deliver delivery.json            an artifact to oci://, s3://, hf:// or a volume
  python -m hone_trainer import import.json               a foreign adapter or model -> store/models/
  python -m hone_trainer measure measurement.json         a finished model on other rows, as spec.evaluations does

exit codes: 0 done, 65 data, 70 diverged, 74 input/output, 75 saved and interrupted, 78 configuration, 1 other.
A plan is one JSON file; hone_api.plan describes it. Relative paths in it are relative to its folder.
"""
_OF_A_PLAN = {
    "run": "train as the Training plan says",
    "plan": "estimate what a Training plan needs, without running it",
    "materialize": "read, validate and split the rows of a source, into the store",
    "mix": "combine several materialized Datasets into one, into the store",
    "publish": "move the rows that materialize or mix left in the plan's `incoming` into the store",
    "sweep": "remove from the store what nothing refers to",
    "fetch": "download a base model into the store, pinned to a commit",
    "lookup": "print which commit a branch or tag of the hub names",
    "tasks": "download the data sets of evaluation.harness into the store, pinned to commits",
    "encode": "tokenise the rows of a Training plan into its `encodedPath`, before the run",
    "verify": "hash every file of artifacts against their manifests",
    "sign": "say where artifacts come from, and sign them",
    "deliver": "copy an artifact to a registry, a bucket or a volume, and compare every byte",
    "register": "register versions and set aliases in MLflow's model registry",
    "import": "check a foreign adapter or model, and copy it into the store",
    "measure": "measure a finished model on rows again, next to another version",
}
"""The commands whose only argument is a plan, and their help."""


def parser() -> argparse.ArgumentParser:
    """The parser of `python -m hone_trainer`. Commands without an argument here parse the rest themselves."""
    out = argparse.ArgumentParser(
        prog="python -m hone_trainer",
        description="Materialize data, fetch models, train, evaluate and verify.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = out.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in _OF_A_PLAN.items():
        command = commands.add_parser(name, help=text, description=text)
        if name == "verify":
            _add_verify(command)
        elif name == "tasks":
            _add_tasks(command)
        else:
            command.add_argument("plan", type=Path, metavar="PLAN", help="JSON file of the plan")
    commands.add_parser("ask", help="print one answer of an exported model", add_help=False)
    commands.add_parser("chat", help="converse with an exported model and its base", add_help=False)
    commands.add_parser("evaluate", help="recompute the numbers of a finished run", add_help=False)
    commands.add_parser("export", help="export a checkpoint as a model after the run", add_help=False)
    commands.add_parser("follow", help="load the versions that aliases name into the vLLM of this pod", add_help=False)
    _add_validate(commands.add_parser("validate", help="check rows on a laptop: format, splits, rejected rows"))
    return out


def _add_verify(command: argparse.ArgumentParser) -> None:
    command.add_argument("plan", type=Path, nargs="?", metavar="PLAN", help="JSON file of the plan")
    words = "a folder and the digest of its manifest.json, in place of a plan; may be repeated"
    command.add_argument("--folder", action="append", default=[], metavar="PATH=DIGEST", help=words)


def _add_tasks(command: argparse.ArgumentParser) -> None:
    command.add_argument("plan", type=Path, nargs="?", metavar="PLAN", help="JSON file of the plan")
    words = "print the data set of this task or group, in place of a plan; may be repeated"
    command.add_argument("--list", action="append", default=[], metavar="NAME", help=words)


def _add_validate(validate: argparse.ArgumentParser) -> None:
    kinds = ".jsonl .json .csv .tsv .parquet .arrow .txt .md, also .gz .zst .bz2 .xz"
    sources = f"{kinds}; a folder of these, globs, or one https://, hf:// or s3:// address; none: --dataset's source"
    validate.add_argument("sources", nargs="*", metavar="SOURCE", help=sources)
    validate.add_argument("--dataset", type=Path, metavar="YAML", help="manifest of a Dataset with the settings to use")
    validate.add_argument("--format", default="Auto", help=f"{', '.join(Format)}; default Auto")
    validate.add_argument("--column", action="append", default=[], metavar="ROLE=COLUMN", help="e.g. prompt=question")
    validate.add_argument("--ignore-column", action="append", default=[], metavar="COLUMN", help="a column to ignore")
    validate.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="FILE",
        help="an evaluation set; may be repeated",
    )
    validate.add_argument("--json", action="store_true", help="print the result as JSON; its words go to stderr")
    validate.add_argument("--html", type=Path, metavar="FILE", help="write the whole report as a page")
    validate.add_argument(
        "--out", type=Path, metavar="DIR", help="write the rows by split, the rejected rows and the report"
    )
    validate.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="a base model: also estimate what training on the rows needs; with --out",
    )
    validate.add_argument("--synthesis", action="store_true", help="generate the rows of the manifest's spec.synthesis")
    validate.add_argument(
        "--allow-private-addresses", action="store_true", help="https:// and endpoints may be on this machine"
    )
