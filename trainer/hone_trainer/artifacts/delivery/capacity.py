"""Whether a server refused because it has no room: a full disk, or a quota.

There is no standard for it. 507 says it by itself, but CNCF Distribution answers 500 UNKNOWN with the words
of the kernel in `detail`, Harbor and Quay 403 DENIED with a message about the quota, MinIO 507 XMinioStorageFull, 400
XMinioAdminBucketQuotaExceeded or 500 InternalError with the words of the kernel, Ceph and Versity 403 QuotaExceeded.
"""

from __future__ import annotations

import json
import re
from typing import Any

_FULL_STATUS = 507
_RATE = (408, 429)
"""Statuses of a server that has too much to do: their words about a quota mean requests, not bytes."""
_REQUESTS = re.compile(r"requests? (per|quota|rate)|RequestQuota|rate limit|per (second|minute|hour)", re.IGNORECASE)
"""Quotas of another kind."""
_CODES = re.compile(r"QuotaExceeded$|StorageFull$|^InsufficientStorage$")
_WORDS = re.compile(
    r"no space left|(disk|storage) quota|quota (has been )?exceeded|(exceed\w*|over)\b.{0,40}\bquota"
    r"|exceed the configured upper limit"  # Harbor, of a project's quota
    r"|storage limit|insufficient storage|not enough space|(disk|storage) (is )?full|disk usage is too high"
    r'|"Err": (28|122)\b',  # ENOSPC and EDQUOT of an error of Go that was written as JSON
    re.IGNORECASE,
)
_MAX_DETAIL = 300


def is_full(status: int, code: str, words: str) -> bool:
    """Whether an answer other than the expected one says that there is no room for what was sent.

    Args:
        status: of HTTP.
        code: the error code in the answer's body; "" if it has none.
        words: message and detail of it.
    """
    if status in _RATE or _REQUESTS.search(f"{code} {words}"):
        return False
    return status == _FULL_STATUS or bool(_CODES.search(code) or _WORDS.search(words))


def detail_of(value: Any) -> str:
    """The start of the `detail` of a registry's error, which may be any JSON value, as one line."""
    text = value if isinstance(value, str) else json.dumps(value) if value else ""
    return " ".join(text.split())[:_MAX_DETAIL]
