"""Answers put together from what other tasks see, each with its evidence; what it cannot answer, it says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from manylens.models.base import Model
from manylens.models.composed import look as see
from manylens.models.composed.colour import name_colour
from manylens.models.composed.look import Look, Thing, UnknownWordError
from manylens.models.composed.questions import Question, parse
from manylens.models.composed.words import counted, data, listed, numbered, plural, split_names, with_article
from manylens.models.names import everyday
from manylens.runtime.context import Context
from manylens.tasks import Answer, AnswerRequest, Evidence, Request, TextLine

FINE = 0.3
"""The least probability of a finer label that is said."""

Handler = Callable[[Look, Question], Answer]


class Answers(Model):
    """Serves ``answer`` over ``detect``, ``classify``, ``segment`` and ``read``.

    It understands questions of count, presence, colour, position, name, content and written text
    (``data/questions.toml``). It never guesses: a question or a word that it does not know gives ``known=False`` with
    the reason, and what rests on a low score is said with "probably".
    """

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Answer]:
        """Yield an answer to each question."""
        for request in requests:
            assert isinstance(request, AnswerRequest)
            yield answer(request.question, Look(request.image, ctx))


def answer(question: str, look: Look) -> Answer:
    """Answer a question about the picture that is looked at."""
    understood = parse(question)
    if understood is None:
        return _unknown(
            f"I do not understand the question {' '.join(question.split())!r}. "
            "I can say what is there, how many, where, of what colour, and what is written",
        )
    try:
        found = _HANDLERS[understood.kind](look, understood)
        return replace(found, text=" ".join([found.text, *(f"Note: {note}." for note in look.notes)]))
    except UnknownWordError as failure:
        return _unknown(f'I do not know what "{failure}" looks like', understood.kind)


def _unknown(why: str, kind: str = "", evidence: Sequence[Evidence] = ()) -> Answer:
    return Answer(f"{why}.", known=False, kind=kind, evidence=tuple(evidence))


def _count(look: Look, question: Question) -> Answer:
    names = split_names(question.object) or ("",)
    parts, evidence, sure = [], [], True
    scores = []
    for name in names:
        things = look.things(name)
        seen = [thing for thing in things if thing.score >= see.SEEN]
        sure &= len(seen) == sum(thing.score >= see.FAINT for thing in things) and all(
            thing.score >= see.SURE for thing in seen
        )
        parts.append(counted(len(seen), name or "thing"))
        evidence += [thing.evidence for thing in seen]
        scores += [thing.score for thing in seen]
    # What is not seen may still be there.
    text = listed(parts) if all(part[0].isdigit() for part in parts) else f"I see {listed(parts)}"
    text = text if sure else f"probably {text}"
    return Answer(
        f"{text[:1].upper()}{text[1:]}.", kind="count", score=min(scores, default=None), evidence=tuple(evidence)
    )


def _presence(look: Look, question: Question) -> Answer:
    if not question.object:
        return _contents(look, question)
    found = [_sought(look, name) for name in split_names(question.object)]
    there, absent = [each for each in found if each.holds], [each for each in found if not each.holds]
    said = there if question.value == "or" and there else found  # of "a cat or a dog" one is enough
    sure = all(each.sure for each in said)
    parts = [each.text for each in said if each.number is not None and each.seen]
    if seen := [each.text for each in said if each.number is None and each.seen]:
        parts.append(listed(seen) if question.value == "or" else f"I see {listed(seen)}")
    if missing := [each.text for each in said if not each.seen]:
        parts.append(("no " if there else "I see no ") + listed(missing, "and no"))
    lead = ("Yes" if there else "No") if sure else ("Probably" if there else "Probably not")
    if there and absent and said is found:
        lead = "In part" if sure else "Probably in part"
    return Answer(
        f"{lead}, {' but '.join(parts)}.",
        kind="presence",
        score=round(min(each.best for each in said), 4) if any(each.seen for each in said) else None,
        evidence=tuple(thing.evidence for each in said for thing in each.seen),
    )


@dataclass(frozen=True)
class _Sought:
    """One thing that a question of presence asks for: what is seen of it, and how many there should be."""

    name: str
    number: int | None
    seen: list[Thing]
    best: float
    faint: bool

    @property
    def holds(self) -> bool:
        """Whether it is there, in the number that was asked for."""
        return bool(self.seen) if self.number is None else len(self.seen) == self.number

    @property
    def sure(self) -> bool:
        """Whether it can be said without "probably"; a number rests on every one of the things."""
        if self.number is not None and self.seen:
            return not self.faint and all(thing.score >= see.SURE for thing in self.seen)
        return self.best >= see.SURE or self.best < see.FAINT

    @property
    def text(self) -> str:
        """The thing with its number, ready for a sentence; without "no" where nothing is seen."""
        if not self.seen:
            return self.name if self.number is None else plural(self.name)
        return _amount(self.seen, self.name) if self.number is None else counted(len(self.seen), self.name)


def _sought(look: Look, phrase: str) -> _Sought:
    number, name = numbered(phrase)
    things = look.things(name)
    seen = [thing for thing in things if thing.score >= see.SEEN]
    faint = any(see.FAINT <= thing.score < see.SEEN for thing in things)
    return _Sought(name, number, seen, max((thing.score for thing in things), default=0.0), faint)


def _amount(seen: list[Thing], name: str) -> str:
    """``a cat``, ``2 cats``; of a group the members: ``a cat (animal)``."""
    if name in data("categories.toml"):
        return _tally(seen)
    return with_article(name) if len(seen) == 1 else counted(len(seen), name)


def _tally(things: Sequence[Thing]) -> str:
    counts = Counter(thing.name for thing in things)
    return listed([with_article(name) if n == 1 else counted(n, name) for name, n in counts.most_common()])


def _colour(look: Look, question: Question) -> Answer:
    mask = None
    evidence: list[Evidence] = []
    what = "picture"
    if question.object and question.object != "background":
        what = question.object
        mask, evidence = look.mask(question.object)
        if mask is None:
            return _unknown(f"I see no {question.object}, so I cannot say its colour", "colour")
    elif question.object == "background":
        return _unknown("I cannot tell the background from the rest", "colour")
    colour = name_colour(look.image.array, mask)
    evidence.append(Evidence("colour", colour.name, round(colour.share, 4), None, "segment"))
    also = f", partly {colour.also}" if colour.also else ""
    probably = "" if colour.share >= 0.4 else "probably "
    if question.kind == "colour_check":
        agrees = question.value.replace("gray", "grey") in (colour.name, colour.also)
        lead = "Yes" if agrees else "No"
        return Answer(
            f"{lead}, the {what} is {probably}{colour.name}{also}.",
            kind="colour",
            score=colour.share,
            evidence=tuple(evidence),
        )
    return Answer(
        f"The {what} is {probably}{colour.name}{also}.", kind="colour", score=colour.share, evidence=tuple(evidence)
    )


def _position(look: Look, question: Question) -> Answer:
    if not question.object:
        return _unknown("I do not know which thing is meant", "position")
    seen = look.seen(question.object)
    if not seen:
        return _unknown(f"I see no {question.object}", "position")
    places = [place(thing, look.image.size) for thing in seen]
    evidence = tuple(thing.evidence for thing in seen)
    best = max(thing.score for thing in seen)
    probably = "" if best >= see.SURE else "probably "
    if len(seen) == 1:
        return Answer(
            f"The {question.object} is {probably}{places[0]}.", kind="position", score=best, evidence=evidence
        )
    said = listed([f"one {where}" if n == 1 else f"{n} {where}" for where, n in Counter(places).items()])
    return Answer(
        f"{probably}{counted(len(seen), question.object)}: {said}.".capitalize(),
        kind="position",
        score=best,
        evidence=evidence,
    )


def place(thing: Thing, size: tuple[int, int]) -> str:
    """Where a thing's middle lies, by thirds of the picture, such as ``at the top left`` or ``in the centre``."""
    (x, y), (width, height) = thing.centre, size
    row = ("top", "", "bottom")[min(2, int(3 * y / height))]
    column = ("left", "", "right")[min(2, int(3 * x / width))]
    if not row and not column:
        return "in the centre"
    return f"at the {row} {column}".strip() if row else f"on the {column}"


def _side(look: Look, question: Question) -> Answer:
    thing = look.main(question.object)
    if thing is None:
        return _unknown(f"I see no {question.object or 'thing'}", "position")
    (x, y), (width, height) = thing.centre, look.image.size
    holds = {
        "left": x < width / 2,
        "right": x > width / 2,
        "above": y < height / 2,
        "below": y > height / 2,
        "centre": abs(x / width - 0.5) < 1 / 6 and abs(y / height - 0.5) < 1 / 6,
    }[question.value]
    lead = "Yes" if holds else "No"
    return Answer(
        f"{lead}, the {question.object or thing.name} is {place(thing, look.image.size)}.",
        kind="position",
        score=thing.score,
        evidence=(thing.evidence,),
    )


_RELATIONS = {"left": "left of", "right": "right of", "above": "above", "below": "below"}


def _relation(look: Look, question: Question) -> Answer:
    one, two = look.main(question.object), look.main(question.other)
    if one is None or two is None:
        missing = [name for name, thing in ((question.object, one), (question.other, two)) if thing is None]
        return _unknown(f"I see no {listed(missing, 'and no')}", "position")
    dx, dy = (one.centre[0] - two.centre[0]), (one.centre[1] - two.centre[1])
    gap = {"left": -dx / look.image.width, "right": dx / look.image.width}
    gap |= {"above": -dy / look.image.height, "below": dy / look.image.height}
    distance = gap[question.value]
    evidence = (one.evidence, two.evidence)
    said = f"the {question.object} is {{}}{_RELATIONS[question.value]} the {question.other}"
    if abs(distance) < 0.02:
        return _unknown(
            f"I cannot say: their middles lie too close to call whether {said.format('')}", "position", evidence
        )
    holds = distance > 0
    text = f"{'Yes' if holds else 'No'}, {said.format('' if holds else 'not ')}."
    return Answer(text, kind="position", score=min(one.score, two.score), evidence=evidence)


def _name(look: Look, question: Question) -> Answer:
    thing = look.main(question.object)
    if thing is None and question.object:
        return _unknown(f"I see no {question.object}", "name")
    labels = look.labels(thing.box if thing else None)
    best = labels[0] if labels else None
    evidence = [thing.evidence] if thing else []
    if best:
        evidence.append(Evidence("label", best.name, round(best.score, 4), None, "classify"))
    if thing is None:
        return _labelled(best, evidence)
    probably = "" if thing.score >= see.SURE else "probably "
    finer = ""
    if best and best.score >= FINE and is_kind_of(best.name, thing.name):
        finer = f" ({first_name(best.name)}, {best.score:.2f})"
    text = f"It is {probably}{with_article(thing.name)}{finer}."
    return Answer(text, kind="name", score=thing.score, evidence=tuple(evidence))


def _labelled(best: object, evidence: list[Evidence]) -> Answer:
    """An answer that rests on the classifier alone."""
    score = getattr(best, "score", 0.0)
    if best is None or score < FINE:
        return _unknown("I cannot tell what it is", "name", evidence)
    probably = "" if score >= see.SURE else "probably "
    fine = first_name(getattr(best, "name", ""))
    name = everyday(fine)
    said = f"{score:.2f}" if fine.lower() == name.lower() else f"{fine}, {score:.2f}"
    return Answer(f"It is {probably}{with_article(name)} ({said}).", kind="name", score=score, evidence=tuple(evidence))


def first_name(label: str) -> str:
    """The first of a label's synonyms: ``tabby, tabby cat`` gives ``tabby``."""
    return label.split(",")[0].strip()


def is_kind_of(label: str, name: str) -> bool:
    """Whether a fine label says more of a thing than its everyday name: a tabby is a cat, a tripod is no person."""
    fine = first_name(label).lower()
    return fine != name and f" {everyday(fine).lower()}".endswith(f" {name.lower()}")


def _contents(look: Look, question: Question) -> Answer:
    seen = look.seen()
    if seen:
        sure = all(thing.score >= see.SURE for thing in seen)
        evidence = tuple(thing.evidence for thing in seen)
        score = min(thing.score for thing in seen)
        text = f"I see {'' if sure else 'probably '}{_tally(seen)}."
        return Answer(text, kind="contents", score=score, evidence=evidence)
    return _name(look, Question("name"))


def _lines(look: Look, question: Question) -> list[TextLine]:
    """The lines that the question asks for: those in the box of its thing, or all where no thing is known by that name.

    Raises:
        UnknownWordError: If nothing is known of the thing, not even that it carries writing.
    """
    if not question.object:
        return look.lines()
    try:
        holder = look.main(question.object)
    except UnknownWordError:  # a detector need not know signs for their words to be read
        if question.object.split()[-1] in data("phrases.toml")["carriers"]:
            return look.lines()
        raise
    return look.lines(holder.box) if holder else []


def _text(look: Look, question: Question) -> Answer:
    lines, holder = _lines(look, question), question.object
    if not lines:
        where = f" on the {holder}" if holder else ""
        return _unknown(f"I can read no text{where}", "text")
    if question.value:
        place = int(question.value)
        if place > len(lines):
            return _unknown(f"I can read only {counted(len(lines), 'line')}", "text")
        return _written('That line says "{}".', [lines[place - 1 if place > 0 else place]])
    subject = f"The {holder}" if holder else "It"
    verb = "say" if holder and holder == plural(holder) else "says"
    return _written(f'{subject} {verb} "{{}}".', lines)


_DATE = re.compile(r"\b(?:\d{4}([-/.])\d{1,2}\1\d{1,2}|\d{1,2}([-/.])\d{1,2}\2\d{2,4})\b")
_PHONE = re.compile(r"\+?\(?\d(?:[ ()./-]{0,3}\d){5,14}(?!\d)")
"""Six to fifteen digits, with the marks that people put between them."""


def _number(look: Look, question: Question) -> Answer:
    sort = question.value
    if not sort:
        lines = [line for line in _lines(look, question) if any(map(str.isdigit, line.text))]
    elif sort in data("phrases.toml")["phones"]:
        lines = [line for line in _lines(look, question) if _PHONE.search(_DATE.sub("", line.text))]
    else:  # "the bus number" stands on a bus that is seen; which one an "order number" is, nothing here can tell
        try:
            holder = look.main(sort)
        except UnknownWordError:
            holder = None
        lines = look.lines(holder.box) if holder else []
        lines = [line for line in lines if any(map(str.isdigit, line.text))]
    if not lines:
        return _unknown(f"I can read no {sort} number" if sort else "I can read no number", "text")
    return _written('I read "{}".', lines)


def _text_presence(look: Look, question: Question) -> Answer:
    lines = _lines(look, question)
    if not lines:
        return Answer("No, I can read no text.", kind="text")
    if max(line.score for line in lines) < 0.9 and all(len(line.text.strip()) < 2 for line in lines):
        return _unknown("I am not sure: there may be a single sign", "text")
    return _written('Yes, it says "{}".', lines)


def _written(form: str, lines: Sequence[TextLine]) -> Answer:
    evidence = tuple(Evidence("text", line.text, round(line.score, 4), line.box, "read") for line in lines)
    score = min(line.score for line in lines)
    said = form.format(" / ".join(line.text for line in lines))
    if score < see.SURE:
        said = f"Probably: {said[0].lower()}{said[1:]}"
    return Answer(said, kind="text", score=score, evidence=evidence)


def _person(look: Look, question: Question) -> Answer:
    return _unknown("I do not say who somebody is", "name")


_HANDLERS: dict[str, Handler] = {
    "count": _count,
    "presence": _presence,
    "colour": _colour,
    "colour_check": _colour,
    "position": _position,
    "side": _side,
    "relation": _relation,
    "name": _name,
    "contents": _contents,
    "text": _text,
    "number": _number,
    "text_presence": _text_presence,
    "person": _person,
}
