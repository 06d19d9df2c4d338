"""Volumes for the rewards of a job: programs from ConfigMaps and the keys of judges."""

from pathlib import PurePosixPath

from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.methods import all_rewards
from hone_operator.desired.core.pod import Mount

FOLDER = PurePosixPath("/etc/hone-rewards")
_FILE = "reward.py"


def mounts(spec: FineTuneJobSpec) -> list[Mount]:
    """A volume for each reward that needs one. All are optional, so that the pod itself reports what is missing."""
    out = []
    for number, reward in enumerate(all_rewards(spec.grpo, spec.evaluation)):
        name, path = f"reward-{number}", FOLDER / str(number)
        if reward.python:
            items = [{"key": reward.python.key, "path": _FILE}]
            source = {"name": reward.python.config_map_name, "optional": True, "defaultMode": 0o444, "items": items}
            out.append(Mount(name, path, {"configMap": source}))
        if reward.judge and reward.judge.secret_name:
            out.append(Mount.secret(name, path, reward.judge.secret_name))
    return out


def paths(spec: FineTuneJobSpec) -> dict[str, str]:
    """Paths of these volumes in the pod, by the rewards' names."""
    out = {}
    for number, reward in enumerate(all_rewards(spec.grpo, spec.evaluation)):
        if reward.python:
            out[reward.title] = str(FOLDER / str(number) / _FILE)
        if reward.judge and reward.judge.secret_name:
            out[reward.title] = str(FOLDER / str(number))
    return out
