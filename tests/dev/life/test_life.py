"""`python -m hone_dev life` does what the README of example 13 says; that it works is seen on the embedded cluster."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from hone_api.kinds.model import MODEL
from hone_dev.cluster import imageregistry, objectstore
from hone_dev.life import objects, places, platform
from hone_dev.life.server import restarts
from hone_dev.life.stages import COPY, STAGES

pytestmark = pytest.mark.pure


def test_the_stages_are_the_steps_of_the_readme() -> None:
    steps = re.findall(r"^\*\*(\d+)\. (.+?)\.\*\*", (platform.EXAMPLE / "README.md").read_text(), re.M)
    assert [(int(number), title) for number, title in steps] == list(enumerate(STAGES, start=1))


@pytest.mark.parametrize("file", ["deliver/model.yaml", "pull/model.yaml", "rollback/model.yaml"])
def test_what_later_steps_apply_fits_the_api(file: str) -> None:
    MODEL.spec.model_validate(objects.manifest(file)["spec"])


def test_the_rollback_changes_who_moves_the_alias_and_nothing_else() -> None:
    before, after = (objects.manifest(file) for file in ("model.yaml", "rollback/model.yaml"))
    [name] = before["spec"].pop("promotion")["aliases"]
    assert after["spec"].pop("aliases") == [{"name": name, "version": 1}]
    assert after == before


def test_the_copy_is_pulled_from_where_the_versions_are_delivered() -> None:
    image, bucket = objects.manifest("deliver/model.yaml")["spec"]["deliveries"]
    copy = objects.manifest("pull/model.yaml")
    [entry] = copy["spec"]["imports"]
    assert (copy["metadata"]["name"], entry["uri"], entry["secretName"]) == (
        COPY,
        f"{image['uri']}:v1",
        image["secretName"],
    )
    assert entry["base"] == objects.manifest("finetunejob.yaml")["spec"]["model"]
    assert bucket["uri"] == f"s3://{places.BUCKET}/{places.PREFIX}"


def test_pods_reach_both_places_by_the_names_in_the_example() -> None:
    both = places.Places(
        imageregistry.ImageRegistry("192.0.2.1:15001", Path()),
        objectstore.ObjectStore("http://192.0.2.1:15002", Path()),
    )
    image, bucket = objects.manifest("deliver/model.yaml")["spec"]["deliveries"]
    ports = {o["metadata"]["name"]: o["spec"]["ports"][0]["port"] for o in both.objects() if o["kind"] == "Service"}
    assert image["uri"].split("/")[2] == f"registry:{ports['registry']}"
    assert bucket["s3"]["endpoint"] == f"http://bucket:{ports['bucket']}"
    secrets = {o["metadata"]["name"] for o in both.objects() if o["kind"] == "Secret"}
    assert secrets == {image["secretName"], bucket["secretName"]}
    targets = [o["ports"][0]["port"] for o in both.objects() if o["kind"] == "EndpointSlice"]
    assert targets == [15001, 15002]


def test_the_secret_with_the_key_is_the_one_that_the_values_name(tmp_path: Path) -> None:
    key = platform.make_key(tmp_path / "key")
    values = yaml.safe_load(platform.VALUES.read_text())
    assert platform.signing_secret(key)["metadata"]["name"] == values["signing"]["secretName"]
    assert (key / platform.PUBLIC).read_text().startswith("-----BEGIN PUBLIC KEY-----")


def test_a_container_that_was_started_again_is_counted_in_its_pod() -> None:
    status = {"containerStatuses": [{"restartCount": 0}], "initContainerStatuses": [{"restartCount": 2}]}
    assert restarts([{"metadata": {"uid": "a"}, "status": status}]) == {"a": 2}


def test_the_time_of_an_approval_is_that_of_the_last_decision() -> None:
    decision = {"fieldsV1": {"f:spec": {"f:approval": {}}}}
    other = {"time": "2026-11-28T15:00:09Z", "fieldsV1": {"f:status": {}}}
    fields = [{"time": f"2026-11-28T15:00:0{second}Z", **decision} for second in (5, 2)]
    assert objects.approved_at({"metadata": {"managedFields": [*fields, other]}}) % 60 == 5
