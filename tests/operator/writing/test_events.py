"""Events as the API server takes them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from support.cluster.hand import Namespace

from hone_api.words.states import Reason
from hone_operator.reconcile.core.outcome import Event
from hone_operator.writing.events import event_body

pytestmark = pytest.mark.apiserver


@pytest.mark.parametrize("letter", ["a", "é", "字", "😀"])
def test_a_long_message_is_cut_to_what_the_api_server_takes(namespace: Namespace, letter: str) -> None:
    made = namespace.create("Dataset", "rows", {"source": {"uri": "pvc://data/rows.jsonl"}, "suspend": True})
    body = event_body(made, Event(Reason.RETRAINING, letter * 1024, "Normal"), datetime.now(UTC))
    taken = namespace.kube.call("POST", f"/apis/events.k8s.io/v1/namespaces/{namespace.name}/events", body)
    assert taken["note"] == letter * (1024 // len(letter.encode()))
