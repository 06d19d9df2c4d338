"""A model's life on real pods, with the manifests of example 13: each step by the person whose right it is."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from click.testing import CliRunner
from live import conditions, port_of, reason_becomes, secret, service, wait
from signing_key import Key

from hone_dev import cluster, imageregistry, objectstore, paths
from hone_dev.console import HoneDevError
from hone_dev.demo.command import RELEASE, SYSTEM
from hone_trainer.artifacts import sign
from hone_trainer.store import manifest

pytestmark = [pytest.mark.e2e, pytest.mark.long]
EXAMPLE = paths.SOURCE / "examples" / "13-model-life"
NAME, BUCKET, SIGNING = "service-desk", "models", "platform-signing-key"
BOB, ADA = "bob@example.org", "ada@example.org"
"""Bob submits jobs, as role `edit`; Ada approves, as role `admin`."""


@dataclass(frozen=True)
class Shelves:
    """A registry that asks for a password and an S3 server, both outside the cluster, as Services of the namespace."""

    registry: imageregistry.ImageRegistry
    store: objectstore.ObjectStore

    def deliveries(self) -> list[dict[str, Any]]:
        """Where the Model has its versions copied."""
        image = {"uri": f"oci://registry:{port_of(self.registry.host)}/team/{NAME}", "secretName": "hone-registry"}
        endpoint = f"http://bucket:{port_of(self.store.endpoint)}"
        bucket = {"uri": f"s3://{BUCKET}/served", "secretName": "hone-bucket", "s3": {"endpoint": endpoint}}
        return [{**image, "when": "Approved"}, {**bucket, "when": "Aliased"}]

    def objects(self) -> list[dict[str, Any]]:
        """Services and Secrets by which the pods reach both."""
        registry = {"username": imageregistry.USER, "password": imageregistry.PASSWORD}
        bucket = {"AWS_ACCESS_KEY_ID": self.store.access_key, "AWS_SECRET_ACCESS_KEY": self.store.secret_key}
        return [
            *service("registry", port_of(self.registry.host)),
            *service("bucket", port_of(self.store.endpoint)),
            {**secret("hone-registry", "", ""), "stringData": registry},
            {**secret("hone-bucket", "", ""), "stringData": bucket},
        ]

    def pull(self, location: str, folder: Path) -> Path:
        """The folder with the files of an image, by its digest; each blob is compared with its own."""
        for digest in self.layers(location):
            with tarfile.open(fileobj=io.BytesIO(self._blob(_repository(location), "blobs", digest))) as tar:
                tar.extractall(folder, filter="data")
        return folder / "models"

    def layers(self, location: str) -> dict[str, int]:
        """Sizes of the layers of an image, by digest."""
        manifest = self._blob(_repository(location), "manifests", location.partition("@")[2])
        return {layer["digest"]: layer["size"] for layer in json.loads(manifest)["layers"]}

    def _blob(self, name: str, kind: str, digest: str) -> bytes:
        accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
        login = (imageregistry.USER, imageregistry.PASSWORD)
        url = f"http://{self.registry.host}/v2/{name}/{kind}/{digest}"
        answer = requests.get(url, auth=login, headers=accept, timeout=600)
        assert f"sha256:{hashlib.sha256(answer.content).hexdigest()}" == digest
        return answer.content


def _repository(location: str) -> str:
    """Its name in the registry."""
    return location.removeprefix("oci://").partition("/")[2].partition("@")[0]


@pytest.fixture
def shelves(tmp_path: Path) -> Iterator[Shelves]:
    login = imageregistry.basic(tmp_path / "registry")
    with (
        imageregistry.serve(tmp_path / "registry", login, host=cluster.ADDRESS) as registry,
        objectstore.serve(tmp_path / "s3", host=cluster.ADDRESS) as store,
    ):
        store.bucket(BUCKET)
        yield Shelves(registry, store)


@pytest.fixture
def key(hone: Any, tmp_path: Path) -> Iterator[Key]:
    """The key of a platform that wants signatures and two people for each model."""
    key = Key(tmp_path / "key")
    signing = {"secretName": SIGNING, "publicKeys": [key.public], "required": True}
    with _values(hone, signing=signing, admission={"separateDuties": True}):
        yield key


@contextmanager
def _values(hone: Any, **values: Any) -> Iterator[None]:
    """The chart with these values as well, until the block ends."""
    chart = paths.SOURCE / "charts" / "hone"
    where = ("--namespace", SYSTEM, "--wait", "--timeout", "10m")
    hone.helm("upgrade", RELEASE, chart, "--reuse-values", "--values", "-", *where, stdin=json.dumps(values))
    yield
    hone.helm("rollback", RELEASE, *where)


def manifest_of(file: str, **spec: Any) -> dict[str, Any]:
    """A manifest of the example, with these fields of its spec."""
    body: dict[str, Any] = yaml.safe_load((EXAMPLE / file).read_text())
    return {**body, "spec": body.get("spec", {}) | spec} if spec else body


def apply(kubectl: Any, who: str, *objects: dict[str, Any]) -> None:
    """As a person, the way that the example's README says."""
    items = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    kubectl("apply", "--server-side", "--filename=-", f"--as={who}", stdin=items)


def approve(kubectl: Any, who: str, version: str) -> None:
    """The command of the README, by this person."""
    patch = {"spec": {"approval": {"state": "Approved", "by": who}}}
    kubectl("patch", "modelversions.hone.dev", version, "--type=merge", f"--as={who}", "--patch", json.dumps(patch))


def champion(kubectl: Any) -> dict[str, Any]:
    """What the alias points to, and since when; empty: to nothing."""
    status = kubectl.get("models.hone.dev", NAME).get("status", {})
    return next((alias for alias in status.get("aliases", ()) if alias["name"] == "champion"), {})


def delivered(kubectl: Any, version: str) -> dict[str, dict[str, Any]]:
    """Its two deliveries by scheme, once both have arrived."""

    def arrived() -> list[dict[str, Any]]:
        entries = kubectl.get("mv", version)["status"].get("deliveries") or []
        return entries if [e["state"] for e in entries] == ["Delivered"] * 2 else []

    found = wait(arrived, lambda: kubectl("describe", "mv", version))
    assert conditions(kubectl.get("mv", version))["Delivered"]["status"] == "True"
    return {entry["uri"].partition(":")[0]: entry for entry in found}


def is_the_signed_model(folder: Path, version: dict[str, Any], key: Key) -> None:
    """Every byte is that of the record, for Hone and for whoever has only the public key."""
    from model_signing._cli import main

    manifest.verify(folder, version["spec"]["artifacts"][0]["digest"])
    public = key.folder / "public-key.pem"
    public.write_text(key.public)
    asked = ["verify", "key", str(folder), "--signature", str(folder / "model.sig"), "--public_key", str(public)]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 0, done.output


def read(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_is_signed_approved_delivered_trained_again_and_rolled_back(
    hone, kubectl, tiny, key, shelves, tmp_path
) -> None:
    for who, role in ((BOB, "edit"), (ADA, "admin")):
        kubectl("create", "rolebinding", role, f"--clusterrole={role}", f"--user={who}")
    kubectl.apply(secret(SIGNING, sign.KEY, (key.folder / sign.KEY).read_text()), *shelves.objects())
    training = {"epochs": 3, "batchSize": 8, "learningRate": "3e-2"}
    job = manifest_of("finetunejob.yaml", model={"uri": tiny}, training=training, submittedBy=BOB)
    job["spec"]["resources"] = {"cpu": "100m", "memory": "2Gi"}
    apply(kubectl, BOB, manifest_of("data.yaml"), manifest_of("dataset.yaml"), job)
    model = manifest_of("model.yaml", deliveries=shelves.deliveries())
    model["spec"]["retrain"] |= {"minInterval": "0s", "quietPeriod": "0s"}
    model["spec"]["promotion"]["gates"][0]["atMost"] = "0"  # random weights learn less than a model does
    apply(kubectl, ADA, model)

    first = f"{NAME}-v1"
    reason_becomes(kubectl, "ftj", NAME, "Finished", "Succeeded")
    reason_becomes(kubectl, "mv", first, "Signed", "Signed")
    reason_becomes(kubectl, "mv", first, "Ready", "Verified")
    with pytest.raises(HoneDevError, match="approve"):
        approve(kubectl, BOB, first)
    assert not kubectl.get("mv", first)["status"].get("deliveries"), "nobody has approved it"
    approve(kubectl, ADA, first)
    wait(lambda: champion(kubectl).get("version") == 1, lambda: kubectl("describe", "mdl", NAME))
    places = delivered(kubectl, first)
    record = kubectl.get("mv", first)
    pulled = shelves.pull(places["oci"]["location"], tmp_path / "v1")
    is_the_signed_model(pulled, record, key)
    assert read(shelves.store.root / BUCKET / "served" / first) == read(pulled)

    reason_becomes(kubectl, "mdl", NAME, "UpToDate", "Trained")
    apply(kubectl, BOB, manifest_of("later/dataset.yaml"))
    second = f"{NAME}-v2"
    wait(lambda: kubectl("get", "mv", second, "--ignore-not-found"), lambda: kubectl("describe", "mdl", NAME))
    reason_becomes(kubectl, "mv", second, "Ready", "Verified")
    record = kubectl.get("mv", second)
    assert record["spec"]["lineage"]["job"]["submittedBy"] == BOB
    newest = wait(
        lambda: next((c for c in kubectl.get("mdl", NAME)["status"]["candidates"] if c["version"] == 2), None),
        lambda: kubectl("describe", "mdl", NAME),
    )
    assert (newest["gates"], newest["message"]) == ("Passed", "nobody has approved it")
    assert champion(kubectl)["version"] == 1
    approve(kubectl, ADA, second)
    wait(lambda: champion(kubectl)["version"] == 2, lambda: kubectl("describe", "mdl", NAME))
    before, places = shelves.layers(places["oci"]["location"]), delivered(kubectl, second)
    layers = shelves.layers(places["oci"]["location"])
    assert layers.keys() & before.keys(), "the tokenizer is there already"
    assert places["oci"]["uploadedBytes"] == sum(size for digest, size in layers.items() if digest not in before)
    is_the_signed_model(shelves.pull(places["oci"]["location"], tmp_path / "v2"), record, key)

    del model["spec"]["promotion"]
    apply(kubectl, ADA, {**model, "spec": {**model["spec"], "aliases": [{"name": "champion", "version": 1}]}})
    wait(lambda: champion(kubectl)["version"] == 1, lambda: kubectl("describe", "mdl", NAME))
    assert [entry["version"] for entry in champion(kubectl)["history"]][:2] == [2, 1]
    assert set(delivered(kubectl, first)) == {"oci", "s3"}
