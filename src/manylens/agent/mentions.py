"""Which file a clause means: a file's name, "the second picture", "both photos"."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import PurePath
from typing import Any

from manylens.agent import language as lang
from manylens.agent.plan import FIRST_IMAGE
from manylens.media import Image

_SUFFIXES = {
    "audio": {".wav", ".mp3", ".flac", ".ogg", ".m4a", ".opus"},
    "video": {".mp4", ".mov", ".avi", ".mkv", ".webm"},
}
_ANOTHER = re.compile(r"(\$media)(?:\s*(?:,\s*and|,|and|or|&)\s*\$media)+", re.IGNORECASE)


@dataclass(frozen=True)
class Clause:
    """A part of the request.

    Attributes:
        words: As the user wrote it.
        text: Without politeness; "the picture" stands where a file was named.
        media: The files meant; empty where the clause does not say.
        missing: A file is meant that was not given, such as the third of two.
    """

    words: str
    text: str
    media: tuple[str, ...] = ()
    missing: bool = False


def media_names(files: Sequence[str]) -> tuple[str, ...]:
    """What the files are called in the plan, each differently.

    They go by their name; by their path where two have the same name; and are numbered where that is the same too.
    """
    base = [PurePath(str(file)).name for file in files]
    names: list[str] = []
    for name, file in zip(base, files, strict=True):
        names.append(distinct(name if base.count(name) == 1 else str(file), names))
    return tuple(names)


def distinct(name: str, taken: Collection[str]) -> str:
    """A name that is not taken: ``cat.jpg``, then ``cat.jpg (2)``."""
    numbered = (name if number == 1 else f"{name} ({number})" for number in count(1))
    return next(each for each in numbered if each not in taken)


def renamed(image: Image, name: str) -> Image:
    """The picture under another name; the one given keeps its own."""
    return image if image.name == name else Image(image.array, image.info, name=name, path=image.path)


def name_of(file: Any) -> str:
    """What a file, an array or a picture is called."""
    return str(file) if isinstance(file, (str, PurePath)) else str(getattr(file, "name", None) or type(file).__name__)


def kind_of_file(name: str) -> str:
    """``image``, ``audio`` or ``video``, by how the name ends."""
    suffix = PurePath(name).suffix.lower()
    return next((kind for kind, suffixes in _SUFFIXES.items() if suffix in suffixes), "image")


@cache
def nouns() -> str:
    """What people call a picture, in the singular and plural, as a regular expression."""
    return f"(?:{'|'.join(lang.words()['picture_words'])})s?"


def clause_of(part: str, names: Sequence[str]) -> Clause:
    """A part of the request, with the words that say which file is meant taken out.

    Args:
        part: As the user wrote it.
        names: What the files are called.
    """
    text, media = _named(lang.polite(part), names)
    text, ordinal = _ordinal(text)
    missing = False
    if ordinal is not None:
        pictures = list(names) or [FIRST_IMAGE, *(f"{FIRST_IMAGE}{n}" for n in range(2, 6))]
        place = ordinal - 1 if ordinal > 0 else len(names) - 1
        missing = not 0 <= place < len(pictures)
        media += () if missing else (pictures[place],)
    text, all_of_them = _every(text)
    if all_of_them and not media:
        media = tuple(names)
    return Clause(part.strip(), text, tuple(dict.fromkeys(media)), missing)


def _named(text: str, names: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Take files said by name out: they become "the picture", or ``$media and $media`` where two are compared."""
    media = []
    for word in lang.file_names(text, names):
        media.append(
            next((name for name in names if word.lower() in (name.lower(), PurePath(name).name.lower())), word)
        )
        text = text.replace(word, "$media", 1)
    if re.search(r"\b(?:in|on|of|from|at|for) (?:the \w+ )?\$media", text, re.IGNORECASE) or len(media) == 1:
        text = re.sub(rf"(?:the {nouns()} )?\$media", "the picture", _ANOTHER.sub(r"\1", text), flags=re.IGNORECASE)
    return text, tuple(media)


def _ordinal(text: str) -> tuple[str, int | None]:
    """Make "the second picture" "the picture", with its number; None where none is said."""
    table: dict[str, int] = lang.words()["ordinals"]
    said = re.compile(rf"\bthe ({'|'.join(table)}) {nouns()}\b", re.IGNORECASE)
    found = said.search(text)
    return (said.sub("the picture", text, count=1), table[found[1].lower()]) if found else (text, None)


def _every(text: str) -> tuple[str, bool]:
    """Make "in both pictures" "in the picture"; and whether it was said."""
    words = "|".join(lang.words()["every"])
    said = re.compile(
        rf"\b(in|on|of|from|for) (?:{words})(?: of)?(?: the| these| my)?(?: two| three| four)? {nouns()}\b",
        re.IGNORECASE,
    )
    return said.sub(r"\1 the picture", text), said.search(text) is not None
