"""Those who take part in a model's life: each has a certificate of their own and the rights of one role."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone_dev.cluster import cluster
from hone_dev.demo.targets import Target
from hone_dev.tools.shell import run


@dataclass(frozen=True)
class Person:
    """A user of the embedded cluster, who works in one namespace."""

    name: str
    role: str
    """Cluster role, which the platform gives in this namespace."""
    namespace: str

    @property
    def kubeconfig(self) -> Path:
        return cluster.kubeconfig_of(self.name)

    def binding(self) -> dict[str, Any]:
        """The RoleBinding that gives the role."""
        return {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": self.name.partition("@")[0], "namespace": self.namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": self.role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": self.name}],
        }

    def kubectl(self, *argv: str, stdin: str | None = None) -> str:
        """What kubectl prints. Raises HoneDevError with its last words."""
        return Target(self.kubeconfig, None).kubectl("--namespace", self.namespace, *argv, stdin=stdin)

    def apply(self, *objects: dict[str, Any] | Path, manager: str = "kubectl") -> None:
        """Apply objects and files, as one field manager."""
        command = ("apply", "--server-side", f"--field-manager={manager}")
        for each in objects:
            stdin, name = ("", str(each)) if isinstance(each, Path) else (json.dumps(each), "-")
            self.kubectl(*command, f"--filename={name}", stdin=stdin)

    def hone(self, *argv: str) -> str:
        """What `hone` prints. Raises HoneDevError with its last words."""
        env = {"KUBECONFIG": str(self.kubeconfig), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        return run(sys.executable, "-m", "hone_cli", *argv, "--namespace", self.namespace, env=env)
