"""Small grammar of object names: singular and plural, articles, lists."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

_LIST = re.compile(r"\s*(?:,|;|\s\.(?=\s|$)|\.$|/|&|\band\b|\bor\b|\bplus\b)\s*", re.IGNORECASE)
_ARTICLE = re.compile(
    r"^(?:(?:all|both|each|every|any|some)\s+(?:of\s+)?)?"
    r"(?:the|a|an|any|some|this|that|these|those|my|your|his|her|its|our|their)?(?:\s+|$)",
    re.IGNORECASE,
)


@cache
def data(name: str) -> dict[str, Any]:
    """A data file of this package, parsed."""
    return tomllib.loads(resources.files(__package__).joinpath("data", name).read_text("utf-8"))


def bare(phrase: str) -> str:
    """A noun phrase without its articles and quantifiers: ``all the cats`` to ``cats``."""
    phrase = " ".join(phrase.split()).strip(" .,;:!?\"'")
    while phrase and (shorter := _ARTICLE.sub("", phrase, count=1).strip()) != phrase:
        phrase = shorter
    return phrase


def singular(phrase: str) -> str:
    """The phrase with its last word in the singular: ``traffic lights`` to ``traffic light``."""
    head, _, word = phrase.rpartition(" ")
    tables = data("words.toml")
    low = word.lower()
    if low in tables["irregular"]:
        word = tables["irregular"][low]
    elif low in tables["unchanged"]["words"] or len(low) < 4:
        pass
    elif low.endswith("ies"):
        word = word[:-3] + "y"
    elif low.endswith(("sses", "shes", "ches", "xes", "zzes")):
        word = word[:-2]
    elif low.endswith("s") and not low.endswith(("ss", "us", "is")):
        word = word[:-1]
    return f"{head} {word}".strip()


def plural(phrase: str) -> str:
    """The phrase, given in the singular, with its last word in the plural."""
    head, _, word = phrase.rpartition(" ")
    tables = data("words.toml")
    low = word.lower()
    backward = {one: many for many, one in tables["irregular"].items()}
    if low in backward:
        word = backward[low]
    elif low in tables["unchanged"]["words"]:
        pass
    elif low.endswith("y") and low[-2:-1] not in "aeiou":
        word = word[:-1] + "ies"
    elif low.endswith(("s", "sh", "ch", "x", "z")):
        word += "es"
    else:
        word += "s"
    return f"{head} {word}".strip()


def numbered(phrase: str) -> tuple[int | None, str]:
    """A phrase's leading number and the rest: ``two cups`` gives ``(2, "cups")``, ``cup`` gives ``(None, "cup")``."""
    first, _, rest = phrase.partition(" ")
    if first.isdecimal() and len(first) <= 6:
        return int(first), rest
    number = data("words.toml")["numbers"].get(first.lower())
    return (None, phrase) if number is None else (number, rest)


def counted(count: int, name: str) -> str:
    """``1 cat``, ``2 cats``, ``no cats``."""
    if count == 1:
        return f"1 {name}"
    return f"{count or 'no'} {plural(name)}"


def with_article(name: str) -> str:
    """``a cat``, ``an apple``; a name that is always plural gets none."""
    if singular(name) == name and name.endswith("s") and not name.endswith(("ss", "us")):
        return name
    return f"{'an' if re.match(r'(?!uni|use|eu|one)[aeiou]', name.lower()) else 'a'} {name}"


def split_names(text: str) -> tuple[str, ...]:
    """The names in a list of words: ``the cat and dogs``, ``cat, dog`` and ``cat . dog .`` give ``("cat", "dog")``.

    Returns:
        Names in the singular, lower case, each once, in the order said.
    """
    names = (singular(bare(part).lower()) for part in _LIST.split(f"{text} "))
    return tuple(dict.fromkeys(name for name in names if name))


def listed(items: Sequence[str], last: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *most, final = items
    return f"{', '.join(most)} {last} {final}" if most else final
