"""`helm test`: wait for a FineTuneJob of two steps, and say why it did not succeed."""

import json
import ssl
import sys
import time
import urllib.request

namespace, name = sys.argv[1:]
account = "/var/run/secrets/kubernetes.io/serviceaccount"
url = f"https://kubernetes.default.svc/apis/hone.dev/v1alpha1/namespaces/{namespace}/finetunejobs/{name}"
context = ssl.create_default_context(cafile=f"{account}/ca.crt")
seen = None
while True:
    with open(f"{account}/token") as file:
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {file.read()}"})
    try:
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            conditions = (json.load(answer).get("status") or {}).get("conditions") or []
    except OSError as error:  # also 403: the Role may not be known to every API server yet
        conditions, seen = [], print(f"waiting  {error}")
    by_type = {c["type"]: c for c in conditions}
    waits = [c for c in conditions if c["type"] != "Finished" and c["status"] == "False"]
    state = "; ".join(f"{c['reason']}: {c['message']}" for c in waits)
    if state != seen:
        seen = state
        print(f"waiting  {state}", flush=True)
    if by_type.get("Finished", {}).get("status") == "True":
        done = by_type["Finished"]
        good = done["reason"] == "Succeeded"
        print(f"{'ok     ' if good else 'FAILED '} a fine-tuning of two steps: {done['reason']}: {done['message']}")
        sys.exit(0 if good else 1)
    time.sleep(5)
