"""The model in training, with lm-eval's interface.

Requests are the same on every rank, and the ranks share the batches (`heldout.sweep`): lm-eval sees one model. Tokens,
prefixes, windows and the truncation of answers are those of lm-eval's own `HFLM`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, has_bos_prefix, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from hone_api.words.failures import FailureCode
from hone_trainer import harness
from hone_trainer.encoding import rendering
from hone_trainer.encoding.split_file import IGNORED, Row
from hone_trainer.errors import TrainerError
from hone_trainer.models import generate
from hone_trainer.scoring import heldout, probe_suite
from hone_trainer.scoring.in_training import MeasuredTrainer
from hone_trainer.scoring.row_measure import Poll

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

LONGEST_WINDOW = 4096
"""Tokens of a window when a text is scored; the model's context if that is smaller. Limits memory."""
LONGEST_ANSWER = 256
"""Maximum tokens of an answer for tasks without a limit."""
Request = tuple[Any, list[int], list[int]]
"""(texts, ids of the context, ids of the continuation)."""


class TunedModel(TemplateLM):
    """The trainer's model in its current state. Its methods are collectives.

    Args:
        poll: called before each batch on every rank; may raise to give up.
    """

    def __init__(self, trainer: MeasuredTrainer, poll: Poll) -> None:
        super().__init__()
        self.trainer, self.poll = trainer, poll
        self.tokenizer = trainer.run.base.tokenizer
        self.context: int = trainer.run.base.context

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """Precedes a text that has no context."""
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else int(begin)

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        if add_special_tokens is None and has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id)):
            add_special_tokens = False
        options = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return list(self.tokenizer.encode(string, **options))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The conversation as text. If the template has no place for a system turn, the turn is dropped, as in
        lm-eval."""
        options = {"add_generation_prompt": add_generation_prompt, "continue_final_message": not add_generation_prompt}
        try:
            text = rendering.apply_template(self.tokenizer, chat_history, tokenize=False, **options)
        except TemplateError:
            chat = [turn for turn in chat_history if turn["role"] != "system"]
            text = rendering.apply_template(self.tokenizer, chat, tokenize=False, **options)
        return str(text)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """As in lm-eval, without a progress bar in the log."""
        return list(super().loglikelihood(requests, disable_tqdm=True))

    def _loglikelihood_tokens(self, requests: list[Request], **_: Any) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and whether greedy decoding gives the same tokens."""
        rows = [self._row(context, follows, number) for number, (_, context, follows) in enumerate(requests, start=1)]
        means = probe_suite.likely(self.trainer, rows, self.poll).means
        loss, right = means["loss"], means["token_accuracy"]
        columns = zip(loss.totals, right.totals, right.weights, strict=True)
        return [(-nats, correct == tokens) for nats, correct, tokens in columns]

    def _row(self, context: Sequence[int], follows: Sequence[int], number: int) -> Row:
        """A row of context and continuation; what exceeds the model's context is cut from the left.

        HFLM drops the last token, which predicts nothing, and so keeps one more token of a row that is cut.
        """
        if not 0 < len(follows) < self.context:
            message = f"{harness.FIELD}: an answer to score has {len(follows)} tokens, the model reads {self.context}"
            raise TrainerError(FailureCode.INVALID_CONFIGURATION, f"{message}: remove its task")
        ids = [*context, *follows][-self.context :]
        return Row(ids, [IGNORED] * (len(ids) - len(follows)) + list(follows), number)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, scored window by window."""
        longest = min(self.context, LONGEST_WINDOW)
        windows: list[Request] = []
        counts = []
        for (text,) in (request.args for request in requests):
            token_windows = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=longest - 1,
                context_len=1,
            )
            disjoint = [(None, *make_disjoint_window(pair)) for pair in token_windows]
            windows += disjoint
            counts.append(len(disjoint))
        values = iter(self._loglikelihood_tokens(windows))
        return [sum(next(values)[0] for _ in range(count)) for count in counts]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy answers, up to the first stop string of the task."""
        by_limits: dict[tuple[tuple[str, ...], int], list[int]] = {}
        for number, request in enumerate(requests):
            stop, longest = answer_limits(request.args[1])
            by_limits.setdefault((stop, longest), []).append(number)
        answers: dict[int, str] = {}
        for (stop, longest), numbers in by_limits.items():
            texts = [requests[number].args[0] for number in numbers]
            answers.update(zip(numbers, self._answers(texts, stop, longest), strict=True))
        return [answers[number] for number in range(len(requests))]

    def _answers(self, texts: Sequence[str], stop: Sequence[str], longest: int) -> list[str]:
        run = self.trainer.run
        prompts = [self.tok_encode(text)[-(self.context - longest) :] for text in texts]
        rows = [Row(ids, [IGNORED] * len(ids), number) for number, ids in enumerate(prompts, start=1)]

        def forward(batch: Sequence[Row]) -> list[list[float]]:
            prompts = [row.input_ids for row in batch]
            generated = generate.greedy(
                self.trainer.model,
                prompts,
                pad_id=self.tokenizer.pad_token_id,
                stop_ids=run.stop_ids,
                longest=longest,
                stop=generate.StopStrings(stop, self.tokenizer) if stop else None,
            )
            return [[float(len(ids)), *map(float, ids), *[0.0] * (longest - len(ids))] for ids in generated]

        values = heldout.sweep(self.trainer.model, rows, forward, bf16=run.settings.bf16, poll=self.poll)
        ids = [[int(token) for token in row[1 : 1 + int(row[0])]] for row in values]
        end = self.tokenizer.decode(self.eot_token_id)
        marks = handle_stop_sequences(list(stop), eos=end)
        decoded = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [postprocess_generated_text(text, marks, None) for text in decoded]


def answer_limits(generation_kwargs: dict[str, Any]) -> tuple[tuple[str, ...], int]:
    """(stop strings, maximum tokens) from a task's generation_kwargs."""
    options = normalize_gen_kwargs(generation_kwargs, LONGEST_ANSWER)
    stop = handle_stop_sequences(options.get("until"), eos=None)
    return tuple(text for text in stop if text), int(options["max_gen_toks"])
