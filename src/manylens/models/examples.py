"""Examples of a request, gathered by the class that they show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from manylens.tasks.prompts import Example


@dataclass(frozen=True)
class Class:
    """A class that examples show.

    Attributes:
        name: Its name; empty where the examples have none.
        examples: Those that show it, in the order in which they were given; at least one.
    """

    name: str
    examples: tuple[Example, ...]


def classes(like: Sequence[Example]) -> tuple[Class, ...]:
    """The classes of a request's examples, in the order of first mention.

    Args:
        like: The examples; those without a name are all of one class, which is called "".
    """
    found: dict[str, list[Example]] = {}
    for example in like:
        found.setdefault(example.name or "", []).append(example)
    return tuple(Class(name, tuple(examples)) for name, examples in found.items())
