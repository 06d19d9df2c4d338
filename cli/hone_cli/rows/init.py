"""`hone init`: one commented manifest for the rows of a file."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import typer
from pydantic import ValidationError

from hone_cli.errors import CommandError
from hone_cli.reach.writing import write_whole
from hone_cli.rows import place

CHECKED = "hone.dev/checked"
"""Annotation of a Dataset: the counts of its status, by `hone check`: for `hone plan` before the cluster has any."""
_ADDRESSES = ("hf://", "https://", "s3://", "oci://", "pvc://", "models://")
_LENGTHS = (512, 1024, 2048, 4096, 8192, 16_384, 32_768)
_FEW_ROWS = 5_000
"""Below it, an epoch alone is short: three are usual."""
_GATED = ("meta-llama/", "google/gemma", "mistralai/")
"""Beginnings of names of models whose licence one accepts on the hub, so that a token is needed."""


class ManifestRequest(NamedTuple):
    """What the person asks for."""

    name: str
    uri: str
    """Of the rows in the cluster."""
    model: str
    gpus: int = 1
    product: str | None = None
    secret: str | None = None
    columns: Mapping[str, str] = MappingProxyType({})


class GpuChoice(NamedTuple):
    """How a model is trained on the GPUs at hand."""

    adapter: str
    checkpointing: bool
    fits: bool | None
    """By the estimate; None: the model or the GPU is not known."""
    gib: int | None
    """Memory of a pod without GPUs."""


def init(
    source: Annotated[
        str, typer.Argument(help="A file with rows, or an https://, hf:// or s3:// address.", metavar="FILE")
    ],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Base model, e.g. Qwen/Qwen2.5-0.5B-Instruct.")
    ] = None,
    gpus: Annotated[int | None, typer.Option(min=0, max=64, help="GPUs of the run; 0 trains on CPUs.")] = None,
    gpu: Annotated[
        str | None, typer.Option(help="Their nvidia.com/gpu.product, e.g. NVIDIA-L4: then the fit is checked.")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="A column and its role, e.g. prompt=question; may be repeated.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the objects; default: the file's.")] = None,
    secret: Annotated[str | None, typer.Option(help="Secret with HF_TOKEN for a gated model.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The manifest; default: NAME.yaml. - prints it.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a manifest that exists.")] = False,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Of the commands that are printed; default: the context's.")
    ] = None,
) -> None:
    """Write a manifest for the rows of a file.

    It has a Dataset, and the FineTuneJob that trains on it. The command looks at the rows as `hone check` does, and
    asks for the model and the GPUs, unless options name them. Nothing in a cluster is read or changed. The file is
    yours: read its comments, change it, keep it in Git.

    \b
    hone init rows.jsonl
    hone init rows.jsonl --model Qwen/Qwen2.5-1.5B-Instruct --gpus 1 --gpu NVIDIA-L4
    """
    from hone_cli.rows.check import looked_at

    chosen = place.checked(name or place.suggested(source))
    target = output or Path(f"{chosen}.yaml")
    if target.exists() and not force and str(target) != "-":
        raise CommandError(f"{target} exists: name another file with --output, or replace it with --force")
    uri = source if "://" in source else place.address(Path(source), chosen)
    columns = dict(pair.partition("=")[::2] for pair in column or ())
    result = looked_at(source, column or ())
    refused = f", {result['rejected']:,} rejected (hone check says why)" if result.get("rejected") else ""
    typer.echo(f"{source}: {result['rows']:,} rows{refused}, {result['formatDetected']}", err=True)
    base = _model(model)
    text = manifest(ManifestRequest(chosen, uri, base, _gpus(gpus), gpu, secret, columns), result)
    if str(target) == "-":
        typer.echo(text, nl=False)
        return
    write_whole(target, text.encode())
    there = f" -n {shlex.quote(namespace)}" if namespace else ""
    upload = "" if "://" in source else f"hone upload {shlex.quote(source)} {chosen}{there} && "
    typer.echo(f"{target} is written. Next: {upload}hone run {shlex.quote(str(target))}{there}", err=True)


def manifest(request: ManifestRequest, result: Mapping[str, Any]) -> str:
    """The manifest as YAML.

    Args:
        result: of the check, as `DatasetResult` has it.

    Raises:
        CommandError: no method learns from such rows alone.
    """
    from hone_api.methods import simple_method

    detected = str(result["formatDetected"])
    method = simple_method(detected.partition(" ")[0])
    if method is None:
        raise CommandError(
            f"rows of format {detected.partition(' ')[0]} are for methods that need more than a model: begin with a "
            "manifest of docs/guides/methods"
        )
    tokens = result.get("tokens") or {"max": 512, "mean": 0}
    length = next((each for each in _LENGTHS if each >= tokens["max"] * 5 / 4), _LENGTHS[-1])
    choice = choose(request, method, length)
    rows = sum(split["rows"] for split in result["splits"] if split["name"] == "train")
    counted = json.dumps({"splits": result["splits"], "tokens": {"mean": tokens["mean"], "max": tokens["max"]}})
    text = _TEXT.format(
        name=_scalar(request.name),
        run=_scalar(f"{request.name}-1"),
        checked=f"{CHECKED}: {json.dumps(counted)}",
        uri=request.uri,
        source=_note(request.uri, request.name),
        detected=" ".join(detected.split()),
        columns=_columns(request.columns),
        model=request.model,
        secret=_secret(request.model, request.secret),
        method=method,
        adapter=choice.adapter,
        checkpointing="    gradientCheckpointing: true  # less memory, slower\n" if choice.checkpointing else "",
        epochs="3" if rows < _FEW_ROWS else "1",
        length=length,
        longest=f"{tokens['max']:,}",
        resources=_resources(request, choice),
    )
    _require_valid(text)
    return text


def _require_valid(text: str) -> None:
    """An option can be what no manifest takes.

    Raises:
        CommandError: it is.
    """
    import yaml

    from hone_api.base.reading import in_words
    from hone_api.dataset.dataset import DatasetSpec
    from hone_api.kinds.finetunejob import FineTuneJobSpec

    try:
        dataset, job = yaml.safe_load_all(text)
        DatasetSpec.model_validate(dataset["spec"])
        FineTuneJobSpec.model_validate(job["spec"])
    except ValidationError as error:
        raise CommandError("; ".join(f"spec.{words}" for words in in_words(error, FineTuneJobSpec))) from None
    except (yaml.YAMLError, TypeError, ValueError):
        raise CommandError(
            "a name in the options has characters that are special in YAML: write the manifest by hand"
        ) from None


def choose(request: ManifestRequest, method: str, length: int) -> GpuChoice:
    """The first of LoRA, LoRA with less memory, and QLoRA that fits by the estimate."""
    from hone_api.estimate import gpus as known
    from hone_api.estimate.known_models import MODELS
    from hone_api.estimate.memory import estimate
    from hone_api.estimate.micro_batch import setup
    from hone_api.kinds.finetunejob import FineTuneJobSpec

    gpus, product = request.gpus, request.product
    shape = MODELS.get(request.model.removeprefix("hf://").partition("@")[0])
    card = known.find(product) if product else None
    ways = (("LoRA", False), ("LoRA", True), *((("QLoRA", True),) if gpus else ()))
    if shape is None or (gpus and card is None):
        return GpuChoice("LoRA", False, None, None)
    for adapter, checkpointing in ways:
        training = {"maxLength": length, "gradientCheckpointing": checkpointing}
        body = {"model": {"uri": request.model}, "datasets": [{"name": "rows"}], "output": {"modelName": "m"}}
        spec = FineTuneJobSpec.model_validate(
            {**body, "method": method, "adapter": {"type": adapter}, "training": training}
        )
        memory = card.memory if card else None
        bf16 = card.bf16 if card else False
        s = setup(spec, shape, ranks=max(1, gpus), gpu=bool(gpus), bf16=bf16, longest=length, memory=memory)
        needed = estimate(s).total
        if memory is None:
            return GpuChoice(adapter, checkpointing, None, max(2, -(-needed * 115 // (100 * 2**30))))
        if needed <= 0.95 * memory:
            return GpuChoice(adapter, checkpointing, True, None)
    return GpuChoice("QLoRA", True, False, None)


def _scalar(name: str) -> str:
    """A name as no parser of YAML takes for a number, a date or a word of its own."""
    plain = name[0].isalpha() and name not in ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
    return name if plain and not re.fullmatch(r"[a-z]?[0-9.e+-]+", name) else json.dumps(name)


def _note(uri: str, name: str) -> str:
    if uri.startswith(("configmap://", "pvc://")):
        return f"  # hone upload FILE {name} puts the rows there"
    return ""


def _secret(model: str, secret: str | None) -> str:
    gated = model.removeprefix("hf://").startswith(_GATED)
    line = f"    secretName: {secret or 'hone-hub'}"
    if secret or gated:
        return f"{line}  # kubectl create secret generic {secret or 'hone-hub'} --from-literal=HF_TOKEN=hf_...\n"
    return ""


def _columns(columns: Mapping[str, str]) -> str:
    return (
        "".join(["  columns:\n", *(f"    {role}: {json.dumps(name)}\n" for role, name in columns.items())])
        if columns
        else ""
    )


def _resources(request: ManifestRequest, choice: GpuChoice) -> str:
    gpus, product = request.gpus, request.product
    if not gpus:
        return f'    gpusPerNode: 0  # trains on CPUs\n    cpu: "2"\n    memory: {choice.gib or 8}Gi\n'
    lines = f"    gpusPerNode: {gpus}\n"
    if product:
        words = {True: "fits by the estimate", False: "does NOT fit by the estimate: hone plan says what would"}
        note = f"  # {words[choice.fits]}" if choice.fits is not None else ""
        lines += f"    gpuProducts: [{product}]{note}\n"
    return lines + '    cpu: "8"\n    memory: 32Gi\n'


def _model(model: str | None) -> str:
    if model is None and not sys.stdin.isatty():
        raise CommandError("name the base model: --model OWNER/NAME, e.g. --model Qwen/Qwen2.5-0.5B-Instruct")
    text = model or str(typer.prompt("Base model", default="Qwen/Qwen2.5-0.5B-Instruct", err=True))
    return text if text.startswith(_ADDRESSES) else f"hf://{text}"


def _gpus(gpus: int | None) -> int:
    if gpus is not None:
        return gpus
    return int(typer.prompt("GPUs", default=1, type=int, err=True)) if sys.stdin.isatty() else 1


_TEXT = """\
# Made by hone init. hone plan shows what it needs; hone run starts it.
apiVersion: hone.dev/v1alpha1
kind: Dataset
metadata:
  name: {name}
  annotations:
    {checked}
spec:
  source:
    uri: {uri}{source}
  # {detected}
  format: Auto
{columns}  splits:
    validation: "5%"  # held out: base and tuned model are compared on these rows
---
apiVersion: hone.dev/v1alpha1
kind: FineTuneJob
metadata:
  name: {run}  # another run is another name; each adds a version of output.modelName
spec:
  model:
    uri: {model}
{secret}  datasets:
  - name: {name}
  method: {method}
  adapter:
    type: {adapter}
    rank: 16
  training:
    epochs: "{epochs}"
    maxLength: {length}  # tokens of a row; the longest has about {longest}
{checkpointing}  resources:
{resources}  output:
    modelName: {name}
"""
