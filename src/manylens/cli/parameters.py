"""Command-line parameters made from a task's request type."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from manylens.errors import PromptError, UserError
from manylens.tasks import Request
from manylens.tasks.flags import Flag

if TYPE_CHECKING:
    from manylens.session import Session

_JOIN = "\x1f"
"""Holds the words of one option together after :func:`join_words`; no file name carries it."""

_SESSION = ("memory_budget", "engine", "precision", "device", "accept_licence")
"""Common options that are arguments of the session."""

COMMON: dict[str, tuple[Any, Any]] = {
    "model": (
        Annotated[str | None, typer.Option("--model", metavar="ID", help="A catalog id, a hub id or a local folder.")],
        None,
    ),
    "out": (
        Annotated[Path | None, typer.Option("-o", "--out", metavar="DIR", help="Write pictures and labels here.")],
        None,
    ),
    "json": (Annotated[bool, typer.Option("--json", help="Print JSON for machines.")], False),
    "memory_budget": (
        Annotated[str | None, typer.Option("--memory-budget", metavar="SIZE", help="Memory to stay in, such as 2GiB.")],
        None,
    ),
    "engine": (
        Annotated[
            Literal["openvino", "torch"] | None,
            typer.Option("--engine", help="Instead of what manylens doctor measured.", show_default=False),
        ],
        None,
    ),
    "precision": (
        Annotated[
            Literal["f32", "bf16"] | None,
            typer.Option("--precision", help="Likewise.", show_default=False),
        ],
        None,
    ),
    "device": (
        Annotated[
            str | None,
            typer.Option("--device", metavar="NAME", help="cpu, cuda, cuda:1; a GPU where there is one."),
        ],
        None,
    ),
    "accept_licence": (
        Annotated[bool, typer.Option("--accept-licence", help="Fetch a model whose licence forbids commercial use.")],
        False,
    ),
    "max_cost": (
        Annotated[
            float | None,
            typer.Option("--max-cost", metavar="MONEY", help="Stop before it costs more; see manylens cost."),
        ],
        None,
    ),
    "seed": (Annotated[int, typer.Option("--seed", min=0, help="Of every random step.")], 0),
}
"""What every command takes."""


def flag_of(info: FieldInfo) -> Flag:
    """The declared command-line form of a field, or the plain one."""
    return next((item for item in info.metadata if isinstance(item, Flag)), Flag("--"))


def join_words(words: Sequence[str], request: type[Request]) -> list[str]:
    """Join the words of options that take several (``--like IMAGE MASK [NAME]``), which the parser cannot count.

    A word that names a file is never taken for the optional NAME.
    """
    refuse_repeats(words, request)
    arities = {flag.name: flag.arity for flag in map(flag_of, request.model_fields.values()) if flag.arity != (1, 1)}
    joined: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        joined.append(word)
        if word in arities:
            least, most = arities[word]
            taken: list[str] = []
            while rest and len(taken) < most and not rest[0].startswith("-"):
                if len(taken) >= least and Path(rest[0]).is_file():
                    break
                taken.append(rest.pop(0))
            joined.append(_JOIN.join(taken))
    return joined


def refuse_repeats(words: Sequence[str], request: type[Request]) -> None:
    """Refuse an option given twice that counts once: the parser would drop the first without a word."""
    once = {spelling(name, flag_of(info)) for name, info in request.model_fields.items() if not flag_of(info).many}
    for option in once:
        if sum(word == option or word.startswith(f"{option}=") for word in words) > 1:
            raise PromptError(f"{option} is given twice", "give it once")


def spelling(name: str, flag: Flag) -> str:
    """How a field's option is written."""
    return flag.name if flag.name != "--" else "--" + name.replace("_", "-")


def signature(request: type[Request], several: bool) -> inspect.Signature:
    """The signature of a task's command: its media first, then its prompt, then :data:`COMMON`.

    Args:
        request: The task's request type.
        several: Whether the first positional takes several files or folders.
    """
    parameters: list[inspect.Parameter] = []
    for name, info in request.model_fields.items():
        flag = flag_of(info)
        if flag.hidden:
            continue
        first = not parameters
        kind, default = _typed(name, info, flag, several and first)
        parameters.append(_parameter(name, kind, default))
    parameters += [_parameter(name, kind, default) for name, (kind, default) in COMMON.items()]
    return inspect.Signature(parameters)


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _typed(name: str, info: FieldInfo, flag: Flag, several: bool) -> tuple[Any, Any]:
    help_text = info.description or ""
    required = info.is_required()
    if not flag.name:
        argument = typer.Argument(metavar=flag.metavar + ("..." if several else ""), help=help_text, show_default=False)
        kind = list[str] if several or flag.metavar == "FILES" else str
        if required:
            return Annotated[kind, argument], inspect.Parameter.empty
        return Annotated[kind | None, argument], None
    spelled = spelling(name, flag)
    plain = _plain_type(info.annotation)
    metavar = None if flag.name == "--" or get_origin(plain) is Literal else flag.metavar
    option = typer.Option(spelled, metavar=metavar, help=help_text, show_default=not flag.many and not required)
    if flag.many:
        return Annotated[list[str], option], []
    if required:
        return Annotated[plain, option], inspect.Parameter.empty
    default = info.get_default()
    return Annotated[plain | None if default is None else plain, option], default


def _plain_type(annotation: Any) -> Any:
    """What the parser can check itself: numbers, switches and choices; all else is text that the request reads."""
    options = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) is Union or (options and get_origin(annotation) not in (Literal, tuple, Annotated)):
        return _plain_type(options[0]) if len(options) == 1 else str
    if get_origin(annotation) is Literal:
        return annotation if all(isinstance(part, str) for part in get_args(annotation)) else int
    return annotation if annotation in (int, float, bool) else str


def fields_from(request: type[Request], values: dict[str, Any]) -> dict[str, Any]:
    """The request's fields from what the parser gave: parsed as the flag says, left out where nothing was said."""
    fields: dict[str, Any] = {}
    for name, info in request.model_fields.items():
        value = values.get(name)
        if value is None or value == []:
            continue
        flag = flag_of(info)
        fields[name] = [_read(flag, word) for word in value] if flag.many else _read(flag, value)
    return fields


def _read(flag: Flag, word: Any) -> Any:
    words = tuple(word.split(_JOIN)) if flag.arity != (1, 1) else word
    return flag.parse(words) if flag.parse else words


def measure_option(word: str) -> tuple[str, Any]:
    """``"shots=5"`` to ``("shots", 5)``: the value as JSON, else as the text that it is."""
    name, equals, value = word.partition("=")
    if not (name and equals):
        raise PromptError(f"--set {word}: not NAME=VALUE", "write it as shots=5")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def cost_cap(session: Session, most: float | None) -> float | None:
    """The cap that ``--max-cost`` asks for.

    Raises:
        UserError: Nothing says what time costs.
    """
    if most is not None and not session.rates.cost_money:
        raise UserError(
            f"--max-cost {most:g}: nothing says what time costs here",
            "keep rates first, such as manylens cost --hour-rate 0.5 --currency EUR --save-rates",
        )
    return most


def session_for(options: Mapping[str, Any]) -> Session:
    """The session that a command's common options ask for."""
    from manylens.session import Session, default_session

    asked = {name: options[name] for name in _SESSION if options.get(name)}
    return Session(**asked) if asked else default_session()
