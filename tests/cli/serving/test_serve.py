"""`hone serve`: which form of a model is served where, and objects that each server's own definitions take."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from support.pages.serving_schemas import SPECS
from typer.testing import CliRunner

from hone_api.base.pod_image import PodImage
from hone_cli import serve
from hone_cli.__main__ import application
from hone_cli.errors import CommandError
from hone_cli.serving import following, ollama, vllm
from hone_cli.serving.following import Following
from hone_cli.serving.httproute import Sharing
from hone_cli.serving.models import served
from hone_cli.serving.vllm import Server
from hone_cli.versions import alias_of

pytestmark = pytest.mark.pure
SHAPE = {"parameters": 10, "layers": 2, "hidden": 8, "query": 8, "keyValue": 8, "vocabulary": 10, "intermediate": 8}
LATENT = {"latent": {"rank": 4, "rotary": 4, "expanded": 4, "value": 4}}
IMAGE = PodImage(image="registry/trainer:1", image_pull_secrets=["pull"])
SERVER = Server("bots", "team", "vllm/vllm-openai:v1", IMAGE, gpus=1)


def version(
    model: str, number: int = 1, *forms: str, base: str = "b1", experts: int = 0, latent: bool = False, **spec: Any
) -> dict[str, Any]:
    artifacts = [
        {
            "format": form,
            "uri": f"pvc://store/models/{model}-{number}/{form.lower()}",
            "digest": "sha256:" + "0" * 64,
            "sizeBytes": 1,
        }
        for form in forms or ("Adapter",)
    ]
    lineage = {
        "baseModel": {
            "uri": "hf://owner/base@main",
            "location": f"pvc://store/base-models/{base}",
            "shape": {**SHAPE, "experts": experts, **(LATENT if latent else {})} if experts else None,
            **spec.pop("parent", {}),
        },
        "datasets": [],
        "job": {"name": "run", "uid": "u"},
        "method": spec.pop("method", "SFT"),
        "hyperParameters": {
            "adapter": {"type": "LoRA", "rank": spec.pop("rank", 16), **spec.pop("adapter", {})},
            "training": {"thinking": spec.pop("thinking", "Auto")},
        },
        "seed": 0,
    }
    return {
        "metadata": {"name": f"{model}-v{number}", "namespace": "team"},
        "spec": {"modelName": model, "version": number, "artifacts": artifacts, "lineage": lineage, **spec},
    }


def rendered(to: str, *versions: dict[str, Any], form: str | None = None, **sharing: Any) -> list[Any]:
    """As printed, and each object checked against its definition."""
    objects = list(yaml.safe_load_all(serve.text(serve.render(to, served(versions, form), SERVER, Sharing(**sharing)))))
    for body in objects:
        if spec := SPECS.get((body["apiVersion"], body["kind"])):
            jsonschema.validate(body["spec"], spec)
        else:
            kubernetes_validate.validate(body, "1.32", strict=True)
        assert body["metadata"]["namespace"] == "team"
    return objects


def arguments(deployment: dict[str, Any]) -> list[str]:
    return list(deployment["spec"]["template"]["spec"]["containers"][0]["args"])


def test_adapters_on_one_base_share_a_server():
    deployment, service, _ = rendered("vllm", version("support", rank=16), version("faq", 3, rank=64))
    asked = arguments(deployment)
    assert asked[asked.index("--max-lora-rank") + 1] == "64"
    assert asked[asked.index("--lora-modules") + 1 :] == ["support=/adapters/support", "faq=/adapters/faq"]
    assert asked[asked.index("--served-model-name") + 1] == "owner/base"
    mounts = {m["mountPath"]: m for m in deployment["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert mounts["/base"]["subPath"] == "base-models/b1"
    assert mounts["/adapters/faq"]["subPath"] == "models/faq-3/adapter"
    assert all(m["readOnly"] for path, m in mounts.items() if path not in ("/tmp", "/dev/shm"))
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]


def test_names_that_kubectl_reads_as_numbers_are_quoted():
    server = Server("1e5", "team", "vllm/vllm-openai:v1", IMAGE, gpus=1)
    text = serve.text(serve.render("vllm", served([version("1e5")], None), server, Sharing()))
    assert "name: '1e5'" in text
    assert not re.search(r": 1e5$", text, re.M)


def test_adapters_on_experts_are_loaded_with_the_settings_that_vllm_needs():
    attention = version("plain", experts=4, adapter={"targets": ["q_proj", "shared_experts.up_proj"]})
    asked = arguments(rendered("vllm", version("bot", experts=4), attention)[0])
    assert "--enable-mixed-moe-lora-format" in asked
    loaded, plain = asked[asked.index("--lora-modules") + 1 :]
    assert json.loads(loaded) == {"name": "bot", "path": "/adapters/bot", "is_3d_lora_weight": True}
    assert plain == "plain=/adapters/plain"
    assert "--enable-mixed-moe-lora-format" not in arguments(rendered("vllm", attention)[0])


def test_prompts_of_adapters_have_the_switch_that_they_were_trained_with():
    """The server renders them by the base's template; a whole model has the default in its own."""
    asked = arguments(rendered("vllm", version("bot", thinking="Disabled"), version("faq", thinking="Disabled"))[0])
    switches = json.loads(asked[asked.index("--default-chat-template-kwargs") + 1])
    assert switches == {"enable_thinking": False, "thinking": False}
    whole, plain = version("bot", 1, "Merged", thinking="Disabled"), version("faq")
    assert all("--default-chat-template-kwargs" not in arguments(rendered("vllm", v)[0]) for v in (whole, plain))


def test_versions_of_one_model_are_asked_for_by_their_own_names():
    deployment, *_ = rendered("vllm", version("bot", 3), version("bot", 4), version("faq", 1))
    assert arguments(deployment)[-3:] == ["bot-v3=/adapters/bot-v3", "bot-v4=/adapters/bot-v4", "faq=/adapters/faq"]


@pytest.mark.parametrize(
    ("given", "folder", "flags"),
    [
        (version("bot", 1, "Full"), "models/bot-1/full", []),
        (version("bot", 1, "Adapter", "Merged", parent={"modelVersion": "older-v1"}), "models/bot-1/merged", []),
        (version("bot", 1, "Merged", method="Reward"), "models/bot-1/merged", ["--runner", "pooling"]),
        (version("bot", 1, "Adapter", "Merged", rank=1024), "models/bot-1/merged", []),
    ],
)
def test_a_whole_model_is_served_where_no_adapter_can_be(given, folder, flags):
    deployment, *_ = rendered("vllm", given)
    asked = arguments(deployment)
    assert asked[:4] == ["--model", "/base", "--served-model-name", "bot"]
    assert [a for a in asked if a in ("--runner", "pooling", "--enable-lora")] == flags
    assert deployment["spec"]["template"]["spec"]["containers"][0]["volumeMounts"][0]["subPath"] == folder


@pytest.mark.parametrize("follows", [False, True])
def test_pods_of_the_namespace_and_of_those_named_reach_a_server(follows):
    server = Server("bots", "team", "image", IMAGE, allow_from=("web", "gateways", "web"))
    models = served([version("bot")])
    aliases = Following([("bot", "production")])
    objects = following.render(models, server, aliases) if follows else vllm.render(models, server)
    deployment, policy = objects[0]["spec"]["template"], objects[-1]
    kubernetes_validate.validate(policy, "1.32", strict=True)
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= deployment["metadata"]["labels"].items()
    asked, *others = policy["spec"]["ingress"]
    named = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["gateways", "web"]}
    assert asked["from"] == [{"podSelector": {}}, {"namespaceSelector": {"matchExpressions": [named]}}]
    pod = deployment["spec"]
    ports = {p["name"] for c in [*pod["containers"], *pod["initContainers"]] for p in c.get("ports", [])}
    assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} == ports
    assert all("from" not in rule for rule in others)


@pytest.mark.parametrize(
    ("to", "form", "pods"),
    [
        ("kserve", "Full", {"serving.kserve.io/inferenceservice": "bots"}),
        (
            "kserve-llm",
            "Adapter",
            {
                "app.kubernetes.io/name": "bots",
                "app.kubernetes.io/part-of": "llminferenceservice",
                "kserve.io/component": "workload",
            },
        ),
    ],
)
def test_the_pods_of_kserve_are_closed_where_its_gateway_is_named(to, form, pods):
    models, render = served([version("bot", 1, form)]), serve.SERVERS[to]
    assert len(render(models, Server("bots", "team", "image", IMAGE))) == 1
    _, policy = render(models, Server("bots", "team", "image", IMAGE, allow_from=("gateways",)))
    kubernetes_validate.validate(policy, "1.32", strict=True)
    named = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["gateways"]}
    sources = [{"podSelector": {}}, {"namespaceSelector": {"matchExpressions": [named]}}]
    assert policy["spec"] == {
        "podSelector": {"matchLabels": pods},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": sources}],
    }


@pytest.mark.parametrize(
    ("status", "image"),
    [({"downloadPod": {"image": "t:1", "vllmImage": "r.example/vllm:1"}}, "r.example/vllm:1"), (None, serve.IMAGE)],
)
def test_the_image_of_vllm_is_that_of_the_platform(status, image):
    assert serve._image_of({**version("bot"), "status": status}) == image


def test_the_clients_key_comes_from_a_secret():
    server = Server("bots", "team", "image", IMAGE, gpus=2, api_key_secret="keys")
    deployment = serve.render("vllm", served([version("bot")]), server, Sharing())[0]
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "keys", "key": "API_KEY"} in [e.get("valueFrom", {}).get("secretKeyRef") for e in container["env"]]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    assert container["args"][container["args"].index("--tensor-parallel-size") + 1] == "2"


def followed(*versions: dict[str, Any], rank: int | None = None, aliases: str = "production") -> Any:
    names = [(v["spec"]["modelName"], alias) for v in versions for alias in aliases.split()]
    objects = following.render(served(versions), SERVER, Following(names, rank))
    for body in objects:
        kubernetes_validate.validate(body, "1.32", strict=True)
    return objects[0]["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    "parent", [{"uri": "hf://openai/gpt-oss-20b"}, {"shape": {**SHAPE, "experts": 4, "modelType": "gpt_oss"}}]
)
def test_gpt_oss_is_followed_without_the_settings_of_other_mixtures(parent):
    of_gpt_oss = version("bot", experts=4, parent=parent)
    assert "--enable-mixed-moe-lora-format" not in followed(of_gpt_oss)["containers"][0]["args"]
    asked = arguments(rendered("vllm", of_gpt_oss)[0])
    assert asked[-1] == "bot=/adapters/bot"
    assert "--enable-mixed-moe-lora-format" not in asked


def test_a_followed_mixture_takes_experts_of_later_versions():
    attention = version("bot", experts=4, adapter={"targets": ["q_proj"]})
    assert "--enable-mixed-moe-lora-format" in followed(attention)["containers"][0]["args"]
    assert "--enable-mixed-moe-lora-format" not in followed(version("bot"))["containers"][0]["args"]


RECORDED = {"digest": "sha256:" + "b" * 64}
"""Of a base."""


def checked(pod: dict[str, Any]) -> list[str]:
    """What the first container compares, before any other starts."""
    verify = pod["initContainers"][0]
    assert (verify["name"], verify["image"], verify.get("restartPolicy")) == ("verify", IMAGE.image, None)
    assert verify["command"][:4] == ["python", "-m", "hone_trainer", "verify"]
    assert verify["command"][4::2] == ["--folder"] * len(verify["command"][5::2])
    by_path = {m["mountPath"]: m for m in verify["volumeMounts"]}
    [vllm] = pod["containers"]
    folders = [folder.partition("=")[0] for folder in verify["command"][5::2]]
    assert [by_path[path] for path in folders] == [m for m in vllm["volumeMounts"] if m["mountPath"] in folders]
    assert all(by_path[path]["readOnly"] for path in folders)
    assert pod["imagePullSecrets"] == [{"name": "pull"}]
    return list(verify["command"][5::2])


ZEROS = "sha256:" + "0" * 64


def test_every_mounted_folder_is_verified_before_the_server_starts() -> None:
    deployment = rendered("vllm", version("support", parent=RECORDED), version("faq", 3))[0]
    assert checked(deployment["spec"]["template"]["spec"]) == [
        f"/base={RECORDED['digest']}",
        f"/adapters/support={ZEROS}",
        f"/adapters/faq={ZEROS}",
    ]


def test_a_base_without_a_record_is_not_verified_and_its_adapters_are() -> None:
    deployment = rendered("vllm", version("support"))[0]
    assert checked(deployment["spec"]["template"]["spec"]) == [f"/adapters/support={ZEROS}"]


def test_a_whole_model_is_verified_by_its_own_digest() -> None:
    deployment = rendered("vllm", version("bot", 1, "Full", parent=RECORDED))[0]
    assert checked(deployment["spec"]["template"]["spec"]) == [f"/base={ZEROS}"]


def test_a_server_that_follows_verifies_the_base_first() -> None:
    pod = followed(version("support", parent=RECORDED), version("faq"))
    assert checked(pod) == [f"/base={RECORDED['digest']}"]
    assert [container["name"] for container in pod["initContainers"]] == ["verify", "follow"]


def test_adapters_that_record_different_files_of_one_base_are_refused() -> None:
    other = version("faq", parent={"digest": "sha256:" + "c" * 64})
    with pytest.raises(CommandError, match="support-v1 and faq-v1 record different files of one base"):
        rendered("vllm", version("support", parent=RECORDED), other)


def test_a_server_follows_aliases():
    pod = followed(version("support", rank=16), version("faq", 3, rank=64))
    [vllm], [follower] = pod["containers"], pod["initContainers"]
    assert "--lora-modules" not in vllm["args"]
    assert vllm["args"][vllm["args"].index("--max-cpu-loras") + 1] == "4", "also what requests in progress use"
    assert follower["restartPolicy"] == "Always", "it starts before vLLM, and ends after it"
    assert follower["command"][-4:] == ["--alias", "support=support@production", "--alias", "faq=faq@production"]
    assert pod["imagePullSecrets"] == [{"name": "pull"}]
    writable = [(c["name"], m["mountPath"]) for c in (vllm, follower) for m in c["volumeMounts"] if "readOnly" not in m]
    assert writable == [("vllm", "/tmp"), ("vllm", "/dev/shm"), ("follow", "/adapters"), ("follow", "/tmp")]
    assert pod["automountServiceAccountToken"] is False
    assert [m["mountPath"] for m in vllm["volumeMounts"] if m["name"] == "store"] == ["/base"], "it sees no other model"
    [aliases] = [v["configMap"] for v in pod["volumes"] if v["name"] == "aliases"]
    assert aliases["optional"]
    assert [item["key"] for item in aliases["items"]] == ["support.json", "faq.json"]


def test_only_the_follower_may_change_the_adapters():
    [vllm] = followed(version("bot"))["containers"]
    assert vllm["args"][-2:] == ["--middleware", "hone_adapter_guard.AdapterGuard"]
    assert {"name": "PYTHONPATH", "value": "/adapters/.guard"} in vllm["env"]


def test_several_aliases_of_one_model_are_asked_for_by_both_names():
    pod = followed(version("bot"), aliases="production candidate", rank=128)
    told = [a for a in pod["initContainers"][0]["command"] if "=" in a]
    assert told == ["bot@production=bot@production", "bot@candidate=bot@candidate"]
    args = pod["containers"][0]["args"]
    assert args[args.index("--max-lora-rank") + 1] == "128"


@pytest.mark.parametrize(
    ("versions", "rank", "told"),
    [
        ([version("bot", 1, "Full")], None, "served as Full: only an adapter can be exchanged"),
        ([version("bot", rank=64)], 16, "--max-lora-rank 16 is below that of the versions of today, 64"),
    ],
)
def test_what_cannot_be_followed_is_refused(versions, rank, told):
    with pytest.raises(CommandError, match=told):
        followed(*versions, rank=rank)


def test_only_approved_aliases_are_followed():
    assert alias_of("bot@production") == alias_of("models://bot@production") == ("bot", "production")
    for other in ("bot:3", "models://bot:3", "models://bot"):
        with pytest.raises(CommandError, match="is not model@alias"):
            alias_of(other)
    yes = version("bot", approval={"state": "Approved", "by": "ada"})
    assert serve.approved([yes]) == [yes]
    with pytest.raises(CommandError, match="bot-v1 is not approved"):
        serve.approved([yes, version("bot")])


def test_kserve():
    [body] = rendered("kserve-llm", version("support"), version("faq", 3, rank=64))
    assert body["spec"]["model"]["uri"] == "pvc://store/base-models/b1"
    assert body["spec"]["model"]["lora"]["maxRank"] == 64
    [body] = rendered("kserve", version("bot", 1, "Full"))
    assert body["spec"]["predictor"]["model"]["storageUri"] == "pvc://store/models/bot-1/full"


def test_a_route_shares_requests_out_over_the_servers_of_versions():
    versions = version("bot", 3), version("bot", 4)
    [body] = rendered("httproute", *versions, weights="100,0", gateway="infra/public")
    [rule] = body["spec"]["rules"]
    assert body["spec"]["parentRefs"] == [{"name": "public", "namespace": "infra"}]
    assert rule["backendRefs"] == [
        {"name": "bot-v3", "port": 8000, "weight": 100},
        {"name": "bot-v4", "port": 8000, "weight": 0},
    ]
    deployment, service = (vllm.render(served([versions[1]]), Server("bot-v4", "team", "i", IMAGE))[n] for n in (0, 1))
    arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    assert service["metadata"]["name"] == "bot-v4"
    assert service["spec"]["ports"][0]["port"] == 8000
    assert "bot=/adapters/bot" in arguments  # so clients ask each server for `bot`


def test_the_route_of_a_model_keeps_its_name_from_one_version_to_the_next():
    def printed(*numbers: int) -> str:
        versions = [version("bot", number) for number in numbers]
        wishes = serve.Wishes(None, None, Sharing("90,10", gateway="public"))
        [body] = serve._render_chosen("httproute", [], versions, wishes, lambda name: Server(name, "team", "i", IMAGE))
        return body["metadata"]["name"]

    assert printed(3, 4) == printed(4, 5) == "bot"


def test_a_route_copies_requests_to_later_versions():
    [body] = rendered("httproute", version("bot", 3), version("bot", 4), mirror=True, gateway="public")
    [rule] = body["spec"]["rules"]
    assert body["spec"]["parentRefs"] == [{"name": "public"}]
    assert [backend["name"] for backend in rule["backendRefs"]] == ["bot-v3"]
    assert rule["filters"] == [
        {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "bot-v4", "port": 8000}}}
    ]


@pytest.mark.parametrize("to", ["vllm", "kserve-llm"])
@pytest.mark.parametrize(("folder", "name"), [("bot", "bot-base"), ("base", "base"), ("bot-v3", "bot-v3-base")])
def test_the_base_has_another_name_than_its_adapters(to: str, folder: str, name: str) -> None:
    """A base on a volume is called by its folder. Of one name, vLLM answers by the base or by the adapter."""
    versions = [version("bot", number, parent={"uri": f"pvc://models/{folder}"}) for number in (3, 4)]
    for asked in (versions, versions[:1]):
        body = rendered(to, *asked)[0]
        if to == "vllm":
            words = arguments(body)
            names = [words[words.index("--served-model-name") + 1]]
            names += [word.partition("=")[0] for word in words[words.index("--lora-modules") + 1 :]]
        else:
            names = [body["spec"]["model"]["name"], *(a["name"] for a in body["spec"]["model"]["lora"]["adapters"])]
        assert len(set(names)) == len(asked) + 1
        if len(asked) == 2:
            assert names[0] == name


@pytest.mark.parametrize("claim", ["tmp", "shm", "adapters", "aliases", "my.store", "s" * 64, "store"])
@pytest.mark.parametrize("follow", [False, True])
def test_a_claim_of_any_name_is_mounted(claim: str, follow: bool) -> None:
    bot = version("bot")
    bot["spec"]["artifacts"][0]["uri"] = f"pvc://{claim}/models/bot-1/adapter"
    models = served([bot])
    if follow:
        aliases = Following([alias_of("bot@production")])
        deployment = following.render(models, SERVER, aliases)[0]
    else:
        deployment = vllm.render(models, SERVER)[0]
    kubernetes_validate.validate(deployment, "1.32", strict=True)
    pod = deployment["spec"]["template"]["spec"]
    names = [volume["name"] for volume in pod["volumes"]]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name) for name in names)
    claims = {
        v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v
    }
    assert set(claims.values()) == {"store", claim}
    containers = [*pod["containers"], *pod.get("initContainers", ())]
    mounts = {m["mountPath"]: m["name"] for container in containers for m in container["volumeMounts"]}
    assert set(mounts.values()) <= set(names)
    assert claims[mounts["/models" if follow else "/adapters/bot"]] == claim
    assert (claim in names) == (claim == "store" or claim in ("tmp", "shm", *(("adapters", "aliases") * follow)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--api-key-secret", ""],
            "--api-key-secret '' is not the name of a Secret: without a key",
        ),
        (["--api-key-secret", "My_Key"], "'My_Key' is not the name of a Secret"),
        (["--to", "httproute", "--api-key-secret", "key"], "--api-key-secret is for --to vllm: httproute prints no"),
        (["--to", "ollama", "--api-key-secret", "key"], "ollama prints no server"),
        (["--to", "ollama", "--follow"], "--follow and --max-lora-rank are for --to vllm"),
        (["--to", "ollama", "--max-lora-rank", "64"], "--follow and --max-lora-rank are for --to vllm"),
        (["--to", "ollama", "--weights", "90,10"], "are for --to httproute"),
        (["--to", "ollama", "--mirror"], "are for --to httproute"),
        (["--to", "httproute", "--allow-from", "web"], "kserve and kserve-llm: httproute prints no NetworkPolicy"),
        (["--allow-from", "Web"], "--allow-from 'Web' is not the name of a namespace"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(options: list[str], words: str) -> None:
    """Before a cluster is asked: there is none here."""
    result = CliRunner().invoke(application(), ["serve", "bot", *options])
    assert isinstance(result.exception, CommandError)
    assert words in str(result.exception)


def test_an_alias_is_followed_once() -> None:
    aliases = Following([alias_of("bot@production")] * 2)
    with pytest.raises(CommandError, match="bot@production is named twice"):
        following.render(served([version("bot")]), SERVER, aliases)


def test_ollama_runs_the_file_of_the_download():
    text = ollama.modelfile(served([version("bot", 2, "GGUF", "Full")], "GGUF"))
    assert text.splitlines()[-1] == "FROM ./bot.gguf"


DORA = version("bot")
DORA["spec"]["lineage"]["hyperParameters"]["adapter"]["type"] = "DoRA"
UNKNOWN_BASE = version("bot")
del UNKNOWN_BASE["spec"]["lineage"]["baseModel"]["location"]
OUTSIDE = version("bot")
OUTSIDE["spec"]["artifacts"][0]["uri"] = "pvc://store/../other"


@pytest.mark.parametrize(
    ("to", "versions", "options", "told"),
    [
        (
            "vllm",
            [version("a"), version("b", base="b2")],
            {},
            "one server has one base.*models/b1.*models/b2",
        ),
        ("vllm", [version("a"), version("b", 1, "Full")], {}, "one server has one base"),
        ("vllm", [version("a", 1, "Full"), version("b", 1, "Full")], {}, "one whole model or several adapters"),
        ("vllm", [version("a"), version("a")], {}, "a-v1 is named twice"),
        ("vllm", [version("a", 3), version("a", 4), version("a-v3")], {}, "both a-v3 and a-v3-v1 by the name a-v3: "),
        ("vllm", [version("a", approval={"state": "Rejected", "comment": "worse"})], {}, "was rejected: worse"),
        ("vllm", [DORA], {}, "does not load it: a DoRA adapter; train with output.merge"),
        ("vllm", [DORA], {"form": "Adapter"}, "does not load its adapter"),
        ("vllm", [version("a")], {"form": "Merged"}, "no form Merged; it has adapter"),
        ("vllm", [version("a", 1, "GGUF")], {"form": "GGUF"}, "--to ollama"),
        ("vllm", [version("a", 1, "GGUF")], {}, "neither an adapter nor a merged model"),
        ("kserve-llm", [version("a", experts=4)], {}, "KServe does not set it: use --to vllm"),
        ("kserve-llm", [version("a", thinking="Enabled")], {}, "a-v1 was trained with training.thinking, which KServe"),
        ("vllm", [version("a"), version("b", thinking="Enabled")], {}, "a-v1 and b-v1 were trained with different"),
        ("vllm", [version("a", experts=4, latent=True)], {}, "does not load it: an adapter on experts of a model with"),
        ("vllm", [UNKNOWN_BASE], {}, "does not say where its base is"),
        ("vllm", [OUTSIDE], {}, "only a folder of a volume"),
        ("vllm", [version("a")], {"weights": "1"}, "--gateway are for --to httproute"),
        ("vllm", [version("a")], {"mirror": True}, "--mirror and --gateway are for --to httproute"),
        ("httproute", [version("a")], {"weights": "1"}, "needs --gateway NAME"),
        ("httproute", [version("a")], {"weights": "1", "gateway": "a/b/c"}, "needs --gateway NAME"),
        ("httproute", [version("a")], {"weights": "1", "gateway": "infra/"}, "needs --gateway NAME"),
        ("httproute", [version("a")], {"gateway": "g"}, "needs a number from 0 on for each version"),
        ("httproute", [version("a", 1), version("a", 2)], {"weights": "0,0", "gateway": "g"}, "a number from 0 on"),
        ("httproute", [version("a", 1), version("a", 2)], {"weights": "1,-1", "gateway": "g"}, "a number from 0 on"),
        ("httproute", [version("a"), version("b")], {"weights": "1,2", "gateway": "g"}, "versions of one model"),
        ("httproute", [version("a")], {"mirror": True, "gateway": "g"}, "one or more that get copies"),
        ("httproute", [version("a", n) for n in range(1, 18)], {"mirror": True, "gateway": "g"}, "at most 16 versions"),
        ("httproute", [version("a")], {"mirror": True, "weights": "1", "gateway": "g"}, "leave --weights out"),
        ("tgi", [version("a")], {}, "no server 'tgi': --to is one of vllm, kserve"),
        ("kserve", [version("a")], {}, "use --to kserve-llm"),
    ],
)
def test_what_one_server_cannot_serve_is_refused(to, versions, options, told):
    with pytest.raises(CommandError, match=told):
        rendered(to, *versions, **options)
