"""Metrics of what becomes of a finished model: signed, delivered, and named by an alias. Read at scrape time, as in
`objectmetrics`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from hone_api.states import ConditionType, DeliveryState
from hone_operator.objects.cache import Body

VERSION = ("namespace", "modelversion")
SCHEMES = ("oci", "s3", "hf", "pvc")
Sample = tuple[tuple[str, ...], float]
Fill = Callable[[GaugeMetricFamily, Iterable[Body], Callable[[Body], Iterable[Sample]]], Metric]
"""Adds the samples of each body to a family."""


def of_versions(versions: list[Body], fill: Fill) -> Iterator[Metric]:
    """Signatures and deliveries of ModelVersions."""
    text = "Whether the ModelVersion is signed; absent where the platform has no keys."
    yield fill(GaugeMetricFamily("hone_modelversion_signed", text, labels=VERSION), versions, _signed)
    text = "Deliveries of a ModelVersion by the scheme of the target and by state, as in status.deliveries."
    deliveries = GaugeMetricFamily("hone_modelversion_deliveries", text, labels=(*VERSION, "scheme", "state"))
    yield fill(deliveries, versions, _deliveries)
    text = "Bytes that the deliveries of a ModelVersion uploaded; what the target had already does not count."
    uploaded = GaugeMetricFamily("hone_modelversion_uploaded_bytes", text, labels=(*VERSION, "scheme"))
    yield fill(uploaded, versions, _uploaded)


def of_models(models: list[Body], fill: Fill) -> Iterator[Metric]:
    """Aliases of Models."""
    labels = ("namespace", "model", "alias", "version")
    text = "The version that an alias of a Model points to; always 1."
    yield fill(GaugeMetricFamily("hone_model_alias_info", text, labels=labels), models, _aliases)


def _ref(body: Body) -> tuple[str, str]:
    return body["metadata"]["namespace"], body["metadata"]["name"]


def _signed(body: Body) -> Iterator[Sample]:
    for condition in body["status"].get("conditions") or ():
        if condition["type"] == ConditionType.SIGNED:
            yield _ref(body), condition["status"] == "True"


def _scheme(entry: Body) -> str | None:
    """None: anybody may have written it, and a label holds words of ours only."""
    scheme = str(entry["uri"]).partition("://")[0]
    return scheme if scheme in SCHEMES else None


def _deliveries(body: Body) -> Iterator[Sample]:
    """Zeros for the other states of a scheme: a delivery that has recovered ends its alert at once."""
    counted = Counter((_scheme(entry), entry["state"]) for entry in body["status"].get("deliveries") or ())
    for scheme in SCHEMES:
        if any(each == scheme for each, _ in counted):
            for state in DeliveryState:
                yield (*_ref(body), scheme, state.value), counted[scheme, state.value]


def _uploaded(body: Body) -> Iterator[Sample]:
    sums: Counter[str] = Counter()
    for entry in body["status"].get("deliveries") or ():
        if (scheme := _scheme(entry)) and isinstance(entry.get("uploadedBytes"), int):
            sums[scheme] += entry["uploadedBytes"]
    for scheme, size in sums.items():
        yield (*_ref(body), scheme), size


def _aliases(body: Body) -> Iterator[Sample]:
    for entry in body["status"].get("aliases") or ():
        yield (*_ref(body), str(entry["name"])[:32], str(int(entry["version"]))), 1
