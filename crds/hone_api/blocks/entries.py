"""What an entry with a place of its own has, for imports and deliveries: its address, its credentials, its status."""

from __future__ import annotations

from typing import Any

from pydantic import AfterValidator, Field

from hone_api.base.cel import is_match
from hone_api.base.meta import MAX_COUNT, ApiModel, KnownUri, ShortText, Text, uri_rules
from hone_api.base.rule import UNQUOTED, Rule
from hone_api.words.states import ImportState, State

_TOO_LONG = r"^oci://[^/]*/([^:@]{256}|.*:[^@/]{129})"
"""No registry takes such a repository or tag; most say so only after all layers were sent."""
S3_PLACE: Any = Field(default=None, description="Endpoint and region of s3://; default: AWS.")


def matches(pattern: str, message: str) -> AfterValidator:
    """A check that a uri has one of the forms; raises ValueError with the message."""

    def checked(uri: str) -> str:
        if not is_match(pattern, uri):
            raise ValueError(message)
        return uri

    return AfterValidator(checked)


def entry_rules(pattern: str, message: str) -> tuple[Rule, ...]:
    """Rules of an entry with fields uri, secretName and s3."""
    return (
        Rule(
            f"self.matches(r'{pattern}')",
            message,
            of="uri",
            reason=UNQUOTED,
            one_field=True,
        ),
        Rule(
            f"!self.matches(r'{_TOO_LONG}')",
            "a repository has at most 255 characters, and a tag 128: shorten it",
            of="uri",
            reason=UNQUOTED,
            one_field=True,
        ),
        Rule(
            "!has(self.s3) || self.uri.startsWith('s3://')",
            "s3 is for s3:// only: remove it",
        ),
        Rule(
            "!has(self.secretName) || !self.uri.startsWith('pvc://')",
            "a volume needs no credentials: remove secretName",
        ),
        *uri_rules(),
    )


class EntryStatus(ApiModel):
    """What has become of an entry that a Job works through."""

    key: ShortText = Field(description="Digest of what the entry asks for.")
    state: State = Field(description="Pending, at work, done or Failed.")
    reason: ShortText | None = Field(default=None, description="Failure code, or what the entry waits for.")
    message: Text | None = Field(default=None, description="What happened, and what to do.")
    tries: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Number of Jobs so far.")

    @property
    def is_failed(self) -> bool:
        """Whether no further attempt starts by itself."""
        return self.state == ImportState.FAILED  # of all such entries

    @property
    def title(self) -> str:
        """The entry in messages."""
        raise NotImplementedError


class PlaceStatus(EntryStatus):
    """The same of an entry with an address."""

    uri: KnownUri = Field(description="uri of the entry.")

    @property
    def title(self) -> str:
        return self.uri


RETRIED: Any = Field(
    default=None,
    description="Value of the annotation hone.dev/retry that was acted on last; another value tries again what failed.",
)
