"""Import: a model that was not made here, and where its files come from."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from hone_api.base.meta import (
    ApiModel,
    DeletionPolicy,
    Name,
    Quantity,
    ShortText,
    at_least,
    checked_uri,
    keyed_by,
    pattern_rule,
    uri_rules,
)
from hone_api.base.rule import Rule
from hone_api.base.schemes import REST, Use, in_words, pattern_for, secret_in_words
from hone_api.blocks.entries import S3_PLACE, entry_rules, matches
from hone_api.dataset.source import S3

_SOURCE = pattern_for(Use.IMPORT)
_SOURCE_MESSAGE = f"a model is imported from {in_words(Use.IMPORT)}; copy the files of others to a volume (pvc://)"
_BASE = pattern_for(Use.IMPORT_BASE)
_BASE_MESSAGE = f"the base of an adapter is {in_words(Use.IMPORT_BASE)}"

_Uri = Annotated[str, StringConstraints(pattern=rf"^{REST}+$", max_length=512), AfterValidator(checked_uri)]


class ImportBase(ApiModel):
    """The model that an imported adapter was trained on."""

    rules = (pattern_rule("uri", _BASE, _BASE_MESSAGE, quoted=False), *uri_rules())

    uri: Annotated[_Uri, matches(_BASE, _BASE_MESSAGE)] = Field(
        description=f"{in_words(Use.IMPORT_BASE)}; one of a hub is fetched into the store."
    )
    secret_name: Name | None = Field(
        default=None, description="Secret in this namespace; key HF_TOKEN. Default: none, the base is public."
    )
    names: Annotated[list[ShortText], Field(max_length=16)] | None = Field(
        default=None,
        description="Other repositories that adapter_config.json may name instead: an earlier name, a mirror, or a "
        "quantised copy of this base, e.g. unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit. Default: none. Hone cannot "
        "check that they have the same weights; names and shapes of the layers are compared in any case.",
    )


class ImportEvaluation(ApiModel):
    """Rows on which an imported model is scored, and an adapter's base too, before the version is recorded."""

    rules = (at_least("cpu", "10m", "2"), at_least("memory", "64Mi", "8Gi"))

    dataset: Name = Field(description="Dataset of this namespace; its validation rows are scored, as method SFT does.")
    max_rows: int = Field(default=512, ge=1, le=1_000_000, description="Rows used, in file order; default 512.")
    cpu: Quantity = Field(default="2", description="CPU request of the Job, e.g. 8 or '1.5'; default 2.")
    memory: Quantity = Field(
        default="8Gi", description="Memory request and limit of the Job, which loads the model; default 8Gi."
    )


class ModelImport(ApiModel):
    """A foreign model that becomes a version. Weights are safetensors: pickles are refused."""

    rules = entry_rules(_SOURCE, _SOURCE_MESSAGE)

    uri: _Uri = Field(
        description=f"Folder of the files: {in_words(Use.IMPORT)}; of an image, /models. An adapter is "
        "adapter_config.json and adapter_model.safetensors, as PEFT saves it; a whole model is config.json, a "
        "tokenizer and *.safetensors. An entry is imported once: what changes there later is another entry."
    )
    secret_name: Name | None = Field(
        default=None,
        description=secret_in_words(Use.IMPORT),
    )
    s3: S3 | None = S3_PLACE
    base: ImportBase | None = Field(
        default=None,
        description="Required for an adapter: the model that it was trained on. It is compared with the one that "
        "adapter_config.json names, and with the adapter's weights. Not for a whole model.",
    )
    submitted_by: ShortText | None = Field(
        default=None,
        description="User who adds the entry, as `kubectl auth whoami` prints it; the API server refuses any other. "
        "The ModelVersion records it. Required where the platform separates training from approval.",
    )
    deletion_policy: DeletionPolicy | None = Field(
        default=None,
        description="Whether the imported files are removed from the store some time after the ModelVersion is "
        "deleted, by a person or by spec.retention. Delete or Retain, the default. The ModelVersion gets it when it "
        "is made, and it can be changed there.",
    )
    evaluation: ImportEvaluation | None = Field(
        default=None, description="Numbers that the version gets, measured on a CPU. Default: none."
    )


ONE_IMPORT = Rule(
    "self.all(i, self.exists_one(e, e.uri == i.uri))",
    "imports names a uri twice: remove one",
    of="imports",
)
MAX_IMPORTS = 32
Imports = Annotated[list[ModelImport], keyed_by("uri", max_length=MAX_IMPORTS)]
