"""Git repositories, Applications and Kustomizations, and a hand that plays every pod of Hone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from support.cluster.hand import Namespace, training_result
from support.cluster.kube import Kube, wait_until

from hone_dev.tools import paths

DIGEST = "sha256:" + "1" * 64
RESULTS: dict[str, Any] = {
    "materialize": {
        "kind": "Materialize",
        "digest": DIGEST,
        "path": "datasets/1",
        "rows": 10,
        "splits": [{"name": "train", "rows": 9}, {"name": "validation", "rows": 1}],
    },
    "fetch": {"kind": "Fetch", "path": "base-models/org--model/abc", "commit": "c" * 40, "digest": DIGEST},
    "verify": {"kind": "Verify", "files": 3, "sizeBytes": 7},
    "training": training_result(),
}
"""What each kind of pod leaves."""
AUTHOR = {f"GIT_{who}_{what}": "tests@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


class Repository:
    """A Git repository with one branch, main, and a working copy of it."""

    def __init__(self, bare: Path, copy: Path) -> None:
        self.bare, self.copy = bare, copy
        git("init", "--quiet", "--bare", "--initial-branch=main", str(bare))
        git("clone", "--quiet", str(bare), str(copy))
        git("checkout", "--quiet", "-b", "main", cwd=copy)

    def commit(self, files: Mapping[str, str | None]) -> str:
        """Push these files; None removes one. Returns the revision."""
        for name, text in files.items():
            file = self.copy / name
            if text is None:
                file.unlink()
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        git("add", "--all", cwd=self.copy)
        git("commit", "--quiet", "--message=change", cwd=self.copy)
        return self._push()

    def revert(self) -> str:
        """Take the last commit back."""
        git("revert", "--no-edit", "HEAD", cwd=self.copy)
        return self._push()

    def _push(self) -> str:
        git("push", "--quiet", "origin", "main", cwd=self.copy)
        return git("rev-parse", "HEAD", cwd=self.copy).strip()


def git(*argv: str, cwd: Path | None = None) -> str:
    env = {**os.environ, **AUTHOR}
    return subprocess.run(["git", *argv], cwd=cwd, env=env, check=True, capture_output=True, text=True).stdout


class Applications:
    """Argo CD's Applications, by name."""

    PATH = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications"

    def __init__(self, kube: Kube, url: str) -> None:
        self.kube, self.url = kube, url

    def create(
        self, name: str, path: str, namespace: str, automated: bool = True, project: str = "default", **policy: Any
    ) -> None:
        """An Application for a folder of the repository; by default it is synced, healed and pruned by itself."""
        if automated:
            policy["automated"] = {"prune": True, "selfHeal": True}
        spec = {
            "project": project,
            "source": {"repoURL": self.url, "targetRevision": "main", "path": path},
            "destination": {"server": "https://kubernetes.default.svc", "namespace": namespace},
            "syncPolicy": policy,
        }
        body = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": name}, "spec": spec}
        self.kube.call("POST", self.PATH, body)

    def get(self, name: str) -> Any:
        return self.kube.call("GET", f"{self.PATH}/{name}")

    def patch(self, name: str, body: Any) -> None:
        self.kube.call("PATCH", f"{self.PATH}/{name}", body, "application/merge-patch+json")

    def refreshed(self, name: str) -> Any:
        """The Application, compared with Git and the cluster now."""
        key = "argocd.argoproj.io/refresh"
        self.patch(name, {"metadata": {"annotations": {key: "hard"}}})

        def done() -> Any:
            app = self.get(name)
            return app if key not in app["metadata"].get("annotations", {}) else None

        return wait_until(done, f"{name} is compared")

    def reaches(self, name: str, sync: str, health: str) -> Any:
        """The Application, once it is like this."""
        seen: list[Any] = []

        def there() -> Any:
            app = self.refreshed(name)
            status = app.get("status", {})
            now = (status.get("sync", {}).get("status"), status.get("health", {}).get("status"))
            seen[:] = [now, status.get("conditions"), status.get("operationState", {}).get("message")]
            return app if now == (sync, health) and "operation" not in app else None

        try:
            return wait_until(there, name)
        except AssertionError as error:
            raise AssertionError(f"{name} is {seen}, not {sync} and {health}") from error

    @contextmanager
    def compared(self, *names: str) -> Iterator[list[tuple[str, str]]]:
        """Compare these every second for the block: what the controller said each time, by the name."""
        seen: list[tuple[str, str]] = []
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(1):
                seen.extend((name, self.refreshed(name)["status"]["sync"]["status"]) for name in names)

        looking = threading.Thread(target=look)
        looking.start()
        try:
            yield seen
        finally:
            ended.set()
            looking.join()

    def sync(self, name: str, *options: str, prune: bool = False) -> Any:
        """Sync once with these options; returns the operation's end."""
        this = [{"name": "id", "value": uuid.uuid4().hex}]
        sync = {"revision": "main", "prune": prune, "syncOptions": list(options)}
        self.patch(name, {"operation": {"info": this, "sync": sync}})

        def over() -> Any:
            app = self.get(name)
            state = app.get("status", {}).get("operationState", {})
            mine = state.get("operation", {}).get("info") == this
            return state if mine and state.get("phase") in ("Succeeded", "Failed", "Error") else None

        return wait_until(over, f"{name} is synced")

    def health(self, name: str, kind: str, of: str = "") -> str:
        """What Argo CD says of an object of an Application, after comparing it."""
        found = [r for r in self.refreshed(name)["status"].get("resources", ()) if r["kind"] == kind]
        (one,) = [r for r in found if not of or r["name"] == of]
        return str(one.get("health", {}).get("status"))


def furnished(space: Namespace) -> Namespace:
    """The namespace with what every tenant has."""
    space.create("ServiceAccount", "default")
    for claim in ("hone-store", "models", "data"):
        space.claim(claim)
    return space


def play(space: Namespace, *components: str) -> list[str]:
    """Let every Job of these components that waits end well; returns their names."""
    played = []
    for job in space.list("Job"):
        component = job["metadata"]["labels"]["hone.dev/component"]
        if component in components and not job["status"].get("conditions"):
            space.succeed(job["metadata"]["name"], RESULTS[component])
            played.append(job["metadata"]["name"])
    return played


def until_played(space: Namespace, component: str) -> str:
    """The name of the next Job of this component, which has ended well."""
    return str(space.until(lambda: play(space, component), f"a Job of {component}")[0])


def writes(audit_log: Path, agent: str) -> list[str]:
    """Verb, kind and name of everything that a program has written to objects of Hone, without dry runs."""
    found = []
    for line in audit_log.read_text().splitlines():
        event = json.loads(line)
        ref = event.get("objectRef", {})
        if (
            ref.get("apiGroup") == "hone.dev"
            and agent in event.get("userAgent", "")
            and "dryRun" not in event["requestURI"]
        ):
            found.append(f"{event['verb']} {ref['resource']} {ref.get('namespace')}/{ref.get('name', '')}")
    return found


def writers(audit_log: Path, namespace: str) -> set[str]:
    """Who has written objects in a namespace, other than as itself: the users that a program impersonated."""
    events = [json.loads(line) for line in audit_log.read_text().splitlines()]
    return {
        event["impersonatedUser"]["username"]
        for event in events
        if "impersonatedUser" in event and event.get("objectRef", {}).get("namespace") == namespace
    }


def guide_objects(kind: str, with_text: str = "") -> list[dict[str, Any]]:
    """The objects of the block in docs/guides/gitops.md that begins with this kind, and has this text."""
    guide = (paths.SOURCE / "docs" / "guides" / "gitops.md").read_text()
    blocks = [block for block in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL) if with_text in block]
    (objects,) = (found for found in map(list, map(yaml.safe_load_all, blocks)) if found[0]["kind"] == kind)
    return objects


def of_team(revision: str = "1") -> dict[str, str]:
    """Files of a team that its account may write: rows, what is read from them, a job and a Model."""
    spec = {
        "model": {"uri": "pvc://models/smol"},
        "datasets": [{"name": "few"}],
        "resources": {"cpu": "1", "memory": "1Gi"},
        "output": {"modelName": "few"},
    }
    bodies: dict[str, dict[str, Any]] = {
        "ConfigMap": {"data": {"rows.jsonl": json.dumps({"text": "a"})}},
        "Dataset": {"spec": {"source": {"uri": "configmap://few/rows.jsonl"}}},
        "FineTuneJob": {"spec": spec},
        "Model": {"spec": {}},
    }
    return {
        f"few/{kind.lower()}.yaml": yaml.safe_dump(
            {
                "apiVersion": "v1" if kind == "ConfigMap" else "hone.dev/v1alpha1",
                "kind": kind,
                "metadata": {"name": "few", "annotations": {"example.org/revision": revision}},
                **body,
            }
        )
        for kind, body in bodies.items()
    }


FOREIGN = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "RoleBinding",
    "metadata": {"name": "few"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
    "subjects": [{"kind": "ServiceAccount", "name": "default"}],
}
"""What a team must not get by a commit."""


class Kustomizations:
    """Flux's Kustomizations, by name, and the repository that they are in."""

    GROUP = "/apis/kustomize.toolkit.fluxcd.io/v1/namespaces/flux-system/kustomizations"
    SOURCE = "/apis/source.toolkit.fluxcd.io/v1/namespaces/flux-system/gitrepositories/fine-tuning"

    def __init__(self, kube: Kube, git: Repository) -> None:
        self.kube, self.git = kube, git

    def commit(self, files: Mapping[str, str | None]) -> None:
        self._fetch(self.git.commit(files))

    def revert(self) -> None:
        self._fetch(self.git.revert())

    def _fetch(self, revision: str) -> None:
        """Have source-controller look now, not at the next interval; return when it has this revision."""
        _reconcile(self.kube, self.SOURCE)
        artifact = self.kube.call("GET", self.SOURCE)["status"]["artifact"]
        assert artifact["revision"] == f"main@sha1:{revision}"

    def get(self, name: str) -> Any:
        return self.kube.call("GET", f"{self.GROUP}/{name}")

    def patch(self, name: str, body: Any) -> None:
        self.kube.call("PATCH", f"{self.GROUP}/{name}", body, "application/merge-patch+json")

    def condition(self, name: str, type_: str = "Ready") -> Any:
        conditions = self.get(name).get("status", {}).get("conditions", ())
        return next((c for c in conditions if c["type"] == type_), {})

    def reaches(self, name: str, reason: str) -> Any:
        """Its condition Ready, once it has this reason for the newest revision."""
        seen: list[Any] = []

        def there() -> Any:
            body = self.get(name)
            seen[:] = [body.get("status")]
            source = self.kube.call("GET", self.SOURCE)
            newest = source["status"]["artifact"]["revision"] == body["status"].get("lastAttemptedRevision")
            ready = self.condition(name)
            return ready if newest and ready.get("reason") == reason else None

        try:
            return wait_until(there, name)
        except AssertionError as error:
            raise AssertionError(f"{name} is {seen}, not {reason}") from error

    def reconciled(self, name: str) -> None:
        """Reconcile it now; return when that has ended."""
        _reconcile(self.kube, f"{self.GROUP}/{name}")


def _reconcile(kube: Kube, path: str) -> None:
    """Have Flux reconcile an object; return when that has ended."""
    asked = datetime.now(UTC).isoformat()
    annotation = {"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": asked}}}
    kube.call("PATCH", path, annotation, "application/merge-patch+json")
    wait_until(lambda: kube.call("GET", path)["status"]["lastHandledReconcileAt"] == asked, f"{path} is reconciled")
