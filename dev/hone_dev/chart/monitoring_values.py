"""Values of monitoring: metrics, monitors, alerts, dashboards."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from hone_api.blocks.placement import LabelValue
from hone_dev.chart.value_types import Address, AlertLabels, Map, PrometheusDuration, RenderMode
from hone_operator.settings.section import Annotations, Key, Labels, Port, Section


class Monitor(Section):
    enabled: bool = Field(False, description="Create this monitor. Enable only one of podMonitor and serviceMonitor.")
    labels: Labels = Field(
        default_factory=dict,
        description="Labels by which your Prometheus finds it, e.g. `release: kube-prometheus-stack`.",
    )
    interval: PrometheusDuration = Field("30s", description="Scrape interval.")
    scrape_timeout: PrometheusDuration = Field("10s", description="Scrape timeout.")
    relabelings: list[Map] = Field(default_factory=list, description="Relabelings of the target.")
    metric_relabelings: list[Map] = Field(default_factory=list, description="Relabelings of the samples.")


class Metrics(Section):
    port: Port = Field(8080, description="Port of the operator's /metrics and of its Service.")
    render_mode: RenderMode = Field(
        "skipIfMissing",
        description="What to do with monitors and rules if the Prometheus operator's CRDs are not installed; "
        "alwaysRender is for tools that render without a cluster.",
    )
    pod_monitor: Monitor = Field(default_factory=Monitor)
    service_monitor: Monitor = Field(default_factory=Monitor)
    trainer_pods: bool = Field(True, description="If a monitor is enabled, also scrape the pods that train.")


class Alert(Section):
    enabled: bool = Field(True, description="Whether the alert is installed.")
    threshold: float | None = Field(
        None, ge=0, description="Instead of the number before `# threshold` in its expression."
    )
    lasts: Annotated[str, StringConstraints(pattern=r"^([0-9]+(ms|[smhdwy]))*$")] = Field(
        "", alias="for", description="For how long the expression must hold, e.g. 30m."
    )
    labels: AlertLabels = Field(default_factory=dict, description="Labels in addition, or instead, e.g. severity.")


class PrometheusRule(Section):
    enabled: bool = Field(False, description="Install the alerts and recording rules of files/rules.")
    alert_labels: AlertLabels = Field(
        default_factory=dict, description="Labels of every alert, e.g. `team: ml-platform`, by which it is routed."
    )
    alerts: dict[str, Alert] = Field(
        default_factory=dict,
        description="Changes to single alerts by name: `enabled`, `threshold`, `for` and `labels`, e.g. "
        "`FineTuneJobStalled: {threshold: 1800, labels: {severity: info}}`.",
    )
    gpu_hour_prices: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        description="Price of a GPU-hour by the name in `resources.gpuProducts`; the key `default` is for jobs that "
        "name none or several. Empty: no costs are recorded.",
    )
    labels: Labels = Field(default_factory=dict, description="Labels by which your Prometheus finds them.")
    runbook_base_url: Address = Field(
        "",
        description="Where your copy of docs/guides/runbooks is served, e.g. https://wiki.example.internal/runbooks. "
        "Empty: alerts have no runbook_url.",
    )


class Dashboards(Section):
    enabled: bool = Field(False, description="Create a ConfigMap that Grafana's sidecar loads.")
    sidecar_label: Key = Field("grafana_dashboard", description="Label that the sidecar looks for.")
    sidecar_label_value: LabelValue = Field("1", description="Value of this label.")
    annotations: Annotations = Field(default_factory=dict, description="Annotations of the ConfigMap, e.g. the folder.")
