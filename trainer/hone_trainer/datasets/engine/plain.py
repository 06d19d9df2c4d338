"""Plain rows as columns, some thousand at a time: texts, pairs, and turns of role and content, in lines of JSON.

What is proved here of the rows of a block at once is that `Check` and `features` would make the very same columns of
each. A row for which it cannot be proved is left to them, and so is a block that is not plainly one object a line.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from hone_api.dataset.dataset import Format
from hone_trainer.datasets.engine import features
from hone_trainer.datasets.engine.arrays import column, indices, numbers, of_numbers, of_texts, scalar
from hone_trainer.datasets.engine.parts import GROUP_ROWS
from hone_trainer.datasets.formats.detect import Detected
from hone_trainer.datasets.formats.pairs import alpaca_pair
from hone_trainer.datasets.formats.unread import LEGACY_END
from hone_trainer.datasets.readers.items import MAX_ROW_BYTES, line_breaks
from hone_trainer.datasets.readers.pieces import BLOCK_BYTES, Block
from hone_trainer.datasets.readers.rows import RawRow, strict_json
from hone_trainer.datasets.texts import pitfalls
from hone_trainer.datasets.texts.statistics import BYTES_PER_TOKEN
from hone_trainer.datasets.texts.words import all_normalised

_ROLES = {
    Format.TEXT: ("text",),
    Format.PROMPT_COMPLETION: ("prompt", "completion"),
    Format.CHAT: ("messages",),
    Format.ALPACA: ("instruction", "output"),
}
"""Of formats whose rows can be plain, those that a plain row has."""
_NOT_JSON = re.compile(rb"[:\[,]\s*-?(?:NaN|Inf)|\d{4300}")
"""Numbers that pyarrow reads, and `strict_json` refuses."""
_MOST_KEYS = 64
"""Of a block: pyarrow makes a value of each row for each of them."""
_KEY_ENDS = re.compile(rb'"(?<![^\\]\\")(?=\s*+:)')
"""Quotation marks that may end a key: all but escaped ones."""
_SHORT_KEYS = re.compile(rb'"(?<!\\")([^"\\]{0,80}+)"\s*+:\s*+([\[{]?)')
_ALL_KEYS = re.compile(rb'[{,](?=\s*+"((?:[^"\\]|\\.)*+)"\s*+:\s*+([\[{]?))', re.DOTALL)
"""At least the keys of JSON, and how the value begins if it is an array or an object."""
_SPACED_KEY = re.compile(rb'"(?<!\\")\s+:')
_BACKSLASHES = re.compile(rb'\\\\+(?="\s*:)')
"""Two or more before a quotation mark that may end a key."""
_VALUE = 32
"""Bytes of a number in a list, in Python."""
_STYLES = ((b", ", b": "), (b",", b":"))
"""Of JSON: as most write it, and as we do."""
_ZEROS = ("place_line", "flags", "untrained", "better", "worse")
_LETTERS = {role: letter for role, letter in features.ROLE_LETTERS.items() if role != "tool"}
_NAMES = {letter: role for role, letter in _LETTERS.items()}
_KEYS = {letter: f"\0{role}\0".encode() for role, letter in _LETTERS.items()}
_quoted = json.encoder.encode_basestring
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


_BEGIN_OF_ROW = re.compile(rb"\s*+[!-~]")
"""Of a line that is neither blank nor begins with a byte order mark."""


class Plain(NamedTuple):
    """The rows of a block."""

    columns: dict[str, Any]
    """Of the plain ones: an Arrow array for each column that is not null."""
    rows: int
    others: dict[int, bytes]
    """Those that are not plain, by their place among all; the line of each, if it is of a block."""


class PlainRows:
    """Makes columns of blocks of rows of a format that `can_be` plain.

    Args:
        seed: of the splits.
        most: bound on the estimated tokens of a row; None: there is none.
        is_exact: whether exact duplicates are looked for.
    """

    def __init__(self, detected: Detected, seed: int, most: int | None, is_exact: bool) -> None:
        self._detected, self._seed, self._most, self._is_exact = detected, seed, most, is_exact
        roles = _ROLES[Format(detected.format.name)]
        self._columns = {role: detected.columns.get(role, role) for role in roles}
        self._odd = dict[str, bool]()
        self._read = [*self._columns.values()]
        self._takes_lines = detected.format.name != Format.ALPACA
        """Whether lines are read as they are."""
        if not self._takes_lines:
            self._read += {"input"} - detected.ignored
            self._columns = {role: role for role in _ROLES[Format.PROMPT_COMPLETION]}
        self._kind = _Talks if detected.format.name == Format.CHAT else _Flat

    @staticmethod
    def can_be(detected: Detected) -> bool:
        """Whether rows that were detected so can be plain."""
        return detected.is_plain(_ROLES.get(Format(detected.format.name), ()))

    def portions(self, rows: Iterable[RawRow]) -> Iterator[Block | list[RawRow]]:
        """Rows, so many at a time as `of` is to have."""
        if isinstance(rows, Block) and self._takes_lines:
            yield rows
            return
        some, size = list[RawRow](), 0
        for row in rows:
            some.append(row)
            size += len(row.line) if row.line is not None else _weight(row.value)
            if size >= BLOCK_BYTES or len(some) == GROUP_ROWS:
                yield some
                some, size = [], 0
        if some:
            yield some

    def of(self, rows: Block | Sequence[RawRow]) -> Plain | None:
        """The columns of some rows; None: most are not plain."""
        if not isinstance(rows, Block):
            return self.of_rows(rows)
        return self.of_block(rows.data) or self._of_others(rows.data)

    def of_block(self, data: bytes) -> Plain | None:
        """The columns of whole lines; None: they are not plainly one object a line."""
        if len(data) > MAX_ROW_BYTES:  # it may have a line that is too long
            return None
        body = data.rstrip(b"\r\n")
        table = _table(body, {name: self._kind.type() for name in self._columns.values()})
        if table is None:
            return None
        made = self._kind(table, self._columns, body)
        for name in table.column_names:
            if name not in self._columns.values() and self._detected.matters(name):
                made.left.update(_positions(table.column(name).is_valid()))
        lengths = made.lengths()
        if self._most is not None:
            made.left.update((lengths > self._most).nonzero()[0].tolist())
        if 2 * len(made.left) > table.num_rows:
            return None
        others = {}
        if made.left:
            every = body.split(b"\n")
            others = {at: every[at] + b"\n" for at in sorted(made.left)}
            kept = [at for at in range(table.num_rows) if at not in made.left]
            lengths = lengths[kept]
            made.keep(kept)
        return Plain(self._described(made, lengths), table.num_rows, others)

    def _of_others(self, data: bytes) -> Plain | None:
        """The same where some lines are damaged; None also where one of them may be no row, or another one."""
        every = data.rstrip(b"\r\n").split(b"\n") if len(data) <= MAX_ROW_BYTES else []
        damaged = {at: line + b"\n" for at, line in enumerate(every) if not _is_object(line)}
        if not 0 < 2 * len(damaged) <= len(every) or not all(map(_BEGIN_OF_ROW.match, damaged.values())):
            return None
        made = self.of_block(b"\n".join([line for at, line in enumerate(every) if at not in damaged]))
        return made and _with(made, damaged)

    def of_rows(self, rows: Sequence[RawRow]) -> Plain | None:
        """The same of rows of any reader, by lines that are written of what a plain row has."""
        lines, left = list[bytes](), dict[int, bytes]()
        for at, row in enumerate(rows):
            try:
                lines.append(self._line(row))
            except (TypeError, ValueError, RecursionError):
                left[at] = b""
        if not lines or (made := self.of_block(b"\n".join(lines))) is None:
            return None
        return _with(made, left)

    def _line(self, row: RawRow) -> bytes:
        """Raises ValueError, TypeError or RecursionError for some rows that are not plain."""
        if row.line is not None and self._takes_lines:
            return row.line.rstrip(b"\r\n")
        value = row.value if row.line is None else strict_json(row.line.decode())
        if type(value) is not dict or any(value[name] is not None for name in value if self._is_odd(name)):
            raise ValueError("the row is not plain")
        if self._takes_lines:
            return _encode({name: value.get(name) for name in self._read}).encode()
        return _encode(alpaca_pair(*map(value.get, self._read))).encode()

    def _is_odd(self, name: str) -> bool:
        """Whether a row with a value in a column is not plain."""
        if name not in self._odd:
            self._odd[name] = name not in self._read and self._detected.matters(name)
        return self._odd[name]

    def _described(self, made: _Flat | _Talks, lengths: Any) -> dict[str, Any]:
        import numpy

        lines = made.lines()
        group = content = _first_bytes([hashlib.sha256(b"0\0" + line).digest() for line in lines])
        if self._seed:
            seed = b"%d\0" % self._seed
            group = _first_bytes([hashlib.sha256(seed + line).digest() for line in lines])
        zeros = of_numbers(numpy.zeros(len(lines), dtype=numpy.uint32))
        return {
            **dict.fromkeys(_ZEROS, zeros),
            "line": of_texts(lines),
            "grp": of_numbers(group),
            "content": of_numbers(content),
            "size": of_numbers(numpy.array([*map(len, lines)], dtype=numpy.uint32)),
            "length": of_numbers(lengths.astype(numpy.uint32)),
            **made.features(self._is_exact),
        }


def _is_object(line: bytes) -> bool:
    try:
        return type(strict_json(line.decode())) is dict
    except ValueError:
        return False


def _with(made: Plain, left: dict[int, bytes]) -> Plain:
    """The rows with those that were left out, by their place among all."""
    count = made.rows + len(left)
    places = [at for at in range(count) if at not in left]
    others = left | {places[at]: line for at, line in made.others.items()}
    return Plain(made.columns, count, dict(sorted(others.items())))


class _Flat:
    """Rows of one text, or of a prompt and a completion."""

    def __init__(self, table: Any, columns: dict[str, str], body: bytes) -> None:
        self._columns, self._body, self._rows = columns, body, table.num_rows
        self._is_alone = {*table.column_names} == {*columns.values()}
        self._arrays = {role: table.column(name).combine_chunks() for role, name in columns.items()}
        self._texts = {role: values.to_pylist() for role, values in self._arrays.items()}
        self._kept: Sequence[int] = range(table.num_rows)
        self.left = {at for role in columns for at in _unfit(self._arrays[role], self._texts[role], body)}
        """Rows that are not plain."""
        if LEGACY_END.encode() in body or b"\\u" in body:
            ends = enumerate(self._texts.get("completion", ()))
            self.left.update([at for at, text in ends if text and text.endswith(LEGACY_END)])

    @staticmethod
    def type() -> Any:
        """Of a column, in Arrow."""
        import pyarrow

        return pyarrow.string()

    def lengths(self) -> Any:
        """Tokens of each row, estimated, in numpy."""
        return _tokens(sum(_sizes(values) for values in self._arrays.values()))

    def keep(self, kept: Sequence[int]) -> None:
        """Forget all rows but some."""
        self._kept = kept
        self._arrays = {role: values.take(indices(kept)) for role, values in self._arrays.items()}
        self._texts = {role: [texts[at] for at in kept] for role, texts in self._texts.items()}

    def lines(self) -> list[bytes]:
        """The canonical line of each row."""
        written = self._written() if self._is_alone else None
        if written is None:
            return [line.encode() for line in self._quoted(*self._texts.values())]
        if len(self._kept) < self._rows:
            written = [written[at] for at in self._kept]
        for at in _spelled(written, self._body):
            (line,) = self._quoted(*([texts[at]] for texts in self._texts.values()))
            written[at] = line.encode()
        return written

    def _written(self) -> list[bytes] | None:
        names = [json.dumps(name).encode() for name in self._columns.values()]
        fields = [b'"%b"' % role.encode() for role in self._columns]
        for comma, colon in _STYLES:
            between = [
                (b'"%b%b%b"' % (comma, name, colon), b'",%b:"' % field, self._rows)
                for name, field in zip(names[1:], fields[1:], strict=True)
            ]
            begin = b'{%b%b"' % (names[0], colon), b'{%b:"' % fields[0]
            if (lines := _as_written(self._body, self._rows, begin, between, b'"}')) is not None:
                return lines
        return None

    def _quoted(self, texts: Sequence[str], answers: Sequence[str] | None = None) -> list[str]:
        if answers is None:
            return [f'{{"text":{_quoted(text)}}}' for text in texts]
        pairs = zip(texts, answers, strict=True)
        return [f'{{"prompt":{_quoted(prompt)},"completion":{_quoted(answer)}}}' for prompt, answer in pairs]

    def features(self, is_exact: bool) -> dict[str, Any]:
        """The columns of `Features`, besides the length."""
        norms = {role: all_normalised(texts) for role, texts in self._texts.items()}
        if "text" in norms:
            keys = [features.KEY_OF_TEXT + norm for norm in norms["text"]]
            return {"exact": of_numbers(_hashes(keys))} if is_exact else {}
        import numpy
        import pyarrow
        from pyarrow import compute

        question, answer_hash = (_hashes(some) for some in norms.values())
        answers = self._arrays["completion"]
        sizes = compute.utf8_length(answers)
        flags = numpy.where(numbers(sizes) <= features.ANSWER_CHARACTERS, 0, features.LONG_ANSWER).astype(numpy.uint32)
        for role, texts in self._texts.items():
            for at, bits in _bits(texts, [role == "completion"] * len(texts)):
                flags[at] |= bits
        columns = {"question": question, "answer_hash": answer_hash, "flags": flags}
        if is_exact:
            columns["exact"] = features.key_of_pair(question, answer_hash)
        is_short = compute.less_equal(sizes, scalar(features.ANSWER_CHARACTERS, sizes.type))
        shown = compute.if_else(is_short, answers, scalar(None, pyarrow.string()))
        return {**{name: of_numbers(values) for name, values in columns.items()}, "answer": shown}


class _Talks:
    """Conversations of system, user and assistant, each turn of a role and a text."""

    def __init__(self, table: Any, columns: dict[str, str], body: bytes) -> None:
        import numpy

        self._name, self._body, self._rows = columns["messages"], body, table.num_rows
        rows = table.column(self._name).combine_chunks()
        turns, self._begins = rows.values, numbers(rows.offsets).astype(numpy.int64)
        self._is_alone = table.column_names == [self._name] and turns.type.num_fields == 2
        self._texts, roles = (turns.field(name).to_pylist() for name in ("content", "role"))
        self._kept: Sequence[int] = range(table.num_rows)
        self._sizes = _sizes(turns.field("content"))
        letters = "".join([_LETTERS.get(role, "?") for role in roles])
        self._patterns = [letters[begin:end] for begin, end in pairwise(self._begins.tolist())]
        unfit = [*_unfit(turns.field("content"), self._texts, body), *_positions(turns.is_null())]
        for field in turns.type:
            if field.name not in ("role", "content"):
                unfit += _positions(turns.field(field.name).is_valid())
        fine = {pattern for pattern in set(self._patterns) if _is_conversation(pattern)}
        self.left = {at for at, pattern in enumerate(self._patterns) if pattern not in fine}
        self.left.update((numpy.searchsorted(self._begins, unfit, side="right") - 1).tolist())

    @staticmethod
    def type() -> Any:
        """Of the column, in Arrow."""
        import pyarrow

        return pyarrow.list_(pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())]))

    def lengths(self) -> Any:
        """As `_Flat.lengths`."""
        import numpy

        sums = numpy.concatenate([[0], numpy.cumsum(self._sizes)])[self._begins]
        return _tokens(sums[1:] - sums[:-1])

    def keep(self, kept: Sequence[int]) -> None:
        """As `_Flat.keep`."""
        import numpy

        begins = self._begins.tolist()
        self._kept, self._patterns = kept, [self._patterns[at] for at in kept]
        self._texts = [text for at in kept for text in self._texts[begins[at] : begins[at + 1]]]
        self._begins = numpy.cumsum([0, *map(len, self._patterns)])

    def lines(self) -> list[bytes]:
        """As `_Flat.lines`."""
        written = self._written() if self._is_alone else None
        if written is None:
            return [self._quoted(at) for at in range(len(self._patterns))]
        if len(self._kept) < self._rows:
            written = [written[at] for at in self._kept]
        for at in _spelled(written, self._body):
            written[at] = self._quoted(at)
        return written

    def _written(self) -> list[bytes] | None:
        name, turns = json.dumps(self._name).encode(), len(self._sizes)
        for comma, colon in _STYLES:
            between = [
                (b'"%b"content"%b"' % (comma, colon), b'","content":"', turns),
                (b'"}%b{"role"%b"' % (comma, colon), b'"},{"role":"', turns - self._rows),
            ]
            begin = b'{%b%b[{"role"%b"' % (name, colon, colon), b'{"messages":[{"role":"'
            if (lines := _as_written(self._body, self._rows, begin, between, b'"}]}')) is not None:
                return lines
        return None

    def _quoted(self, row: int) -> bytes:
        texts = self._texts[self._begins[row] : self._begins[row + 1]]
        turns = zip(self._patterns[row], texts, strict=True)
        parts = [f'{{"role":"{_NAMES[letter]}","content":{_quoted(text)}}}' for letter, text in turns]
        return f'{{"messages":[{",".join(parts)}]}}'.encode()

    def features(self, is_exact: bool) -> dict[str, Any]:
        """As `_Flat.features`."""
        import numpy
        import pyarrow

        norms, begins = all_normalised(self._texts), self._begins.tolist()
        asked, answered, answers, keys = list[bytes](), list[bytes](), list[str | None](), list[bytes]()
        flags = numpy.zeros(len(self._patterns), dtype=numpy.uint32)
        for row, (pattern, (begin, end)) in enumerate(zip(self._patterns, pairwise(begins), strict=True)):
            last = begin + pattern.rfind("a")
            asked.append(b" ".join(filter(None, norms[begin:last])))
            answered.append(norms[last])
            is_short = len(self._texts[last]) <= features.ANSWER_CHARACTERS
            answers.append(self._texts[last] if is_short else None)
            flags[row] = 0 if is_short else features.LONG_ANSWER
            if is_exact:
                parts = zip(pattern, norms[begin:end], strict=True)
                keys.append(b"".join([b"None", *[_KEYS[letter] + norm for letter, norm in parts]]))
        for turn, bits in _bits(self._texts, [letter == "a" for pattern in self._patterns for letter in pattern]):
            flags[numpy.searchsorted(self._begins, turn, side="right") - 1] |= bits
        columns = {"question": _hashes(asked), "answer_hash": _hashes(answered), "flags": flags}
        if is_exact:
            columns["exact"] = _hashes(keys)
        texts: dict[str, Sequence[Any]] = {"answer": answers, "roles": self._patterns}
        return {name: of_numbers(values) for name, values in columns.items()} | {
            name: column(values, pyarrow.string()) for name, values in texts.items()
        }


def _weight(value: Any) -> int:
    """About the bytes that a value of a row takes, in time that does not grow with a list of numbers."""
    if isinstance(value, dict):
        return _VALUE + sum(map(_weight, value.values()))
    if isinstance(value, list):
        are_numbers = not value or isinstance(value[0], (int, float))
        return _VALUE * (len(value) + 1) + (0 if are_numbers else sum(map(_weight, value)))
    return _VALUE + (len(value) if isinstance(value, (str, bytes)) else 0)


def _table(body: bytes, kinds: dict[str, Any]) -> Any:
    """The objects of lines, with the columns of these types; None: they are not plainly one object a line."""
    import pyarrow.json

    end = b"\r\n" if b"\r\n" in body else b"\n"
    lines = line_breaks(body) + 1
    # Within an object, no line that ends so goes before one that begins so.
    if not (body.startswith(b"{") and body.endswith(b"}") and body.count(b"}" + end + b"{") == lines - 1):
        return None
    lists = [name.encode() for name, kind in kinds.items() if pyarrow.types.is_list(kind)]
    turns = [field.name for kind in kinds.values() if pyarrow.types.is_list(kind) for field in kind.value_type]
    if not _is_bounded(body, [name.encode() for name in (*kinds, *turns)], lists):
        return None
    try:
        body.decode()
        table = pyarrow.json.read_json(
            io.BytesIO(body),
            read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(body) + 1),
            parse_options=pyarrow.json.ParseOptions(explicit_schema=pyarrow.schema(list(kinds.items()))),
        )
    except (UnicodeDecodeError, pyarrow.ArrowException):
        return None
    types = pyarrow.types
    rest = [field.type for field in table.schema if field.name not in kinds]
    for name in kinds:
        kind = table.schema.field(name).type
        rest += [field.type for field in kind.value_type] if types.is_list(kind) else []
    if table.num_rows != lines or any(map(types.is_nested, rest)):
        return None
    are_texts = all(types.is_string(kind) or types.is_null(kind) or types.is_timestamp(kind) for kind in rest)
    return table if are_texts or not _NOT_JSON.search(body) else None


def _is_bounded(body: bytes, names: Sequence[bytes], lists: Sequence[bytes]) -> bool:
    """Whether lines have few keys, and no value is nested but the ones in these columns, each once in a line.

    pyarrow itself has no bound: its stack overflows on a value that is nested deeply.
    """
    if not _has_only(body, names, lists):
        found = _SHORT_KEYS.findall(body)
        if len(found) < len(_KEY_ENDS.findall(body)):
            found = _ALL_KEYS.findall(body)
        keys = {*found}
        if len(keys) > _MOST_KEYS or any(begin and name not in lists for name, begin in keys):
            return False
    # Of a column within itself, the type is not known.
    return all(line.count(b'"%b"' % name) <= 1 for name in lists for line in body.split(b"\n"))


def _has_only(body: bytes, names: Sequence[bytes], lists: Sequence[bytes]) -> bool:
    """Whether there is no key but these, and no nested value but of these. False where that is not certain."""
    # After an odd number of backslashes, a quotation mark is part of a text.
    if _SPACED_KEY.search(body) or any(len(run) % 2 == 0 for run in _BACKSLASHES.findall(body)):
        return False
    known = b"".join([rb'(?<!(?<!\\)"%b":)' % re.escape(name) for name in names])
    texts = b"".join(  # that begin with a colon
        [rb'(?<!(?<!\\)"%b":%b":)' % (re.escape(name), space) for name in names for space in (b"", b" ")]
    )
    may_nest = b"".join([rb'(?<!(?<!\\)"%b":)' % re.escape(name) for name in lists])
    return not re.search(rb'":(?<!\\":)(?:%b%b|%b\s*[\[{])' % (known, texts, may_nest), body)


def _as_written(
    body: bytes, rows: int, begin: tuple[bytes, bytes], between: Sequence[tuple[bytes, bytes, int]], end: bytes
) -> list[bytes] | None:
    """The canonical lines of objects that have texts alone, in lines of one form; None: they are in another form.

    What is replaced has a quotation mark that is not escaped, and so begins or ends a text; it is there as often as
    something is between two texts.

    Args:
        begin: how each line begins, and a canonical one.
        between: what is between its texts, in a canonical one, and how often that is.
        end: how each line ends.
    """
    if not body.startswith(begin[0]) or not body.endswith(end):
        return None
    texts = body[len(begin[0]) : len(body) - len(end)]
    for old, new, count in between:
        parts = texts.split(old)  # a search, where `count` and `replace` take three
        if len(parts) != count + 1:
            return None
        texts = new.join(parts)
    found = texts.split(end + b"\n" + begin[0])
    return [begin[1] + text + end for text in found] if len(found) == rows else None


def _spelled(lines: Sequence[bytes], body: bytes) -> list[int]:
    """Those with letters that are in another form than we write."""
    if b"\\u" not in body and b"\\/" not in body:
        return []
    return [at for at, line in enumerate(lines) if b"\\u" in line or b"\\/" in line]


def _unfit(values: Any, texts: Sequence[str | None], body: bytes) -> list[int]:
    """Those that `text_of` refuses, and the absent ones: of an Arrow array, and the same as a list."""
    if b"\\u0000" in body:
        return [at for at, text in enumerate(texts) if not text or text.isspace() or "\0" in text]
    return [at for at in _perhaps_blank(values) if not (text := texts[at]) or text.isspace()]


def _perhaps_blank(values: Any) -> list[int]:
    """Texts of an Arrow array that are absent or empty, or whose first byte may be of white space."""
    import numpy

    _, offsets, content = values.buffers()
    ends = numpy.frombuffer(offsets, numpy.int32)[values.offset : values.offset + len(values) + 1]
    whole = numpy.frombuffer(content or b"\0", numpy.uint8)
    first = whole[numpy.minimum(ends[:-1], len(whole) - 1)]
    return [*((ends[1:] == ends[:-1]) | (first <= 32) | (first > 127)).nonzero()[0].tolist()]


def _is_conversation(letters: str) -> bool:
    """Whether `conversation` takes turns of these roles."""
    return "?" not in letters and "a" in letters and letters.lstrip("s").startswith("u")


def _bits(texts: Sequence[str], are_answers: Sequence[bool]) -> list[tuple[int, int]]:
    """Bits of `flags`, with the places of the texts that have them."""
    found = []
    whole = "\n".join([*texts, ""])
    if tokens := pitfalls.control_tokens(whole):
        ends = list(accumulate([len(text) + 1 for text in texts]))
        found += [(bisect_right(ends, at), features.CONTROL) for at in tokens]
    if any(f"{word}\n" in whole for word in pitfalls.NOTHING):
        for at in [at for at, text in enumerate(texts) if text.endswith(pitfalls.NOTHING)]:
            if texts[at].rpartition("\n\n")[2] in pitfalls.NOTHING:
                found.append((at, features.NOTHING))
    if not whole.isascii():
        for at, (text, is_answer) in enumerate(zip(texts, are_answers, strict=True)):
            if is_answer and not text.isascii() and pitfalls.shows_nothing(text):
                found.append((at, features.INVISIBLE))
    return found


def _positions(mask: Any) -> list[int]:
    """Where an Arrow array is true."""
    return [at for at, is_true in enumerate(mask.to_pylist()) if is_true]


def _sizes(texts: Any) -> Any:
    """Bytes of each text of an Arrow array; of an absent one, any number."""
    from pyarrow import compute

    return numbers(compute.binary_length(texts)).astype("int64")


def _tokens(sizes: Any) -> Any:
    """As `length_of_texts`, of the bytes of each row."""
    return (-(-sizes // BYTES_PER_TOKEN)).clip(1)


def _first_bytes(digests: Sequence[bytes]) -> Any:
    """The first eight bytes of digests as numbers, as `hash_of` has them."""
    import numpy

    words = len(digests[0]) // 8 if digests else 1
    return numpy.frombuffer(b"".join(digests), ">u8")[::words].astype(numpy.uint64)


def _hashes(texts: Iterable[bytes]) -> Any:
    """`hash_of_text` of each."""
    return _first_bytes([hashlib.blake2b(text, digest_size=8).digest() for text in texts])
