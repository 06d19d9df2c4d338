"""What a person should know before a version is served that nobody has approved or no key has signed.

It is served all the same: people try candidates.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hone_api.words.states import ApprovalState, ConditionType
from hone_cli.versions import condition


def cautions(versions: Iterable[Mapping[str, Any]], signs: bool) -> Iterator[str]:
    """A sentence for each version that nobody has decided on, and for each that has no signature of the platform.

    Args:
        versions: ModelVersions; one that occurs twice is reported once, and a rejected one is refused elsewhere.
        signs: whether the platform signs models, so that a version without condition Signed lacks its signature.
    """
    for name, version in {v["metadata"]["name"]: v for v in versions}.items():
        if (version["spec"].get("approval") or {}).get("state") in (None, ApprovalState.CANDIDATE):
            namespace = shlex.quote(version["metadata"]["namespace"])
            yield (
                f"ModelVersion {name} is not approved: nobody has decided that it may be served. To approve it: "
                f"hone approve {name} --namespace {namespace}"
            )
        signed = condition(version, ConditionType.SIGNED)
        if (signed or {}).get("status") != "True" and (signed or signs):
            why = (signed or {}).get("message") or "no signature is recorded."
            yield f"ModelVersion {name} is not signed, and this platform signs models: {why}"


def shows_signing(versions: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the platform signs models: it sets condition Signed on every version that it has verified."""
    return any(condition(v, ConditionType.SIGNED) for v in versions)
