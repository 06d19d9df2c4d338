"""Questions to a service desk and its answers, made up: `python examples/13-model-life/make_data.py`."""

import json
from pathlib import Path

FOLDER = Path(__file__).parent
DEVICES = ("laptop", "monitor", "phone", "headset", "docking station", "keyboard", "tablet", "printer")
PROBLEMS = {
    "does not start": "Hold the power button of the {} for ten seconds. If it stays dark, bring it to desk 4.",
    "is lost": "Lock the {} at desk.example.org/lost, then tell your manager. You get another one at desk 4.",
    "is too old": "Ask for a new {} at desk.example.org/renew. Those older than four years are replaced.",
    "is broken": "Bring the {} to desk 4 between 9 and 17 h. You get another one for the time of the repair.",
    "does not connect": "Restart the {}, and choose the network desk-secure. The password is your own.",
}
LATER = {
    "needs a cover": "Covers for a {} are in the cupboard next to desk 4. Take one; nobody counts them.",
    "is to be sold": "Since June you may buy your old {} for a tenth of its price: desk.example.org/sale.",
    "asks for an update": "Let the {} update itself at night. Since June nobody has to confirm it.",
}


def rows(problems: dict[str, str]) -> list[dict[str, str]]:
    """One question and answer for each device and problem."""
    return [
        {"question": f"My {device} {problem}. What do I do?", "answer": answer.format(device)}
        for problem, answer in problems.items()
        for device in DEVICES
    ]


def data() -> str:
    """data.yaml."""
    lines = [
        "# Questions to a service desk, made up by examples/13-model-life/make_data.py; later.jsonl has more.",
        "apiVersion: v1",
        "kind: ConfigMap",
        "metadata:",
        "  name: service-desk",
        "data:",
    ]
    for name, problems in (("rows.jsonl", PROBLEMS), ("later.jsonl", PROBLEMS | LATER)):
        lines += [f"  {name}: |", *(f"    {json.dumps(row)}" for row in rows(problems))]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (FOLDER / "data.yaml").write_text(data())
