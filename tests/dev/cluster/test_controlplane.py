"""The control plane that other tests use, by itself."""

import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from hone_dev.cluster import binaries
from hone_dev.cluster.process import Supervisor
from hone_dev.tools.shell import run

pytestmark = pytest.mark.apiserver


def test_it_serves_its_administrator_and_nobody_else(apiserver: Path) -> None:
    kubectl = (binaries.kubernetes() / "kubectl", "--kubeconfig", apiserver)
    assert "namespace/kube-system" in run(*kubectl, "get", "namespaces", "--output=name").split()
    server = yaml.safe_load(apiserver.read_text())["clusters"][0]["cluster"]["server"]
    context = ssl.create_default_context(cafile=str(apiserver.parent / "ca.crt"))
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{server}/version", context=context)
    assert refused.value.code == 401


def test_it_ends_with_the_tests_even_when_they_are_killed(tmp_path: Path) -> None:
    program = f"""
import os, pathlib
from hone_dev.cluster.controlplane import control_plane
with control_plane(pathlib.Path({str(tmp_path)!r})):
    print("up", flush=True)
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ})
    assert (done.returncode, done.stdout) == (-9, "up\n"), done.stderr
    supervisor, deadline = Supervisor(tmp_path), time.monotonic() + 600
    while any(supervisor.pid(name) for name in ("etcd", "kube-apiserver")):
        assert time.monotonic() < deadline, "they live on"
        time.sleep(0.1)
