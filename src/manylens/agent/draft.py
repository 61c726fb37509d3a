"""A plan while it is being made: steps, and what "it" stands for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from manylens.agent import language as lang
from manylens.agent.kinds import gives
from manylens.agent.mentions import kind_of_file
from manylens.agent.plan import FIRST_IMAGE, Step
from manylens.models.composed.questions import parse
from manylens.models.composed.words import bare, listed, plural, singular

if TYPE_CHECKING:
    from manylens.agent.planner import Intent

_DEFAULT = {"image": FIRST_IMAGE, "audio": "$audio", "video": "$video"}


@dataclass(frozen=True)
class Known:
    """Something that was spoken of and that "it" can stand for.

    Attributes:
        kind: ``things`` (a noun phrase), ``picture`` (a made picture) or ``text`` (said or read words).
        phrase: The noun phrase, without articles.
        step: The step that gave it; None where it was only spoken of.
        task: That step's task.
    """

    kind: Literal["things", "picture", "text"]
    phrase: str = ""
    step: int | None = None
    task: str = ""


class Draft:
    """Collects the steps of a plan.

    Args:
        names: The names of the files, in their order.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.steps: list[Step] = []
        self._names = tuple(names)
        self._said: dict[str, list[Known]] = {}
        self._last: tuple[str, ...] = ()

    def add(self, intent: Intent, slots: dict[str, str], clause: str, media: Sequence[str]) -> bool:
        """Add the steps of one clause, one for each file meant.

        Returns:
            False, with nothing added, where the clause speaks of something that is not known.
        """
        before = len(self.steps)
        if intent.pair:
            return self._pair(intent, media)
        if intent.no_media:
            args = self._filled(intent, slots, clause, "")
            if args is None:
                return False
            self._remember(self._append(intent.task, args), intent.task, "", self._here()[0])
            return True
        targets = tuple(media) or self._targets(intent)
        for name in targets:
            if not self._add_one(intent, slots, clause, name):
                del self.steps[before:]
                return False
        self._last = targets
        return bool(targets)

    def about(self, media: Sequence[str]) -> None:
        """What follows is about these files, until others are named."""
        self._last = tuple(media)

    def _here(self) -> tuple[str, ...]:
        return self._last or self._names or (FIRST_IMAGE,)

    def _targets(self, intent: Intent) -> tuple[str, ...]:
        """The files that a clause without a file's name is about: those of the clause before, or all of the kind."""
        kind = intent.media
        fitting = tuple(name for name in self._names if kind_of_file(name) == kind)
        last = tuple(name for name in self._last if kind_of_file(name) == kind)
        return last or fitting or (_DEFAULT[kind],)

    def _add_one(self, intent: Intent, slots: dict[str, str], clause: str, name: str) -> bool:
        said = self._said.setdefault(name, [])
        if intent.task == "answer":
            return self._question(intent, slots["question"], name)
        phrase = slots.get("object", "")
        if intent.object_instead and (things := _latest(said, "things")):
            phrase = things.phrase
            args: dict[str, Any] | None = {"image": name, intent.object_instead: phrase}
        elif phrase and _is_pronoun(phrase):
            things = _latest(said, "things")
            if things is None:
                return False
            phrase = things.phrase
            if intent.boxes and things.step is not None and "boxes" in gives(things.task):
                args = {"image": name, intent.boxes: str_ref(things.step, "boxes")}
            else:
                args = self._filled(intent, {**slots, "object": phrase}, clause, name)
        else:
            source = name if intent.media_only else self._source(intent, slots, clause, name)
            if source is None:
                return False
            args = self._filled(intent, slots, clause, name)
            if args is not None:
                args = {intent.media: source, **args}
            phrase = listed_names(phrase)
        if args is None or (intent.args.get("text") == "{object}" and not phrase):
            return False
        things = _latest(said, "things")
        if intent.edits and _PRONOUN.search(clause) and things and things is said[-1] and "masks" in gives(things.task):
            args["mask"] = str_ref(things.step, "masks")
        args.setdefault(intent.media, name)
        step = self._append(intent.task, {intent.media: args.pop(intent.media), **args})
        self._remember(step, intent.task, phrase, name)
        return True

    def _source(self, intent: Intent, slots: dict[str, str], clause: str, name: str) -> str | None:
        """The picture that a step works on: the file, the part of it that "it" stands for, or what a step made."""
        said = self._said.setdefault(name, [])
        picture = slots.get("picture", "").lower()
        if intent.edits:
            made = _latest(said, "picture")
            return str_ref(made.step, "image") if made and made.step else name
        if not intent.crop and intent.task != "read":
            return name
        if not picture and intent.task == "read":
            picture = clause.lower().removeprefix("read").strip()
        if _is_pronoun(picture) or picture in lang.words()["results"]:
            known = _latest(said, "things", "picture")
            if known is None or known.step is None:
                return name
            return str_ref(known.step, "image" if known.kind == "picture" else "crop")
        if not picture or intent.task == "read" or re.fullmatch(rf"(?:{_THE})?(?:{_picture_words()})s?", picture):
            return name
        if lang.hindered(picture):
            return None
        phrase = bare(picture)
        step = self._append("detect", {"image": name, "names": [phrase]})
        self._remember(step, "detect", phrase, name)
        return str_ref(step, "crop")

    def _question(self, intent: Intent, question: str, name: str) -> bool:
        said = self._said.setdefault(name, [])
        question = _direct(question)
        things = _latest(said, "things")
        understood = parse(question)
        about_it = _PRONOUN.search(question) is not None
        args: dict[str, Any] = {"image": name, "question": _asked(question)}
        after: tuple[int, ...] = ()
        newest = said[-1] if said else None
        if about_it and newest and newest.kind == "picture" and newest.step:
            args["image"] = str_ref(newest.step, "image")
        elif about_it and things is not None:
            one_thing = "," not in things.phrase
            if understood and understood.kind == "name" and not understood.object and things.step and one_thing:
                args["image"] = str_ref(things.step, "crop")
            elif understood and understood.kind == "name" and things.step:
                after = (things.step,)
                for phrase in things.phrase.split(", "):
                    self._append("answer", {"image": name, "question": _asked(f"What is the {phrase}")}, after)
                return True
            else:
                args["question"] = _asked(_resolved(question, things.phrase))
        step = self._append(intent.task, args, after)
        if understood and understood.object:
            said.append(Known("things", understood.object))
        said.append(Known("text", "", step, intent.task))
        return True

    def _pair(self, intent: Intent, media: Sequence[str]) -> bool:
        pair = tuple(media) or tuple(name for name in self._names if kind_of_file(name) == "image")
        if not self._names and not media:
            pair = (FIRST_IMAGE, f"{FIRST_IMAGE}2")
        if len(pair) != 2:
            return False
        self._append(intent.task, {"image": pair[0], intent.pair: pair[1]})
        return True

    def _filled(self, intent: Intent, slots: dict[str, str], clause: str, name: str) -> dict[str, Any] | None:
        """The arguments of an intent with its slots filled in, or None where a slot stands for nothing."""
        args: dict[str, Any] = {}
        for key, value in intent.args.items():
            if value == "{object}":
                value = listed_names(slots.get("object", ""))
            elif value == "{names}":
                value = list(names_in(slots.get(intent.names_from, "")))
            elif value == "{text}":
                value = self._words(slots.get("text", ""), name)
            elif value == "{clause}":
                value = clause
            if value in ("", [], None):
                return None
            args[key] = value
        return args

    def _words(self, text: str, name: str) -> str | None:
        """Words as they were written, or a reference where they are "it" or "the result"."""
        low = text.lower()
        if low.startswith("what it says") or _is_pronoun(low) or low in lang.words()["results"]:
            known = _latest(self._said.get(name or self._here()[0], []), "text")
            return str_ref(known.step, "text") if known and known.step else None
        return text.strip("\"'“”`")

    def _append(self, task: str, args: dict[str, Any], after: tuple[int, ...] = ()) -> int:
        number = len(self.steps) + 1
        self.steps.append(Step(id=number, task=task, args=args, after=after))
        return number

    def _remember(self, step: int, task: str, phrase: str, name: str) -> None:
        said = self._said.setdefault(name, [])
        outputs = gives(task)
        if phrase and "crop" in outputs:
            said.append(Known("things", phrase, step, task))
        elif "image" in outputs:
            said.append(Known("picture", "", step, task))
        elif "text" in outputs:
            said.append(Known("text", "", step, task))


_ORDERS = (
    (re.compile(r"^(how many .+) there (is|are|was|were)$", re.IGNORECASE), r"\1 \2 there"),
    (
        re.compile(
            r"^((?:what|which) (?:colou?r|animal|kind of \w+|breed|side)|what|where|who) "
            r"(?!is|are)(.+) (is|are|was|were)$",
            re.IGNORECASE,
        ),
        r"\1 \3 \2",
    ),
)
_THE = r"(?:(?:the|this|that|my|our|whole|entire) )*"
_PRONOUN = re.compile(r"\b(?:it|they|them|its|their|he|she|his|her|these|those)\b", re.IGNORECASE)


def _picture_words() -> str:
    return "|".join(lang.words()["picture_words"])


def str_ref(step: int | None, output: str) -> str:
    """A reference as it stands in a plan: ``$1.masks``."""
    return f"${step}.{output}"


def names_in(phrase: str) -> Iterator[str]:
    """The things that a phrase lists, each without its articles: ``the cat and two dogs``."""
    quoted = phrase.strip("\"'“”`")
    if quoted != phrase:
        yield quoted
        return
    for part in re.split(r"\s*,\s*(?:(?:and|or)\s+)?|\s+(?:and|or|plus|&|as well as)\s+", phrase, flags=re.IGNORECASE):
        if name := bare(part).lower():
            yield name


def listed_names(phrase: str) -> str:
    """The things that a phrase lists, with commas between them."""
    return ", ".join(dict.fromkeys(names_in(phrase)))


def _latest(said: Sequence[Known], *kinds: str) -> Known | None:
    return next((known for known in reversed(said) if known.kind in kinds), None)


def _is_pronoun(phrase: str) -> bool:
    return phrase.lower() in lang.words()["pronouns"]


def _direct(question: str) -> str:
    """An indirect question made one that stands alone: ``its colour`` to ``what is its colour``."""
    question = re.sub(r"^(?:whether|if)\s+", "", question, flags=re.IGNORECASE)
    if re.match(r"(?:the|its|their|his|her)\b", question, re.IGNORECASE):
        return f"what is {question}"
    for pattern, order in _ORDERS:
        question = pattern.sub(order, question)
    return question


def _asked(question: str) -> str:
    question = question.strip()
    return f"{question[:1].upper()}{question[1:].rstrip('?')}?"


def _resolved(question: str, phrase: str) -> str:
    """The question with the thing in place of "it"."""
    names = phrase.split(", ")
    if len(names) == 1 and re.search(r"\b(?:they|them|are|these|those)\b", question, re.IGNORECASE):
        names = [plural(singular(names[0]))]
    thing = f"the {listed(names)}"
    if own := re.match(r"what is (?:its|their|his|her) ([\w ]+)$", question, re.IGNORECASE):
        return f"what is the {own[1]} of {thing}"
    return re.sub(r"\b(?:it|they|them|he|she|these|those)\b", thing, question, count=1, flags=re.IGNORECASE)
