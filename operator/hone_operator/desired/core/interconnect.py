"""The network over which NCCL sends between nodes: what a job asks for, and what the platform gives its pods for it."""

from collections.abc import Mapping

from hone_operator.settings.pods import RdmaSettings

TCP = "TCP"
VALUES = {"InfiniBand": "trainer.networks.infiniBand", "RoCE": "trainer.networks.roce"}
"""Value of the chart that describes each network of resources.network other than TCP."""


def rdma(network: str | None, networks: Mapping[str, RdmaSettings]) -> RdmaSettings:
    """What the pods of a run get for its network; nothing for TCP, and where the job does not choose."""
    return networks.get(network or TCP, RdmaSettings())


def environment(network: str | None, networks: Mapping[str, RdmaSettings]) -> dict[str, str]:
    """Variables of the pods.

    NCCL_NET names the only transport that NCCL may use: it ends with an error where that is missing, and does not go on
    over a slower one (https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html#nccl-net).
    """
    if network is None:
        return {}
    return {"NCCL_NET": "Socket" if network == TCP else "IB", **rdma(network, networks).env}


def problem(network: str | None, networks: Mapping[str, RdmaSettings]) -> str | None:
    """Why the platform cannot run a job with this network; None if it can."""
    if network in (None, TCP) or network in networks:
        return None
    return (
        f"spec.resources.network {network}: this installation has no such network ({VALUES[network]} of the chart "
        "names no devices): use TCP, or ask the platform team to describe it"
    )
