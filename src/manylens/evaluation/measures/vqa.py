"""How answers are made comparable before they are compared, as the VQA challenge does (Antol et al., ICCV 2015).

Lower case; punctuation dropped or turned into a space; number words to digits; articles dropped; apostrophes put back
into contractions. The words stand in ``data/answers.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from itertools import combinations
from typing import Any

NEEDED = 3

_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")


def normal(text: str) -> str:
    """An answer as it is compared."""
    table = _table()
    text = " ".join(text.split())
    flat = text
    for mark in table["punctuation"]:
        # beside a space (or in 1,000) the mark goes, else it parted two words
        drop = f"{mark} " in text or f" {mark}" in text or _COMMA_IN_NUMBER.search(text)
        flat = flat.replace(mark, "" if drop else " ")
    flat = _FULL_STOP.sub("", flat).lower()
    words = [table["numbers"].get(word, word) for word in flat.split()]
    return " ".join(table["contractions"].get(word, word) for word in words if word not in table["articles"])


def accuracy(answer: str, answers: Sequence[str], *, contained: bool = False) -> float:
    """How many people agree: the mean over all ways to leave one person out of ``min(agreeing / 3, 1)``.

    Args:
        answer: What the model said.
        answers: What people said; the challenge has ten. One is an exact match. With fewer than four, all that are
            left must agree for the full mark.
        contained: Whether what a person said need only stand in the answer, as words: "1" in "1 cat".

    Returns:
        0..1.
    """
    said, given = normal(answer), [normal(one) for one in answers]
    agree = sum(f" {one} " in f" {said} " if contained and one else one == said for one in given)
    if len(given) == 1:
        return float(agree)
    needed = min(NEEDED, len(given) - 1)
    with_one_less = agree * min((agree - 1) / needed, 1.0)
    others = (len(given) - agree) * min(agree / needed, 1.0)
    return (with_one_less + others) / len(given)


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    raw = json.loads(files("manylens.evaluation.measures").joinpath("data/answers.json").read_text(encoding="utf-8"))
    contractions = {bare: whole for whole in raw["contractions"] for bare in _without_apostrophes(whole)}
    return {**raw, "contractions": contractions, "articles": frozenset(raw["articles"])}


def _without_apostrophes(word: str) -> list[str]:
    """The word with one or more of its apostrophes left out."""
    at = [i for i, letter in enumerate(word) if letter == "'"]
    gone = [set(some) for count in range(1, len(at) + 1) for some in combinations(at, count)]
    return ["".join(letter for i, letter in enumerate(word) if i not in some) for some in gone]
