import numpy as np
import pytest

from manylens.models.examples import classes
from manylens.tasks.prompts import Example

MASK = np.ones((4, 6), bool)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], []),
        ([None], [("", [0])]),
        ([None, None], [("", [0, 1])]),
        (["cat"], [("cat", [0])]),
        (["cat", "dog", "cat"], [("cat", [0, 2]), ("dog", [1])]),
        (["b", "a", "c", "a"], [("b", [0]), ("a", [1, 3]), ("c", [2])]),
    ],
)
def test_examples_are_gathered_by_name_in_the_order_of_first_mention(names, expected):
    like = [
        Example(image=np.full((4, 6, 3), number, np.uint8), mask=MASK, name=name) for number, name in enumerate(names)
    ]
    found = [(one.name, [int(example.image.array[0, 0, 0]) for example in one.examples]) for one in classes(like)]
    assert found == expected
