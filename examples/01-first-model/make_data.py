#!/usr/bin/env python3
"""Make requests to a platform team with the JSON that a program needs to act on them.

    python examples/01-first-model/make_data.py

writes `data.yaml`. Nothing is drawn from a clock or from elsewhere: the same program gives the same bytes.

A row belongs to one of `GROUPS` groups. Each group has its own sentences and its own names of services, which no other
group has. The Dataset holds whole groups out, so that no held-out row has a sentence or a service that was trained on.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

GROUPS = 24
ROWS_PER_GROUP = 30
NAMES_PER_GROUP = 6
SEED = 0

ACTIONS = {
    "scale": """
        Scale {s} to {n} replicas in {e}.
        We need {n} copies of {s} running in {e}.
        Can you bring {s} in {e} up to {n} pods?
        Traffic on {e} is climbing, please set {s} to {n} replicas.
        {s} in {e} should have {n} instances.
        Run {n} replicas of {s} in {e} from now on.
        Could {s} get {n} replicas in {e}?
        Change the replica count of {s} to {n}, it is in {e}.
        In {e}, resize {s} to {n} pods.
        Set replicas={n} for {s} in {e}.
        {e}: {s} has too few pods, make it {n}.
        The sale starts tonight. Give {s} {n} instances in {e}.
        Increase {s} to {n} replicas in {e}.
        I want {n} pods for {s} in {e}.
        Let {s} run with {n} instances in {e}.
        Reduce {s} in {e} to {n} replicas.
        {n} pods of {s} are enough in {e}, please adjust it.
        For the load test we want {s} at {n} replicas in {e}.
        Make sure that {e} has {n} replicas of {s}.
        Grow {s} to {n} pods in {e}.
        Shrink {s} to {n} instances in {e} for the night.
        Please have {n} replicas of {s} up in {e} by noon.
        How about {n} instances of {s} in {e}? Do it, please.
        {s} is slow in {e}. Put it on {n} replicas.
    """,
    "restart": """
        Restart {s} in {e}.
        {s} hangs in {e}, give it a restart.
        Can you bounce {s} in {e}?
        Kick {s} in {e}, it does not answer.
        {e}: {s} is stuck again, restart it.
        Do a rolling restart of {s} in {e}.
        {s} leaks memory in {e}. Restart it, please.
        We changed a secret, so restart {s} in {e}.
        The pods of {s} in {e} need a restart.
        Could somebody restart {s}? It is the one in {e}.
        In {e}, please restart {s}.
        Reboot {s} in {e}.
        Start {s} again in {e}, it froze.
        {s} shows stale data in {e}, a restart should help.
        Time for a restart of {s} in {e}.
        Turn {s} off and on again in {e}.
        I need {s} restarted in {e}.
        Cycle the pods of {s} in {e}.
        Recycle {s} in {e}, its connections are dead.
        {s} on {e} must be restarted after the change of the config.
        A fresh start for {s} in {e}, please.
        Every pod of {s} in {e} should be restarted.
        Relaunch {s} in {e}.
        {e} is acting up: restart {s}.
    """,
    "deploy": """
        Deploy {s} {v} to {e}.
        Ship version {v} of {s} to {e}.
        {s} {v} is ready, put it on {e}.
        Can we have {s} {v} in {e}?
        Roll out {v} of {s} to {e}.
        Release {s} {v} in {e}.
        Please update {s} in {e} to {v}.
        {e} should run {s} {v}.
        Upgrade {s} to {v} in {e}.
        Bring {s} in {e} to version {v}.
        Install {v} of {s} on {e}.
        The tests of {s} {v} are green, deploy it to {e}.
        Push {s} {v} out to {e}.
        In {e}, move {s} to {v}.
        We want release {v} of {s} in {e}.
        Get {s} {v} onto {e}.
        Take {s} to {v} in {e}.
        QA has approved {s} {v}. Deploy to {e}.
        Time to ship {s} {v} to {e}.
        Publish {s} at version {v} in {e}.
        Set the image of {s} in {e} to {v}.
        Start the rollout of {s} {v} in {e}.
        {e}: please deploy {s}, version {v}.
        Let us have {v} of {s} live in {e}.
    """,
    "rollback": """
        Roll {s} back to {v} in {e}.
        {s} in {e} is broken, go back to {v}.
        Revert {s} to {v} in {e}.
        Please undo the release of {s} in {e}, {v} was fine.
        Return {s} in {e} to version {v}.
        {e}: the new {s} throws errors, roll back to {v}.
        Back to {v} with {s} in {e}.
        The last release of {s} was bad. Restore {v} in {e}.
        Can you revert {s}? {v} worked in {e}.
        In {e}, put {s} back on {v}.
        Downgrade {s} to {v} in {e}.
        We have to go back to {s} {v} in {e}.
        {s} {v} was the last good one, roll {e} back to it.
        Rollback of {s} in {e} to {v}, quickly.
        Undo! {s} on {e} must be {v} again.
        Reset {s} to the old version {v} in {e}.
        Please take back the update of {s} in {e}; it ran well on {v}.
        Customers complain about {s} in {e}. Roll back to {v}.
        {e} needs the previous {s}, which is {v}.
        Switch {s} in {e} back to {v}.
        I want the old {s} {v} back in {e}.
        Bring back version {v} of {s} in {e}.
        Abort the release in {e} and return to {v} of {s}.
        {s} was better at {v}. Roll it back in {e}.
    """,
    "logs": """
        Show me the logs of {s} in {e} for the last {m} minutes.
        What did {s} write to its log in {e} in the last {m} minutes?
        Get {m} minutes of logs from {s} in {e}.
        I need the log of {s}, {e}, last {m} minutes.
        Fetch the logs of {s} from {e}, {m} minutes back.
        Can I see {m} minutes of {s} logs in {e}?
        Print what {s} wrote in {e} during the past {m} minutes.
        {e}: logs of {s}, {m} minutes please.
        Send me the last {m} minutes of {s} output from {e}.
        Look into the logs of {s} in {e}, the past {m} minutes.
        Pull logs for {s} in {e}, {m} minutes.
        {s} failed in {e} about {m} minutes ago, show its logs since then.
        Give me the {e} logs of {s} over the last {m} minutes.
        In {e}, dump {m} minutes of logs of {s}.
        Read out the last {m} minutes that {s} logged in {e}.
        Which lines did {s} write in {e} in {m} minutes?
        Download the logs of {s} in {e}: {m} minutes.
        I would like to read the logs of {s} in {e}, {m} minutes of them.
        Let me see how {s} did in {e} for {m} minutes: logs, please.
        Tail {s} in {e}, from {m} minutes ago.
        Open the log of {s} for {e}; {m} minutes will do.
        Something happened to {s} in {e}. Show {m} minutes of logs.
        Collect the log lines of {s} in {e} of the last {m} minutes.
        Display {m} minutes of the log of {s} in {e}.
    """,
}
"""For each action a sentence for each group: {s} service, {e} environment, {n} number, {m} minutes, {v} version."""
ENVIRONMENTS = {
    "production": ("production", "prod", "the live cluster"),
    "staging": ("staging", "stage", "the staging cluster"),
    "development": ("development", "dev", "the dev cluster"),
}
"""What stands in the answer, and how people say it."""
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 8: "eight", 10: "ten", 12: "twelve"}
OPENINGS = ("", "", "", "Hi! ", "Hello! ", "Good morning! ", "Quick one. ", "Urgent! ")
CLOSINGS = ("", "", "", " Thanks!", " Thank you.", " Cheers!", " It is urgent.")
SERVICES = """
    cart ledger parcel ticket invoice catalog pricing stock coupon refund wallet profile session avatar mailer
    digest banner gallery podcast playlist comment review rating survey badge quest arena lobby forum wiki search
    ranking crawler indexer tagger parser renderer encoder thumbnail uploader archive backup snapshot mirror router
    gateway proxy balancer limiter cache queue broker scheduler cron notifier webhook pager beacon sensor meter
    gauge tracker locator geofence weather tariff booking roster payroll vacation expense contract tender claims
    policy quote dispatch fleet depot freight customs harbor runway berth turbine boiler valve orchard greenhouse
    bakery brewery pantry recipe menu kitchen waiter receipt tipjar ballot census permit registry passport visa
    library lecture exam grading campus dormitory stadium museum theater cinema jukebox karaoke telescope rocket
    satellite radar sonar compass lantern anchor falcon otter heron badger lynx marmot copper cobalt quartz granite
    marble amber topaz indigo saffron juniper clover thistle bramble willow maple
"""
"""First words of the names of services; each is used in one group alone."""
SECOND = ("api", "service", "worker", "web", "backend", "")


def rows() -> list[dict[str, str]]:
    """All rows, their groups mixed."""
    draw = random.Random(SEED)
    found = [row for group in range(GROUPS) for row in rows_of(group, draw)]
    draw.shuffle(found)
    return found


def rows_of(group: int, draw: random.Random) -> Iterator[dict[str, str]]:
    """The rows of a group: every action equally often, no request twice."""
    words = SERVICES.split()[group * NAMES_PER_GROUP : (group + 1) * NAMES_PER_GROUP]
    names = [f"{word}-{end}" if (end := draw.choice(SECOND)) else word for word in words]
    seen: set[str] = set()
    while len(seen) < ROWS_PER_GROUP:
        action = list(ACTIONS)[len(seen) % len(ACTIONS)]
        request, command = one(action, sentences(action)[group], draw.choice(names), draw)
        if request not in seen:
            seen.add(request)
            yield {"request": request, "command": json.dumps(command, separators=(",", ":")), "group": f"part-{group}"}


def sentences(action: str) -> list[str]:
    return [line.strip() for line in ACTIONS[action].strip().splitlines()]


def one(action: str, sentence: str, service: str, draw: random.Random) -> tuple[str, dict[str, str | int]]:
    """A request and its command."""
    environment = draw.choice(list(ENVIRONMENTS))
    said = {"s": draw.choice((service, service, f"the {service}")), "e": draw.choice(ENVIRONMENTS[environment])}
    command: dict[str, str | int] = {"action": action, "service": service, "environment": environment}
    if action == "scale":
        command["replicas"] = number = draw.choice(list(NUMBERS))
        said["n"] = draw.choice((str(number), NUMBERS[number]))
    elif action == "logs":
        command["minutes"] = minutes = draw.choice((5, 10, 15, 20, 30, 45, 60, 90))
        said["m"] = str(minutes)
    elif action in ("deploy", "rollback"):
        command["version"] = version = f"{draw.randint(0, 9)}.{draw.randint(0, 20)}.{draw.randint(0, 9)}"
        said["v"] = draw.choice((version, f"v{version}"))
    text = sentence.format(**said)
    return draw.choice(OPENINGS) + text[0].upper() + text[1:] + draw.choice(CLOSINGS), command


def config_map(found: list[dict[str, str]]) -> str:
    """A ConfigMap with the rows as JSON Lines, readable as they are."""
    head = (
        f"# {len(found)} requests to a platform team, each with the command that a program needs to act on it, by\n"
        "# examples/01-first-model/make_data.py.\n"
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ops-requests\ndata:\n  rows.jsonl: |\n"
    )
    return head + "".join(f"    {json.dumps(row)}\n" for row in found)


def files() -> dict[Path, str]:
    """What is committed, by path."""
    return {Path(__file__).with_name("data.yaml"): config_map(rows())}


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
        print(f"{path.name}: {text.count(chr(10))} lines, {len(text.encode()) // 1000} kB")
