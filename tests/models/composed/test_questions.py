from __future__ import annotations

import pytest

from manylens.models import names
from manylens.models.composed.questions import Question, is_thing, parse

Q = Question
UNDERSTOOD = [
    # count
    ("How many cats are there?", Q("count", "cat")),
    ("how many cats", Q("count", "cat")),
    ("HOW MANY CATS ARE THERE IN THIS PICTURE", Q("count", "cat")),
    ("How many people can you see in the photo?", Q("count", "person")),
    ("how many dogs do you see", Q("count", "dog")),
    ("Count the sheep.", Q("count", "sheep")),
    ("count all the cups please", Q("count", "cup")),
    ("What is the number of buses?", Q("count", "bus")),
    ("Can you tell me how many people there are?", Q("count", "person")),
    ("How many cats and dogs are there?", Q("count", "cat, dog")),
    ("how many traffic lights are visible?", Q("count", "traffic light")),
    ("How many knives does the picture show?", Q("count", "knife")),
    # presence
    ("Is there a dog?", Q("presence", "dog")),
    ("is there a dog in the picture", Q("presence", "dog")),
    ("Are there any cats?", Q("presence", "cat")),
    ("are there cats here?", Q("presence", "cat")),
    ("Is there an apple?", Q("presence", "apple")),
    ("Do you see a cat?", Q("presence", "cat")),
    ("Can you see any people in this image?", Q("presence", "person")),
    ("Does the picture show a horse?", Q("presence", "horse")),
    ("Is a cat in the picture?", Q("presence", "cat")),
    ("Is this a cat?", Q("presence", "cat")),
    ("Isn't there a dog?", Q("presence", "dog")),
    ("Tell me whether there is a dog", Q("presence", "dog")),
    ("Is there a cat or a dog?", Q("presence", "cat, dog", value="or")),
    ("Are there two people?", Q("presence", "two person")),
    ("Are there exactly 3 dogs?", Q("presence", "3 dog")),
    ("Is there one cat?", Q("presence", "one cat")),
    ("Is there a parking meter?", Q("presence", "parking meter")),
    ("Is there a slice of pizza?", Q("presence", "slice of pizza")),
    ("any cats?", Q("presence", "cat")),
    # colour
    ("What colour is the cat?", Q("colour", "cat")),
    ("what color is the cat", Q("colour", "cat")),
    ("What's the color of the sky?", Q("colour", "sky")),
    ("which colour are the cups?", Q("colour", "cup")),
    ("What colour does the cup have?", Q("colour", "cup")),
    ("tell me what colour the cup is", Q("colour", "cup")),
    ("What colour is it?", Q("colour")),
    ("Is the cat black?", Q("colour_check", "cat", value="black")),
    ("is the cup gray", Q("colour_check", "cup", value="grey")),
    # position
    ("Where is the cat?", Q("position", "cat")),
    ("where's the cat", Q("position", "cat")),
    ("Where are the cups?", Q("position", "cup")),
    ("where in the picture is the cat?", None),
    ("tell me where the cat is", Q("position", "cat")),
    ("On which side is the cup?", Q("position", "cup")),
    ("Is the cup left of the spoon?", Q("relation", "cup", "spoon", "left")),
    ("Is the cup to the left of the spoon?", Q("relation", "cup", "spoon", "left")),
    ("is the dog on the right of the cat", Q("relation", "dog", "cat", "right")),
    ("Is the lamp above the table?", Q("relation", "lamp", "table", "above")),
    ("is the cat under the table", Q("relation", "cat", "table", "below")),
    ("Is the cat on the left?", Q("side", "cat", value="left")),
    ("is the cup in the center?", Q("side", "cup", value="centre")),
    # name and content
    ("What is it?", Q("name")),
    ("what is this", Q("name")),
    ("What's that?", Q("name")),
    ("tell me what it is", Q("name")),
    ("What animal is this?", Q("name", "animal")),
    ("What kind of animal is it?", Q("name", "animal")),
    ("which animal is in the picture", Q("name", "animal")),
    ("What breed is the cat?", Q("name", "cat")),
    ("What is the animal?", Q("name", "animal")),
    ("identify the animal", Q("name", "animal")),
    ("What are these?", Q("name")),
    ("What is in the picture?", Q("contents")),
    ("what's in this photo", Q("contents")),
    ("What do you see?", Q("contents")),
    ("What does the picture show?", Q("contents")),
    ("which objects are in the image", Q("contents")),
    ("What can you see here?", Q("contents")),
    # written text
    ("What does the sign say?", Q("text", "sign")),
    ("what does it say", Q("text")),
    ("What is written on the sign?", Q("text", "sign")),
    ("What is written?", Q("text")),
    ("what's written here", Q("text")),
    ("What text is on the bus?", Q("text", "bus")),
    ("What is the text on the sign?", Q("text", "sign")),
    ("Read the sign.", Q("text", "sign")),
    ("what does the second line say", Q("text", value="2")),
    ("What does the 1st line of the sign say?", Q("text", "sign", value="1")),
    ("What is the last line?", Q("text", value="-1")),
    ("What is written on the third line?", Q("text", value="3")),
    ("read line", None),
    ("What is the phone number?", Q("number", value="phone")),
    ("What is the telephone number on the sign?", Q("number", "sign", value="telephone")),
    ("What is the bus number?", Q("number", value="bus")),
    ("what words can you read?", Q("text")),
    ("Is there any text?", Q("text_presence")),
    ("What number is on the bus?", Q("number", "bus")),
    ("what is the number on the bus", Q("number", "bus")),
    # refused by choice
    ("Who is this?", Q("person")),
    ("Who's the man in the photo?", Q("person")),
]
NOT_UNDERSTOOD = [
    "",
    "?",
    "Why is the cat sad?",
    "Is she happy?",
    "What time is it?",
    "When was this taken?",
    "How old is the cat?",
    "How far away is the cat?",
    "What should I cook tonight?",
    "Write me a poem",
    "How many cats are there and what colour is the dog?",
    "Is the cat black because it is night?",
    "What will happen next?",
    "Is there no cat?",
    "Are there many people?",
    "Is there another cat?",
    "Are there at least two cats?",
    "Are there twenty cats?",
    "Is there only a cat?",
    "Is there a cat and a dog or a bird?",
    "What colour are the two cups?",
    "What colour is the left cup?",
    "What is in the cup?",
    "What is on the table?",
    "What is behind the man?",
    "What is the person wearing?",
    "What is the woman holding?",
    "What is the cat doing?",
    "What is it made of?",
    "What is the cup made of?",
    "What is the cup for?",
    "What is the man like?",
    "Is there a man wearing a hat?",
    "Is there a cat on the table?",
    "How many people are in the car?",
    "What does the middle line say?",
    "What is the second word?",
    "What does the first word say?",
    "When it closes?",
]


@pytest.mark.parametrize(("question", "expected"), UNDERSTOOD)
def test_parse(question: str, expected: Question | None) -> None:
    assert parse(question) == expected


@pytest.mark.parametrize("question", NOT_UNDERSTOOD)
def test_what_is_not_understood_gives_none(question: str) -> None:
    assert parse(question) is None


@pytest.mark.parametrize("word", names.coco().words)
def test_every_word_that_the_detector_knows_is_a_thing(word: str) -> None:
    assert is_thing(word, "name")


@pytest.mark.parametrize(("question", "expected"), [row for row in UNDERSTOOD if row[1] is not None])
def test_capitals_marks_and_spaces_change_nothing(question: str, expected: Question) -> None:
    plain = question.rstrip("?.")
    assert parse(f"  {plain.upper()} ?!") == parse(plain.lower()) == expected
