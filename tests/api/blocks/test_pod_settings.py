"""Keys of annotations by which a node's container runtime gives a pod more than it requests."""

from __future__ import annotations

import pytest

from hone_api.base.cel import is_match
from hone_api.blocks.pod_settings import RUNTIME_KEYS, PodSettings
from hone_operator.settings.section import free_keys

pytestmark = pytest.mark.pure
OF_RUNTIMES = [
    "io.kubernetes.cri-o.Devices",
    "io.kubernetes.cri-o.userns-mode",
    "seccomp-profile.kubernetes.cri-o.io/POD",
    "cpu-quota.crio.io",
    "cpu-shared.crio.io/trainer",
    "run.oci.handler",
    "org.systemd.property.CPUQuota",
    "io.katacontainers.config.hypervisor.kernel_params",
    "dev.gvisor.flag.nvproxy",
    "io.containerd.rdt-class",
    "ulimits.nri.containerd.io",
    "devices.nri.io/container.trainer",
    "devices.noderesource.dev/pod",
]
FREE = [
    "k8s.v1.cni.cncf.io/networks",
    "sidecar.istio.io/inject",
    "prometheus.io/scrape",
    "nri.example.org/a",
    "mycrio.io",
    "run.ocix",
    "io.kubernetes",
]


def refused(key: str) -> bool:
    pod = PodSettings.model_validate({"annotations": {key: "a"}})
    return not all(rule.holds(pod.to_json()) for rule in PodSettings.rules)


@pytest.mark.parametrize("key", OF_RUNTIMES)
def test_a_job_sets_no_annotation_of_a_container_runtime(key: str) -> None:
    assert refused(key)
    assert is_match(RUNTIME_KEYS, key)
    assert free_keys({key: "a"}) == {key: "a"}, "the platform can, by trainer.pods"


@pytest.mark.parametrize("key", FREE)
def test_other_annotations_are_free(key: str) -> None:
    assert not refused(key)
