"""oci:// targets against a real registry."""

from __future__ import annotations

import base64
import io
import json
import math
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from aiohttp import encode_basic_auth, web

from hone_api.plan import DeliverPlan
from hone_dev.cluster import imageregistry, objectstore
from hone_dev.tools.threaded import served
from hone_trainer.artifacts.delivery import attachments, deliver, image
from hone_trainer.artifacts.delivery.login import login_of
from hone_trainer.artifacts.delivery.original import Original
from hone_trainer.artifacts.delivery.registry import INDEX_TYPE, MANIFEST_TYPE, ImageRepository
from hone_trainer.endpoints.addresses import AllowedNetwork, Resolution
from hone_trainer.endpoints.http import resolve
from hone_trainer.errors import TrainerError
from hone_trainer.secrets import scrub

from .conftest import Model, Stopped, Stopping, get, secret

pytestmark = pytest.mark.trainer


def put(repository: str, reference: str, body: dict[str, Any], media_type: str) -> None:
    """Write a manifest, as another client."""
    host, _, name = repository.partition("/")
    answer = requests.put(
        f"http://{host}/v2/{name}/manifests/{reference}",
        json.dumps({"schemaVersion": 2, "mediaType": media_type, **body}),
        auth=(imageregistry.USER, imageregistry.PASSWORD),
        headers={"Content-Type": media_type},
        timeout=600,
    )
    assert answer.status_code == 201, answer.text


def pulled(repository: str, reference: str) -> dict[str, bytes]:
    """The files of an image as a runtime unpacks them."""
    files = {}
    manifest = get(repository, f"manifests/{reference}").json()
    config = get(repository, f"blobs/{manifest['config']['digest']}").json()
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    for layer in manifest["layers"]:
        with tarfile.open(fileobj=io.BytesIO(get(repository, f"blobs/{layer['digest']}").content)) as tar:
            for member in tar.getmembers():
                assert (member.uid, member.gid, member.mtime) == (0, 0, 0)
                if member.isfile():
                    file = tar.extractfile(member)
                    assert file is not None
                    files[member.name] = file.read()
    return files


def code(plan: DeliverPlan) -> str:
    with pytest.raises(TrainerError) as caught:
        deliver.run(plan)
    assert imageregistry.PASSWORD not in caught.value.message
    return str(caught.value.code)


def test_it_is_pulled_by_digest_with_every_file_below_models(repository: str, model: Model, keys: str) -> None:
    plan = model.plan(f"oci://{repository}", secretPath=keys, labels={"org.opencontainers.image.version": "3"})
    result = deliver.run(plan)
    assert result.location == f"oci://{repository}@{result.digest}"
    assert pulled(repository, result.digest) == {f"models/{path}": text for path, text in model.files().items()}
    tagged = get(repository, "manifests/v3")
    assert tagged.headers["Docker-Content-Digest"] == result.digest
    assert tagged.json()["annotations"] == {"org.opencontainers.image.version": "3"}
    again = deliver.run(plan)
    assert (again.uploaded_bytes, again.digest) == (0, result.digest)


BOM = {"bomFormat": "CycloneDX", "metadata": {"component": {"name": "tutor"}}}
DESCRIBED = {"provenance": {"buildDefinition": {}}, "bom": BOM}


def test_statement_and_bill_are_found_by_the_digest_of_the_image(repository: str, model: Model, keys: str) -> None:
    """By the tag that clients look for where the registry has no referrers API."""
    plan = model.plan(f"oci://{repository}", secretPath=keys, **DESCRIBED)
    digest = deliver.run(plan).digest
    assert deliver.run(plan).uploaded_bytes == 0, "again changes nothing"
    assert get(repository, f"referrers/{digest}").status_code == 404
    assert sorted(get(repository, "tags/list").json()["tags"]) == [digest.replace(":", "-"), "v3"]
    index = get(repository, f"manifests/{digest.replace(':', '-')}", INDEX_TYPE)
    assert index.headers["Content-Type"] == INDEX_TYPE
    documents = {}
    for entry in index.json()["manifests"]:
        attached = get(repository, f"manifests/{entry['digest']}").json()
        assert attached["subject"]["digest"] == digest
        assert attached["artifactType"] == entry["artifactType"] == attached["layers"][0]["mediaType"]
        documents[entry["artifactType"]] = get(repository, f"blobs/{attached['layers'][0]['digest']}").json()
    statement, bill = documents["application/vnd.in-toto+json"], documents["application/vnd.cyclonedx+json"]
    assert statement["subject"] == [{"name": repository, "digest": {"sha256": digest.removeprefix("sha256:")}}]
    assert statement["predicate"] == {"buildDefinition": {}}
    files = {part["name"] for part in bill["metadata"]["component"]["components"]}
    assert files == {path for path in model.files()}


def test_what_others_attached_stays(repository: str, model: Model, keys: str) -> None:
    digest = deliver.run(model.plan(f"oci://{repository}", secretPath=keys)).digest
    of_others = json.loads(get(repository, f"manifests/{digest}").text)
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1}
    entry["size"] = len(json.dumps(of_others, sort_keys=True, separators=(",", ":")))
    put(repository, digest.replace(":", "-"), {"manifests": [entry]}, INDEX_TYPE)
    deliver.run(model.plan(f"oci://{repository}", secretPath=keys, **DESCRIBED))
    index = get(repository, f"manifests/{digest.replace(':', '-')}", INDEX_TYPE).json()
    assert index["manifests"][0]["digest"] == digest
    assert len(index["manifests"]) == 3


def test_a_list_that_another_overwrites_is_completed(
    repository: str, model: Model, keys: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = deliver.run(model.plan(f"oci://{repository}", secretPath=keys)).digest
    tag, sent = digest.replace(":", "-"), ImageRepository.put_manifest

    def overtaken(self: ImageRepository, reference: str, *content: Any) -> Any:
        answer = sent(self, reference, *content)
        if reference == tag:
            monkeypatch.undo()
            put(repository, tag, {"manifests": []}, INDEX_TYPE)
        return answer

    monkeypatch.setattr(ImageRepository, "put_manifest", overtaken)
    deliver.run(model.plan(f"oci://{repository}", secretPath=keys, **DESCRIBED))
    assert len(get(repository, f"manifests/{tag}", INDEX_TYPE).json()["manifests"]) == 2


def test_an_image_in_the_place_of_the_list_is_left_alone(repository: str, model: Model, keys: str) -> None:
    digest = deliver.run(model.plan(f"oci://{repository}", secretPath=keys)).digest
    image_manifest = get(repository, f"manifests/{digest}").json()
    put(repository, digest.replace(":", "-"), image_manifest, MANIFEST_TYPE)
    assert code(model.plan(f"oci://{repository}", secretPath=keys, **DESCRIBED)) == "DestinationOccupied"
    assert get(repository, f"manifests/{digest.replace(':', '-')}").json() == image_manifest


def test_a_second_version_uploads_only_the_layers_that_differ(
    repository: str, model: Model, keys: str, tmp_path: Path
) -> None:
    first = deliver.run(model.plan(f"oci://{repository}", secretPath=keys))
    second = Model(tmp_path / "second", seed=2)
    result = deliver.run(second.plan(f"oci://{repository}", "tutor-v4", 4, secretPath=keys))
    assert first.uploaded_bytes - result.uploaded_bytes >= 200_000, "the tokenizer is the same"
    assert pulled(repository, "v4") == {f"models/{path}": text for path, text in second.files().items()}
    assert sorted(get(repository, "tags/list").json()["tags"]) == ["v3", "v4"]


@pytest.mark.usefixtures("one_at_a_time")
def test_a_killed_push_has_no_tag_and_goes_on(repository: str, model: Model, keys: str) -> None:
    plan = model.plan(f"oci://{repository}:prod", secretPath=keys)
    with pytest.raises(Stopped):
        image.deliver(plan, Original.of(model.folder, model.digest), Stopping(300_000), math.inf, resolve)
    assert get(repository, "manifests/prod").status_code == 404
    assert deliver.run(plan).uploaded_bytes < 350_000, "the tokenizer's layer had arrived"
    assert pulled(repository, "prod") == {f"models/{path}": text for path, text in model.files().items()}


def test_a_tag_of_another_image_is_left_alone(repository: str, model: Model, keys: str, tmp_path: Path) -> None:
    first = deliver.run(model.plan(f"oci://{repository}:prod", secretPath=keys))
    second = Model(tmp_path / "second", seed=2)
    assert code(second.plan(f"oci://{repository}:prod", secretPath=keys)) == "DestinationOccupied"
    assert get(repository, "manifests/prod").headers["Docker-Content-Digest"] == first.digest


def test_a_tag_of_several_images_is_left_alone(repository: str, model: Model, keys: str) -> None:
    """An index, e.g. of one image for each processor: a registry does not show it to who asks only for images."""
    put(repository, "prod", {"manifests": []}, INDEX_TYPE)
    assert code(model.plan(f"oci://{repository}:prod", secretPath=keys)) == "DestinationOccupied"
    assert get(repository, "manifests/prod", INDEX_TYPE).json()["manifests"] == []


def test_an_altered_original_is_not_delivered(repository: str, model: Model, keys: str) -> None:
    with open(model.folder / "adapter_model.safetensors", "r+b") as file:
        file.write(b"altered")
    assert code(model.plan(f"oci://{repository}", secretPath=keys)) == "ManifestMismatch"
    assert get(repository, "tags/list").status_code == 404


def test_a_secret_that_pulls_images_also_delivers(repository: str, model: Model, tmp_path: Path) -> None:
    auth = base64.b64encode(f"{imageregistry.USER}:{imageregistry.PASSWORD}".encode()).decode()
    auths = {"auths": {repository.partition("/")[0]: {"auth": auth}}}
    keys = secret(tmp_path / "docker", **{".dockerconfigjson": json.dumps(auths)})
    assert deliver.run(model.plan(f"oci://{repository}", secretPath=keys)).uploaded_bytes > 0
    other = model.plan("oci://other.example.org/m", secretPath=keys)
    assert code(other) == "SecretKeyNotFound"


def test_a_token_that_has_run_out_is_asked_for_again(repository: str, model: Model, keys: str) -> None:
    """A base's layers are read after all weights were hashed, which takes longer than many tokens last."""
    deliver.run(model.plan(f"oci://{repository}", secretPath=keys))
    (layer, *_) = get(repository, "manifests/v3").json()["layers"]
    host, _, name = repository.partition("/")
    login = (imageregistry.USER, imageregistry.PASSWORD)
    place = ImageRepository(host, name, AllowedNetwork(allow_private=True), login, math.inf)
    assert place.manifest("v3")
    place._authorization = "Bearer of-this-morning"
    assert len(b"".join(place.download(layer["digest"], layer["size"]))) == layer["size"]


def test_credentials_go_to_a_registry_whose_name_is_written_in_upper_case(repository: str, model: Model) -> None:
    """Its answers name it in lower case."""
    port = repository.partition("/")[0].partition(":")[2]
    host, name = f"LOCALHOST:{port}", repository.partition("/")[2]
    auths = {"auths": {host.lower(): {"username": imageregistry.USER, "password": imageregistry.PASSWORD}}}
    keys = secret(model.folder.parent / "docker", **{".dockerconfigjson": json.dumps(auths)})
    plan = model.plan(f"oci://{host}/{name}", secretPath=keys)
    result = deliver.run(plan, lambda host, port: Resolution(["127.0.0.1"], "localhost"))
    assert result.location == f"oci://{host}/{name}@{result.digest}"
    assert pulled(repository, "v3") == {f"models/{path}": text for path, text in model.files().items()}


@pytest.mark.parametrize(
    ("host", "url", "own"),
    [
        ("registry.example.org:443", "https://registry.example.org/v2/m/blobs/uploads/1", True),
        ("registry.example.org", "https://REGISTRY.example.org:443/v2/m/blobs/uploads/1", True),
        ("registry.example.org", "https://registry.example.org:5000/v2/m/blobs/uploads/1", False),
        ("registry.example.org", "http://registry.example.org/v2/m/blobs/uploads/1", False),
        ("registry.example.org", "https://blobs.example.org/v2/m/blobs/uploads/1", False),
    ],
)
def test_credentials_go_to_the_registry_alone(host: str, url: str, own: bool) -> None:
    assert ImageRepository(host, "m", AllowedNetwork(), None, math.inf).is_own(urlsplit(url)) is own


@pytest.mark.usefixtures("one_at_a_time")
def test_a_tag_that_another_model_took_during_the_upload_is_left_alone(
    repository: str, model: Model, keys: str, tmp_path: Path
) -> None:
    other = Model(tmp_path / "other", seed=2)
    theirs = []

    def meanwhile(count: int) -> None:
        if not theirs:
            theirs.append(deliver.run(other.plan(f"oci://{repository}", secretPath=keys)).digest)

    plan = model.plan(f"oci://{repository}", secretPath=keys, **DESCRIBED)
    with pytest.raises(TrainerError) as caught:
        image.deliver(plan, Original.of(model.folder, model.digest), meanwhile, math.inf, resolve)
    assert (caught.value.code, theirs[0] in caught.value.message) == ("DestinationOccupied", True)
    assert get(repository, "manifests/v3").headers["Docker-Content-Digest"] == theirs[0]
    assert get(repository, "tags/list").json()["tags"] == ["v3"], "nothing is attached to an image that is not there"


@pytest.mark.usefixtures("one_at_a_time")
def test_a_tag_that_another_attempt_wrote_during_the_upload_is_not_written_again(
    repository: str, model: Model, keys: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Registries with immutable tags refuse that."""
    plan, written, put_manifest = model.plan(f"oci://{repository}", secretPath=keys), [], ImageRepository.put_manifest

    def noted(self: ImageRepository, reference: str, *content: Any) -> Any:
        written.append(reference)
        return put_manifest(self, reference, *content)

    def meanwhile(count: int) -> None:
        if not written:
            deliver.run(plan)

    monkeypatch.setattr(ImageRepository, "put_manifest", noted)
    result = image.deliver(plan, Original.of(model.folder, model.digest), meanwhile, math.inf, resolve)
    assert written == ["v3"]
    assert get(repository, "manifests/v3").headers["Docker-Content-Digest"] == result.digest


def test_a_tag_that_another_model_took_during_the_attaching_is_left_alone(
    repository: str, model: Model, keys: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, attach, theirs = Model(tmp_path / "other", seed=2), attachments.attach, []

    def overtaken(*content: Any) -> None:
        attach(*content)
        monkeypatch.undo()
        theirs.append(deliver.run(other.plan(f"oci://{repository}", secretPath=keys)).digest)

    monkeypatch.setattr(attachments, "attach", overtaken)
    assert code(model.plan(f"oci://{repository}", secretPath=keys, **DESCRIBED)) == "DestinationOccupied"
    assert get(repository, "manifests/v3").headers["Docker-Content-Digest"] == theirs[0]


@pytest.mark.parametrize("host", ["docker.io", "Docker.io:443", "index.docker.io", "registry-1.docker.io:443"])
def test_docker_hub_is_asked_at_its_registry(model: Model, tmp_path: Path, host: str) -> None:
    """Every client writes docker.io, where a web page is, and has its credentials for https://index.docker.io/v1/."""
    hosts = []

    def offline(host: str, port: int) -> Resolution:
        hosts.append(host)
        raise OSError("offline")

    auths = {"auths": {"https://index.docker.io/v1/": {"username": "team", "password": "hub-password"}}}
    keys = secret(tmp_path / "docker", **{".dockerconfigjson": json.dumps(auths)})
    with pytest.raises(TrainerError) as caught:
        deliver.run(model.plan(f"oci://{host}/team/m", secretPath=keys, limits={}), offline)
    assert (caught.value.code, hosts) == ("DestinationUnreachable", ["registry-1.docker.io"])
    assert login_of(keys, host) == ("team", "hub-password")


def test_each_cause_has_its_code(repository: str, model: Model, keys: str, tmp_path: Path) -> None:
    wrong = secret(tmp_path / "wrong", username=imageregistry.USER, password="wrong-password")
    free = f"127.0.0.1:{objectstore.free_port('127.0.0.1')}"
    assert code(model.plan(f"oci://{repository}", secretPath=wrong)) == "DestinationDenied"
    assert code(model.plan(f"oci://{repository}")) == "DestinationDenied"
    assert code(model.plan(f"oci://{free}/m", secretPath=keys)) == "DestinationUnreachable"
    assert code(model.plan(f"oci://{repository}", secretPath=keys, limits={})) == "DestinationRefused"
    assert code(model.plan(f"oci://{repository}", secretPath=str(tmp_path / "none"))) == "SecretNotFound"


def token_server(asked: list[dict[str, str]]) -> web.Application:
    """A token server, as registries of large clouds have one."""

    async def answer(request: web.Request) -> web.Response:
        asked.append(dict(request.query))
        right = encode_basic_auth(imageregistry.USER, imageregistry.PASSWORD)
        if request.headers.get("Authorization") != right:
            return web.Response(status=401)
        return web.json_response({"token": "token-of-the-server"})

    application = web.Application()
    application.router.add_get("/token", answer)
    return application


def test_a_token_server_is_asked_for_this_repository_alone(model: Model, keys: str, tmp_path: Path) -> None:
    asked: list[dict[str, str]] = []
    with served(token_server(asked)) as tokens:
        auth = {"silly": {"realm": f"{tokens}/token", "service": "hone"}}
        with imageregistry.serve(tmp_path / "registry", auth) as registry:
            deliver.run(model.plan(f"oci://{registry.host}/team/m", secretPath=keys))
            wrong = secret(tmp_path / "wrong", username="hone", password="wrong-password")
            assert code(model.plan(f"oci://{registry.host}/team/n", secretPath=wrong)) == "DestinationDenied"
    assert asked[0] == {"service": "hone", "scope": "repository:team/m:pull,push"}
    assert "token-of-the-server" not in scrub("Bearer token-of-the-server")
