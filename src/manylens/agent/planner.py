"""The offline planner: a request in plain words to a plan, without a language model.

It cuts the request into clauses, finds each clause's intent in a table (``data/intents.toml``), takes the thing or the
words that it speaks of, and resolves "it" to what was said before. It does not guess: a clause that no form fits goes
word for word to ``unclear``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from importlib import resources
from typing import Any, Protocol

from manylens.agent import language as lang
from manylens.agent.draft import Draft
from manylens.agent.mentions import Clause, clause_of, media_names, nouns
from manylens.agent.plan import Plan


class Planner(Protocol):
    """Whatever turns a request into a plan."""

    def plan(self, request: str, files: Sequence[str] = ()) -> Plan:
        """Plan a request about some files, which need not exist."""


@dataclass(frozen=True)
class Intent:
    """A row of the table of intents; see ``data/intents.toml``."""

    name: str
    task: str
    forms: tuple[str, ...]
    args: dict[str, Any] = field(default_factory=dict)
    verbs: tuple[str, ...] = ()
    media: str = "image"
    no_media: bool = False
    media_only: bool = False
    crop: bool = False
    edits: bool = False
    boxes: str = ""
    pair: str = ""
    names_from: str = "object"
    object_instead: str = ""

    @cached_property
    def patterns(self) -> tuple[re.Pattern[str], ...]:
        """The forms, their macros and slots written out."""
        return tuple(re.compile(_expanded(form), re.IGNORECASE) for form in self.forms)

    def match(self, clause: str) -> dict[str, str] | None:
        """The slots of a clause that has this intent, else None."""
        for pattern in self.patterns:
            if found := pattern.fullmatch(clause):
                return {slot: value.strip() for slot, value in found.groupdict().items() if value}
        return None


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath("data", "intents.toml").read_text("utf-8"))


@cache
def intents() -> tuple[Intent, ...]:
    """The table of intents, in the order in which they are tried."""
    rows: list[dict[str, Any]] = _table()["intent"]
    return tuple(Intent(**(row | {"forms": tuple(row["forms"]), "verbs": tuple(row["verbs"])})) for row in rows)


@cache
def _vocabulary() -> frozenset[str]:
    """The words whose slips are mended."""
    return frozenset(verb for intent in intents() for verb in intent.verbs)


def _expanded(form: str) -> str:
    slots = {
        "object": r"(?P<object>[^,;]+?(?:,[^,;]+?)*)",
        "picture": rf"(?P<picture>(?:{lang.any_of('results')}|{lang.any_of('pronouns')})|[^,;]+?)",
        "text": r"(?P<text>.+?)",
        "quoted": r"(?P<text>\"[^\"]+\"|“[^”]+”|'[^']+'|`[^`]+`)",
        "files": r"\$media(?:\s*(?:,|and|with|to)\s*\$media)*",
    }
    for _ in range(3):  # macros may use macros
        for name, value in _table()["macros"].items():
            form = form.replace(f"{{{name}}}", value)
    for name, value in slots.items():
        form = form.replace(f"{{{name}}}", value)
    return form


class OfflinePlanner:
    """Plans without a language model; see the module."""

    def plan(self, request: str, files: Sequence[str] = ()) -> Plan:
        """Plan a request.

        Args:
            request: What is wanted, in plain words.
            files: Names or paths of the pictures and other media; they need not exist.

        Returns:
            A valid plan; ``unclear`` holds what was not understood, and no steps stand for it.
        """
        names = media_names(files)
        draft = Draft(names)
        unclear: list[str] = []
        for sentence in lang.sentences(_tidy(request), names):
            if re.match(r"(?:if|unless|when|in case|should there)\b", lang.polite(sentence), re.IGNORECASE):
                unclear.append(sentence)  # a condition is not carried out as if it held
                continue
            for clause in self._clauses(sentence, names):
                if not clause.text and not clause.media:
                    continue  # "please", "thank you"
                if clause.media and re.fullmatch(
                    rf"(?:{lang.any_of('settings')}) the picture", clause.text, re.IGNORECASE
                ):
                    draft.about(clause.media)
                    continue
                found = None if clause.missing else understand(clause.text)
                if found is None or not draft.add(found[0], found[1], clause.text, clause.media):
                    unclear.append(clause.words)
        return Plan(request=request, steps=tuple(draft.steps), unclear=tuple(unclear))

    def _clauses(self, sentence: str, names: Sequence[str]) -> Iterator[Clause]:
        begins = lambda fragment: understand(_clause(fragment, names).text) is not None  # noqa: E731
        parts = [_clause(part, names) for part in lang.clauses(sentence, begins, names)]
        while parts:
            first = parts.pop(0)
            if parts and (thing := _shared(first, parts[0])):
                # "find and cut out the cat": find the cat, cut it out
                first = replace(first, text=f"{first.text} {thing}", media=first.media or parts[0].media)
                parts[0] = replace(parts[0], text=parts[0].text.replace(thing, "it", 1))
            yield first


def understand(text: str) -> tuple[Intent, dict[str, str]] | None:
    """The intent of a clause and its slots, or None; slips of one letter in a verb are forgiven."""
    for candidate in (text, lang.mended(text, _vocabulary())):
        if not candidate:
            continue
        for intent in intents():
            slots = intent.match(candidate)
            if slots is not None:
                if intent.task != "answer" and lang.hindered(_commanded(slots, candidate, intent)):
                    return None
                return intent, slots
    return None


def _commanded(slots: dict[str, str], clause: str, intent: Intent) -> str:
    """What of a clause is checked for conditions: not the words that go on as they are, and not the form itself."""
    if "text" in slots and intent.args.get("text") == "{text}":
        return ""
    return slots.get("object", "") if "object" in slots else clause


def _shared(clause: Clause, after: Clause) -> str | None:
    """The thing that a bare verb shares with the next clause, or None."""
    if not re.fullmatch(r"[a-z-]+(?: out| up)?", clause.text, re.IGNORECASE) or understand(clause.text):
        return None
    following = understand(after.text)
    thing = following[1].get("object") if following else None
    return thing if thing and understand(f"{clause.text} {thing}") else None


def _tidy(request: str) -> str:
    text = request.replace("’", "'").replace("‘", "'")
    text = re.sub(r"\s+\.\s+(?=[a-z])", ", ", text)  # "cat . dog ." lists things
    return re.sub(r"[ \t]+", " ", text).strip()


def _clause(part: str, names: Sequence[str]) -> Clause:
    clause = clause_of(part, names)
    return replace(clause, text=lang.polite(_without_picture(clause.text)))


_AT_END = re.compile(
    rf"[\s,]+(?:in|on|from|within|inside|of) (?:the|this|that|my|our)(?: \w+)? {nouns()}$", re.IGNORECASE
)


def _without_picture(text: str) -> str:
    """Leave "in the picture" out at the end of a clause where it would be lost on the form, or taken for a name."""
    short = _AT_END.sub("", text)
    if short == text:
        return text
    long_form, short_form = understand(text), understand(short)
    if short_form is None:
        return text
    if long_form is None:
        return short
    same = long_form[0] is short_form[0] and "object" in long_form[1]
    return short if same and long_form[1]["object"] != short_form[1].get("object") else text
