"""``manylens dataset``: look at labelled pictures, check them, split them, change their format."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manylens.errors import PromptError, UserError

if TYPE_CHECKING:
    from manylens.data import Dataset, Problems

group = typer.Typer(
    help="Look at labelled pictures, check them, split them, change their format.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Data = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help="A data set: our own folder, COCO JSON, class folders, mask PNGs or CSV.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="The file or folder to write.", show_default=False)]
Images = Annotated[
    Path | None, typer.Option("--images", metavar="DIR", help="Folder that the names of pictures are relative to.")
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="manylens, coco, panoptic, folders, masks or csv; recognised where it is not said.",
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Make the first row that is wrong an error.")]
Copy = Annotated[bool, typer.Option("--copy", help="Copy the pictures into our own folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@group.command()
def info(
    data: Data,
    images: Images = None,
    format: Format = None,
    hash: Annotated[bool, typer.Option("--hash", help="Also print the content hash.")] = False,
    json: Json = False,
) -> None:
    """Count records by split, category and column; no picture is read but for --hash."""
    dataset = _opened(data, images, format)
    body = dataset.describe()
    if hash:
        body["hash"] = dataset.fingerprint()
    if json:
        print(jsonlib.dumps(body, indent=1))
        return
    print(f"{body['name']}: {body['records']} records, {body['annotations']} annotations", end="")
    print(f" ({body['boxes']} boxes, {body['masks']} masks)" if body["annotations"] else "")
    for title, counts in (
        ("splits", body["splits"]),
        ("labels", body["labels"]),
        ("categories", body["categories"] if body["annotations"] else {}),
    ):
        if counts and set(counts) != {""}:
            print(f"{title}: {_counts(counts)}")
    for title in ("columns", "annotation_columns"):
        for name, column in body[title].items():
            of = "annotations" if title == "annotation_columns" else "records"
            print(f"column {name} ({column['type']}, known of {column['known']} {of}){_values(column)}")
    if hash:
        print(f"hash: {body['hash']}")
    _say_problems(dataset.problems)


@group.command()
def check(data: Data, images: Images = None, format: Format = None, strict: Strict = False, json: Json = False) -> None:
    """List what is wrong, with ids; under --strict the exit code is 2 where anything is."""
    from manylens.data import Dataset, formats, store

    if format == formats.OWN or (format is None and (data / store.HEADER).is_file()):
        problems = Dataset.open(data).check()
    else:
        problems = Dataset.read(data, images=images, format=format).problems
    if json:
        print(jsonlib.dumps(problems.to_json(), indent=1))
    else:
        shown: dict[str, int] = {}
        for one in problems:
            shown[one.kind] = shown.get(one.kind, 0) + 1
            print(f"{one.kind}: {one.message}{'' if one.left_out else ' (mended)'}")
        for kind, count in problems.counts.items():
            if count > shown[kind]:
                print(f"{kind}: {count - shown[kind]} more")
        print(f"{len(problems)} problems, {problems.left_out} rows left out" if problems else "nothing is wrong")
    if strict and problems:
        raise UserError(f"{data}: {len(problems)} problems", "mend them, or leave --strict away")


@group.command()
def convert(
    data: Data,
    out: Out,
    to: Annotated[
        str,
        typer.Option("--to", metavar="FORMAT", help="coco, panoptic, folders, masks, csv or manylens (our own)."),
    ],
    images: Images = None,
    format: Format = None,
    strict: Strict = False,
    copy: Copy = False,
) -> None:
    """Write a data set in another format; rows that are wrong are left out and counted."""
    from manylens.data import formats

    if to not in formats.FORMATS:
        raise PromptError(f"--to {to}: no such format", f"name one of {', '.join(formats.FORMATS)}")
    if copy and to != formats.OWN:
        raise PromptError(f"--copy: says nothing to the format {to}", "use it with --to manylens")
    dataset = _read(data, images, format, strict)
    written = dataset.save(out, copy=copy).root if to == formats.OWN else dataset.export(out, to)
    _say_problems(dataset.problems)
    print(f"wrote {written} ({len(dataset)} records)")


@group.command()
def split(
    data: Data,
    out: Out,
    shares: Annotated[
        list[str],
        typer.Option("--split", metavar="NAME=SHARE", help="A split and its share, such as train=0.8; repeated."),
    ],
    stratify: Annotated[
        str | None,
        typer.Option(
            "--stratify",
            metavar="COLUMN",
            help="A class that each split gets its share of: label, annotations, a column.",
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option("--group", metavar="COLUMN", help="What is kept in one split whole, such as patient."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed is another split.")] = 0,
    images: Images = None,
    format: Format = None,
    strict: Strict = False,
    copy: Copy = False,
) -> None:
    """Split a data set anew and write it as our own folder."""
    fractions = dict(_share(word) for word in shares)
    if len(fractions) < len(shares):
        raise PromptError("--split: names a split twice", "give each split one share")
    dataset = _read(data, images, format, strict).split(fractions, stratify=stratify, group=group, seed=seed)
    saved = dataset.save(out, copy=copy)
    _say_problems(dataset.problems)
    print(f"wrote {saved.root} ({_counts(saved.splits)})")


def _share(word: str) -> tuple[str, float]:
    name, equals, share = word.partition("=")
    try:
        if not (name and equals):
            raise ValueError
        return name, float(share)
    except ValueError:
        raise PromptError(f"--split {word}: not NAME=SHARE", "write it as train=0.8") from None


def _read(data: Path, images: Path | None, format: str | None, strict: bool) -> Dataset:
    from manylens.data import Dataset

    return Dataset.read(data, images=images, format=format, strict=strict)


def _opened(data: Path, images: Path | None, format: str | None) -> Dataset:
    """As it is: our own folder is not gone through."""
    from manylens.data import Dataset, store

    own = format in (None, "manylens") and (data / store.HEADER).is_file()
    return Dataset.open(data) if own else _read(data, images, format, False)


def _say_problems(problems: Problems) -> None:
    if problems:
        kinds = _counts(dict(problems.counts))
        said = f"{problems.left_out} rows left out; {kinds}; 'manylens dataset check' lists them"
        print(f"note: {said}", file=sys.stderr)


def _counts(counts: dict[str, int], most: int = 12) -> str:
    said = [f"{name or '(none)'} {count}" for name, count in list(counts.items())[:most]]
    return ", ".join([*said, f"and {len(counts) - most} more"] if len(counts) > most else said)


def _values(column: dict[str, Any]) -> str:
    if "values" in column:
        return f": {_counts(column['values'], 6)}"
    if column.get("min") is not None:
        return f": {column['min']:g} to {column['max']:g}"
    return ""
