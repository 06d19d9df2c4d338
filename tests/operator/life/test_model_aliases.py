"""A Model at a real API server: it appears by itself, people pin its aliases, and deleting it loses no version."""

import itertools
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.cluster.kube import path
from support.lives.versions import adapter_version, version_spec

pytestmark = pytest.mark.apiserver


def applied(namespace, manager, version):
    """As Argo CD, Flux or `kubectl apply --server-side` of a person applies a Model with one alias."""
    spec = {"aliases": [{"name": "production", "version": version}]}
    body = {"apiVersion": "hone.dev/v1alpha1", "kind": "Model", "metadata": {"name": "tutor"}, "spec": spec}
    target = f"{path('Model', namespace.name, 'tutor')}?fieldManager={manager}"
    return namespace.kube.call("PATCH", target, body, "application/apply-patch+yaml")


def status(namespace, kind="Model", name="tutor"):
    """The status; empty until the operator has written one."""
    return namespace.get(kind, name).get("status") or {}


def target(namespace):
    aliases = status(namespace).get("aliases", ())
    return {alias["name"]: alias["modelVersion"] for alias in aliases}


def test_a_model_appears_and_its_aliases_are_the_peoples(namespace, operator, spec, result):
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec())
    namespace.until(lambda: namespace.get("Job", "run-1"), "attempt 1")
    assert not namespace.names("Model"), "who applies it together with the job must find the name free"
    namespace.succeed("run-1", result)
    made = namespace.until(lambda: namespace.get("Model", "tutor"), "the Model of the job's output")
    assert made["spec"] == {}
    assert "ownerReferences" not in made["metadata"]
    applied(namespace, "argocd", 1)
    verify = namespace.until(lambda: [n for n in namespace.names("Job") if "verify" in n], "a verify Job")[0]
    namespace.succeed(verify, {"kind": "Verify", "files": 3, "sizeBytes": 7})
    namespace.until(lambda: target(namespace) == {"production": "tutor-v1"}, "the alias points to the version")
    assert namespace.condition("Model", "tutor", "Ready")["status"] == "True"
    # Git finds no difference: the operator owns nothing below spec.
    fields = namespace.get("Model", "tutor")["metadata"]["managedFields"]
    owned = [f["manager"] for f in fields if "f:aliases" in f["fieldsV1"].get("f:spec", {})]
    assert owned == ["argocd"]
    with pytest.raises(RuntimeError, match="conflict"):
        applied(namespace, "somebody-else", 2)

    namespace.delete("Model", "tutor")
    namespace.create("FineTuneJob", "second", spec())
    namespace.until(lambda: namespace.get("Job", "second-1"), "attempt 1")
    namespace.succeed("second-1", result)
    namespace.until(lambda: status(namespace).get("versions") == 2, "it is there again, empty")
    assert namespace.get("Model", "tutor")["spec"] == {}
    assert namespace.names("ModelVersion") == ["tutor-v1", "tutor-v2"]


def test_a_model_that_was_there_first_stays_as_it_is(namespace, operator, spec):
    made = namespace.create("Model", "tutor", {"aliases": [{"name": "production", "version": 3}]})
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec())
    namespace.until(lambda: namespace.get("Job", "run-1"), "attempt 1")
    namespace.until(
        lambda: namespace.condition("Model", "tutor", "Ready").get("reason") == "ModelVersionNotFound", "it waits"
    )
    assert namespace.get("Model", "tutor")["spec"] == made["spec"]
    assert namespace.get("Model", "tutor")["metadata"]["generation"] == 1


def version(namespace, number, job, **evaluation):
    """A ModelVersion of tutor whose files were verified."""
    base = {"uri": "hf://org/model", "commit": "abc", "location": "pvc://hone-store/base-models/x"}
    uri = f"pvc://hone-store/models/{job}/1/merged"
    numbers = [{"name": "loss", "tuned": "1.0", "low": "0.9", "high": "1.1"}]
    spec = version_spec("Merged", uri, str(number), number, baseModel=base, job={"name": job, "uid": job})
    namespace.create("ModelVersion", f"tutor-v{number}", spec | {"evaluation": {"numbers": numbers, **evaluation}})
    prefix = f"tutor-v{number}-verify"
    job = namespace.until(lambda: [n for n in namespace.names("Job") if n.startswith(prefix)], "a verify Job")[0]
    namespace.succeed(job, {"kind": "Verify", "files": 3, "sizeBytes": 7})


def approve(namespace, number):
    namespace.patch("ModelVersion", f"tutor-v{number}", {"spec": {"approval": {"state": "Approved", "by": "ada"}}})


def test_a_promotion_moves_an_alias_and_a_job_keeps_the_version_it_meant(namespace, operator, spec):
    namespace.until(operator.ready, "ready")
    for number in (1, 2, 3):
        version(namespace, number, f"earlier-{number}")
    promotion = {"policy": "Automatic", "aliases": ["champion"], "gates": [{"metric": "loss", "atMost": "1.1"}]}
    namespace.create("Model", "tutor", {"promotion": promotion})
    namespace.until(lambda: [c["version"] for c in status(namespace).get("candidates", ())] == [3, 2, 1], "candidates")
    assert target(namespace) == {}
    approve(namespace, 2)
    namespace.until(lambda: target(namespace) == {"champion": "tutor-v2"}, "the alias")
    namespace.until(
        lambda: status(namespace, "ModelVersion", "tutor-v2").get("aliases") == "champion", "the column of version 2"
    )

    namespace.dataset()
    namespace.create("FineTuneJob", "next", spec(model={"uri": "models://tutor@champion"}))
    namespace.until(lambda: namespace.get("Job", "next-1"), "attempt 1")
    namespace.until(lambda: status(namespace, "FineTuneJob", "next").get("baseModelVersion") == "tutor-v2", "the base")
    approve(namespace, 3)
    namespace.until(lambda: target(namespace) == {"champion": "tutor-v3"}, "the alias")
    namespace.until(lambda: "aliases" not in namespace.get("ModelVersion", "tutor-v2")["status"], "column")
    job = status(namespace, "FineTuneJob", "next")
    assert (job["baseModelVersion"], job["resolved"]["modelVersion"]["name"]) == ("tutor-v2", "tutor-v2")


def test_a_version_that_is_measured_next_to_the_champion_replaces_it(namespace, operator):
    namespace.until(operator.ready, "ready")
    namespace.dataset()
    for number in (1, 2):
        version(namespace, number, f"earlier-{number}", against="")
    gates = [{"metric": "loss", "dataset": "rows/validation", "value": "Against", "atMost": "0"}]
    namespace.create("Model", "tutor", {"promotion": {"policy": "Automatic", "aliases": ["champion"], "gates": gates}})
    approve(namespace, 1)
    namespace.until(lambda: target(namespace) == {"champion": "tutor-v1"}, "there is none to be better than")
    approve(namespace, 2)
    asked = {"dataset": "rows", "against": "models://tutor@champion"}
    namespace.patch("ModelVersion", "tutor-v2", {"spec": {"evaluations": [asked]}})

    def measuring():
        return [name for name in namespace.names("Job") if name.startswith("tutor-v2-measure")]

    def evaluated():
        entries = status(namespace, "ModelVersion", "tutor-v2").get("evaluations") or [{}]
        return entries[0].get("state"), entries[0].get("against"), entries[0].get("digest", "")[-1:]

    loss = {"name": "loss", "dataset": "rows/validation", "tuned": "1", "against": "2"}
    loss |= {"againstLow": "-1.2", "againstHigh": "-0.8"}
    [job] = namespace.until(measuring, "a Job that measures")
    assert target(namespace) == {"champion": "tutor-v1"}
    namespace.succeed(job, {"kind": "Measure", "numbers": [loss]})
    namespace.until(lambda: target(namespace) == {"champion": "tutor-v2"}, "it is better")
    namespace.until(lambda: evaluated() == ("Measured", "tutor-v1", "0"), "the status has the numbers")
    namespace.until(lambda: not measuring(), "its Job is gone, and no other one began when the alias moved")

    namespace.patch("Dataset", "rows", {"status": {"digest": "sha256:" + "1" * 64}}, "status")
    [job] = namespace.until(measuring, "a Job on the rows of this week")
    worse = loss | {"againstLow": "0.1", "againstHigh": "0.3"}
    namespace.succeed(job, {"kind": "Measure", "numbers": [worse]})
    namespace.until(lambda: evaluated() == ("Measured", "tutor-v1", "1"), "with the version that it replaced")
    namespace.until(lambda: status(namespace)["candidates"][0]["gates"] == "Failed", "the Model says so")
    assert target(namespace) == {"champion": "tutor-v2"}, "a person decides about a rollback"


def register(namespace):
    """Do what the plan of each Job says that registers; their plans."""
    plans = []
    for name in [name for name in namespace.names("Job") if "register" in name]:
        job = namespace.get("Job", name)
        if not job or job.get("status", {}).get("conditions"):
            continue
        assert [(owner["kind"], owner["name"]) for owner in job["metadata"]["ownerReferences"]] == [("Model", "tutor")]
        volumes = job["spec"]["template"]["spec"]["volumes"]
        [config] = [volume["configMap"]["name"] for volume in volumes if "configMap" in volume]
        plan = json.loads(namespace.get("ConfigMap", config)["data"]["plan.json"])
        numbers = [{"version": entry["version"], "registered": str(entry["version"] + 4)} for entry in plan["versions"]]
        result = {"kind": "Register", "versions": numbers, "aliases": plan["aliases"], "removed": plan["remove"]}
        namespace.succeed(name, result)
        plans.append(plan)
    return plans


def test_a_promotion_reaches_the_registry(namespace, operator):
    namespace.until(operator.ready, "ready")
    for number in (1, 2):
        version(namespace, number, f"earlier-{number}")
    registry = {"mlflow": {"uri": "https://mlflow.example.org", "secretName": "hone-mlflow"}}
    spec = {"registry": registry, "promotion": {"policy": "Automatic", "aliases": ["champion"]}}
    namespace.create("Model", "tutor", spec)
    plans = []

    def there(number):
        plans.extend(register(namespace))
        known = status(namespace).get("registry", {})
        return [alias["version"] for alias in known.get("aliases", ())] == [number] and known

    for number in (1, 2):
        approve(namespace, number)
        known = namespace.until(lambda number=number: there(number), f"champion at {number} in the registry")
    assert known["versions"] == [{"version": 1, "registered": "5"}, {"version": 2, "registered": "6"}]
    assert {entry["source"] for plan in plans for entry in plan["versions"]} == {
        f"pvc://hone-store/models/earlier-{number}/1/merged" for number in (1, 2)
    }
    registered = namespace.until(
        lambda: namespace.condition("Model", "tutor", "Registered").get("status") == "True" and status(namespace), "it"
    )
    assert registered["registry"]["uri"] == "https://mlflow.example.org"


def test_one_alias_has_one_writer(namespace):
    promotion = {"aliases": ["champion"]}
    with pytest.raises(RuntimeError, match="an alias has one writer"):
        namespace.create("Model", "tutor", {"promotion": promotion, "aliases": [{"name": "champion", "version": 1}]})
    with pytest.raises(RuntimeError, match="an alias is not called like a version"):
        namespace.create("Model", "tutor", {"promotion": {"aliases": ["champion", "v3"]}})
    with pytest.raises(RuntimeError, match="set atMost, atLeast or both"):
        namespace.create("Model", "tutor", {"promotion": promotion | {"gates": [{"metric": "loss"}]}})


@pytest.mark.parametrize(
    ("name", "aliases", "message"),
    [
        ("tutor", [{"name": "v3", "version": 3}], "an alias is not called like a version"),
        ("tutor", [{"name": "a", "version": 1}, {"name": "a", "version": 2}], "Duplicate value"),
        ("tutor", [{"name": "a", "version": 0}], "should be greater than or equal to 1"),
        ("tutor.v1", [], "metadata.name is the name of a model"),
        ("a" * 51, [], "metadata.name is the name of a model"),
    ],
)
def test_what_a_model_may_not_be_is_refused_with_the_way_out(namespace, name, aliases, message):
    with pytest.raises(RuntimeError, match=message):
        namespace.create("Model", name, {"aliases": aliases})


def adapter(namespace, number):
    """A version of tutor that vLLM loads as an adapter."""
    namespace.create("ModelVersion", f"tutor-v{number}", adapter_version(number))
    prefix = f"tutor-v{number}-verify"
    job = namespace.until(lambda: [n for n in namespace.names("Job") if n.startswith(prefix)], "a verify Job")[0]
    namespace.succeed(job, {"kind": "Verify", "files": 3, "sizeBytes": 7})


def served(namespace):
    """Digest of the adapter that servers may load by each alias of tutor; None: there is no ConfigMap."""
    if "hone-served" not in namespace.names("ConfigMap"):
        return None
    text = namespace.get("ConfigMap", "hone-served").get("data", {}).get("tutor.json", '{"aliases": []}')
    return {a["name"]: a["adapter"]["digest"] for a in json.loads(text)["aliases"] if "adapter" in a}


@pytest.mark.faults("D7")
def test_servers_may_load_only_what_is_approved_and_an_alias_means(namespace, operator):
    namespace.until(operator.ready, "ready")
    for number in (1, 2):
        adapter(namespace, number)
    assert served(namespace) is None
    namespace.create("Model", "tutor", {"aliases": [{"name": "production", "version": 1}]})
    namespace.until(lambda: target(namespace) == {"production": "tutor-v1"}, "the alias")
    namespace.until(lambda: served(namespace) == {}, "nobody has approved it")
    first, second = ("sha256:" + digit * 64 for digit in "12")
    approve(namespace, 1)
    namespace.until(lambda: served(namespace) == {"production": first}, "version 1")
    approve(namespace, 2)
    namespace.patch("Model", "tutor", {"spec": {"aliases": [{"name": "production", "version": 2}]}})
    namespace.until(lambda: served(namespace) == {"production": second}, "version 2")
    namespace.patch("ModelVersion", "tutor-v2", {"spec": {"approval": {"state": "Candidate"}}})
    namespace.until(lambda: served(namespace) == {}, "its approval is withdrawn")
    namespace.patch("ConfigMap", "hone-served", {"data": {"tutor.json": '{"aliases": []}'}})
    approve(namespace, 1)
    namespace.patch("Model", "tutor", {"spec": {"aliases": [{"name": "production", "version": 1}]}})
    namespace.until(lambda: served(namespace) == {"production": first}, "what somebody wrote is replaced")
    namespace.patch("ConfigMap", "hone-served", {"immutable": True})
    namespace.patch("ModelVersion", "tutor-v1", {"spec": {"approval": {"state": "Candidate"}}})
    namespace.until(
        lambda: namespace.condition("Model", "tutor", "Ready").get("reason") == "NotHandedOver",
        "servers get nothing new",
    )
    namespace.delete("ConfigMap", "hone-served")
    approve(namespace, 1)
    namespace.until(lambda: served(namespace) == {"production": first}, "it is made again")
    namespace.until(lambda: namespace.condition("Model", "tutor", "Ready")["status"] == "True", "the Model is Ready")
    namespace.delete("Model", "tutor")
    namespace.until(lambda: not namespace.get("ConfigMap", "hone-served").get("data"), "the Model is gone")


@pytest.mark.faults("D6")
def test_an_alias_that_two_people_move_at_once_ends_where_the_spec_says(namespace, operator):
    """Each forces its own version again and again, as two pipelines that fight; a third that forces nothing fails."""
    namespace.until(operator.ready, "ready")
    for number in (1, 2):
        version(namespace, number, f"earlier-{number}")
    namespace.create("Model", "tutor", {})

    def fight(manager, number):
        spec = {"aliases": [{"name": "production", "version": number}]}
        body = {"apiVersion": "hone.dev/v1alpha1", "kind": "Model", "metadata": {"name": "tutor"}, "spec": spec}
        where = f"{path('Model', namespace.name, 'tutor')}?fieldManager={manager}&force=true"
        for _ in range(4):
            namespace.kube.call("PATCH", where, body, "application/apply-patch+yaml")

    with ThreadPoolExecutor(2) as pool:
        for fought in [pool.submit(fight, "one", 1), pool.submit(fight, "two", 2)]:
            fought.result()
    (pinned,) = namespace.get("Model", "tutor")["spec"]["aliases"]
    name, other = f"tutor-v{pinned['version']}", f"tutor-v{3 - pinned['version']}"
    namespace.until(lambda: target(namespace) == {"production": name}, "the alias")
    namespace.until(lambda: status(namespace, "ModelVersion", name).get("aliases") == "production", "its column")
    namespace.until(lambda: "aliases" not in status(namespace, "ModelVersion", other), "the column of the other")
    with pytest.raises(RuntimeError, match="conflict"):
        applied(namespace, "three", 3 - pinned["version"])
    (alias,) = status(namespace)["aliases"]
    moves = [alias["version"], *(entry["version"] for entry in alias["history"])]
    assert all(one != next_ for one, next_ in itertools.pairwise(moves)), "each entry is a move"
