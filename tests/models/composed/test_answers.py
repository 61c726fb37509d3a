from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from manylens.models.composed.answers import is_kind_of

CAT = ("cat", 0.9, (100, 60, 200, 140))
DOG = ("dog", 0.8, (10, 10, 60, 60))
FAINT_DOG = ("dog", 0.3, (10, 10, 60, 60))
MAYBE_DOG = ("dog", 0.45, (10, 10, 60, 60))
CUP = ("cup", 0.7, (20, 80, 60, 120))
SPOON = ("spoon", 0.65, (220, 80, 260, 120))


@pytest.mark.parametrize(
    ("things", "question", "text", "kind"),
    [
        ([CAT], "How many cats are there?", "1 cat.", "count"),
        ([CAT, CAT], "How many cats are there?", "2 cats.", "count"),
        ([], "How many cats are there?", "I see no cats.", "count"),
        ([DOG, FAINT_DOG], "how many dogs?", "Probably 1 dog.", "count"),
        ([CAT, DOG, DOG], "how many cats and dogs are there", "1 cat and 2 dogs.", "count"),
        ([CAT, DOG, CUP], "how many animals are there", "2 animals.", "count"),
        ([CAT], "Is there a cat?", "Yes, I see a cat.", "presence"),
        ([CAT, CAT], "Are there any cats?", "Yes, I see 2 cats.", "presence"),
        ([], "Is there a dog?", "No, I see no dog.", "presence"),
        ([FAINT_DOG], "Is there a dog?", "Probably not, I see no dog.", "presence"),
        ([MAYBE_DOG], "Is there a dog?", "Probably, I see a dog.", "presence"),
        ([CAT], "is there a cat and a dog?", "In part, I see a cat but no dog.", "presence"),
        ([CAT, CUP], "is there an animal?", "Yes, I see a cat.", "presence"),
        ([CAT], "Are there two cats?", "No, 1 cat.", "presence"),
        ([CUP, CUP], "Are there two cups?", "Yes, 2 cups.", "presence"),
        ([CUP, CUP], "Are there exactly 3 cups?", "No, 2 cups.", "presence"),
        ([CUP, CUP], "Is there one cup?", "No, 2 cups.", "presence"),
        ([], "Are there two dogs?", "No, I see no dogs.", "presence"),
        ([DOG, MAYBE_DOG], "Are there two dogs?", "Probably, 2 dogs.", "presence"),
        ([DOG, FAINT_DOG], "Are there two dogs?", "Probably not, 1 dog.", "presence"),
        ([CAT, CUP, CUP], "Are there two cups and a dog?", "In part, 2 cups but no dog.", "presence"),
        ([CAT], "Is there a cat or a dog?", "Yes, a cat.", "presence"),
        ([CAT, DOG], "Is there a cat or a dog?", "Yes, a cat and a dog.", "presence"),
        ([CUP], "Is there a cat or a dog?", "No, I see no cat and no dog.", "presence"),
        ([CAT], "how many cats and dogs are there", "I see 1 cat and no dogs.", "count"),
        ([CAT], "Where is the cat?", "The cat is in the centre.", "position"),
        ([DOG], "Where is the dog?", "The dog is at the top left.", "position"),
        ([CUP, SPOON], "Is the cup left of the spoon?", "Yes, the cup is left of the spoon.", "position"),
        ([CUP, SPOON], "Is the cup right of the spoon?", "No, the cup is not right of the spoon.", "position"),
        ([CAT], "Is the cat on the left?", "No, the cat is in the centre.", "position"),
        ([CAT], "What is it?", "It is a cat (tabby, 0.62).", "name"),
        ([CAT, CUP], "What animal is this?", "It is a cat (tabby, 0.62).", "name"),
        ([MAYBE_DOG], "what is this?", "It is probably a dog.", "name"),  # a tabby is no dog
        ([CAT, CUP, CUP], "What is in the picture?", "I see 2 cups and a cat.", "contents"),
        ([], "What is this?", "It is a cat (tabby, 0.62).", "name"),
    ],
)
def test_answers(world: Any, things: list[Any], question: str, text: str, kind: str) -> None:
    answer = world(things=things).ask(question)
    assert (answer.text, answer.kind, answer.known) == (text, kind, True)


@pytest.mark.parametrize(
    ("things", "question", "part"),
    [
        ([CAT], "Why is the cat sad?", "I do not understand the question 'Why is the cat sad?'."),
        ([CAT], "When it closes?", "I do not understand the question 'When it closes?'."),
        ([CAT, CUP], "What is in the cup?", "I do not understand the question 'What is in the cup?'."),
        ([CAT], "Is there no cat?", "I do not understand the question 'Is there no cat?'."),
        ([CAT], "Is there a unicorn?", 'what "unicorn" looks like'),
        ([CAT], "What colour is the sky?", 'what "sky" looks like'),
        ([], "What colour is the cat?", "I see no cat"),
        ([], "Where is the cat?", "I see no cat"),
        ([CUP], "Is the cup left of the spoon?", "I see no spoon"),
        ([CUP, CUP], "What animal is this?", "I see no animal"),
        ([CAT], "Who is this?", "do not say who"),
        ([CAT], "What does it say?", "no text"),
        ([CAT], "What number is on the bus?", "no number"),
        ([CUP, (*SPOON[:2], CUP[2])], "Is the cup left of the spoon?", "cannot say"),
    ],
)
def test_what_it_cannot_answer_it_says(world: Any, things: list[Any], question: str, part: str) -> None:
    answer = world(things=things).ask(question)
    assert not answer.known
    assert part in answer.text


@pytest.mark.parametrize("things", [[], [FAINT_DOG]])
@pytest.mark.parametrize("question", ["How many dogs are there?", "Is there a dog?", "Are there two dogs?"])
def test_what_is_not_seen_is_not_certain(world: Any, things: list[Any], question: str) -> None:
    answer = world(things=things).ask(question)
    assert "I see no dog" in answer.text
    assert (answer.score, answer.evidence) == (None, ())


def test_an_unsure_classifier_alone_names_nothing(world: Any) -> None:
    answer = world(labels=[("tabby", 0.1)]).ask("What is this?")
    assert not answer.known
    assert answer.evidence[0].label == "tabby"


def test_a_name_rests_on_the_crop_of_the_thing(world: Any) -> None:
    picture = world(things=[CAT])
    answer = picture.ask("What is it?")
    crop = next(request.image for task, request in picture.calls if task == "classify")
    assert crop.size == (120, 96)
    assert [(e.kind, e.label) for e in answer.evidence] == [("box", "cat"), ("label", "tabby, tabby cat")]
    assert answer.evidence[1].box is None


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("What colour is the cat?", "The cat is red."),
        ("What colour is the picture?", "The picture is blue."),
        ("Is the cat red?", "Yes, the cat is red."),
        ("Is the cat green?", "No, the cat is red."),
    ],
)
def test_colour_is_that_of_the_mask(world: Any, question: str, text: str) -> None:
    pixels = np.full((200, 300, 3), (20, 40, 230), np.uint8)
    pixels[60:140, 100:200] = (220, 10, 10)
    answer = world(things=[CAT], pixels=pixels).ask(question)
    assert answer.text == text
    assert answer.evidence[-1].kind == "colour"


LINES = [("FRESH COFFEE", 0.98, (10, 10, 90, 30)), ("ROUTE 66", 0.95, (150, 90, 190, 110))]


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("What does the sign say?", 'The sign says "FRESH COFFEE / ROUTE 66".'),
        ("What is written here?", 'It says "FRESH COFFEE / ROUTE 66".'),
        ("what is written on the bus?", 'The bus says "ROUTE 66".'),
        ("What number is on the bus?", 'I read "ROUTE 66".'),
        ("What does the second line say?", 'That line says "ROUTE 66".'),
        ("What does the last line say?", 'That line says "ROUTE 66".'),
        ("What is the first line on the bus?", 'That line says "ROUTE 66".'),
        ("What is the bus number?", 'I read "ROUTE 66".'),
        ("Is there any text?", 'Yes, it says "FRESH COFFEE / ROUTE 66".'),
    ],
)
def test_written_text(world: Any, question: str, text: str) -> None:
    answer = world(things=[("bus", 0.9, (100, 60, 200, 140))], lines=LINES).ask(question)
    assert answer.text == text
    assert {e.kind for e in answer.evidence} == {"text"}


@pytest.mark.parametrize(
    ("written", "question", "text"),
    [
        ("8 AM TO 6 PM", "What is the phone number?", "I can read no phone number."),
        ("12/05/2024", "What is the phone number?", "I can read no phone number."),
        ("TEL 555-0134 22", "What is the phone number?", 'I read "TEL 555-0134 22".'),
        ("+49 (0)30 123456", "What is the telephone number on the sign?", 'I read "+49 (0)30 123456".'),
        ("8 AM TO 6 PM", "What is the order number?", "I can read no order number."),
        ("8 AM TO 6 PM", "What is the bus number?", "I can read no bus number."),  # no bus is seen
        ("OPEN", "What does the third line say?", "I can read only 1 line."),
        ("OPEN", "What does the bus say?", "I can read no text on the bus."),
        ("OPEN", "What does the fox say?", 'I do not know what "fox" looks like.'),
    ],
)
def test_only_writing_that_fits_the_question_is_an_answer(world: Any, written: str, question: str, text: str) -> None:
    answer = world(lines=[(written, 0.98, (10, 10, 90, 30))]).ask(question)
    assert answer.text == text
    assert answer.known == text.startswith("I read")


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("How many red cats are there?", "1 red cat."),
        ("Is there a black cat?", "No, I see no black cat."),
        ("Where is the red cat?", "The red cat is in the centre."),
        ("How many cats are there?", "2 cats."),
    ],
)
def test_a_colour_in_front_of_a_name_is_checked(world: Any, question: str, text: str) -> None:
    pixels = np.full((200, 300, 3), (20, 40, 230), np.uint8)
    pixels[60:140, 100:200] = (220, 10, 10)
    two = [CAT, ("cat", 0.8, (210, 60, 290, 140))]
    assert world(things=two, pixels=pixels).ask(question).text == text


@pytest.mark.parametrize(
    ("label", "name", "finer"),
    [
        ("Egyptian cat", "cat", True),
        ("golden retriever", "dog", True),
        ("espresso", "cup", True),
        ("minivan", "car", True),
        ("tripod", "person", False),
        ("espresso", "dining table", False),
        ("pizza, pizza pie", "pizza", False),
    ],
)
def test_a_finer_label_is_a_kind_of_the_thing(label: str, name: str, finer: bool) -> None:
    assert is_kind_of(label, name) == finer
