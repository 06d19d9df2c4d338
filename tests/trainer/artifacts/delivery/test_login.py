"""Credentials of a registry in a Secret that pulls images, whatever form its keys have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hone_trainer.artifacts.delivery.login import login_of
from hone_trainer.errors import SourceError

from .conftest import secret

pytestmark = pytest.mark.pure
R, HUB = "r.example.org", "https://index.docker.io/v1/"


def keys(folder: Path, *names: str) -> str:
    """A Secret with an entry for each name; the user is called like it."""
    auths = {name: {"username": name, "password": f"password-of-{name}"} for name in names}
    return secret(folder / "keys", **{".dockerconfigjson": json.dumps({"auths": auths})})


@pytest.mark.parametrize(
    ("host", "key"),
    [
        *((R, key) for key in (R, "R.example.org", f"{R}:443", f"https://{R}", f"https://{R}/", f"http://{R}")),
        *((R, f"https://{R}{rest}") for rest in ("/v1/", "/v2/", "/v2", ":443", ":443/v1/")),
        (f"{R}:443", R),
        (f"{R}:443", f"https://{R}:443"),
        ("R.example.org", "https://R.example.org"),
        ("R.example.org:443", f"https://{R}:443/v1/"),
        (f"{R}:5000", f"https://{R}:5000/v2/"),
        *((host, HUB) for host in ("docker.io", "Docker.io", "docker.io:443", "index.docker.io")),
        *((host, HUB) for host in ("registry-1.docker.io", "Registry-1.docker.io:443")),
        ("Docker.io", "docker.io"),
        *(("docker.io", key) for key in ("https://docker.io", "index.docker.io/v1/", "https://index.docker.io/v2/")),
        ("docker.io", "registry-1.docker.io"),
    ],
)
def test_an_entry_is_read_in_each_form_that_clients_write(tmp_path: Path, host: str, key: str) -> None:
    assert login_of(keys(tmp_path, key), host) == (key, f"password-of-{key}")


@pytest.mark.parametrize(
    ("host", "key"),
    [
        (R, f"{R}:5000"),
        (f"{R}:5000", R),
        (R, f"{R}.example.com"),
        (R, f"{R}/team"),
        ("docker.io", "https://index.docker.io/v1/access-token"),
        ("docker.io", "registry.docker.io"),
    ],
)
def test_an_entry_of_another_registry_or_purpose_is_not_taken(tmp_path: Path, host: str, key: str) -> None:
    with pytest.raises(SourceError) as caught:
        login_of(keys(tmp_path, key), host)
    assert caught.value.code == "SecretKeyNotFound"


@pytest.mark.parametrize("names", [(f"https://{R}/v1/", f"{R}:443", R), (R, f"https://{R}/v1/", f"{R}:443")])
def test_the_key_as_the_address_is_written_comes_first(tmp_path: Path, names: tuple[str, ...]) -> None:
    secret_path = keys(tmp_path, *names)
    assert [login_of(secret_path, host) for host in (R, f"{R}:443", "R.example.org")] == [
        (R, f"password-of-{R}"),
        (f"{R}:443", f"password-of-{R}:443"),
        (R, f"password-of-{R}"),
    ]
