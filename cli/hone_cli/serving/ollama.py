"""Ollama: a Modelfile for a GGUF file."""

from __future__ import annotations

from collections.abc import Sequence

from hone_cli.errors import CommandError
from hone_cli.serving.models import ServedModel


def modelfile(models: Sequence[ServedModel]) -> str:
    """The Modelfile, to be placed in the folder of `hone download MODEL . --form GGUF`.

    The chat template stands in the GGUF file, where Ollama finds it.

    Raises:
        CommandError: it is not one GGUF file.
    """
    if len(models) != 1 or models[0].form != "GGUF":
        raise CommandError("Ollama runs one GGUF file: name one model that was exported as GGUF")
    model = models[0]
    use = f"ollama create {model.name} -f Modelfile && ollama run {model.name}"
    return f"# {model.version}: {use}\nFROM ./{model.model}.gguf\n"
