"""Rows to token ids and labels: exactly the assistant's turns and their end-of-turn tokens, or the row is refused.

How a turn is proved, for any chat template:

1. The prompt is rendered and tokenised as it is when the model is served: the turns before, and the generation prompt.
   The conversation that ends with the turn must begin with it. The turn starts there.
2. From there the tokens up to some added token (the end-of-turn token) must decode to the turn's reasoning and content;
   only white space may differ, at either end. Those tokens and the end-of-turn token are trained; what follows (a line
   break) is not. What the template itself writes before any content is trained as well: a served model has to write it
   (Qwen3's empty <think> block of an answer without reasoning; the header of a turn, if there is no generation prompt).
3. A turn that calls tools is written by the template in its own way. There the tokens up to the end-of-turn token that
   other turns have must show every name, key and value of the calls, and the content.

Turns of weight 0 are read and not trained.

Where the template writes OpenAI's harmony format, the turn is proved channel by channel (`harmony`).
Templates that take content only in parts, as of image models, get each text as a part, as servers give it.
Templates that rewrite earlier turns (Qwen3 removes their reasoning) give one row per turn, each as it is served.
Labels are set by position, never by token id, so a pad token that equals the end-of-turn token changes nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress, count, islice, takewhile
from typing import TYPE_CHECKING, Any

from hone_api.words.failures import FailureCode
from hone_trainer.encoding import harmony, reasoning, rendering, tool_calls
from hone_trainer.encoding.reasoning import Frame
from hone_trainer.encoding.row import IGNORED, REFUSALS, Row, RowRefusedError
from hone_trainer.encoding.sections import Sections
from hone_trainer.encoding.tokens import Tokens
from hone_trainer.encoding.tool_calls import Message
from hone_trainer.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_QUESTION: Message = {"role": "user", "content": "a"}
_REASONED, _ANSWERED, _MARKED = "tortoises", "hedgehogs", "platypus"
"""Texts that no chat template writes by itself."""
_ANSWER: Message = {"role": "assistant", "content": _ANSWERED}
_CALLS = "the calls"
_PREPARED = 2**22
"""Characters that the renderings of one conversation may have together, if they are to be in memory at once."""
_FAILURES = (ArithmeticError, RecursionError, MemoryError, TypeError, ValueError, LookupError, AttributeError)


@dataclass
class _Renderings:
    """Beginnings of one conversation as texts, by their number of turns."""

    wholes: dict[int, str] = field(default_factory=dict)
    prompts: dict[int, str] = field(default_factory=dict)
    """With the generation prompt."""


class Encoder:
    """Encodes rows for one tokenizer. `end_of_turn_ids` grows with what was seen."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, train_on: str = "Assistant") -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ConfigError(
                "the model has no tokenizer.json: a fast tokenizer is needed", FailureCode.UNSUPPORTED_MODEL
            )
        if tokenizer.eos_token_id is None:
            raise ConfigError("the model's tokenizer has no end-of-sequence token", FailureCode.UNSUPPORTED_MODEL)
        self.tokenizer = tokenizer
        self.last_only = train_on == "LastAssistant"
        self.has_template = bool(tokenizer.chat_template)
        self.is_harmony = harmony.is_template(str(tokenizer.chat_template or ""))
        self.end_of_turn_ids: set[int] = set()
        self._dropped: dict[tuple[Any, ...], set[int]] = {}
        added = tokenizer.added_tokens_decoder
        self._added = set(added)
        special = {token.content for token in added.values() if token.special} | set(tokenizer.all_special_tokens)
        self._special_ids = {id for id, token in added.items() if token.content in special}
        self._special = re.compile("|".join(re.escape(token) for token in sorted(special, key=len, reverse=True)))
        self._tokens = Tokens(tokenizer)
        self._decode, self._eos_id = self._tokens.decode, self._tokens.eos_id
        self._sections = Sections(tokenizer, lambda text: self._tokens.encode(text, add_special_tokens=False))

    def takes(self, record: dict[str, Any]) -> str | None:
        """What is wrong with the record's shape, or None."""
        if {"messages", "text"} & set(record) or {"prompt", "completion"} <= set(record):
            return None
        return "has neither messages, nor prompt and completion, nor text"

    def encode(self, record: dict[str, Any], number: int = 1) -> list[Row]:
        """The rows of one normalised record; several only where the template rewrites earlier turns.

        Raises:
            RowRefusedError: the record cannot be labelled with certainty.
        """
        if "messages" in record:
            return self._chat(record["messages"], number, record.get("tools", ()))
        if "prompt" in record and self.has_template:
            pair = [{"role": "user", "content": record["prompt"]}]
            return self._chat([*pair, {"role": "assistant", "content": record["completion"]}], number)
        if "prompt" in record:
            return [self._pair(record["prompt"], record["completion"], number)]
        return [self._text(record["text"], number)]

    def _chat(self, messages: Sequence[Message], number: int, tools: Sequence[Any] = ()) -> list[Row]:
        turns = [i for i, m in enumerate(messages) if m["role"] == "assistant" and m.get("weight") != 0]
        if not turns:
            raise RowRefusedError("NoContent", "no assistant turn to train")
        unweighted = [{key: value for key, value in message.items() if key != "weight"} for message in messages]
        shown = self._shown(unweighted[: turns[-1] + 1], tools)
        turns = turns[-1:] if self.last_only else turns
        try:
            renderings = self._prepared(shown, turns, tools)
            rows = [self._last_turn(shown[: i + 1], number, tools, renderings) for i in turns]
        finally:
            self._sections.forget()
        last = rows[-1]
        if all(row.input_ids == last.input_ids[: len(row.input_ids)] for row in rows):
            return [_merge(rows)]
        return rows

    def prompt(self, asked: str | Sequence[Message], tools: Sequence[Any] = ()) -> list[int]:
        """Token ids that a server gives the model for a question or turns; `end_of_turn_ids` has what ends its answer.

        Raises:
            RowRefusedError: the chat template refuses the turns, or leaves one out.
        """
        if isinstance(asked, str) and not self.has_template:
            self._refuse_control_tokens(asked)
            self._eos()
            return self._tokens.without_eos(self._tokens.encode(asked))
        turns = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
        shown = self._shown(turns, tools)
        text = self._prompt(shown, tools)
        self._refuse_dropped(shown, text, tools, add_generation_prompt=True)
        self.end_of_turn_ids |= {self._eos_id if self._mark is None else self._mark}
        return self._tokens.encode(text, add_special_tokens=False)

    def _shown(self, messages: Sequence[Message], tools: Sequence[Any]) -> list[Message]:
        """The turns in the form in which the template shows all of them."""
        if not self.has_template:
            raise ConfigError(
                "rows are conversations, but the model has no chat template", FailureCode.UNSUPPORTED_MODEL
            )
        for text in tool_calls.texts_in([*messages, *tools]):
            self._refuse_control_tokens(text)
        return self._as_shown(self._with_reasoning(messages), tools)

    def _with_reasoning(self, messages: Sequence[Message]) -> list[Message]:
        """The turns with their reasoning where the template looks for it."""
        return reasoning.in_fields(messages) if self.is_harmony or self._frames[1] else list(messages)

    def _prompt(self, messages: Sequence[Message], tools: Sequence[Any]) -> str:
        return self._render(messages, tools, add_generation_prompt=True) if messages else ""

    def _prepared(self, messages: list[Message], turns: list[int], tools: Sequence[Any]) -> _Renderings:
        """What the proofs of these turns will ask for, rendered at once; the longest is tokenised. No result depends on
        it."""
        from jinja2.exceptions import TemplateError

        renderings = _Renderings()
        if self.is_harmony or len(turns) * sum(len(str(m.get("content"))) for m in messages) > _PREPARED:
            return renderings
        taken = self._as_taken(messages)
        wholes, prompts = [taken[: i + 1] for i in turns], [taken[:i] for i in turns if i]
        requests: list[tuple[list[Any], dict[str, Any]]] = [(wholes, {}), (prompts, {"add_generation_prompt": True})]
        try:
            texts, heads = rendering.applied_to_all(self.tokenizer, requests, list(tools) or None)
            self._sections.take(texts[-1])
        except (TemplateError, *_FAILURES):  # the turn that fails says so
            return renderings
        renderings.wholes.update(zip(map(len, wholes), texts, strict=True))
        renderings.prompts.update(zip(map(len, prompts), heads, strict=True))
        return renderings

    def _as_shown(self, messages: list[Message], tools: Sequence[Any]) -> list[Message]:
        """The turns in the form in which the template shows all tools and calls.

        Raises:
            RowRefusedError: ToolsDropped.
        """
        if not tools and not any(tool_calls.calls_in(messages)):
            return messages
        missing: str | None = _CALLS
        for form in (messages, tool_calls.with_text_arguments(messages)):
            try:
                text = self._render(form, tools)
            except RowRefusedError as error:
                if isinstance(error.__cause__, TypeError):  # the template joins arguments as text
                    continue
                if missing == _CALLS:
                    raise
                break
            if tool_calls.shows_python(text, messages):
                continue
            # The call of a tool also has its name: the first prompt must show them all.
            asked = list(takewhile(lambda message: message["role"] != "assistant", form))
            missing = tool_calls.missing_tool(self._prompt(asked, tools) if tools and asked else text, tools)
            missing = missing or tool_calls.missing_call(text, messages)
            if missing is None:
                return form
        raise RowRefusedError("ToolsDropped", f"the chat template does not show {missing} as JSON or text")

    def _last_turn(
        self, messages: Sequence[Message], number: int, tools: Sequence[Any] = (), renderings: _Renderings | None = None
    ) -> Row:
        """The conversation with its last turn trained; it ends with the turn's end-of-turn token."""
        renderings = renderings or _Renderings()
        if self.is_harmony:
            return self._harmony_turn(messages, number, tools)
        turn = messages[-1]
        text = renderings.wholes.get(len(messages)) or self._render(messages, tools)
        prompt = renderings.prompts.get(len(messages) - 1) or self._prompt(messages[:-1], tools)
        self._refuse_dropped(messages, text, tools)
        for ids, start in self._readings(messages, text, tools, prompt):
            forms = self._forms(turn, prompt)
            end = (
                self._end_of_calls(ids, start, turn) if turn.get("tool_calls") else self._end_of_turn(ids, start, forms)
            )
            if end is None:
                continue
            self.end_of_turn_ids.add(ids[end])
            return self._row(ids[: end + 1], start, number)
        raise _not_proved(turn, text, prompt)

    def _harmony_turn(self, messages: Sequence[Message], number: int, tools: Sequence[Any]) -> Row:
        """The last turn after the prompt that the model is served: once a turn has followed, the template leaves out
        reasoning that the prompt has."""
        prompt = self._render(messages[:-1], tools, add_generation_prompt=True) if messages[:-1] else ""
        self._refuse_dropped(messages[:-1], prompt, tools, add_generation_prompt=True)
        before = self._render(harmony.QUESTION, add_generation_prompt=True)
        answer = self._render([*harmony.QUESTION, messages[-1]]).removeprefix(before)
        head, ids = (self._tokens.encode(text, add_special_tokens=False) for text in (prompt, answer))
        if not head or ids[-1] not in self._added or not harmony.says(self._decode(ids), messages[-1]):
            message = f"the template's text is not the turn in harmony's channels: {messages[-1]['content'][:60]!r}"
            raise RowRefusedError("NotProved", message)
        self.end_of_turn_ids.add(ids[-1])
        return self._row(head + ids, len(head), number)

    def _readings(
        self, messages: Sequence[Message], text: str, tools: Sequence[Any], prompt: str
    ) -> Iterator[tuple[list[int], int]]:
        """Token ids of the conversation and a candidate for the index of its last turn's first token."""
        text = reasoning.continued(prompt, text, messages[-1])
        if text.startswith(prompt):
            head = self._sections.ids(prompt)
            ids = self._tokens.continue_from(head, self._sections.ids(text), text[len(prompt) :])
            if ids is not None:
                yield ids, len(head)
                follower = self._follower_of_calls if messages[-1].get("tool_calls") else self._follower
                if follower is not None:
                    yield [*ids, follower], len(head)

    def _forms(self, turn: Message, prompt: str) -> list[list[str]]:
        """The texts that the turn may consist of after this prompt."""
        plain, reasoned = self._frames
        if reasoned and reasoning.FIELDS[0] in turn:
            return [reasoned.parts(turn)]
        content = turn["content"].lstrip()
        if reasoning.before_open_block(prompt) is None:  # it does not end with <think>
            missing = [] if prompt.endswith(self._header) else [[self._header, content]]
            return [[content], plain.parts(turn), *missing]
        if content.startswith(reasoning.OPEN):
            return [[content.removeprefix(reasoning.OPEN)]]
        return [plain.parts(turn)] if reasoning.CLOSE in plain.head else []

    def _end_of_turn(self, ids: list[int], start: int, forms: list[list[str]]) -> int | None:
        """Index of the end-of-turn token: the first added token before which the tokens decode to one of the forms."""
        normal = [[unicodedata.normalize("NFC", part) for part in parts] for parts in forms]
        is_end = map(self._can_end.__contains__, islice(ids, start + 1, None))
        for index in compress(count(start + 1), is_end):
            text = unicodedata.normalize("NFC", self._decode(ids[start:index]))
            if any(reasoning.are_all_of(parts, text) for parts in normal):
                return self._through_eos(ids, index)
        return None

    def _through_eos(self, ids: list[int], index: int) -> int:
        """The index, or that of EOS where added tokens alone are before it: Cohere2's models write both."""
        for later in range(index, len(ids)):
            if ids[later] == self._eos_id:
                return later
            if ids[later] not in self._added:
                break
        return index

    def _end_of_calls(self, ids: list[int], start: int, turn: Message) -> int | None:
        """Index of the end-of-turn token of a turn with calls: the token that ends other turns, after all content."""
        ends = {self._mark, self._follower_of_calls} - {None} or {self._eos_id}
        last = len(ids) - 1 if ids[-1] in self._special_ids else None  # Gemma 4 ends calls with <|tool_response>
        for index in range(start + 1, len(ids)):
            if ids[index] in ends or index == last:
                text = self._decode(ids[start:index])
                says = tool_calls.missing_call(text, [turn]) is None
                texts = (turn["content"], turn.get(reasoning.FIELDS[0], ""))
                return index if says and all(tool_calls.shows(text, part) for part in texts) else None
        return None

    @cached_property
    def _can_end(self) -> set[int]:
        """Tokens that can end a turn. An added token that is not special, e.g. </think>, must end a plain turn."""
        return self._special_ids if self._mark is None else self._special_ids | {self._mark}

    @cached_property
    def _frames(self) -> tuple[Frame, Frame | None]:
        """What the template writes around turns without and with reasoning; None where it has no field for it."""
        prompt, thought = self._probe([]), _ANSWER | dict.fromkeys(reasoning.FIELDS, _REASONED)
        answered, reasoned = (reasoning.continued(prompt, self._probe([turn]), turn) for turn in (_ANSWER, thought))
        head, has_reasoning, rest = reasoned.removeprefix(prompt).partition(_REASONED)
        between, has_answer, _ = rest.partition(_ANSWERED)
        has_field = bool(has_reasoning and has_answer and reasoned.startswith(prompt))
        before = answered.removeprefix(prompt).partition(_ANSWERED)[0] if answered.startswith(prompt) else ""
        return Frame(before), Frame(head, between) if has_field else None

    @cached_property
    def _header(self) -> str:
        """The generation prompt. Some templates leave it out after a tool's turn: there the model has to write it."""
        return self._probe([]).removeprefix(self._probe([], add_generation_prompt=False))

    @cached_property
    def _mark(self) -> int | None:
        """The token that ends a turn without reasoning and calls; of other turns it is looked for in them."""
        after = self._probe([_ANSWER]).partition(_ANSWERED)[2]
        ids = self._tokens.encode(after.strip(), add_special_tokens=False)
        first = ids[0] if ids and ids[0] in self._added else None
        return self._follower if first is None else ids[self._through_eos(ids, 0)]

    @cached_property
    def _follower(self) -> int | None:
        """The token that begins the next turn, where it alone ends one: the template of GLM has no other."""
        return self._follows(_ANSWER, {"role": "user", "content": "b"})

    @cached_property
    def _follower_of_calls(self) -> int | None:
        call = {"type": "function", "function": {"name": _ANSWERED, "arguments": {"a": 1}}}
        return self._follows({**_ANSWER, "content": "", "tool_calls": [call]}, {"role": "tool", "content": "b"})

    def _follows(self, turn: Message, later: Message) -> int | None:
        text, longer = self._probe([turn]), self._probe([turn, later])
        if not text or not longer.startswith(text):
            return None
        last = self._tokens.encode(text, add_special_tokens=False)[-1:]
        ids = self._tokens.encode(longer[len(text) :].lstrip(), add_special_tokens=False)
        return ids[0] if ids and ids[0] in self._special_ids and not self._special_ids.issuperset(last) else None

    def _probe(self, turns: Sequence[Message], **options: Any) -> str:
        """A question and these turns as the template writes them; empty where it does not."""
        options = options or {"add_generation_prompt": not turns}
        try:
            return self._render([_QUESTION, *turns], **options)
        except (RowRefusedError, *_FAILURES):
            return ""

    def _pair(self, prompt: str, completion: str, number: int) -> Row:
        """Prompt, completion and end of sequence, for a model without a chat template."""
        self._refuse_control_tokens(prompt)
        self._refuse_control_tokens(completion)
        head = self._tokens.without_eos(self._tokens.encode(prompt))
        ids = self._tokens.continue_from(
            head, self._tokens.without_eos(self._tokens.encode(prompt + completion)), completion
        )
        if ids is None or _comparable(self._decode(ids[len(head) :])) != _comparable(completion):
            message = f"the tokens after the prompt are not the completion: {completion[:60]!r}"
            raise RowRefusedError("NotProved", message)
        return self._row([*ids, self._eos()], len(head), number)

    def _text(self, text: str, number: int) -> Row:
        """Every token of a document and end of sequence; control tokens in it are plain characters."""
        ids = self._tokens.without_eos(self._tokens.encode(text, split_special_tokens=True))
        ids.append(self._eos())
        return self._row(ids, 0, number)

    def _row(self, ids: list[int], start: int, number: int) -> Row:
        bos = self._tokens.bos_id
        if bos is not None and bos != self._eos_id and ids[:2] == [bos, bos]:
            raise RowRefusedError("DoubleBos", "the template and the tokenizer both add a beginning-of-sequence token")
        labels = ids.copy()
        labels[: max(start, 1)] = [IGNORED] * max(start, 1)  # nothing predicts the first token
        if len(ids) < 2:
            raise RowRefusedError("NoContent", "no token to train")
        return Row(ids, labels, number)

    def _refuse_dropped(self, messages: Sequence[Message], text: str, tools: Sequence[Any], **options: Any) -> None:
        """Refuse a conversation if the text that the template makes of it lacks a turn that is not the assistant's."""
        turns = (tuple((m["role"], "tool_calls" in m) for m in messages), bool(tools), *options)
        if turns not in self._dropped:
            self._dropped[turns] = self._drops(messages, tools, options)
        for index, turn in enumerate(messages):
            is_lost = index in self._dropped[turns] or not tool_calls.shows(text, turn["content"])
            if turn["role"] != "assistant" and is_lost:
                way_out = ": move its text into the next user turn" if turn["role"] == "system" else ""
                raise RowRefusedError("TurnDropped", f"the chat template drops the {turn['role']} turn{way_out}")

    def _drops(self, messages: Sequence[Message], tools: Sequence[Any], options: dict[str, Any]) -> set[int]:
        """Places of system and user turns that the template leaves out whatever they say: another turn may say the
        same."""
        marks = {i: f"{_MARKED} {i}." for i, m in enumerate(messages) if m["role"] in ("system", "user")}
        try:
            text = self._render(
                [{**m, "content": marks.get(i, m["content"])} for i, m in enumerate(messages)], tools, **options
            )
        except RowRefusedError:
            return set()
        return {index for index, mark in marks.items() if mark not in text}

    def _render(self, messages: Sequence[Message], tools: Sequence[Any] = (), **options: Any) -> str:
        text = str(self._apply(messages, tools, tokenize=False, **options))
        if len(text) > rendering.MAX_CHARACTERS:
            raise RowRefusedError("TemplateRefused", f"the chat template makes {len(text)} characters of the row")
        return text

    def _apply(self, messages: Sequence[Message], tools: Sequence[Any], **options: Any) -> Any:
        from jinja2.exceptions import TemplateError

        try:
            return rendering.apply_template(
                self.tokenizer, self._as_taken(messages), tools=list(tools) or None, **options
            )
        except TemplateError as error:
            raise RowRefusedError("TemplateRefused", f"the chat template says: {error}") from None
        except _FAILURES as error:
            raise RowRefusedError("TemplateRefused", f"the chat template fails: {type(error).__name__}") from error

    def _as_taken(self, messages: Sequence[Message]) -> list[Message]:
        return _in_parts(messages) if self._takes_parts else list(messages)

    @cached_property
    def _takes_parts(self) -> bool:
        """Whether the template shows content only in parts."""
        from jinja2.exceptions import TemplateError

        shown, turns = [], [_QUESTION, _ANSWER]
        for form in (turns, _in_parts(turns)):
            try:
                shown.append(_ANSWERED in rendering.apply_template(self.tokenizer, form, tokenize=False))
            except (TemplateError, *_FAILURES):
                shown.append(False)
        return shown == [False, True]

    def _eos(self) -> int:
        self.end_of_turn_ids.add(self._eos_id)
        return self._eos_id

    def _refuse_control_tokens(self, content: str) -> None:
        token = self._special.search(content)
        if token:
            raise RowRefusedError("ControlToken", f"content holds the control token {token.group()!r}")


def _in_parts(messages: Sequence[Message]) -> list[Message]:
    return [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in messages]


def _merge(rows: list[Row]) -> Row:
    """The last row, with the trained turns of the earlier ones, which are prefixes of it."""
    last = rows[-1]
    labels = list(last.labels)
    for row in rows[:-1]:
        start = row.labels.count(IGNORED)  # what is trained of a turn is the end of its row
        labels[start : len(row.labels)] = row.labels[start:]
    return Row(last.input_ids, labels, last.number)


def _comparable(text: str) -> str:
    """Text without outer white space, which templates trim, in the Unicode form that tokenizers normalise to."""
    return unicodedata.normalize("NFC", text).strip()


def _not_proved(turn: Message, text: str, prompt: str) -> RowRefusedError:
    if reasoning.before_open_block(prompt) is not None and not text.startswith(prompt):
        code, why = "NoReasoning", REFUSALS["NoReasoning"]
    elif prompt.rstrip().endswith(reasoning.CLOSE) and reasoning.has_block(turn):
        code, why = "ReasoningOff", REFUSALS["ReasoningOff"]
    else:
        code, why = "NotProved", "the template's text is not the turn's content and an end-of-turn token"
    return RowRefusedError(code, f"{why.rstrip('.')}: {turn['content'][:60]!r}")
