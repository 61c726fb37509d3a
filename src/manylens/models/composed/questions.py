"""Questions in plain words to a kind and its noun phrases; the patterns are in ``data/questions.toml``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from manylens.models.composed.words import bare, data, numbered, singular, split_names

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
_ORDER = {name: place for place, names in enumerate(data("phrases.toml")["order"], 1) for name in names}
_ORDER |= dict.fromkeys(data("phrases.toml")["last"], -1)
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
        value: A direction (``left``, ``right``, ``above``, ``below``, ``centre``), the colour to check, the line of a
            text that is asked for (``1`` is the first, ``-1`` the last), the sort of a number (``phone``), or ``or``
            where any of several things will do. In a question of presence a name may begin with a number.
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
            if (match := pattern.fullmatch(text)) and (found := _question(kind, match.groupdict())):
                return found
    return None


def _question(kind: str, groups: dict[str, str | None]) -> Question | None:
    """What a pattern caught, or None where a phrase that it took for a thing is none."""
    value = next((way for way in _DIRECTIONS if groups.get(way) is not None), "") or groups.get("value") or ""
    thing = groups.get("object") or groups.get("object2") or ""
    if groups.get("nth"):
        value = str(_ORDER[groups["nth"] or ""])
    if not all(is_thing(name, kind) for phrase in (thing, groups.get("other") or "") for name in split_names(phrase)):
        return None
    if kind == "presence" and re.search(r"\bor\b", thing):
        if re.search(r"\band\b|&", thing):  # "a cat and a dog or a bird" may mean two things
            return None
        value = "or"
    return Question(kind, _noun(thing), _noun(groups.get("other") or ""), value)


def is_thing(name: str, kind: str = "presence") -> bool:
    """Whether a phrase can be the name of a thing: ``dining table`` is, ``on the table`` and ``man eating`` are not.

    Args:
        name: A phrase as :func:`manylens.models.composed.words.split_names` gives it.
        kind: The kind of the question; only one of presence may give a number of things.
    """
    if name in _NOTHING:
        return True
    tables = data("phrases.toml")
    number, noun = numbered(name)
    words = noun.split()
    if not words or (number is not None and kind != "presence"):
        return False
    if words[0] in tables["never_first"] or words[-1] in tables["never_last"]:
        return False
    if kind == "text" and words[-1] in tables["parts_of_writing"]:
        return False
    fixed = next((name for name in tables["fixed"] if f" {noun}".endswith(f" {name}")), "")
    return not any(
        word in tables["prepositions"]
        or word in tables["participles"]
        or (word.endswith("ing") and word not in tables["nouns_in_ing"])
        for word in noun.removesuffix(fixed).split()
    )


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
    form = form.replace("{nth}", rf"(?P<nth>{'|'.join(map(re.escape, _ORDER))})")
    for name in ("object", "other"):
        form = form.replace(f"{{{name}}}", rf"(?P<{name}>{phrase})")
    for _ in range(3):  # macros may use macros
        for name, value in macros.items():
            form = form.replace(f"{{{name}}}", value)
    return form
