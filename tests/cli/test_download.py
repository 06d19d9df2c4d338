"""`hone download` over its real server: what is served, to whom, and which version is meant."""

from __future__ import annotations

import contextlib
import http.client
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from support.lives.versions import version_spec
from support.servers.app_server import running

from hone_api.kinds.modelversion import Artifact
from hone_cli.download import choose_artifact, fetch_report, into, is_signed, summary
from hone_cli.errors import CommandError
from hone_cli.reach import files, pod
from hone_cli.reach.copying import copy
from hone_cli.reach.guard import digest
from hone_cli.reach.remote_files import RemoteFiles
from hone_cli.versions import chosen, ready, to_serve
from hone_trainer.store import manifest

pytestmark = pytest.mark.trainer

TOKEN = "the-token-of-this-download"


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    (folder / "nested dir").mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_config.json.gz").write_bytes(b"of another file")
    (folder / "nested dir" / "ü?#%2e.bin").write_bytes(bytes(300_000))
    return folder


@pytest.fixture
def url(exported: Path) -> Iterator[str]:
    """The server of the pod, on loopback."""
    with running(files.application(exported, digest(TOKEN))) as address:
        yield address


def test_a_folder_comes_over_as_it_is(url, exported, tmp_path):
    written = manifest.write(exported)
    copied = copy(RemoteFiles(url, TOKEN), tmp_path / "here", written)
    assert copied.files == 3
    assert manifest.verify(tmp_path / "here", written).files == 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder]
    if (mounted := subprocess.run(words, capture_output=True, text=True)).returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_fills_up_meanwhile_keeps_what_came(url, exported, small_disk, monkeypatch) -> None:
    (exported / "weights.bin").write_bytes(bytes(range(256)) * 4096)
    artifact = Artifact(format="Adapter", uri="pvc://s/m", digest=manifest.write(exported), size_bytes=1)
    others, real = small_disk / "of-others", RemoteFiles.read

    def read(source: RemoteFiles, path: str, offset: int) -> Iterator[bytes]:
        for n, piece in enumerate(real(source, path, offset)):
            if path == "weights.bin" and n == 1 and not others.exists():
                with contextlib.suppress(OSError), open(others, "wb", buffering=0) as filled:
                    while filled.write(bytes(4096)):
                        pass
            yield piece

    monkeypatch.setattr(RemoteFiles, "read", read)
    way = "No space left on device: make room in it, and run the same command again, it goes on with what is there"
    with pytest.raises(CommandError, match=f"^{small_disk / 'out'}: {way}$"):
        into(small_disk / "out", RemoteFiles(url, TOKEN), artifact)
    others.write_bytes(b"")
    size = sum(path.stat().st_size for path in exported.rglob("*") if path.name != "manifest.json" and path.is_file())
    assert 0 < into(small_disk / "out", RemoteFiles(url, TOKEN), artifact).read_bytes < size - 300_000
    assert manifest.verify(small_disk / "out", artifact.digest)


def test_a_file_is_read_from_an_offset_on(url):
    assert b"".join(RemoteFiles(url, TOKEN).read("nested dir/ü?#%2e.bin", 299_990)) == bytes(10)


OUTSIDE = [
    "../secret",
    "..%2fsecret",
    "%2e%2e/secret",
    "nested%20dir/../../secret",
    "/etc/passwd",
    "//etc/passwd",
    "link",
    "linked/secret",
    "nested%20dir",
    "nested%20dir/",
    "%00",
    "a" * 5000,
]


@pytest.mark.attack("download server")
@pytest.mark.parametrize("path", OUTSIDE)
def test_nothing_outside_the_folder_is_served(url, exported, path):
    (exported.parent / "secret").write_text("secret")
    (exported / "link").symlink_to(exported.parent / "secret")
    (exported / "linked").symlink_to(exported.parent)
    connection = http.client.HTTPConnection(url.removeprefix("http://"))  # sends the path as it is
    connection.request("GET", files.PREFIX + path, headers={"Authorization": f"Bearer {TOKEN}"})
    response = connection.getresponse()
    assert response.status == 404
    assert b"secret" not in response.read()


@pytest.mark.attack("download server")
@pytest.mark.parametrize("token", ["", "wrong", digest(TOKEN)])
def test_without_the_token_nothing_is_served(url, token):
    with pytest.raises(CommandError, match="401"):
        list(RemoteFiles(url, token).read("adapter_config.json", 0))


DIGEST = "sha256:" + "0" * 64


def version(name: str, model: str, number: int, is_ready: bool = True, **spec: Any) -> dict[str, Any]:
    condition = {"type": "Ready", "status": str(is_ready), "message": "Every file is being hashed."}
    return {
        "apiVersion": "hone.dev/v1alpha1",
        "kind": "ModelVersion",
        "metadata": {"name": name, "namespace": "team", "uid": "v1"},
        "spec": version_spec("Adapter", "pvc://hone-store/models/u1/adapter", "0", number, model) | spec,
        "status": {"conditions": [condition], "downloadPod": {"image": "hone/trainer:1", "imagePullSecrets": ["m"]}},
    }


class Namespace:
    namespace = "team"

    def __init__(self, *versions: dict[str, Any]):
        self.versions = versions

    def model_version(self, name: str) -> dict[str, Any] | None:
        return next((v for v in self.versions if v["metadata"]["name"] == name), None)

    def model(self, name: str) -> dict[str, Any] | None:
        pointing = [{"name": "production", "modelVersion": "bot-v9"}, {"name": "lost", "modelVersion": "bot-v1"}]
        return {"status": {"aliases": pointing}} if name == "bot" else None

    def unfinished_jobs(self, model: str) -> list[str]:
        return ["run-1 is Running"] if model == "training" else []

    def model_versions(self, model: str) -> list[dict[str, Any]]:
        return [v for v in self.versions if v["spec"]["modelName"] == model]


def test_a_model_whose_job_trains_is_said_to_be_underway():
    with pytest.raises(CommandError, match="no ModelVersion for training yet: FineTuneJob run-1 is Running"):
        chosen(Namespace(), "training")
    with pytest.raises(CommandError, match="has no ModelVersion for other"):
        chosen(Namespace(), "other")


def test_the_report_comes_over_alone(url, exported, tmp_path, monkeypatch):
    (exported / "report.html").write_text("<h1>Tutor</h1>")
    artifact = Artifact(format="Adapter", uri="pvc://s/m", digest=manifest.write(exported), size_bytes=1)
    read, real = [], RemoteFiles.read
    monkeypatch.setattr(RemoteFiles, "read", lambda *of: read.append(of[1]) or real(*of))
    fetch_report(RemoteFiles(url, TOKEN), artifact, tmp_path / "bot-v1.html")
    assert (tmp_path / "bot-v1.html").read_text() == "<h1>Tutor</h1>"
    assert read == ["manifest.json", "report.html"]
    (exported / "report.html").write_text("<h1>Other</h1>")
    with pytest.raises(CommandError, match="is not the file that was recorded"):
        fetch_report(RemoteFiles(url, TOKEN), artifact, tmp_path / "other.html")
    (exported / "report.html").unlink()
    (exported / "manifest.json").unlink()
    imported = artifact.model_copy(update={"digest": manifest.write(exported)})
    with pytest.raises(CommandError, match="an imported one has none"):
        fetch_report(RemoteFiles(url, TOKEN), imported, tmp_path / "other.html")
    assert not (tmp_path / "other.html").exists()


def test_the_pod_of_a_chat_sees_the_model_and_its_base_alone():
    body = version("bot-v1", "bot", 1)
    body["spec"]["lineage"]["baseModel"]["location"] = "pvc://shared-models/base-models/b"
    artifact = choose_artifact(body, None)
    made = pod.chat_pod(body, artifact, digest(TOKEN), pod.Room(gpus=1, memory="8Gi"))
    kubernetes_validate.validate(made, "1.32", strict=True)
    [container] = made["spec"]["containers"]
    claims = {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in made["spec"]["volumes"] if v["name"] != "tmp"}
    mounts = {claims[m["name"]]: m for m in container["volumeMounts"] if m["name"] != "tmp"}
    assert {claim: (m["subPath"], m["readOnly"]) for claim, m in mounts.items()} == {
        "hone-store": ("models/u1/adapter", True),
        "shared-models": ("base-models/b", True),
    }
    assert container["command"][-3:] == ["serve-chat", "/files", "/base"]
    assert container["resources"]["limits"] == {"memory": "8Gi", "ephemeral-storage": "256Mi", "nvidia.com/gpu": "1"}


@pytest.mark.parametrize("base", [{}, {"location": "pvc://hone-store/base-models/b", "modelVersion": "older-v1"}])
def test_an_adapter_whose_base_is_in_no_folder_is_not_loaded(base):
    body = version("bot-v1", "bot", 1)
    body["spec"]["lineage"]["baseModel"] |= base
    with pytest.raises(CommandError, match="--form Merged"):
        pod.chat_pod(body, choose_artifact(body, None), digest(TOKEN), pod.Room(0, "2Gi"))


BOT = [version(f"bot-v{n}", "bot", n, is_ready=n != 11) for n in (9, 10, 11)]


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("bot", "bot-v10"),
        ("bot:9", "bot-v9"),
        ("bot-v9", "bot-v9"),
        ("bot:11", "bot-v11"),
        ("bot@production", "bot-v9"),
        ("models://bot@production", "bot-v9"),
        ("models://bot:9", "bot-v9"),
    ],
)
def test_which_version_is_meant(reference, name):
    assert chosen(Namespace(*BOT), reference)["metadata"]["name"] == name


def test_of_two_with_one_number_the_usual_name_counts_as_for_the_operator():
    """Whoever may create ModelVersions could have another one approved."""
    both = [version("bot-v3", "bot", 3), version("bot-v3x", "bot", 3)]
    assert chosen(Namespace(*both), "bot:3")["metadata"]["name"] == "bot-v3"


@pytest.mark.parametrize("reference", ["bot:12", "cat", "bot-v12"])
def test_a_version_that_is_not_there(reference):
    with pytest.raises(CommandError, match="namespace team has no ModelVersion for " + reference):
        chosen(Namespace(*BOT), reference)


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("bot@champion", "no alias champion; it has bot@production, bot@lost"),
        ("cat@production", "no alias production; it has none"),
        ("bot@lost", "bot@lost is ModelVersion bot-v1, which is gone"),
    ],
)
def test_an_alias_that_points_nowhere(reference, told):
    with pytest.raises(CommandError, match=told):
        chosen(Namespace(*BOT), reference)


SCHEMES = ["models://bot", "models://bot-v9", "models:bot@production", "hf://bot@production", "models://models://bot:9"]


@pytest.mark.parametrize(
    "reference", ["", "Bot", "bot:", "bot:x", "bot@", "bot@1:2", "../bot", "bot:99999999", *SCHEMES]
)
def test_a_reference_that_is_none(reference):
    with pytest.raises(CommandError, match="is neither model"):
        chosen(Namespace(*BOT), reference)


def test_a_version_that_is_not_ready_is_refused_in_the_operators_words():
    with pytest.raises(CommandError, match="bot-v11 is not Ready: Every file is being hashed"):
        ready(BOT[2])


def test_several_forms_need_a_choice():
    artifacts = [
        {"format": form, "uri": f"pvc://hone-store/models/u1/{form.lower()}", "digest": DIGEST, "sizeBytes": 1}
        for form in ("Adapter", "GGUF")
    ]
    body = version("bot-v1", "bot", 1, artifacts=artifacts)
    with pytest.raises(CommandError, match="--form Adapter or GGUF"):
        choose_artifact(body, None)
    with pytest.raises(CommandError, match="no form Full; it has Adapter, GGUF"):
        choose_artifact(body, "Full")
    assert choose_artifact(body, "gguf").format == "GGUF"
    with pytest.raises(CommandError, match="--form Adapter or GGUF"):
        choose_artifact(body, "")  # as of a variable that is not set


def test_the_pod_mounts_one_folder_read_only_and_no_secret():
    body = pod.download_pod(BOT[0], choose_artifact(BOT[0], None), digest(TOKEN))
    kubernetes_validate.validate(body, "1.33", strict=True)
    (container,) = body["spec"]["containers"]
    assert container["volumeMounts"][0] == {
        "name": "store",
        "mountPath": "/files",
        "subPath": "models/u1/adapter",
        "readOnly": True,
    }
    assert (container["image"], body["spec"]["imagePullSecrets"]) == ("hone/trainer:1", [{"name": "m"}])
    assert TOKEN not in repr(body)
    assert body["spec"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize("uri", ["hf://owner/name", "pvc://claim", "pvc://claim/../other"])
def test_an_artifact_that_is_on_no_volume(uri):
    artifact = Artifact.model_construct(format="Adapter", uri=uri, digest=DIGEST, size_bytes=1)
    with pytest.raises(CommandError, match="only a folder of a volume"):
        pod.download_pod(BOT[0], artifact, digest(TOKEN))


def test_a_rejected_version_is_reported(tmp_path):
    body = version("bot-v1", "bot", 1, approval={"state": "Rejected", "comment": "worse than its base"})
    copied = copy_of_nothing(tmp_path)
    assert "was rejected: worse than its base" in summary(body, choose_artifact(body, None), tmp_path, copied)


@pytest.mark.parametrize("method", ["SFT", "Reward"])
def test_what_is_printed_after_a_download_works_as_it_is(tmp_path: Path, method: str) -> None:
    """At a shell and on a terminal: a folder has spaces, a comment is what somebody wrote."""
    comment, folder = "worse\x1b]0;mine\x07\nIt needs nothing", tmp_path / "my models"
    body = version("bot-v1", "bot", 1, approval={"state": "Rejected", "comment": comment})
    body["spec"]["lineage"]["method"] = method
    told = summary(body, choose_artifact(body, None), folder, copy_of_nothing(tmp_path))
    assert "\x1b" not in told
    assert "rejected: worse ]0;mine It needs nothing\n" in told
    words = shlex.split(told.splitlines()[-1].rpartition("python -m hone_trainer ")[2])
    assert words[:2] == ["evaluate" if method == "Reward" else "ask", str(folder)]


def copy_of_nothing(folder: Path) -> Any:
    from hone_cli.reach.copying import Copied

    return Copied(files=0, size_bytes=0, read_bytes=0)


@pytest.mark.parametrize(
    ("signature", "signed"),
    [
        ({"key": "0" * 64}, True),
        ({"tries": 3}, False),
        (None, False),
    ],
)
def test_the_signature_of_a_key_is_copied(signature: dict[str, Any] | None, signed: bool) -> None:
    assert is_signed({"status": {"signature": signature}}) is signed
    assert not is_signed({})


def served_version(*states: str, reference: str = "bot") -> tuple[str, str | None]:
    """What `hone serve` takes of versions 1, 2, …: a letter for approved, rejected or candidate, small if not Ready."""
    approval = {"a": {"state": "Approved", "by": "ada"}, "r": {"state": "Rejected"}, "c": {"state": "Candidate"}}
    bodies = [
        version(f"bot-v{n}", "bot", n, is_ready=state.isupper(), approval=approval[state.lower()])
        for n, state in enumerate(states, 1)
    ]
    choice = to_serve(Namespace(*bodies), reference)
    return choice.version["metadata"]["name"], choice.why


@pytest.mark.parametrize(
    ("states", "name", "why"),
    [
        ("CAC", "bot-v2", "the newest approved version of model bot; not approved: bot-v3."),
        ("AA", "bot-v2", "the newest approved version of model bot."),
        ("AR", "bot-v1", "the newest approved version of model bot; not approved: bot-v2."),
        ("Aac", "bot-v1", "that is Ready, which is not true of bot-v2; not approved: bot-v3."),
        ("CCc", "bot-v2", "the newest version of model bot that is Ready; none is approved."),
    ],
)
def test_a_server_of_a_model_gets_the_newest_approved_version(states, name, why):
    chosen_name, words = served_version(*states)
    assert chosen_name == name
    assert words.startswith(f"Chose ModelVersion {name}: ")
    assert words.endswith(why)


def test_a_server_of_a_named_version_gets_that_one():
    assert served_version(*"AC", reference="bot:2") == ("bot-v2", None)
    assert served_version(*"AC", reference="bot-v2") == ("bot-v2", None)


def test_no_candidate_is_served_in_place_of_an_approved_version_that_is_not_ready():
    with pytest.raises(CommandError, match="bot-v1 is not Ready"):
        served_version(*"aC")
    with pytest.raises(CommandError, match="has no ModelVersion for bot"):
        served_version()


def test_an_approved_copy_of_a_number_is_not_served():
    approval = {"state": "Approved", "by": "eve"}
    both = [version("bot-v3", "bot", 3), version("bot-v3x", "bot", 3, approval=approval)]
    assert to_serve(Namespace(*both), "bot").version["metadata"]["name"] == "bot-v3"
