"""Shared by all kinds: the model base class, conditions, field types, kind descriptions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from hone_api.base.cel import is_match
from hone_api.base.rule import UNQUOTED, VALIDATIONS, Immutable, Rule
from hone_api.base.schemes import REST, WITH_HOST, Use, in_words, pattern_for


def pattern_rule(name: str, pattern: str, message: str, *, forbidden: bool = False, quoted: bool = True) -> Rule:
    """A rule for a string that must match a pattern, or must not if `forbidden`.

    Args:
        quoted: whether the refusal may quote the string; not if it may hold a password.
    """
    return Rule(
        f"{'!' if forbidden else ''}self.matches(r'{pattern}')",
        message,
        of=name,
        reason=None if quoted else UNQUOTED,
        one_field=True,
    )


class ApiModel(BaseModel):
    """Base of every object in a spec, a status, a plan or a report.

    JSON names are camelCase; unknown names are refused. `rules` and `immutable` become CEL rules in the schemas of the
    object and of its fields.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", use_enum_values=True)
    rules: ClassVar[tuple[Rule, ...]] = ()
    immutable: ClassVar[Immutable | None] = None

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        """Add what pydantic leaves out: the CEL rules, and defaults from a factory."""
        reference: dict[str, Any] = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        for info in cls.model_fields.values():
            if info.default_factory is not None:
                value = info.get_default(call_default_factory=True)
                # {} is enough for an object: the API server fills in the defaults of its fields.
                schema["properties"][info.alias]["default"] = {} if isinstance(value, BaseModel) else value
        for rule in (*(cls.immutable.rules(schema) if cls.immutable else ()), *cls.rules):
            place = schema["properties"][rule.of] if rule.of else schema
            place.setdefault(VALIDATIONS, []).append(rule.to_json())
        return reference

    def to_json(self) -> dict[str, Any]:
        """The JSON form with camelCase names and without absent fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


DECIMAL = r"^[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,2})?$"
SIGNED_DECIMAL = r"^-?" + DECIMAL.removeprefix("^")


def between(name: str, text: str, low: str, high: str, example: str) -> Rule:
    """A rule for a decimal string; `low` and `high` are comparisons, e.g. '> 0.0' and '<= 1.0'.

    Text that is not a number gets the same message; double() alone would add an evaluation error to the refusal.
    """
    return Rule(
        f"string(self).matches(r'{SIGNED_DECIMAL}') && double(string(self)) {low} && double(string(self)) {high}",
        f"{name} must be {text}, e.g. '{example}'",
        of=name,
        one_field=True,
    )


def at_least(name: str, quantity: str, example: str) -> Rule:
    """A rule for a quantity: a smaller value cannot run at all."""
    return Rule(
        f"quantity(string(self)).compareTo(quantity('{quantity}')) >= 0",
        f"{name} must be at least {quantity}, e.g. {example}",
        of=name,
        one_field=True,
    )


_CREDENTIALS = rf"^(http|{WITH_HOST})://[^/?#]*@"
_DOT_SEGMENT = r"[/@]\.\.?([/?#]|$)"
_CREDENTIALS_MESSAGE = "a URI must not contain a user name or password: remove them, and name a Secret in secretName"
_DOT_SEGMENT_MESSAGE = "a URI must not contain a . or .. segment: write the full path"


def uri_rules(name: str = "uri") -> tuple[Rule, ...]:
    """Rules for a URI, where a pattern could only refuse without a way out."""
    return tuple(
        pattern_rule(name, pattern, message, forbidden=True, quoted=False)
        for pattern, message in ((_CREDENTIALS, _CREDENTIALS_MESSAGE), (_DOT_SEGMENT, _DOT_SEGMENT_MESSAGE))
    )


def checked_uri(uri: str) -> str:
    """The same without an API server: in a plan on a laptop."""
    for pattern, message in ((_CREDENTIALS, _CREDENTIALS_MESSAGE), (_DOT_SEGMENT, _DOT_SEGMENT_MESSAGE)):
        if is_match(pattern, uri):
            raise ValueError(message)
    return uri


def _number_as_text(value: Any) -> Any:
    """A number without quotes, as text. The API server accepts such integers; a plan on a laptop, any number."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _storable(text: Any) -> Any:
    """Replace half of a surrogate pair, which a row or a file name can contain, by `?`: it has no UTF-8 form."""
    return text.encode("utf-8", "replace").decode() if isinstance(text, str) else text


MAX_COUNT = 2**53 - 1
"""Largest count: every JSON parser keeps it exact (RFC 8259, section 6)."""

# Field types. Floats are strings, as in the Kubernetes API conventions; integers need no quotes.
NUMBER = "x-kubernetes-int-or-string"
AsNumber = BeforeValidator(_number_as_text)
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
Decimal = Annotated[
    str,
    StringConstraints(pattern=DECIMAL, max_length=24),
    Field(json_schema_extra={NUMBER: True, "minimum": 0, "maximum": MAX_COUNT}),
    AsNumber,
]
SignedDecimal = Annotated[
    str,
    StringConstraints(pattern=SIGNED_DECIMAL, max_length=24),
    Field(json_schema_extra={NUMBER: True, "minimum": -MAX_COUNT, "maximum": MAX_COUNT}),
    AsNumber,
]
Percent = Annotated[str, StringConstraints(pattern=r"^(100|[0-9]{1,2}(\.[0-9]{1,3})?)%$", max_length=8)]
Duration = Annotated[str, StringConstraints(pattern=r"^([0-9]+(s|m|h|d))+$", max_length=24)]
Quantity = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$", min_length=1, max_length=24),
    Field(json_schema_extra={NUMBER: True, "minimum": 0, "maximum": MAX_COUNT}),
    AsNumber,
]
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=128)]
ColumnExpression = Annotated[str, StringConstraints(min_length=1, max_length=512)]
"""A column's name, or a JMESPath expression over the columns of a row."""
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]
Storable = BeforeValidator(_storable)
ShortText = Annotated[str, StringConstraints(max_length=253), Storable]
Text = Annotated[str, StringConstraints(max_length=4096), Storable]
KnownUri = Annotated[str, StringConstraints(max_length=1024)]
"""A URI that was copied from a spec to a status or a record: the spec was checked, and no URI is longer."""
DeletionPolicy = Literal["Retain", "Delete"]
Timestamp = Annotated[str, StringConstraints(max_length=40), Field(json_schema_extra={"format": "date-time"})]
ALIAS_SCHEME = "models://"
ALIAS = rf"{ALIAS_SCHEME}[a-z0-9]([-a-z0-9]*[a-z0-9])?@[a-z]([-a-z0-9]*[a-z0-9])?"
"""An alias of a Model in the same namespace."""
_BASE_MODEL = pattern_for(Use.BASE, Use.LATER, others=ALIAS)
_BASE_MESSAGE = (
    f"a base model is {in_words(Use.BASE).replace(' or', ',')} or models://name@alias; "
    "copy others to pvc://. Version 3 is modelVersion: name-v3"
)
_HUB_PAGE = r"^https://(www\.)?(huggingface\.co|hf\.co)/"
_HUB_PAGE_MESSAGE = "write hf://owner/name: the address of its page on the hub is not read"


def base_model_rules() -> tuple[Rule, ...]:
    """Rules for a base model's URI: the pattern accepts all, so that sentences can refuse."""
    return (
        pattern_rule("uri", _BASE_MODEL, _BASE_MESSAGE, quoted=False),
        pattern_rule("uri", _HUB_PAGE, _HUB_PAGE_MESSAGE, forbidden=True, quoted=False),
    )


def _base_model(uri: str) -> str:
    if not is_match(_BASE_MODEL, uri):
        raise ValueError(_BASE_MESSAGE)
    if is_match(_HUB_PAGE, uri):
        raise ValueError(_HUB_PAGE_MESSAGE)
    return uri


BaseModelUri = Annotated[
    str,
    StringConstraints(pattern=rf"^{REST}+$", max_length=1024),
    AfterValidator(checked_uri),
    AfterValidator(_base_model),
]


def alias_of(uri: str | None) -> tuple[str, str] | None:
    """(model, alias) of `models://model@alias`; None: another address."""
    if uri is None or not uri.startswith(ALIAS_SCHEME):
        return None
    model, _, alias = uri.removeprefix(ALIAS_SCHEME).partition("@")
    return model, alias


NOT_READ = {
    r"^gs://": "gs:// is not read: write s3://bucket/path with s3.endpoint https://storage.googleapis.com and a secret "
    "with an HMAC key of Cloud Storage, or copy the files to a volume (pvc://)",
    r"^(az|abfss?)://": "az:// and abfs:// are not read: write the https:// address of the file with its SAS token, or "
    "copy the files to a volume (pvc://)",
    r"^http://": "http:// is not read, since anyone on the network could change the rows: write https://",
    r"^hf://datasets/": "write hf://owner/name, without datasets/; select its files with files",
    r"^hf://[^/@]+/[^/@]+/": "write hf://owner/name, without a path; select its files with files",
}
"""URIs that people write but no source supports, with the way out."""


_OTHERS = rf"(gs|az|abfss?|http)://{REST}+|hf://(datasets|[^/@]+/[^/@]+)/{REST}+"
_ROWS = pattern_for(Use.ROWS, others=_OTHERS)
_ROWS_MESSAGE = f"a source of rows is {in_words(Use.ROWS)}; copy rows from elsewhere to a volume (pvc://)"


def not_read_rules() -> tuple[Rule, ...]:
    """Rules for a URI of rows: the pattern accepts all, so that sentences can refuse."""
    return (
        pattern_rule("uri", _ROWS, _ROWS_MESSAGE, quoted=False),
        *(pattern_rule("uri", text, message, forbidden=True, quoted=False) for text, message in NOT_READ.items()),
    )


def _read_uri(uri: str) -> str:
    if not is_match(_ROWS, uri):
        raise ValueError(_ROWS_MESSAGE)
    for pattern, message in NOT_READ.items():
        if is_match(pattern, uri):
            raise ValueError(message)
    return uri


DatasetUri = Annotated[
    str,
    StringConstraints(pattern=rf"^{REST}+$", max_length=1024),
    AfterValidator(checked_uri),
    AfterValidator(_read_uri),
]
HttpUrl = Annotated[
    str, StringConstraints(pattern=rf"^https?://{REST}+$", max_length=1024), AfterValidator(checked_uri)
]


PRESERVED = "x-kubernetes-preserve-unknown-fields"
LIST_TYPE, LIST_KEYS = "x-kubernetes-list-type", "x-kubernetes-list-map-keys"


def keyed_by(*names: str, max_length: int, min_length: int | None = None) -> Any:
    """A list whose entries differ in these fields: with server-side apply, each manager owns its own entries.

    Each of the fields is required or has a default. For other lists, see `schema.structural`.
    """
    extra: Any = {LIST_TYPE: "map", LIST_KEYS: list(names)}
    return Field(min_length=min_length, max_length=max_length, json_schema_extra=extra)


class Condition(ApiModel):
    """metav1.Condition: one aspect of the object's state."""

    type: Annotated[
        str,
        StringConstraints(
            pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
            r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
            max_length=316,
        ),
    ] = Field(description="Aspect, in CamelCase, e.g. Ready.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether the aspect holds.")
    reason: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", min_length=1, max_length=1024)
    ] = Field(description="Machine-readable cause in CamelCase, e.g. DatasetNotReady.")
    message: Annotated[str, StringConstraints(max_length=32_768), Storable] = Field(
        description="What happened, where, and what to do, for people."
    )
    observed_generation: int | None = Field(
        default=None, ge=0, description="metadata.generation that this condition was computed from."
    )
    last_transition_time: Timestamp = Field(description="When status last changed, RFC 3339 in UTC.")


CONDITIONS: Any = Field(
    default_factory=list,
    max_length=16,
    description="Conditions by type; each carries observedGeneration.",
    json_schema_extra={LIST_TYPE: "map", LIST_KEYS: ["type"]},
)
OBSERVED_GENERATION = Field(default=None, ge=0, description="metadata.generation that this status was computed from.")


@dataclass(frozen=True)
class Column:
    """One printer column; priority 1 shows only with `-o wide`."""

    name: str
    json_path: str
    type: str = "string"
    priority: int = 0
    description: str = ""


@dataclass(frozen=True)
class Kind:
    """Everything that a CustomResourceDefinition needs in addition to the schema of spec and status."""

    kind: str
    plural: str
    singular: str
    short_name: str
    spec: type[ApiModel]
    status: type[ApiModel]
    columns: tuple[Column, ...]
    selectable: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = field(default=())
    not_supported: tuple[str, ...] = ()
    """Paths below spec of fields that are described but not supported yet."""
    empty: bool = False
    """Whether a spec may have no field."""
