"""Metrics of finished and imported models: imported, signed, delivered, registered, and named by an alias. Read at
scrape time, as in `objectmetrics`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily

from hone_api.base.schemes import Use, scheme_of, schemes
from hone_api.words.states import ConditionType, DeliveryState, ImportState, Reason
from hone_operator.monitoring.series import Sample, Series
from hone_operator.objects.cache import Body

VERSION = ("namespace", "modelversion")
SCHEMES = tuple(scheme.name for scheme in schemes(Use.IMPORT, Use.DELIVERY))


def of_versions() -> Iterator[Series]:
    """Signatures and deliveries of ModelVersions."""
    text = "Whether the ModelVersion is signed; absent where the platform has neither keys nor identities."
    yield Series(GaugeMetricFamily("hone_modelversion_signed", text, labels=VERSION), _signed)
    text = "Deliveries of a ModelVersion by the scheme of the target and by state, as in status.deliveries."
    deliveries = GaugeMetricFamily("hone_modelversion_deliveries", text, labels=(*VERSION, "scheme", "state"))
    yield Series(deliveries, _deliveries)
    text = "Bytes that the deliveries of a ModelVersion uploaded; what the target had already does not count."
    uploaded = GaugeMetricFamily("hone_modelversion_uploaded_bytes", text, labels=(*VERSION, "scheme"))
    yield Series(uploaded, _uploaded)


def of_models() -> Iterator[Series]:
    """Imports, registry and aliases of Models."""
    text = "Imports of a Model by the scheme of the source and by state, as in status.imports."
    imports = GaugeMetricFamily("hone_model_imports", text, labels=("namespace", "model", "scheme", "state"))
    yield Series(imports, _imports)
    text = "Whether the registry of a Model has what can be registered now; absent where it names none."
    yield Series(GaugeMetricFamily("hone_model_registered", text, labels=("namespace", "model")), _registered)
    labels = ("namespace", "model", "alias", "version")
    text = "The version that an alias of a Model points to; always 1."
    yield Series(GaugeMetricFamily("hone_model_alias_info", text, labels=labels), _aliases)


def _ref(body: Body) -> tuple[str, str]:
    return body["metadata"]["namespace"], body["metadata"]["name"]


def _signed(body: Body) -> Iterator[Sample]:
    for condition in body["status"].get("conditions") or ():
        if condition["type"] == ConditionType.SIGNED:
            yield _ref(body), condition["status"] == "True"


def _registered(body: Body) -> Iterator[Sample]:
    """1 also while a version waits for its delivery or approval: that is nothing which the registry lacks."""
    for condition in body["status"].get("conditions") or ():
        if condition["type"] == ConditionType.REGISTERED:
            yield _ref(body), condition["status"] == "True" or condition["reason"] == Reason.WAITING


def _scheme(entry: Body) -> str | None:
    """None: anybody may have written it, and a label holds words of ours only."""
    scheme = scheme_of(str(entry["uri"]))
    return scheme if scheme in SCHEMES else None


def _deliveries(body: Body) -> Iterator[Sample]:
    yield from _by_state(body, body["status"].get("deliveries"), DeliveryState)


def _imports(body: Body) -> Iterator[Sample]:
    yield from _by_state(body, body["status"].get("imports"), ImportState)


def _by_state(
    body: Body, entries: Iterable[Body] | None, states: Iterable[DeliveryState | ImportState]
) -> Iterator[Sample]:
    """Zeros for the other states of a scheme: what has recovered ends its alert at once."""
    counted = Counter((_scheme(entry), entry["state"]) for entry in entries or ())
    for scheme in SCHEMES:
        if any(each == scheme for each, _ in counted):
            for state in states:
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
