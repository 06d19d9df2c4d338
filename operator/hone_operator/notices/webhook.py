"""Sends CloudEvents 1.0 to one receiver, signed by HMAC-SHA256 as https://www.standardwebhooks.com has it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

SECONDS = 10.0
"""For one answer."""


class NotSentError(Exception):
    """The receiver did not accept an event; the message has its host and no other part of its address."""


@dataclass(frozen=True)
class Webhook:
    """The receiver, and the file with the key. The file is read each time, so that a changed Secret counts at once."""

    url: str
    key_file: Path

    async def send(self, event: Mapping[str, Any]) -> None:
        """POST one event in structured mode.

        Raises:
            NotSentError: no answer, or another one than 2xx; redirects are not followed.
        """
        body = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
        host = urlsplit(self.url).hostname
        try:
            headers = signed(body, str(event["id"]), int(time.time()), self.key_file.read_bytes().strip())
        except OSError as error:
            raise NotSentError(f"the key that signs events cannot be read: {error.strerror}") from None
        timeout = aiohttp.ClientTimeout(total=SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
                session.post(self.url, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NotSentError(f"{host} does not answer: {type(error).__name__}") from None
        if status // 100 != 2:
            raise NotSentError(f"{host} answers {status}")


def signed(body: bytes, event_id: str, seconds: int, key: bytes) -> dict[str, str]:
    """Headers of a request; seconds since 1970.

    Raises:
        OSError: the key is empty.
    """
    if not key:
        raise OSError(0, "it is empty")
    digest = hmac.new(key, b".".join((event_id.encode(), str(seconds).encode(), body)), hashlib.sha256).digest()
    return {
        "Content-Type": "application/cloudevents+json; charset=utf-8",
        "webhook-id": event_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
