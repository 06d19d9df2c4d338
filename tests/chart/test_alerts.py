"""Alerts and recording rules of the chart change one by one, as the values say."""

import re

import pytest
from support.cluster.chart_documents import HelmError, of_kind

pytestmark = pytest.mark.pure


def test_without_a_place_for_runbooks_alerts_name_none(render):
    rules = of_kind(
        render({"prometheusRule": {"enabled": True}, "metrics": {"renderMode": "alwaysRender"}}), "PrometheusRule"
    )
    (annotations,) = {tuple(sorted(r["annotations"])) for r in rules[0]["spec"]["groups"][0]["rules"]}
    assert annotations == ("description", "summary")


def alerts(render, **rule):
    values = {"prometheusRule": {"enabled": True, **rule}, "metrics": {"renderMode": "alwaysRender"}}
    (own,) = of_kind(render(values), "PrometheusRule")
    return {rule.get("alert") or rule["record"]: rule for group in own["spec"]["groups"] for rule in group["rules"]}


def test_single_alerts_change(render):
    untouched = alerts(render)
    change = {
        "FineTuneJobStalled": {"threshold": 1800, "for": "10m", "labels": {"severity": "info"}},
        "HoneCertificateEndsSoon": {"threshold": 2592000},
        "ModelNotServed": {"enabled": False},
    }
    changed = alerts(render, alerts=change, alertLabels={"team": "ml", "severity": "page"})
    assert untouched.keys() - changed.keys() == {"ModelNotServed"}
    stalled = changed.pop("FineTuneJobStalled")
    assert stalled["labels"] == {"team": "ml", "severity": "info", "cause": "platform"}
    assert stalled["for"] == "10m"
    assert stalled["expr"] == untouched["FineTuneJobStalled"]["expr"].replace("900 #", "1800 #")
    ends = changed.pop("HoneCertificateEndsSoon")
    assert float(ends["expr"].partition(" < ")[2].partition("#")[0]) == 2592000
    for name, rule in changed.items():
        labels = {"labels": {**rule["labels"], "team": "ml", "severity": "page"}} if "alert" in rule else {}
        assert rule == {**untouched[name], **labels}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ModelNotSrved": {"enabled": False}}, "has no alert ModelNotSrved.*files/rules/hone.yaml"),
        ({"ModelNotServed": {"threshold": 2}}, "ModelNotServed.threshold: this alert has none"),
        ({"ModelNotServed": {"treshold": 2}}, "treshold"),
        ({"ModelNotServed": {"for": "ten minutes"}}, "for"),
    ],
)
def test_an_alert_that_cannot_change_so_is_refused(render, change, message):
    with pytest.raises(HelmError, match=message):
        alerts(render, alerts=change)


def test_null_is_the_default(render):
    """Helm removes a key of the defaults that is null, and keeps any other."""
    plain = alerts(render)
    assert alerts(render, alerts=None, alertLabels=None, gpuHourPrices=None) == plain
    assert alerts(render, alerts={"FineTuneJobStalled": {"threshold": None}}) == plain


def test_a_threshold_may_be_zero(render):
    changed = alerts(render, alerts={"FineTuneJobStalled": {"threshold": 0}})
    assert re.search(r"> 0 # threshold", changed["FineTuneJobStalled"]["expr"])


def test_prices_are_recorded(render):
    (price,) = [r for n, r in alerts(render, gpuHourPrices={"default": 2.5}).items() if n == "hone:gpu_hour_price"]
    assert price == {"record": "hone:gpu_hour_price", "expr": "vector(2.5)", "labels": {"gpu_product": ""}}
    assert "hone:gpu_hour_price" not in alerts(render)
