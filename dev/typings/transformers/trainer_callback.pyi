from transformers import TrainerControl, TrainerState, TrainingArguments

class CallbackHandler:
    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float]
    ) -> TrainerControl: ...
