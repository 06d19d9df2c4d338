"""A model's life, stage by stage: each is done by the person whose right it is, waited for, and checked."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from hone_api.words.states import ConditionType, DeliveryState, GateResult, Reason
from hone_dev.cluster.node import NAME as NODE
from hone_dev.demo.targets import Target
from hone_dev.life import objects, platform
from hone_dev.life.people import Person
from hone_dev.life.places import Places, digest_of, read
from hone_dev.life.server import Server, restarts
from hone_dev.models import vllm_pod
from hone_dev.tools.console import HoneDevError

NAMESPACE, MODEL, COPY, ALIAS, SERVER = "model-life", "service-desk", "service-desk-copy", "champion", "desk"
BOB, ADA = (Person(name, "admin", NAMESPACE) for name in ("bob@example.org", "ada@example.org"))
"""Bob trains and runs servers, Ada approves. Both are administrators of the namespace: their duties differ."""
HANG = 3 * 3600.0
"""Seconds; a guard against hanging, not an expectation."""
LONGEST = 512
"""Tokens of prompt and answer together."""
ROWS, LATER = "dataset.yaml", "later/dataset.yaml"
T = TypeVar("T")


@dataclass
class Life:
    """One life, and what a stage leaves for later ones."""

    target: Target
    places: Places
    key: Path
    folder: Path
    """Of this run, for files that are pulled."""
    server: Server | None = None
    pods: Mapping[str, int] = field(default_factory=dict)
    chance: float = 0.0
    """Log-probability of the first token of an answer of version 1."""
    answers: dict[str, str] = field(default_factory=dict)
    """Of version 1, by question."""

    def get(self, *argv: str) -> dict[str, Any]:
        """Objects of the namespace."""
        return self.target.get("--namespace", NAMESPACE, *argv)

    def version(self, number: int, model: str = MODEL) -> dict[str, Any]:
        """A ModelVersion."""
        return self.get("modelversions.hone.dev", f"{model}-v{number}")

    def model(self, name: str = MODEL) -> dict[str, Any]:
        """A Model."""
        return self.get("models.hone.dev", name)

    def points_to(self, name: str = MODEL) -> int | None:
        """The version that the alias means."""
        return objects.alias(self.model(name), ALIAS).get("version")

    @property
    def asked(self) -> Server:
        """The server that is there since the stage `serve`."""
        assert self.server
        return self.server

    def first_token(self) -> float:
        """Log-probability of the token with which the server begins an answer now."""
        return self.asked.chances(MODEL, _questions()[1], tokens=1)[0]

    def is_as_before(self) -> bool:
        """Whether the server has version 1; not to the last bit, which depends on what else is in a batch."""
        return abs(self.first_token() - self.chance) < 1e-4

    def pods_of_server(self) -> dict[str, int]:
        """Restarts of its pods, by UID."""
        return restarts(self.get("pods", f"--selector=app.kubernetes.io/instance={SERVER}")["items"])


def hold(true: object, otherwise: str) -> None:
    """Raise HoneDevError unless something is as it should be."""
    if not true:
        raise HoneDevError(otherwise)


def wait(check: Callable[[], T], what: str, every: float = 2.0) -> T:
    """The first true value of `check`, asked every so many seconds."""
    deadline = time.monotonic() + HANG
    while not (value := check()):
        if time.monotonic() > deadline:
            raise HoneDevError(f"{what} is not so after {HANG:.0f} s")
        time.sleep(every)
    return value


def _ready(life: Life, number: int, model: str = MODEL) -> dict[str, Any]:
    """A ModelVersion once it is verified. Raises HoneDevError as soon as the job or import has failed."""
    name = f"{model}-v{number}"

    def version() -> dict[str, Any] | None:
        failures = objects.failures(life.get("finetunejobs.hone.dev")["items"], life.get("models.hone.dev")["items"])
        hold(not failures, "; ".join(failures))
        every = {body["metadata"]["name"]: body for body in life.get("modelversions.hone.dev")["items"]}
        ready = objects.conditions(every.get(name, {})).get(ConditionType.READY, {})
        return every[name] if ready.get("status") == "True" else None

    return wait(version, f"{name} is Ready") or {}


def train(life: Life) -> str:
    """Bob submits the job, Ada says how its versions are used; version 1 is trained and evaluated."""
    job = objects.manifest("finetunejob.yaml")
    job["spec"]["submittedBy"] = BOB.name
    BOB.apply(platform.EXAMPLE / "data.yaml", platform.EXAMPLE / ROWS, job)
    ADA.apply(platform.EXAMPLE / "model.yaml")
    return objects.losses(_ready(life, 1))


def sign(life: Life) -> str:
    """Version 1 was signed with the platform's key before it was Ready."""
    version = life.version(1)
    signed = objects.conditions(version)[ConditionType.SIGNED]
    hold(signed["reason"] == Reason.SIGNED, f"the version is Ready, and Signed is {signed}")
    return f"by key {version['status']['signature']['key'][:19]}"


def approve(life: Life) -> str:
    """Bob cannot approve his own model; Ada can, and the alias moves."""
    wait(lambda: objects.candidate(life.model(), 1).get("gates") == GateResult.PASSED, "version 1 has passed its gates")
    try:
        BOB.hone("approve", f"{MODEL}:1")
    except HoneDevError as error:
        hold("you submitted the job" in str(error), f"Bob was refused for another reason: {error}")
    else:
        raise HoneDevError("Bob approved the model that he submitted")
    hold(life.points_to() is None, "an alias points to a version that nobody approved")
    ADA.hone("approve", f"{MODEL}:1")
    wait(lambda: life.points_to() == 1, f"{ALIAS} points to version 1")
    return f"by {life.version(1)['spec']['approval']['by']}; {BOB.name} was refused"


def deliver(life: Life) -> str:
    """Version 1 is in the registry and in the bucket, whole and signed."""
    ADA.apply(platform.EXAMPLE / "deliver" / "model.yaml", manager="deliveries")
    places = _delivered(life, 1)
    pulled = life.places.pull(places["oci"]["location"], life.folder / "v1")
    platform.verify(pulled, life.version(1), life.key)
    hold(life.places.copied(f"{MODEL}-v1") == read(pulled), "the bucket has other files than the registry")
    return f"{places['oci']['location']} and {places['s3']['location']}"


def _delivered(life: Life, number: int) -> dict[str, Mapping[str, Any]]:
    def arrived() -> dict[str, Mapping[str, Any]] | None:
        places = objects.deliveries(life.version(number))
        failed = [entry for entry in places.values() if entry["state"] == DeliveryState.FAILED]
        hold(not failed, f"deliveries failed: {failed}")
        complete = len(places) == 2 and all(entry["state"] == DeliveryState.DELIVERED for entry in places.values())
        return places if complete else None

    return wait(arrived, f"version {number} is delivered to both places") or {}


def pull(life: Life) -> str:
    """Bob pulls the image by its digest; Ada approves the copy."""
    location = objects.deliveries(life.version(1))["oci"]["location"]
    copy = objects.manifest("pull/model.yaml")
    copy["spec"]["imports"][0] |= {"uri": location, "submittedBy": BOB.name}
    BOB.apply(copy)
    version = _ready(life, 1, COPY)
    imported = version["spec"]["lineage"]["imported"]
    hold(imported["commit"] == digest_of(location), f"{imported['commit']} was pulled instead of {location}")
    ADA.hone("approve", f"{COPY}:1")
    wait(lambda: life.points_to(COPY) == 1, f"{ALIAS} of the copy points to version 1")
    return str(imported["commit"])


def serve(life: Life) -> str:
    """One vLLM follows the aliases of the model and of its copy."""
    image = life.version(1)["status"]["downloadPod"]["image"]
    names = [f"{model}@{ALIAS}" for model in (MODEL, COPY)]
    # Only the image differs: vLLM's own is for GPUs, and its build for CPUs runs in the trainer's.
    rendered = BOB.hone("serve", *names, "--follow", "--name", SERVER, "--gpus", "0", "--image", image)
    deployment, service = yaml.safe_load_all(rendered)
    volume, *others = vllm_pod.volume(NAMESPACE, NODE)
    life.target.kubectl("apply", "--server-side", "--filename=-", stdin=yaml.safe_dump(volume))
    BOB.apply(*others, vllm_pod.on_cpus(deployment, LONGEST), service)
    wait(
        lambda: life.get("deployment", SERVER).get("status", {}).get("readyReplicas"),
        f"Deployment {SERVER} is ready",
    )
    life.server = Server(f"http://{life.get('service', SERVER)['spec']['clusterIP']}:8000/v1")
    life.pods = life.pods_of_server()
    return ", ".join(life.asked.models())


def ask(life: Life) -> str:
    """It answers as version 1 was trained, as the copy from the registry does, and not as the base."""
    base, *tuned = life.asked.models()
    hold(tuned == [MODEL, COPY], f"the server has {tuned}")
    earlier, new = _questions()
    life.answers = {question: life.asked.answer(MODEL, question) for question in (earlier, new)}
    expected = objects.rows(ROWS)[earlier]
    hold(
        life.answers[earlier] == expected, f"{earlier!r} is answered {life.answers[earlier]!r} instead of {expected!r}"
    )
    hold(life.asked.answer(base, earlier) != expected, "the base answers the same")
    copied = {question: life.asked.answer(COPY, question) for question in life.answers}
    hold(copied == life.answers, f"what was pulled answers {copied} instead of {life.answers}")
    life.chance = life.first_token()
    return f"{new} {life.answers[new]}"


def _questions() -> tuple[str, str]:
    """A question of the first rows, and one that only the later ones have."""
    first, later = objects.rows(ROWS), objects.rows(LATER)
    return next(iter(first)), next(question for question in later if question not in first)


def retrain(life: Life) -> str:
    """New rows arrive: the Model repeats the job by itself."""
    wait(lambda: objects.is_trained(life.model()), f"Model {MODEL} is up to date")
    BOB.apply(platform.EXAMPLE / LATER)
    version = _ready(life, 2)
    job = version["spec"]["lineage"]["job"]
    hold(job["submittedBy"] == BOB.name, f"the repeated job was submitted by {job['submittedBy']}")
    return f"{version['metadata']['name']} by job {job['name']}"


def compare(life: Life) -> str:
    """Version 2 is better than version 1 on the new held-out rows; nobody has approved it, so nothing moves."""
    version = life.version(2)
    against = version["spec"]["evaluation"].get("against")
    hold(against == f"{MODEL}-v1", f"it was compared with {against}")
    judged = wait(lambda: objects.candidate(life.model(), 2), "the operator has judged version 2")
    hold(judged["gates"] == GateResult.PASSED, f"the gates of version 2 say {judged}")
    hold(life.points_to() == 1, "the alias moved without an approval")
    hold(life.is_as_before(), "the server has left version 1")
    return objects.losses(version)


def promote(life: Life) -> str:
    """Ada approves version 2, and the running server answers with it. Every question in between is answered."""
    ADA.hone("approve", f"{MODEL}:2")
    wait(lambda: not life.is_as_before(), "the server has version 2", every=1.0)
    seen = time.time()
    approved = objects.approved_at(life.get("modelversions.hone.dev", f"{MODEL}-v2", "--show-managed-fields"))
    hold(life.points_to() == 2, "the server has version 2 before the alias")
    new = _questions()[1]
    answer, expected = life.asked.answer(MODEL, new), objects.rows(LATER)[new]
    hold(answer == expected, f"{new!r} is answered {answer!r} instead of {expected!r}")
    hold(life.asked.answer(COPY, new) == life.answers[new], "the copy has changed, too")
    hold(life.pods_of_server() == life.pods, f"the server was started again: {life.pods} → {life.pods_of_server()}")
    uploaded = _delivered(life, 2)["oci"]
    platform.verify(life.places.pull(uploaded["location"], life.folder / "v2"), life.version(2), life.key)
    return f"{seen - approved:.0f} s from approved to the first token of the new adapter: {answer}"


def roll_back(life: Life) -> str:
    """One apply: the alias points to version 1 again, and the running server answers as before."""
    began = time.monotonic()
    ADA.apply(platform.EXAMPLE / "rollback" / "model.yaml")
    wait(life.is_as_before, "the server has version 1", every=1.0)
    took = time.monotonic() - began
    hold(life.points_to() == 1, f"{ALIAS} points to version {life.points_to()}")
    answers = {question: life.asked.answer(MODEL, question) for question in life.answers}
    hold(answers == life.answers, f"the server answers {answers} instead of {life.answers}")
    hold(life.pods_of_server() == life.pods, f"the server was started again: {life.pods} → {life.pods_of_server()}")
    return f"{took:.0f} s from the apply to the first token of version 1; the pod was never started again"


Stage = Callable[[Life], str]
STAGES: Mapping[str, Stage] = {
    "Train": train,
    "Sign": sign,
    "Approve": approve,
    "Deliver": deliver,
    "Pull by digest": pull,
    "Serve": serve,
    "Ask": ask,
    "New rows": retrain,
    "Compare": compare,
    "Promote": promote,
    "Roll back": roll_back,
}
"""By the titles of the steps in the example's README. Each returns what was seen, in a line.

Raises:
    HoneDevError: something is not as it should be.
"""
