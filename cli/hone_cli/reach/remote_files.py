"""The folder that `files` serves in a pod, for `copying`."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import requests

from hone_cli.errors import CommandError
from hone_cli.reach.copying import BrokenConnectionError, MissingFileError
from hone_cli.reach.files import PREFIX
from hone_cli.reach.pod_server import CONNECT_SECONDS, PodServer, error_of

_SILENT_SECONDS = 120
_PIECE = 2**18


class RemoteFiles(PodServer):
    """Implements `copying.Source`."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__(url, token)
        self.session.headers["Accept-Encoding"] = "identity"  # the bytes of the file, and their count

    def read(self, path: str, offset: int) -> Iterator[bytes]:
        """See `copying.Source`."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            url = f"{self.url}{PREFIX}{quote(path)}"
            timeout = (CONNECT_SECONDS, _SILENT_SECONDS)
            with self.session.get(url, headers=headers, stream=True, timeout=timeout) as response:
                if response.status_code != (206 if offset else 200):
                    kind = MissingFileError if response.status_code == requests.codes.not_found else CommandError
                    raise kind(f"{path}: the pod answers {response.status_code} {_error(response)}".strip())
                yield from response.iter_content(_PIECE)
        except requests.RequestException as error:
            raise BrokenConnectionError(type(error).__name__) from None


def _error(response: requests.Response) -> str:
    try:
        return error_of(response.json())
    except ValueError:
        return str(response.reason or "")
