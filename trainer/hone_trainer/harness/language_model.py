"""The model in training as lm-eval sees one.

Requests are the same on every rank, and the ranks share their batches (`heldout.sweep`): to lm-eval it is one model.
Tokens, prefixes, windows and what is cut of an answer are those of lm-eval's own `HFLM`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, has_bos_prefix, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from hone_trainer import harness
from hone_trainer.encoding import rendering
from hone_trainer.encoding.split_file import IGNORED, Row
from hone_trainer.errors import TrainerError
from hone_trainer.models import generate
from hone_trainer.scoring import heldout, probe_suite

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

LONGEST_WINDOW = 4096
"""Tokens that a text without question is read by at once; the model's context where that is less. It bounds memory."""
LONGEST_ANSWER = 256
"""Most tokens of an answer, of tasks that do not say how many."""
Request = tuple[Any, list[int], list[int]]
"""(texts, ids of the context, ids of what follows)."""


class TunedModel(TemplateLM):
    """The trainer's model, as it is now. Its methods are collectives.

    Args:
        poll: called before each batch on every rank; may raise to give up.
    """

    def __init__(self, trainer: Any, poll: Callable[[], None]) -> None:
        super().__init__()
        self.trainer, self.poll = trainer, poll
        self.tokenizer = trainer.run.base.tokenizer
        self.context: int = trainer.run.base.context

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """Stands before a text that nothing precedes."""
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else int(begin)

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        if add_special_tokens is None and has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id)):
            add_special_tokens = False
        told = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return list(self.tokenizer.encode(string, **told))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """As text. A template that has no place for a system turn gets none, as lm-eval does it."""
        told = {"add_generation_prompt": add_generation_prompt, "continue_final_message": not add_generation_prompt}
        with rendering.bounded():
            try:
                text = self.tokenizer.apply_chat_template(chat_history, tokenize=False, **told)
            except TemplateError:
                chat = [turn for turn in chat_history if turn["role"] != "system"]
                text = self.tokenizer.apply_chat_template(chat, tokenize=False, **told)
        return str(text)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """As lm-eval has it, without a bar in the log."""
        return list(super().loglikelihood(requests, disable_tqdm=True))

    def _loglikelihood_tokens(self, requests: list[Request], **_: Any) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and whether it is what greedy decoding gives."""
        rows = [self._row(context, follows, number) for number, (_, context, follows) in enumerate(requests, start=1)]
        found = probe_suite.likely(self.trainer, rows, self.poll).means
        loss, right = found["loss"], found["token_accuracy"]
        columns = zip(loss.totals, right.totals, right.weights, strict=True)
        return [(-nats, correct == tokens) for nats, correct, tokens in columns]

    def _row(self, context: Sequence[int], follows: Sequence[int], number: int) -> Row:
        """What does not fit in the model's context is cut from the left.

        HFLM leaves out the last token, which predicts nothing, and so keeps one more of a row that is cut.
        """
        if not 0 < len(follows) < self.context:
            message = f"{harness.FIELD}: an answer to score has {len(follows)} tokens, the model reads {self.context}"
            raise TrainerError("InvalidConfiguration", f"{message}: remove its task")
        ids = [*context, *follows][-self.context :]
        return Row(ids, [IGNORED] * (len(ids) - len(follows)) + list(follows), number)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, window by window."""
        longest = min(self.context, LONGEST_WINDOW)
        windows: list[Request] = []
        counts = []
        for (text,) in (request.args for request in requests):
            found = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=longest - 1,
                context_len=1,
            )
            made = [(None, *make_disjoint_window(pair)) for pair in found]
            windows += made
            counts.append(len(made))
        values = iter(self._loglikelihood_tokens(windows))
        return [sum(next(values)[0] for _ in range(count)) for count in counts]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy answers, up to the first stop string of the task."""
        wanted: dict[tuple[tuple[str, ...], int], list[int]] = {}
        for number, request in enumerate(requests):
            stop, longest = answer_limits(request.args[1])
            wanted.setdefault((stop, longest), []).append(number)
        answers: dict[int, str] = {}
        for (stop, longest), numbers in wanted.items():
            texts = [requests[number].args[0] for number in numbers]
            answers.update(zip(numbers, self._answers(texts, stop, longest), strict=True))
        return [answers[number] for number in range(len(requests))]

    def _answers(self, texts: Sequence[str], stop: Sequence[str], longest: int) -> list[str]:
        run = self.trainer.run
        prompts = [self.tok_encode(text)[-(self.context - longest) :] for text in texts]
        rows = [Row(ids, [IGNORED] * len(ids), number) for number, ids in enumerate(prompts, start=1)]

        def forward(batch: Sequence[Row]) -> list[list[float]]:
            asked = [row.input_ids for row in batch]
            found = generate.greedy(
                self.trainer.model,
                asked,
                pad_id=self.tokenizer.pad_token_id,
                stop_ids=run.stop_ids,
                longest=longest,
                stop=generate.StopStrings(stop, self.tokenizer) if stop else None,
            )
            return [[float(len(ids)), *map(float, ids), *[0.0] * (longest - len(ids))] for ids in found]

        values = heldout.sweep(self.trainer.model, rows, forward, bf16=run.settings.bf16, poll=self.poll)
        ids = [[int(token) for token in row[1 : 1 + int(row[0])]] for row in values]
        end = self.tokenizer.decode(self.eot_token_id)
        marks = handle_stop_sequences(list(stop), eos=end)
        found = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [postprocess_generated_text(text, marks, None) for text in found]


def answer_limits(told: dict[str, Any]) -> tuple[tuple[str, ...], int]:
    """(stop strings, most tokens) of a task's generation_kwargs."""
    known = normalize_gen_kwargs(told, LONGEST_ANSWER)
    stop = handle_stop_sequences(known.get("until"), eos=None)
    return tuple(text for text in stop if text), int(known["max_gen_toks"])
