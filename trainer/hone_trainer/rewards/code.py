"""Code: runs the program in the answer against the row's tests, in the sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import re2

from hone_api.blocks.rewards import ProgramLimits
from hone_trainer.rewards.base import Context, Masked, Sample, Scored
from hone_trainer.sandbox import ExecutionLimits, Program

if TYPE_CHECKING:
    from hone_trainer.sandbox import Reply

_BLOCK = re2.compile(r"(?s)```(?:python|py)?[ \t]*\n(.*?)```")


class CodeScorer:
    """1 if the tests run to their end, else 0; masked if the sandbox itself failed.

    The tests run in the program's own interpreter, so a program written for the purpose can cheat them. It cannot leave
    the sandbox, and an early exit does not pass.
    """

    def __init__(self, context: Context) -> None:
        options = context.spec.code or ProgramLimits()
        self._limits = limits(options)
        self._workers = context.workers

    def __call__(self, samples: Sequence[Sample]) -> list[Scored]:
        programs = [self._program(sample) for sample in samples]
        return [_score(reply) for reply in self._workers.run([program.request() for program in programs])]

    def gold(self, record: Mapping[str, Any]) -> str | None:
        """The row's own solution, where it has one."""
        solution = record.get("solution")
        return None if solution is None else f"```python\n{solution}\n```"

    def _program(self, sample: Sample) -> Program:
        code, record = code_in(sample.completion), sample.record
        tests, entry = str(record.get("tests", "")), record.get("entryPoint")
        if entry:
            if not re2.search(rf"(?m)^(def|class)\s+{re2.escape(entry)}\b|^{re2.escape(entry)}\s*=", code):
                code = f"{sample.prompt}\n{code}"  # HumanEval: the answer continues the prompt
            tests = f"{tests}\n\ncheck({entry})" if re2.search(r"(?m)^def check\(", tests) else tests
        return Program([code, tests], limits=self._limits)


def code_in(text: str) -> str:
    """The last fenced block of Python, else the whole text."""
    blocks = _BLOCK.findall(text)
    return str(blocks[-1]) if blocks else text


def limits(options: ProgramLimits) -> ExecutionLimits:
    """The sandbox's limits from those in the spec."""
    return ExecutionLimits(options.seconds, to_bytes(options.memory))


def to_bytes(quantity: str) -> int:
    """A Kubernetes quantity of memory, in bytes."""
    units = {"k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    unit = quantity.lstrip("0123456789.")
    return int(float(quantity.removesuffix(unit)) * units.get(unit, 1))


def _score(reply: Reply) -> Scored:
    return Masked(reply.message, broken=True) if reply.outcome == "Broken" else float(reply.outcome == "Done")
