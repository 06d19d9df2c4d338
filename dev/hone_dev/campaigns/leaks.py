"""Exams in four languages, and rows that leak them: to see what a check of contamination finds, and what it loses.

    python -m hone_dev.campaigns.leaks

prints precision and recall by language and kind of leak for several values of curation.contamination.overlap. Texts are
words of the language at random (Faker's lists), with numbers among them; openings and closings are what people write.
"""

from __future__ import annotations

import json
import random
import re
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from faker import Faker

from hone_api.dataset.curation import Contamination
from hone_api.plan import DatasetInput
from hone_trainer.datasets.curation.contamination import Index
from hone_trainer.datasets.texts.texts import ValidRow
from hone_trainer.store.contents import UNKNOWN

Pair = dict[str, str]
LANGUAGES = {"English": "en_US", "German": "de_DE", "Spanish": "es_ES", "French": "fr_FR"}
EXAM_ROWS, SHORT_ROWS, CLEAN_ROWS = 45, 20, 500
_OPENINGS = {
    "English": (
        "Read the following text with care and answer the question at its end.",
        "Solve this problem step by step and write the result on the last line.",
        "You are a helpful assistant. Please answer as shortly as you can:",
        "Explain in simple words, so that a child of ten years understands it:",
        "Decide whether the statement is true, and give a reason for it:",
        "Sum up what is said here in at most three sentences, please.",
    ),
    "German": (
        "Lies den folgenden Text aufmerksam durch und beantworte die Frage am Ende.",
        "Löse diese Aufgabe Schritt für Schritt und schreibe das Ergebnis in die letzte Zeile.",
        "Du bist ein hilfreicher Assistent. Bitte antworte so kurz wie möglich:",
        "Erkläre in einfachen Worten, sodass ein Kind von zehn Jahren es versteht:",
        "Entscheide, ob die folgende Aussage stimmt, und begründe deine Antwort kurz:",
        "Fasse das, was hier gesagt wird, bitte in höchstens drei Sätzen zusammen.",
    ),
    "Spanish": (
        "Lee con atención el siguiente texto y responde a la pregunta del final.",
        "Resuelve este problema paso a paso y escribe el resultado en la última línea.",
        "Eres un asistente muy útil. Por favor, responde lo más brevemente posible:",
        "Explica con palabras sencillas, para que lo entienda un niño de diez años:",
        "Decide si la siguiente afirmación es verdadera y explica brevemente por qué:",
        "Resume lo que se dice aquí en tres frases como máximo, por favor.",
    ),
    "French": (
        "Lis attentivement le texte suivant et réponds à la question posée à la fin.",
        "Résous ce problème étape par étape et écris le résultat sur la dernière ligne.",
        "Tu es un assistant très utile. Réponds aussi brièvement que possible, s'il te plaît :",
        "Explique avec des mots simples, pour qu'un enfant de dix ans le comprenne :",
        "Décide si l'affirmation suivante est vraie et explique brièvement ta réponse :",
        "Résume ce qui est dit ici en trois phrases au plus, s'il te plaît.",
    ),
}
"""Each is 11 to 15 words long, so it shares n-grams with every row that begins with it."""


_FORMS = {
    "English": (
        "How many people live in {} if one counts the villages around it as well?",
        "What did the mayor of {} say about the new tram line in spring?",
        "Which river flows through the old town of {} and where does it end?",
        "When was the bridge in {} built and who paid for all of it then?",
    ),
    "German": (
        "Wie viele Menschen leben in {}, wenn man die Dörfer ringsum auch noch mitzählt?",
        "Was hat der Bürgermeister von {} im Frühling über die neue Straßenbahn dort gesagt?",
        "Welcher Fluss fließt mitten durch die schöne Altstadt von {} und wo endet er?",
        "Wann wurde die Brücke in {} gebaut und wer hat damals alles dafür bezahlt?",
    ),
    "Spanish": (
        "¿Cuántas personas viven en {} si se cuentan también los pueblos de los alrededores?",
        "¿Qué dijo el alcalde de {} sobre la nueva línea de tranvía en primavera?",
        "¿Qué río pasa por el casco antiguo de {} y dónde termina su curso?",
        "¿Cuándo se construyó el puente de {} y quién pagó todo en aquel tiempo?",
    ),
    "French": (
        "Combien de personnes vivent à {} si l'on compte aussi les villages des alentours ?",
        "Qu'a dit le maire de {} au sujet de la nouvelle ligne de tramway ?",
        "Quel fleuve traverse la vieille ville de {} et où finit-il donc sa course ?",
        "Quand le pont de {} a-t-il été construit et qui a tout payé alors ?",
    ),
}
"""Short questions that differ in one name."""


@dataclass(frozen=True)
class Leaks:
    """An exam, and rows by the kind of leak that each is; those that are none are under CLEAN and SAME_FORM."""

    exam: list[Pair]
    rows: dict[str, list[Pair]]


CLEAN = "Clean"
SAME_FORM = "Clean, of the form of the exam"


class _Writer:
    """Questions and answers of one language."""

    def __init__(self, language: str, seed: int) -> None:
        self.rng = random.Random(f"{language}{seed}")
        self._faker = Faker(LANGUAGES[language])
        self._faker.seed_instance(self.rng.randrange(2**31))
        self._openings, self._forms = _OPENINGS[language], _FORMS[language]

    def text(self, least: int, most: int) -> str:
        """Sentences of 6 to 16 words, a number in each, together so many words."""
        left, sentences = self.rng.randint(least, most), []
        while left > 0:
            length = min(left, self.rng.randint(6, 16))
            words = self._faker.words(length)
            words[self.rng.randrange(length)] = str(self.rng.randint(2, 999))
            sentences.append(" ".join(words).capitalize() + ".")
            left -= length
        return " ".join(sentences)

    def opening(self) -> str:
        return self.rng.choice(self._openings)

    def word(self) -> str:
        return str(self._faker.word())

    def short(self) -> Pair:
        """A short question of one of a few forms."""
        return {"prompt": self.rng.choice(self._forms).format(self._faker.city()), "completion": self.text(25, 80)}

    def row(self, opening: bool) -> Pair:
        question = self.text(30, 60)
        asked = f"{self.opening()} {question}" if opening else question
        return {"prompt": asked, "completion": self.text(25, 80)}


@cache
def plant(language: str, seed: int = 0) -> Leaks:
    """An exam of 45 long and 20 short questions, and rows that leak each of the long ones in every way.

    Of the clean rows 500 have the exam's openings, and 200 are short questions of the exam's forms. They are written
    once: that takes twice as long as to find them.
    """
    writer = _Writer(language, seed)
    exam = [writer.row(opening=number % 2 == 0) for number in range(EXAM_ROWS)]
    short = [writer.short() for _ in range(SHORT_ROWS)]
    asked = {row["prompt"] for row in short}
    rows = {kind: [leak(writer, row) for row in exam] for kind, leak in KINDS.items()}
    rows[CLEAN] = [writer.row(opening=True) for _ in range(CLEAN_ROWS)]
    rows[SAME_FORM] = [row for _ in range(10 * SHORT_ROWS) if (row := writer.short())["prompt"] not in asked]
    return Leaks(exam + short, rows)


Leak = Callable[[_Writer, Pair], Pair]


def _question(change: Callable[[_Writer, str], str]) -> Leak:
    """The question changed, with an answer of another row."""
    return lambda writer, row: {**writer.row(opening=False), "prompt": change(writer, row["prompt"])}


def _replaced(every: int) -> Callable[[_Writer, str], str]:
    """One word in so many replaced, evenly from a random one on."""

    def change(writer: _Writer, text: str) -> str:
        words = text.split()
        for at in range(writer.rng.randrange(every), len(words), every):
            words[at] = writer.word()
        return " ".join(words)

    return change


def _loud(_: _Writer, text: str) -> str:
    return " ".join(re.findall(r"\w+", text.upper()))


def _without_accents(_: _Writer, text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))


def _beginning(_: _Writer, text: str) -> str:
    words = text.split()
    return " ".join(words[: round(0.6 * len(words))])


def _other_numbers(writer: _Writer, text: str) -> str:
    return re.sub(r"\d+", lambda _: str(writer.rng.randint(2, 999)), text)


KINDS: dict[str, Leak] = {
    "as it is": lambda writer, row: dict(row),
    "other answer": _question(lambda writer, text: text),
    "answer alone": lambda writer, row: {**writer.row(opening=False), "completion": row["completion"]},
    "in a template": _question(lambda writer, text: f"{writer.opening()}\n\n### {text}\n\n{writer.opening()}"),
    "in a document": _question(lambda w, text: f"{w.text(1500, 2500)}\n{text}\n{w.text(1500, 2500)}"),
    "capitals, no punctuation": _question(_loud),
    "no accents": _question(_without_accents),
    "first 60 % of the question": _question(_beginning),
    "1 word in 30 replaced": _question(_replaced(30)),
    "1 word in 20 replaced": _question(_replaced(20)),
    "1 word in 14 replaced": _question(_replaced(14)),
    "1 word in 10 replaced": _question(_replaced(10)),
    "other numbers": _question(_other_numbers),
}
VERBATIM = (
    "as it is",
    "other answer",
    "answer alone",
    "in a template",
    "in a document",
    "capitals, no punctuation",
    "no accents",
)
"""Kinds that leave every word of a question or of an answer in its place."""


@dataclass(frozen=True)
class LeakCounts:
    """How many rows of each kind were taken for leaks."""

    removed: dict[str, int]

    @property
    def precision(self) -> float:
        """Share of leaks among the rows removed."""
        every = sum(self.removed.values())
        return (every - self.removed[CLEAN] - self.removed[SAME_FORM]) / every

    def recall(self, kinds: tuple[str, ...] = tuple(KINDS)) -> float:
        """Share of the leaks of these kinds that was removed."""
        return sum(self.removed[kind] for kind in kinds) / (EXAM_ROWS * len(kinds))


def found(leaks: Leaks, settings: Contamination, folder: Path) -> LeakCounts:
    """What the step of the curation removes with these settings."""
    path = folder / "exam.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in leaks.exam))
    index = Index(settings, [DatasetInput(name="exam", split="test", path=str(path), digest=UNKNOWN)])

    def removed(rows: list[Pair]) -> int:
        return sum(index.judge(ValidRow(json.dumps(row), row)).removed is not None for row in rows)

    return LeakCounts({kind: removed(rows) for kind, rows in leaks.rows.items()})


def table(overlap: str, by_language: dict[str, LeakCounts]) -> Iterator[str]:
    """Lines for people."""
    yield f"{'overlap ' + overlap:32}" + "".join(f"{language:>9}" for language in by_language)
    for kind in (*KINDS, CLEAN, SAME_FORM):
        yield f"{kind:32}" + "".join(f"{one.removed[kind]:9}" for one in by_language.values())
    yield f"{'precision':32}" + "".join(f"{one.precision:9.3f}" for one in by_language.values())
    yield f"{'recall, verbatim kinds':32}" + "".join(f"{one.recall(VERBATIM):9.3f}" for one in by_language.values())
    yield f"{'recall':32}" + "".join(f"{one.recall():9.3f}" for one in by_language.values())


def measured(overlap: str, seed: int = 0) -> dict[str, LeakCounts]:
    """What is found in each language."""
    settings = Contamination.model_validate({"datasets": [{"name": "exam"}], "overlap": overlap})
    with tempfile.TemporaryDirectory() as folder:
        return {language: found(plant(language, seed), settings, Path(folder)) for language in LANGUAGES}


if __name__ == "__main__":
    for overlap in ("50%", "25%", "20%", "15%", "10%"):
        print("\n".join(table(overlap, measured(overlap))), end="\n\n")
