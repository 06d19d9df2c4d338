"""`helm test`: the definitions refuse and accept what they should, and the operator answers."""

import json
import ssl
import sys
import urllib.error
import urllib.request

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


def create(body):
    """Status code of a dry run."""
    url = f"https://kubernetes.default.svc/apis/hone.dev/v1alpha1/namespaces/{namespace}/finetunejobs"
    request = urllib.request.Request(
        f"{url}?dryRun=All&fieldValidation=Strict",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {open(f'{account}/token').read()}"},
    )
    context = ssl.create_default_context(cafile=f"{account}/ca.crt")
    try:
        return urllib.request.urlopen(request, timeout=30, context=context).status
    except urllib.error.HTTPError as error:
        print(error.code, error.read().decode()[:500])
        return error.code


def check(what, holds):
    print(("ok      " if holds else "FAILED  ") + what)
    return holds


results = [
    check("a FineTuneJob is accepted (dry run)", create(job) == 201),
    check("a FineTuneJob with an unknown field is refused", create({**job, "spec": {**job["spec"], "x": 1}}) >= 400),
]
text = urllib.request.urlopen(metrics, timeout=30).read().decode()
results.append(check(f"{metrics} has the operator's metrics", "hone_operator_build_info" in text))
if progress != "none":
    # The certificate is the operator's own; only that the server refuses a report without a token is checked here.
    context = ssl._create_unverified_context()
    try:
        status = urllib.request.urlopen(progress, b"{}", timeout=30, context=context).status
    except urllib.error.HTTPError as error:
        status = error.code
    results.append(check(f"{progress} refuses a report without a token", status == 401))
sys.exit(0 if all(results) else 1)
