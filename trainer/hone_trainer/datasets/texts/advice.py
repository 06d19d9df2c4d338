"""Advice: what to know before training on these rows. None of it stops a Dataset.

How many rows: OpenAI's guide to fine-tuning sees changes from 50 to 100 rows; LIMA (Zhou et al. 2023, arXiv 2305.11206)
aligned a model with 1,000 careful ones; broad instruction sets have 5,000 to 20,000 and more (Dolly 15,000, Alpaca
52,000). Preference sets: from about 1,000 pairs; UltraFeedback has 61,000. Verifiable: GSM8K has 7,473.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from hone_api.base.wording import are, counted
from hone_api.contract.privacy import quoted
from hone_api.contract.report import DatasetResult
from hone_api.dataset.dataset import Format
from hone_api.dataset.dataset_status import NotReadReason
from hone_trainer.datasets.texts.language import OTHER, UNKNOWN
from hone_trainer.datasets.texts.pitfalls import AnswerLengths, Pitfalls
from hone_trainer.datasets.texts.profile import Profile

_PREFERENCES = (Format.PREFERENCE, Format.KTO)
_FEW_VALIDATION_ROWS = 20
_MANY_DUPLICATES = Decimal("0.05")
_COMMON_ANSWER = Decimal("0.1")
_MIXED_LANGUAGE = Decimal("0.05")
_CLASSES = 200
_IMBALANCE = 10
_CONFLICTING = Decimal("0.01")
_FEW_ANSWERS = 20
"""Number of pairs, or answers of one label, below which lengths are not meaningful."""
_LENGTH_BIAS = Decimal("0.75")
"""Share of pairs; in HH-RLHF (harmless) the chosen answer is the shorter one in 55 %, which is not reported."""
_LENGTH_RATIO = 2
_OTHERS_NAMED = 3


def advice(
    result: DatasetResult,
    profile: Profile,
    format: str,
    crossing: Mapping[str, int] | None = None,
    notes: Sequence[str] = (),
) -> list[str]:
    """Sentences for people, the weightiest first.

    Args:
        crossing: rows of held-out splits whose question is in train.
        notes: what of the rows is not read.
    """
    if not result.rows:
        return []
    return [
        *_size(result, format),
        *_lengths(result),
        *_repeats(result),
        *_removed_answers(result),
        *_conflicts(result, profile.pitfalls, format),
        *_harmful(profile.pitfalls),
        *_tools(profile.pitfalls),
        *notes,
        *_length_bias(profile.pitfalls.lengths),
        *_answers(profile),
        *_conversations(result, profile),
        *_validation(result),
        *_crossing(result, crossing or {}),
        *_shared(result),
        *_languages(result),
        *_not_read(result),
    ]


def _size(result: DatasetResult, format: str) -> Iterator[str]:
    rows, verb = counted(result.rows, "row"), are(result.rows)
    if format == Format.TEXT:
        tokens = result.tokens.total if result.tokens else 0
        if tokens < 1_000_000:
            yield (
                f"About {tokens:,} tokens of text are few for method DAPT: a model takes up a domain from millions of"
                " tokens, and replays general text against forgetting."
            )
    elif format in _PREFERENCES:
        if result.rows < 1000:
            yield f"{rows} {verb} few for preferences: useful sets begin at about 1,000."
    elif format == Format.VERIFIABLE:
        if result.rows < 500:
            yield f"{rows} {verb} few for method GRPO: sets of some thousands are usual (GSM8K has 7,473)."
    elif result.rows < 50:
        yield (
            f"{rows} {verb} very few: from 50 to 100 on a change of tone shows; 500 to 1,000 careful ones are usual for"
            " behaviour and format."
        )
    elif result.rows < 500:
        yield (
            f"{rows} can teach a tone or a format; 500 to 1,000 careful ones are usual for behaviour and format,"
            " 5,000 to 20,000 for broad instruction following. Quality before quantity."
        )
    elif result.rows < 5000:
        yield (
            f"{rows} suit behaviour and format; broad instruction following takes 5,000 to 20,000."
            " Quality before quantity."
        )
    else:
        yield (
            f"{rows} suit broad instruction following. For behaviour or format alone, the best 1,000 of them may do as"
            " well (LIMA): quality before quantity."
        )


def _lengths(result: DatasetResult) -> Iterator[str]:
    tokens = result.tokens
    if tokens is None:
        return
    yield (
        f"An epoch has about {_round(tokens.total)} tokens; half of the rows have up to {tokens.median:,}, 95 % up to"
        f" {tokens.p95:,}."
    )
    fitting = next((entry for entry in tokens.over if entry.rows * 100 <= result.rows), None)
    if fitting is None:
        most = tokens.over[-1]
        yield (
            f"{counted(most.rows, 'row')} ({most.share}) {are(most.rows)} longer than {most.context:,} tokens: split"
            " them, unless the base"
            " model's context is longer."
        )
    elif fitting.rows:
        yield (
            f"With training.maxLength {fitting.context} (and a base model whose context is as long)"
            f" {counted(fitting.rows, 'row')} ({fitting.share}) {are(fitting.rows)} too long; the longest has about"
            f" {tokens.max:,} tokens."
        )
    else:
        yield f"Every row fits into training.maxLength {fitting.context}."


def _repeats(result: DatasetResult) -> Iterator[str]:
    if result.duplicates > _MANY_DUPLICATES * result.rows:
        yield (
            f"{_percent(result.duplicates, result.rows)} of the rows repeat another one exactly and weigh that much"
            " more: curation.deduplicate: Exact removes them."
        )


def _removed_answers(result: DatasetResult) -> Iterator[str]:
    if removed := sum(step.other_answers for step in result.curation):
        yield (
            f"{counted(removed, 'removed near duplicate has', 'removed near duplicates have')} another answer than the"
            " row that was kept, which came first: removed.jsonl lists them (with another answer)."
        )


def _conflicts(result: DatasetResult, pitfalls: Pitfalls, format: str) -> Iterator[str]:
    conflict = pitfalls.conflict
    if conflict.rows <= _CONFLICTING * result.rows:
        return
    rows = counted(conflict.rows, "row")
    if format == Format.PREFERENCE:
        pairs = counted(conflict.questions, "pair of answers is", "pairs of answers are")
        yield f"{pairs} given in both orders: nothing is learned from these rows."
    elif format == Format.KTO:
        yield f"{counted(conflict.questions, 'answer is', 'answers are')} labelled both true and false ({rows})."
    else:
        yield (
            f"{counted(conflict.questions, 'question has', 'questions have')} several answers"
            f" ({rows}): the model learns a mix of them. Keep one of each, unless you want variety."
        )


def _harmful(pitfalls: Pitfalls) -> Iterator[str]:
    if pitfalls.control_tokens:
        yield (
            f"{counted(pitfalls.control_tokens, 'row has', 'rows have')} a control token of chat templates in a text,"
            " such as <|im_start|>, [INST] or </s>: training refuses them where the base model knows the token. Remove"
            " it."
        )
    if pitfalls.invisible:
        yield (
            f"{counted(pitfalls.invisible, 'row has', 'rows have')} an answer of characters that show nothing"
            " (zero-width space, byte order"
            " mark): the model learns to say nothing. Remove these rows."
        )
    if pitfalls.nothing:
        yield (
            f"{counted(pitfalls.nothing, 'row has', 'rows have')} a text that is nan, NaN, NaT or <NA>, as pandas"
            " writes an empty cell: it"
            " is trained as text. Write empty cells as null or an empty text, e.g. by fillna('')."
        )
    if pitfalls.same_but_form:
        yield (
            f"In {counted(pitfalls.same_but_form, 'pair')} chosen and rejected differ in case or white space alone:"
            " nothing else"
            " is learned from them."
        )
    if pitfalls.without_answer_last:
        yield (
            f"{counted(pitfalls.without_answer_last, 'conversation does', 'conversations do')} not end with the"
            " assistant: nothing is learned from"
            " what follows the last answer. Add the answer, or cut them there."
        )
    if pitfalls.late_system:
        yield (
            f"In {counted(pitfalls.late_system, 'row')} a system turn comes after the first turn: many chat"
            " templates refuse it"
            " or leave it out. Put it first, or make it a user turn."
        )


def _tools(pitfalls: Pitfalls) -> Iterator[str]:
    if pitfalls.tools:
        faults = "; ".join(f"{text} ({rows:,})" for text, rows in pitfalls.tools.most_common())
        yield f"Tools that an API or a chat template may refuse, and the model learns to call so, by rows: {faults}."[
            :600
        ]


def _length_bias(lengths: AnswerLengths) -> Iterator[str]:
    """Preference optimisation takes length for quality where the data do: Singhal et al. 2023 (arXiv 2310.03716), Park
    et al. 2024 (arXiv 2403.19159)."""
    if lengths.pairs >= _FEW_ANSWERS and max(lengths.longer, lengths.shorter) >= _LENGTH_BIAS * lengths.pairs:
        word, part = ("longer", lengths.longer) if lengths.longer > lengths.shorter else ("shorter", lengths.shorter)
        yield (
            f"In {_percent(part, lengths.pairs)} of the pairs the chosen answer is the {word} one (mean"
            f" {lengths.better // lengths.pairs:,} characters, rejected {lengths.worse // lengths.pairs:,}): the model"
            f" may learn to be {word} rather than better. Add pairs in which it is not."
        )
    if min(lengths.better_rows, lengths.worse_rows) >= _FEW_ANSWERS:
        good, bad = lengths.better / lengths.better_rows, lengths.worse / lengths.worse_rows
        if max(good, bad) >= _LENGTH_RATIO * min(good, bad):
            word = "longer" if good > bad else "shorter"
            yield (
                f"Good answers are {word} than bad ones (mean {good:,.0f} characters against {bad:,.0f}): the model may"
                f" learn to be {word} rather than better."
            )


def _answers(profile: Profile) -> Iterator[str]:
    answers = profile.answers
    total = answers.rows + profile.long_answers
    if answers.kinds == answers.rows:
        return
    text, most = answers.common[0]
    if not profile.long_answers and 1 < answers.kinds <= _CLASSES and answers.kinds * 5 <= total:
        if most >= _IMBALANCE * answers.rarest:
            yield (
                f"The answers are of {answers.kinds} kinds, and unbalanced: {quoted(text[:60])} in"
                f" {counted(most, 'row')}, the"
                f" rarest in {answers.rarest:,}. curation.balance evens them out."
            )
    elif most > _COMMON_ANSWER * total and most > 2:
        same = quoted(text[:60])
        yield f"{_percent(most, total)} of the rows have the same answer, {same}: the model learns to give it."


def _conversations(result: DatasetResult, profile: Profile) -> Iterator[str]:
    if profile.with_tools:
        yield (
            f"{counted(profile.with_tools, 'row has', 'rows have')} tools: the base model's chat template must know"
            " them, or these rows are"
            " refused in training."
        )
    if profile.same_role_twice:
        yield (
            f"In {counted(profile.same_role_twice, 'row')} one role speaks twice in a row: some chat templates"
            " (Gemma, Mistral)"
            " refuse them."
        )
    if profile.with_names:
        named = counted(profile.with_names, "row names", "rows name")
        yield f"{named} who speaks (name): most chat templates do not show it."
    if 0 < profile.with_system < result.rows and profile.turns:
        yield (
            f"{profile.with_system:,} of {result.rows:,} rows have a system turn: train with the prompt that you will"
            " serve with."
        )


def _validation(result: DatasetResult) -> Iterator[str]:
    held = next((split.rows for split in result.splits if split.name == "validation"), None)
    if held is not None and held < _FEW_VALIDATION_ROWS:
        rows = counted(held, "validation row gives", "validation rows give")
        yield f"{rows} a rough held-out loss only: raise splits.validation, or add rows."


def _crossing(result: DatasetResult, crossing: Mapping[str, int]) -> Iterator[str]:
    for split in result.splits:
        if rows := crossing.get(split.name):
            yield (
                f"{rows:,} of {counted(split.rows, f'{split.name} row')} {'has its' if rows == 1 else 'have their'}"
                " question in train: a score on them is partly memory. Rows of the previous content keep their split:"
                " another splits.seed divides all again. Rows with a common value are kept together by splits.groupBy."
            )


def _shared(result: DatasetResult) -> Iterator[str]:
    if not result.shared_rows:
        return
    named = "; ".join(
        f"{one.name} has the questions of {counted(one.questions, 'row')}"
        + (f", {one.crossing:,} of them trained on in one and held out in the other" if one.crossing else "")
        for one in result.shared_rows[:_OTHERS_NAMED]
    )
    yield (
        f"Other Datasets share rows with this one: {named}. Do not evaluate on one what was trained on another:"
        " curation.deduplicateAgainst removes equal rows, curation.contamination those with a question of the other."
    )


def _languages(result: DatasetResult) -> Iterator[str]:
    identified = [entry for entry in result.languages if entry.language not in (OTHER, UNKNOWN)]
    total = sum(entry.rows for entry in identified)
    mixed = [entry for entry in identified if entry.rows > _MIXED_LANGUAGE * total]
    if len(mixed) > 1:
        listed = ", ".join(f"{entry.language} {entry.share}" for entry in mixed)
        yield f"Several languages: {listed}. If that is not meant, name those wanted in checks.languages."


_WHY_NOT = {
    NotReadReason.PAGE: "because Markdown next to files of rows describes them",
    NotReadReason.UNKNOWN_KIND: "because files of their kind are not read",
    NotReadReason.OTHER_SPLIT: "because they are of another split or configuration",
    NotReadReason.SAME_FILE: "because they are links to what is read",
}
"""Of the reasons, those by which rows may be missed."""


def _not_read(result: DatasetResult) -> Iterator[str]:
    for one in result.not_read:
        if why := _WHY_NOT.get(NotReadReason(one.reason)):
            more = f", … ({one.count:,} in all)" if one.count > len(one.first) else ""
            yield f"Not read, {why}: {', '.join(one.first)}{more}. To read it, name it in source.files."


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"


def _round(tokens: int) -> str:
    """12,345 as 12,000; 1,234,567 as 1.2 million."""
    if tokens >= 1_000_000:
        return f"{tokens / 1_000_000:.1f} million"
    digits = max(0, len(str(tokens)) - 2)
    return f"{round(tokens, -digits):,}"
