"""Source: where the rows of a Dataset come from."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from hone_api.base.cel import is_match
from hone_api.base.meta import ApiModel, DatasetUri, HttpUrl, Name, not_read_rules, pattern_rule, uri_rules
from hone_api.base.rule import UNQUOTED, Rule
from hone_api.base.schemes import Use, in_words, secret_in_words

_SPLIT = r"^\w+(\.\w+)*$"
_SPLIT_MESSAGE = (
    "split is the name of one split, e.g. train: for train+test make a Dataset of each and a mixture of both; for a "
    "part such as train[:10%] name files in files, or draw rows by a mixture with mixtureTotal"
)


def _one_split(name: str) -> str:
    if not is_match(_SPLIT, name):
        raise ValueError(_SPLIT_MESSAGE)
    return name


class S3(ApiModel):
    """Where s3:// leads, if not to AWS."""

    rules = uri_rules("endpoint")

    endpoint: HttpUrl | None = Field(
        default=None,
        description="Base URL of an S3-compatible service, e.g. https://minio.example.org or http://minio.storage.svc; "
        "plain http:// is allowed only for Services of the cluster. Default: AWS.",
    )
    region: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)] = Field(
        default="us-east-1", description="Region of the bucket, e.g. eu-central-1; default us-east-1."
    )


_BUCKET = r"^s3://[a-z0-9][-a-z0-9.]{1,61}[a-z0-9](/.*)?$"


class Source(ApiModel):
    """Where the rows come from."""

    rules = (
        Rule(
            "!has(self.sha256) || !self.uri.startsWith('hf://')",
            "sha256 is for a single file: hf:// is pinned by @revision instead",
        ),
        Rule(
            f"!self.startsWith('s3://') || self.matches(r'{_BUCKET}')",
            "a bucket has 3 to 63 lower-case letters, digits, - and .: write s3://bucket/path",
            of="uri",
            reason=UNQUOTED,
            one_field=True,
        ),
        Rule(
            "!has(self.s3) || self.uri.startsWith('s3://')",
            "s3 is for s3:// only: remove it",
        ),
        Rule(
            "!has(self.config) && !has(self.split) || self.uri.startsWith('hf://')",
            "config and split are for hf:// only: select files with files",
        ),
        pattern_rule("split", _SPLIT, _SPLIT_MESSAGE),
        Rule(
            "!has(self.files) || !has(self.config) && !has(self.split)",
            "files already selects the files: remove config and split",
        ),
        *uri_rules(),
        *not_read_rules(),
    )
    uri: DatasetUri = Field(description=f"{in_words(Use.ROWS)}.")
    secret_name: Name | None = Field(
        default=None,
        description=secret_in_words(Use.ROWS),
    )
    s3: S3 | None = Field(default=None, description="Endpoint and region of s3://; default: AWS.")
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$", max_length=64)] | None = Field(
        default=None, description="Expected SHA-256 of the file, hexadecimal; any other content is refused."
    )
    config: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = Field(
        default=None,
        description="Configuration of an hf:// data set, as named in its card, e.g. main; default: the default "
        "configuration.",
    )
    split: Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_one_split)] | None = Field(
        default=None,
        description="Split of that configuration, e.g. test; default: train, or the only one.",
    )
    files: (
        Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=512)]], Field(max_length=64)] | None
    ) = Field(
        default=None,
        description="Files or globs inside uri, e.g. data/train-*.jsonl; default: all data files.",
    )
