"""`helm test`: the definitions accept and refuse what they should, and the operator answers."""

import json
import ssl
import sys
import time
import urllib.error
import urllib.request

PATIENCE = 60  # seconds; after an upgrade the new pod may not be reachable yet
namespace, metrics, progress = sys.argv[1:]
account = "/var/run/secrets/kubernetes.io/serviceaccount"
job = {
    "apiVersion": "hone.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "helm-test"},
    "spec": {
        "model": {"uri": "hf://example/model"},
        "datasets": [{"name": "example"}],
        "output": {"modelName": "helm-test"},
    },
}


def ask(url, body=None, headers=None, context=None):
    """(status, text); status 0 when nobody answers."""
    request = urllib.request.Request(url, body, headers or {})
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            if time.monotonic() > give_up:
                return 0, str(error)
            time.sleep(2)


def create(body):
    """Create a FineTuneJob, as a dry run."""
    with open(f"{account}/token") as file:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {file.read()}"}
    url = f"https://kubernetes.default.svc/apis/hone.dev/v1alpha1/namespaces/{namespace}/finetunejobs"
    context = ssl.create_default_context(cafile=f"{account}/ca.crt")
    return ask(f"{url}?dryRun=All&fieldValidation=Strict", json.dumps(body).encode(), headers, context)


def check(what, answer, holds):
    print(f"ok      {what}" if holds else f"FAILED  {what}: {answer[0]} {answer[1][:500]}")
    return holds


results = []
answer = create(job)
results.append(check("a FineTuneJob is accepted (dry run)", answer, answer[0] == 201))
answer = create({**job, "spec": {**job["spec"], "unknown": 1}})
results.append(check("a FineTuneJob with an unknown field is refused", answer, answer[0] in (400, 422)))
answer = ask(metrics)
results.append(check("the operator serves its metrics", answer, "hone_operator_build_info" in answer[1]))
if progress != "none":
    # The authority is the operator's own, in a Secret that this pod may not read: only the refusal is checked here.
    answer = ask(progress, b"{}", context=ssl._create_unverified_context())
    results.append(check("a report without a token is refused", answer, answer[0] == 401))
sys.exit(0 if all(results) else 1)
