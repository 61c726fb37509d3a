"""Requests in words: clauses, politeness, slips of the finger. The word lists are in ``data/language.toml``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib import resources
from typing import Any

_HARD = re.compile(
    r"[.!?;]+(?=\s|$)|\n+|,?\s+(?:and\s+)?(?:then|afterwards|after\s+that|finally|lastly)\b,?\s*|,?\s+and\s+(?:also|next)\b,?",
    re.IGNORECASE,
)
_SOFT = re.compile(r"\s*,\s*(?:and\s+|or\s+)?|\s+(?:and|plus|&|as\s+well\s+as)\s+", re.IGNORECASE)
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|(?<!\w)'[^']*'(?!\w)|`[^`]*`")
_FILE = re.compile(
    r"[\w./\\~-]*\w\.(?:jpe?g|png|gif|bmp|tiff?|webp|heic|avif|dcm|wav|mp3|flac|ogg|m4a|mp4|mov|avi|mkv|webm)\b",
    re.IGNORECASE,
)


@cache
def words() -> dict[str, Any]:
    """The word lists."""
    return tomllib.loads(resources.files(__package__).joinpath("data", "language.toml").read_text("utf-8"))


@cache
def any_of(name: str) -> str:
    """A list of ``language.toml`` as a regular expression, the longest first."""
    return "|".join(re.escape(word) for word in sorted(words()[name], key=len, reverse=True))


def file_names(text: str, names: Iterable[str] = ()) -> list[str]:
    """The files that a text names, in its order: of the given names, and whatever looks like a media file."""
    known = sorted(filter(None, names), key=len, reverse=True)
    pattern = "|".join([*(re.escape(name) for name in known), _FILE.pattern])
    return [match[0] for match in re.finditer(rf"(?<![\w/])(?:{pattern})", text, re.IGNORECASE)]


def sentences(text: str, names: Iterable[str] = ()) -> Iterator[str]:
    """Cut at full stops, semicolons, line ends and "then"; not inside quotes or file names."""
    yield from _cut(text, _HARD, names)


def clauses(sentence: str, begins: Callable[[str], bool], names: Iterable[str] = ()) -> Iterator[str]:
    """Cut at commas and "and" where a new command or question begins; lists of things stay together.

    Args:
        sentence: One sentence.
        begins: Says whether a fragment is understood as a clause of its own.
        names: File names, which are never cut.
    """
    current = ""
    end = 0
    for start, stop in _spans(sentence, _SOFT, names):
        fragment = sentence[start:stop]
        merged = sentence[end - len(current) : stop]
        # What makes no sense of what did is a part of its own; an exception ("but not the dog") stays with its rule.
        spoils = begins(current) and not begins(merged) and not hindered(fragment)
        if current and not (begins(fragment) or commands(fragment) or spoils):
            current = merged
        else:
            if current:
                yield current.strip()
            current = fragment
        end = stop
    if current.strip():
        yield current.strip()


def commands(fragment: str) -> bool:
    """Whether a fragment is an order of some kind, and not the rest of a list of things."""
    tokens = re.findall(r"[\w'-]+", polite(fragment).lower())
    lists = words()
    if not tokens or tokens[0] in lists["determiners"] or tokens[0] in lists["pronouns"]:
        return False
    if tokens[0] in lists["blockers"]:  # "except the cat" belongs to what it takes from
        return False
    return tokens[0] in lists["other_verbs"] or (len(tokens) > 1 and tokens[1] in lists["after_verb"])


def polite(clause: str) -> str:
    """A clause without the politeness around it."""
    text = clause.strip(" \t\n,.;:!?-")
    opening = re.compile(rf"^(?:{any_of('openings')})\b[\s,:]*", re.IGNORECASE)
    closing = re.compile(rf"[\s,]+(?:{any_of('closings')})$", re.IGNORECASE)
    question = re.compile(rf"^(?:can|could) (?:you|we|i) (?:{any_of('not_polite')})\b", re.IGNORECASE)
    if re.fullmatch(any_of("closings"), text, re.IGNORECASE):
        return ""
    while text and not question.match(text):
        shorter = opening.sub("", text, count=1)
        if shorter == text:
            break
        text = shorter
    while (shorter := closing.sub("", text, count=1)) != text:
        text = shorter
    return re.sub(r"\s+", " ", text).strip(" ,.;:!?")


def hindered(phrase: str) -> bool:
    """Whether a phrase holds a condition, an exception or a "not", so that it does not simply mean the thing named."""
    return re.search(rf"(?<![\w'])(?:{any_of('blockers')})(?![\w'])", phrase, re.IGNORECASE) is not None


def mended(clause: str, vocabulary: frozenset[str]) -> str | None:
    """The clause with slips of one letter in its first words mended, or None where there is none.

    Only a word that is no known word is mended, and only to a verb of the vocabulary with the same first letter.
    """
    tokens = re.split(r"(\s+)", clause)
    lists = words()
    known = vocabulary.union(lists["not_typos"], lists["other_verbs"], lists["determiners"], lists["pronouns"])
    changed = False
    for place in range(0, min(len(tokens), 5), 2):
        token = tokens[place].lower()
        if token in known or not token.isalpha():
            continue
        near = {word for word in vocabulary if _slip(token, word)}
        if len(near) == 1:
            tokens[place] = near.pop()
            changed = True
    return "".join(tokens) if changed else None


def _slip(token: str, word: str) -> bool:
    """Whether two words differ by one letter added, left out, replaced, or two neighbours swapped."""
    if token == word or abs(len(token) - len(word)) > 1 or min(len(token), len(word)) < 3:
        return False
    if len(token) == len(word):
        wrong = [i for i in range(len(word)) if token[i] != word[i]]
        if len(wrong) == 2 and wrong[1] == wrong[0] + 1:
            return token[wrong[0]] == word[wrong[1]] and token[wrong[1]] == word[wrong[0]]
        return len(word) > 3 and len(wrong) == 1 and wrong[0] > 0
    short, long = sorted((token, word), key=len)
    return len(short) > 3 and token[0] == word[0] and any(long[:i] + long[i + 1 :] == short for i in range(len(long)))


def _cut(text: str, separator: re.Pattern[str], names: Iterable[str]) -> Iterator[str]:
    for start, stop in _spans(text, separator, names):
        if part := text[start:stop].strip():
            yield part


def _spans(text: str, separator: re.Pattern[str], names: Iterable[str]) -> Iterator[tuple[int, int]]:
    hidden = text
    for word in (*file_names(text, names), *(match[0] for match in _QUOTED.finditer(text))):
        hidden = hidden.replace(word, "x" * len(word))
    start = 0
    for match in separator.finditer(hidden):
        yield start, match.start()
        start = match.end()
    yield start, len(text)
