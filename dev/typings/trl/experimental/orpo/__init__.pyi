from typing import Any

from transformers import Trainer, TrainingArguments

class ORPOConfig(TrainingArguments): ...

class ORPOTrainer(Trainer):
    def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]: ...
