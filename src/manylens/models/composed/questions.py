"""Questions in plain words to a kind and its noun phrases; the patterns are in ``data/questions.toml``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from manylens.models.composed.words import bare, data, singular, split_names

_CONTRACTIONS = (
    (re.compile(r"\b(what|where|who|how|that|there|it|he|she|here)'?s\b(?!\w)"), r"\1 is"),
    (re.compile(r"\b(what|where|who|how|they|there)'?re\b"), r"\1 are"),
    (re.compile(r"\b(is|are|was|were|does|do|did|could|would|should|has|have)n'?t\b"), r"\1 not"),
    (re.compile(r"\bcan'?t\b|\bcannot\b"), "can not"),
)
_SPELLING = (
    (re.compile(r"\bcolor"), "colour"),
    (re.compile(r"\bgray\b"), "grey"),
    (re.compile(r"\bcenter\b"), "centre"),
)
_OPENING = re.compile(
    r"^(?:(?:please|so|and|ok|okay|well|hey|hi|hello|now|also|then)\b[ ,]*|"
    r"(?:can|could|would|will) you (?:please |kindly )?(?:tell me|say|find out|check|explain|show me)\b[ ,:]*|"
    r"(?:tell me|say|let me know|show me|find out|check|explain|answer|i wonder|do you know|determine)\b[ ,:]*|"
    r"(?:i (?:would|'d) like to know|i want to know|whether|if)\b[ ,:]*)+"
)
_PICTURE = r"(?:picture|photo|photograph|image|pic|scene|frame|snapshot)s?"
_CLOSING = re.compile(
    rf"(?:[ ,]+(?:please|thanks|thank you|exactly|right now|for me|visible|"
    rf"(?:in|on|of|from|within|inside) (?:the|this|that|my|our)(?: \w+)? {_PICTURE}|"
    rf"(?:in|on) (?:here|there)|here|altogether|in total|overall|at all))+$"
)
_STOP = (
    "is|are|was|were|do|does|did|can|could|would|should|will|what|which|who|where|when|why|how|because|if|not|and|or|but|"
    "then|more|less|than|there"
)
_DIRECTIONS = ("left", "right", "above", "below", "centre")
_NOTHING = frozenset(
    {
        "",
        "it",
        "they",
        "them",
        "this",
        "that",
        "there",
        "thing",
        "object",
        "main object",
        "main thing",
        "main subject",
        "subject",
        "picture",
        "photo",
        "photograph",
        "image",
        "scene",
    }
)


@dataclass(frozen=True)
class Question:
    """A question that was understood.

    Attributes:
        kind: ``count``, ``presence``, ``colour``, ``colour_check``, ``position``, ``relation``, ``side``, ``name``,
            ``contents``, ``text``, ``text_presence``, ``number`` or ``person``.
        object: What it asks about, in the singular and without articles (several with commas); empty for the picture
            as a whole.
        other: The second thing of a relation.
        value: A direction (``left``, ``right``, ``above``, ``below``, ``centre``) or the colour to check.
    """

    kind: str
    object: str = ""
    other: str = ""
    value: str = ""


def normal(question: str) -> str:
    """The question as the patterns expect it: lower case, contractions written out, no politeness, no final mark."""
    text = " ".join(question.replace("’", "'").lower().split()).strip(' ?!.,;:"')
    for pattern, full in (*_CONTRACTIONS, *_SPELLING):
        text = pattern.sub(full, text)
    return re.sub(r" +", " ", _OPENING.sub("", text)).strip(" ,")


def parse(question: str) -> Question | None:
    """Understand a question, or return None where no pattern fits it whole."""
    full = normal(question)
    # "how many cats are there in the picture" says no more without its end, but "what is in the picture" does.
    for text in dict.fromkeys((_CLOSING.sub("", full), full)):
        for kind, pattern in _patterns():
            if match := pattern.fullmatch(text):
                return _question(kind, match.groupdict())
    return None


def _question(kind: str, groups: dict[str, str | None]) -> Question:
    value = next((way for way in _DIRECTIONS if groups.get(way) is not None), "") or groups.get("value") or ""
    thing = groups.get("object") or groups.get("object2") or ""
    return Question(kind, _noun(thing), _noun(groups.get("other") or ""), value)


def _noun(phrase: str) -> str:
    if len(names := split_names(phrase)) > 1:
        return ", ".join(names)
    noun = singular(bare(phrase))
    return "" if noun in _NOTHING else noun


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    table = data("questions.toml")
    return tuple(
        (entry["kind"], re.compile(_expanded(form, table["macros"])))
        for entry in table["pattern"]
        for form in entry["forms"]
    )


def _expanded(form: str, macros: dict[str, str]) -> str:
    # Short noun phrases only, without words that would make a sentence of them.
    word = rf"(?!(?:{_STOP})\b)[\w'/-]+"
    phrase = rf"{word}(?: {word}){{0,4}}?"
    form = form.replace("{objects}", rf"(?P<object>{phrase}(?:(?:, ?| and | or |, and |, or ){phrase}){{0,5}})")
    for name in ("object", "other"):
        form = form.replace(f"{{{name}}}", rf"(?P<{name}>{phrase})")
    for _ in range(3):  # macros may use macros
        for name, value in macros.items():
            form = form.replace(f"{{{name}}}", value)
    return form
