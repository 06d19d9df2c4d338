"""JsonSchema: the answer is JSON that validates against the schema."""

from __future__ import annotations

import json
from collections.abc import Sequence

import re2

from hone_api.base import json_schemas
from hone_trainer.errors import ConfigError
from hone_trainer.rewards.base import Context, Masked, Sample, Scored, WithoutGold
from hone_trainer.sandbox import WorkerRequest

_BLOCK = re2.compile(r"(?s)```(?:json)?[ \t]*\n(.*?)```")


class JsonSchemaScorer(WithoutGold):
    """1 or 0, by jsonschema in a worker of the sandbox."""

    def __init__(self, context: Context) -> None:
        from jsonschema import SchemaError
        from jsonschema.validators import validator_for

        assert context.spec.json_schema is not None
        self._workers = context.workers
        text = context.spec.json_schema.schema_
        where = f"reward {context.spec.title}: jsonSchema.schema"
        if problem := json_schemas.problem(text):
            raise ConfigError(f"{where} {problem}")
        self._schema = json.loads(text)
        try:
            validator_for(self._schema).check_schema(self._schema)
        except SchemaError as error:
            raise ConfigError(f"{where} is not a schema: {error.message[:200]}") from None

    def __call__(self, samples: Sequence[Sample]) -> list[Scored]:
        bodies = ({"schema": self._schema, "instance": _json_in(s.completion)} for s in samples)
        replies = self._workers.run([WorkerRequest("jsonSchema", body) for body in bodies])
        return [
            Masked(reply.message, broken=True)
            if reply.outcome == "Broken"
            else float(reply.outcome == "Done" and reply.value)
            for reply in replies
        ]


def _json_in(text: str) -> str:
    """The last fenced block, else the whole text."""
    blocks = _BLOCK.findall(text)
    return str(blocks[-1]) if blocks else text
