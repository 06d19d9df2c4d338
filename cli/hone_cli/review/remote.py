"""A batch behind `server`, for the terminal."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import requests
from pydantic import BaseModel, ValidationError

from hone_api.dataset.review import Row, Verdict
from hone_cli.errors import CommandError
from hone_cli.reach.pod_server import PodServer, error_of
from hone_cli.review.reviews import BatchState, ListPage, Status

_SECONDS = 60
AnyModel = TypeVar("AnyModel", bound=BaseModel)


class Remote(PodServer):
    """Implements `Reviews`."""

    def state(self, skipped: Collection[str] = (), row: str | None = None) -> BatchState:
        """See `Reviews.state`."""
        return _read(BatchState, self._call("state", {"skipped": sorted(skipped), "row": row}))

    def listing(self, status: Status | None = None, offset: int = 0) -> ListPage:
        """See `Reviews.listing`."""
        return _read(ListPage, self._call("list", {"status": status, "offset": offset}))

    def decide(self, id: str, verdict: Verdict, row: Row | None = None) -> None:
        """See `Reviews.decide`."""
        self._call("decide", {"id": id, "verdict": verdict, "row": row})

    def undo(self) -> str | None:
        """See `Reviews.undo`."""
        return self._call("undo", {}).get("id")

    def _call(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            status, reply = self.post(f"/api/{name}", body, _SECONDS)
        except CommandError as error:
            raise CommandError(f"{error}: quit, and start hone again; what was decided is kept") from None
        if status != requests.codes.ok:
            raise CommandError(error_of(reply))
        answer: dict[str, Any] = reply
        return answer


def _read(kind: type[AnyModel], body: dict[str, Any]) -> AnyModel:
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise CommandError(f"the server sends fields that this version of hone does not know: {error}") from None
