"""How a request's field looks on the command line.

A field that carries no :class:`Flag` becomes ``--field-name VALUE``; a flag without a name is a positional argument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from manylens.errors import PromptError


@dataclass(frozen=True)
class Flag:
    """The command-line form of one field of a request.

    Args:
        name: The option, such as ``--point``; empty for a positional argument.
        metavar: What the help shows for the value.
        many: Whether the option may be given several times.
        arity: How many words one use of the option takes: ``(least, most)``.
        parse: Turns the word (or the tuple of words, for an arity above one) into the field's value.
        hidden: Left out of the command line (the field is for Python and HTTP).
    """

    name: str = ""
    metavar: str = "TEXT"
    many: bool = False
    arity: tuple[int, int] = (1, 1)
    parse: Callable[[Any], Any] | None = None
    hidden: bool = False


def _numbers(word: str, form: str, sample: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in word.split(","))
    except ValueError:
        values = ()
    if len(values) != len(form.split(",")):
        raise PromptError(f"{word!r} is not {form}", f"write {form} in pixels without spaces, such as {sample}")
    return values


def point(word: str) -> tuple[float, ...]:
    """``"320,210"`` to ``(320.0, 210.0)``."""
    return _numbers(word, "x,y", "320,210")


def box(word: str) -> tuple[float, ...]:
    """``"10,20,200,180"`` to ``(10.0, 20.0, 200.0, 180.0)``."""
    return _numbers(word, "x0,y0,x1,y1", "40,30,200,180")


def example(words: tuple[str, ...]) -> dict[str, str]:
    """``("dog.jpg", "dog.png", "dog")`` to the keyword arguments of an :class:`~manylens.tasks.requests.Example`."""
    if len(words) < 2:
        raise PromptError(f"example {' '.join(words)!r} has no mask", "give --like IMAGE MASK [NAME]")
    image, mask, *name = words
    return {"image": image, "mask": mask, **({"name": name[0]} if name else {})}


def box_example(words: tuple[str, ...]) -> dict[str, Any]:
    """``("dog.jpg", "40,30,200,180", "dog")`` to the keyword arguments of a ``BoxExample``."""
    if len(words) < 2:
        raise PromptError(f"example {' '.join(words)!r} has no box", "give --like IMAGE x0,y0,x1,y1 [NAME]")
    image, corners, *name = words
    return {"image": image, "box": box(corners), **({"name": name[0]} if name else {})}


def named_example(words: tuple[str, ...]) -> dict[str, str]:
    """``("rex.jpg", "dog")`` to the keyword arguments of a ``NamedExample``."""
    if len(words) != 2:
        raise PromptError(f"example {' '.join(words)!r} has no name", "give --like IMAGE NAME")
    return {"image": words[0], "name": words[1]}
