"""Words to class names, and class names to everyday words.

A closed-set model knows a fixed list of classes, people write what they like. This module maps one to the other from
tables (``data/*.toml``), without a language model, and says what it had to set aside. A word that it cannot place is
not guessed.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

Kind = Literal["same", "narrower", "broader"]


@dataclass(frozen=True)
class Meaning:
    """What a phrase means to a closed-set model.

    Attributes:
        phrase: As the user wrote it.
        classes: The classes that it stands for.
        kind: ``same``: exactly these; ``narrower``: the phrase names a kind of the class, which the model cannot tell
            from other kinds; ``broader``: the classes are kinds of what the phrase names.
        ignored: Words that were set aside, such as adjectives.
    """

    phrase: str
    classes: tuple[str, ...]
    kind: Kind
    ignored: tuple[str, ...] = ()

    @property
    def note(self) -> str | None:
        """What the user should know, or None."""
        said = []
        if self.kind == "narrower":
            said.append(f"only {self.classes[0]!r} is known, so every one counts")
        if self.ignored:
            said.append(f"{' '.join(self.ignored)!r} was ignored")
        return f"{self.phrase!r}: {'; '.join(said)}" if said else None


class Lexicon:
    """The words that lead to a list of classes.

    Args:
        entries: Word (singular, lower case) to its kind and classes. Where a word is given twice, the first stays.
    """

    def __init__(self, entries: Iterable[tuple[str, Kind, Sequence[str]]]) -> None:
        self._entries: dict[str, tuple[Kind, tuple[str, ...]]] = {}
        for word, kind, classes in entries:
            self._entries.setdefault(word, (kind, tuple(classes)))

    @property
    def words(self) -> tuple[str, ...]:
        """All words."""
        return tuple(self._entries)

    def find(self, phrase: str) -> Meaning | None:
        """What a phrase means, or None where its noun is not known.

        Articles and numbers are stripped. Words before the noun, and what follows it after a preposition, are set
        aside where the whole is not known: "the black cat on the sofa" is a cat, with the rest in ``ignored``.
        """
        table = _words()
        words = [word for word in re.findall(r"[\w'-]+", phrase.casefold()) if not word.isdigit()]
        while len(words) > 1 and words[0] in table["determiners"]:
            words = words[1:]
        stop = next((i for i, word in enumerate(words) if i and word in table["breaks"]), len(words))
        # First the whole ("slice of pizza"), then what stands before the preposition; never what follows it alone.
        for end in dict.fromkeys((len(words), stop)):
            for start in range(stop):
                rest = " ".join(words[start:end])
                hit = self._entries.get(rest)
                if hit is None and rest in table["unlike"]:
                    return None
                hit = hit or self._hit(words[start:end])
                if hit is not None:
                    ignored = words[:start] + [word for word in words[end:] if word not in table["determiners"]]
                    return Meaning(phrase.strip(), hit[1], hit[0], tuple(ignored))
        return None

    def nearest(self, phrase: str, count: int = 3) -> list[str]:
        """Words of this list that are spelled most like a phrase, the fewest changes of a letter first."""
        asked = phrase.casefold().strip()
        ranked = []
        for word in self.words:
            ratio = difflib.SequenceMatcher(None, word, asked).ratio()
            if ratio >= 0.6:
                ranked.append((_changes(asked, word), -ratio, word))
        # Sorting is stable: of equals the first of the list stays first, and class names stand before their synonyms.
        return [word for *_, word in sorted(ranked, key=lambda row: row[:2])[:count]]

    def _hit(self, words: Sequence[str]) -> tuple[Kind, tuple[str, ...]] | None:
        for last in singulars(words[-1]):
            hit = self._entries.get(" ".join([*words[:-1], last]))
            if hit is not None:
                return hit
        return None


def _changes(one: str, two: str) -> int:
    """The least number of letters to add, drop or replace that makes one word the other (Levenshtein)."""
    row = list(range(len(two) + 1))
    for i, a in enumerate(one, 1):
        before, row = row, [i]
        for j, b in enumerate(two, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
    return row[-1]


def singulars(word: str) -> Iterator[str]:
    """The word itself, then what it may be the plural of, the likeliest first.

    >>> list(singulars("kitties"))
    ['kitties', 'kitty', 'kittie']
    """
    yield word
    irregular = _words()["plurals"].get(word)
    if irregular is not None:
        yield irregular
        return
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return
    if word.endswith("ies"):
        yield word[:-3] + "y"
    elif word.endswith(("ches", "shes", "xes", "sses", "zes")):
        yield word[:-2]
    yield word[:-1]


@dataclass(frozen=True)
class CocoClass:
    """One of the 80 things of COCO.

    Attributes:
        id: Number in the 90-number set.
        name: Its name.
        supercategory: Such as ``animal``.
        is_thing: Whether it is countable; all 80 are.
    """

    id: int
    name: str
    supercategory: str
    is_thing: bool = True


@cache
def coco_classes() -> Mapping[int, CocoClass]:
    """The things of COCO by number."""
    rows = _table("coco.toml")["class"]
    return {row["id"]: CocoClass(row["id"], row["name"], row["supercategory"]) for row in rows}


@cache
def coco() -> Lexicon:
    """The words that lead to COCO's classes."""
    table = _table("coco.toml")

    def entries() -> Iterator[tuple[str, Kind, Sequence[str]]]:
        for row in table["class"]:
            for word in (row["name"], *row.get("same", ())):
                yield word, "same", (row["name"],)
        for row in table["class"]:
            for word in row.get("narrower", ()):
                yield word, "narrower", (row["name"],)
        for word, members in table["broader"].items():
            yield word, "broader", tuple(c for m in members for c in table["broader"].get(m, [m]))

    return Lexicon(entries())


@dataclass(frozen=True)
class ImageNet:
    """The labels of ImageNet with what people call them.

    Attributes:
        labels: What each of the 1,000 labels is shown as.
        lexicon: Words to labels. A class of this lexicon is a label's number, as text.
    """

    labels: tuple[str, ...]
    lexicon: Lexicon

    def members(self, phrase: str) -> tuple[list[int], Meaning] | None:
        """The numbers of the labels that are kinds of what a phrase names, or None where the noun is not known."""
        meaning = self.lexicon.find(phrase)
        return None if meaning is None else ([int(number) for number in meaning.classes], meaning)


def imagenet(lines: Sequence[str]) -> ImageNet:
    """ImageNet's labels from the lines of a label file: one a line, synonyms parted by commas."""
    table = _table("imagenet.toml")
    synonyms = [[word.strip() for word in line.split(",")] for line in lines]
    labels = [table["display"].get(str(number), words[0]) for number, words in enumerate(synonyms)]
    groups = {word: tuple(map(str, _numbers(runs))) for word, runs in table["groups"].items()}

    def entries() -> Iterator[tuple[str, Kind, Sequence[str]]]:
        for word, members in groups.items():
            yield word, "broader", members
        for word, group in table["same"].items():
            yield word, "broader", groups[group]
        # First names go before synonyms: a "kite" is the bird. Two labels may share one: a "crane" is bird or machine.
        for words in ([row[:1] for row in synonyms], [row[1:] for row in synonyms]):
            found: dict[str, list[str]] = {}
            for number, row in enumerate(words):
                for word in row:
                    found.setdefault(word.casefold(), []).append(str(number))
            yield from ((word, "same", numbers) for word, numbers in found.items())

    return ImageNet(tuple(labels), Lexicon(entries()))


def imagenet_names() -> list[str]:
    """The first name of each of ImageNet's 1,000 labels, in the order of their numbers."""
    return list(_table("imagenet-names.toml")["names"])


def everyday(label: str) -> str:
    """What people call the thing of an ImageNet label: "tiger cat" is a cat, "Persian cat" too, "espresso" stays.

    Args:
        label: A label as :class:`ImageNet` shows it, or a line of the label file.
    """
    word = label.split(",")[0].strip()
    return _everyday().get(word.casefold(), word)


@cache
def _everyday() -> Mapping[str, str]:
    table = _table("imagenet.toml")
    named = _table("imagenet-names.toml")["names"]
    found: dict[str, str] = {}
    for group in table["everyday"]:
        for number in _numbers(table["groups"][group]):
            for name in (named[number], table["display"].get(str(number), named[number])):
                found.setdefault(name.casefold(), group)
    return found


def _numbers(runs: Sequence[str]) -> Iterator[int]:
    for run in runs:
        first, _, last = run.partition("-")
        yield from range(int(first), int(last or first) + 1)


@cache
def _words() -> Mapping[str, Any]:
    table = _table("words.toml")
    sets = {name: frozenset(table[name]) for name in ("determiners", "breaks", "unlike")}
    return {**sets, "plurals": table["plurals"]}


def quoted(names: Iterable[str], most: int = 5) -> str:
    """Names for a line: the first few, and how many more."""
    every = list(names)
    shown = ", ".join(f"{name!r}" for name in every[:most])
    return shown if len(every) <= most else f"{shown} and {len(every) - most} more"


def _table(name: str) -> dict[str, Any]:
    return tomllib.loads(resources.files("manylens.models.data").joinpath(name).read_text(encoding="utf-8"))
