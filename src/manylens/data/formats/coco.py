"""COCO's JSON: detection, instances, keypoints, captions, questions; and its relatives (LVIS, Objects365, UVO).

Follows https://cocodataset.org/#format-data and pycocotools: the mask of polygons is the union that ``COCO.annToRLE``
gives, and an RLE with a list of counts is compressed. Masks are made as the records stream, not when the file opens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from manylens.data.formats import Source, shared
from manylens.data.formats.shapes import BrokenError, Size, read_area, read_box, read_flag, read_mask
from manylens.data.problems import DataError, Problems
from manylens.data.records import Annotation, Category, Record

if TYPE_CHECKING:
    from manylens.data.dataset import Dataset

Row = dict[str, Any]

# What is read into fields; every other key is a column. An id that is no number is kept beside the number written.
_OWN_ID = "original_id"
_IMAGE_KEYS = frozenset({"id", _OWN_ID, "file_name", "width", "height", "split", "label"})
_ANNOTATION_KEYS = frozenset(
    {"id", _OWN_ID, "image_id", "category_id", "bbox", "segmentation", "area", "iscrowd", "ignore"}
)
_MOST = 2**63 - 1  # that a category's number may be
_PART_KEYS = ("bbox", "segmentation", "category_id", "question")


def read(source: Path, images: Path | None, problems: Problems) -> Source:
    """Read a COCO JSON.

    Args:
        source: The JSON.
        images: Folder that its file names are in; None: the JSON's folder, its ``images``, or one beside it that is
            named as the JSON is (``val2017`` for ``annotations/instances_val2017.json``).
        problems: Where broken rows are taken down.

    Raises:
        DataError: The file cannot be read, or is not of this form.
    """
    content = load(source, ("images", "annotations"))
    categories, names = read_categories(source, content.get("categories", []), problems)
    pictures = content["images"]
    path_of = locate(source, pictures, images)
    rows = _by_image(source, content["annotations"])
    known = {shared.id_of(picture.get("id")) for picture in pictures}
    for image_id in rows.keys() - known:
        for row in rows[image_id]:
            problems.add(
                "unknown image", str(row.get("id")), f"annotation {row.get('id')}: no image has the id {image_id}"
            )
    split = shared.split_in(source)
    return Source(categories, _records(pictures, rows, names, path_of, split, problems), source.stem)


def load(source: Path, lists: Iterable[str]) -> Row:
    """Read the JSON and check that it is an object with these lists of objects."""
    content = shared.read_json(source)
    if not isinstance(content, dict):
        raise DataError(
            f"{source}: holds a {type(content).__name__}, not an object with images and annotations",
            "give the labels, not predictions",
        )
    for key in lists:
        if key not in content:
            raise DataError(f"{source}: has no {key!r}", "give a COCO file with images, annotations and categories")
    for key in (*lists, "categories"):
        rows = content.get(key, [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"{source}: its {key!r} is not a list of objects", "give a COCO file")
    return content


def read_categories(source: Path, rows: list[Row], problems: Problems) -> tuple[tuple[Category, ...], dict[str, str]]:
    """The categories, and the name of each by its id; a name that two have is told apart by the id."""
    categories: list[Category] = []
    names: dict[str, str] = {}
    taken: set[str] = set()
    for place, row in enumerate(rows):
        key, name = shared.id_of(row.get("id")), row.get("name")
        number = None if key is None else shared.number_in(key)
        if key is None or number is None or number > _MOST or name in (None, ""):
            raise DataError(f"{source}: categories[{place}] lacks a number as id, or a name", "give each category both")
        if key in names:
            raise DataError(f"{source}: two categories have the id {key}", "give each category its own id")
        name = str(name)
        if name in taken:
            other = f"{name} #{key}"
            problems.add(
                "duplicate name", key, f"category {key}: its name {name} is taken, now {other}", left_out=False
            )
            name = other
        taken.add(name)
        names[key] = name
        is_thing = bool(row.get("isthing", True))
        categories.append(Category(number, name, is_thing, str(row.get("supercategory") or "")))
    return tuple(categories), names


def locate(source: Path, pictures: list[Row], images: Path | None) -> Callable[[str], Path]:
    """How the file names of a COCO JSON become paths; see `read`."""
    names = []
    for place, picture in enumerate(pictures):
        if "file_name" not in picture and isinstance(picture.get("coco_url"), str):  # LVIS
            picture["file_name"] = "/".join(PurePosixPath(urlsplit(picture["coco_url"]).path).parts[-2:])
        if not isinstance(picture.get("file_name"), str) or not picture["file_name"]:
            raise DataError(f"{source}: images[{place}] has no 'file_name'", "give each image the name of its file")
        if shared.id_of(picture.get("id")) is None:
            raise DataError(f"{source}: images[{place}] has no 'id'", "give each image a number or text as id")
        names.append(picture["file_name"])
    if images is not None:
        if not images.is_dir():
            raise DataError(f"{images}: no such folder", "give the folder of the pictures")
        return shared.locator(names, [images])
    folder = source.absolute().parent
    said = [word for word in source.stem.split("_") if shared.split_in(Path(word))]
    said += [split for split in [shared.split_in(source)] if split]
    roots = [folder, folder / "images", *(folder / word for word in said)]
    above = [folder.parent, folder.parent / "images"]
    above += [place / word for place in above for word in said]
    return shared.locator(names, roots + above)


def _by_image(source: Path, annotations: list[Row]) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = defaultdict(list)
    for place, row in enumerate(annotations):
        image_id = shared.id_of(row.get("image_id"))
        if image_id is None:
            raise DataError(f"{source}: annotations[{place}] has no 'image_id'", "give each the id of its image")
        rows[image_id].append(row)
    return rows


def _records(
    pictures: list[Row],
    rows: dict[str, list[Row]],
    names: Mapping[str, str],
    path_of: Callable[[str], Path],
    split: str,
    problems: Problems,
) -> Iterator[Record]:
    for picture in pictures:
        key = str(shared.id_of(picture["id"]))
        own = own_id(picture)
        size = Size(path_of(picture["file_name"]), picture)
        if size.fault:
            problems.add("bad size", own, f"image {own}: {size.fault}", left_out=False)
        annotations = []
        captions = []
        for place, row in enumerate(rows.pop(key, ())):
            if isinstance(row.get("caption"), str) and not any(row.get(part) is not None for part in _PART_KEYS):
                captions.append(row["caption"])
                continue
            id = str(row.get(_OWN_ID, shared.id_of(row.get("id")) or f"{own}:{place}"))
            try:
                annotations.append(_annotation(id, row, names, size))
            except BrokenError as error:
                problems.add(error.kind, id, f"annotation {id}: {error}")
        yield record(picture, path_of, size, split, tuple(annotations), captions)


def own_id(picture: Row) -> str:
    """The id of a picture's record: the one kept beside a number, else the number."""
    return str(picture.get(_OWN_ID, shared.id_of(picture["id"])))


def record(
    picture: Row,
    path_of: Callable[[str], Path],
    size: Size,
    split: str,
    annotations: tuple[Annotation, ...],
    captions: Sequence[str] = (),
) -> Record:
    """The record of a picture's row; ``split`` where the row says none."""
    columns = {name: value for name, value in picture.items() if name not in _IMAGE_KEYS and value is not None}
    if captions:
        columns["captions"] = list(captions)
    if isinstance(columns.get("depth"), str):
        columns["depth"] = str(path_of(columns["depth"]))
    width, height = size.stated
    return Record(
        own_id(picture),
        size.path,
        width,
        height,
        str(picture.get("split", split) or ""),
        str(picture.get("label") or ""),
        annotations,
        columns,
    )


def _annotation(id: str, row: Row, names: Mapping[str, str], size: Size) -> Annotation:
    category = ""
    if row.get("category_id") is not None:
        number = shared.id_of(row["category_id"]) or ""
        if number not in names:
            raise BrokenError("unknown category", f"no category has the id {row['category_id']}")
        category = names[number]
    mask = read_mask(row.get("segmentation"), size)
    box = read_box(row.get("bbox"))
    area = read_area(row.get("area"))
    columns = {name: value for name, value in row.items() if name not in _ANNOTATION_KEYS and value is not None}
    if "answers" in columns or "answer" in columns:
        columns["answers"] = _answers(columns.get("answers", columns.pop("answer", None)))
    crowd, ignore = read_flag(row.get("iscrowd")), read_flag(row.get("ignore"))
    return Annotation(id, category, box, mask, area, crowd, ignore, columns)


def _answers(value: Any) -> list[str]:
    """Texts, from a text, a list of texts, or VQA's list of objects."""
    rows = value if isinstance(value, list) else [value]
    return [str(row.get("answer", "")) if isinstance(row, dict) else str(row) for row in rows]


def write(dataset: Dataset, target: Path) -> Path:
    """Write a COCO JSON: boxes, masks as RLE, captions and questions, every column as a further key.

    File names are relative to the JSON's folder. Ids that are whole numbers are written as such; any other gets a free
    number, and is kept beside it. Polygons are not kept (their masks are), nor are ids of captions.

    Args:
        dataset: What to write; it is gone through three times, so that a large one never sits in memory.
        target: The JSON, or a folder to write one named as the data set.
    """
    path = json_file(dataset, target)
    numbers = Numbers.of(dataset)
    pieces = (
        ("images", (image_row(record, numbers.image(record.id), path) for record in dataset.records())),
        ("annotations", _annotation_rows(dataset, numbers)),
        ("categories", [category_row(category) for category in dataset.categories]),
    )
    return shared.write_json(path, pieces)


def json_file(dataset: Dataset, target: Path) -> Path:
    """Where the JSON goes."""
    return target if target.suffix.lower() == ".json" else target / f"{dataset.name or 'labels'}.json"


def category_row(category: Category) -> Row:
    """A category as COCO writes it."""
    row: Row = {"id": category.id, "name": category.name, "isthing": int(category.is_thing)}
    return row | ({"supercategory": category.supercategory} if category.supercategory else {})


def image_row(record: Record, ids: Row, path: Path) -> Row:
    """A picture as COCO writes it; ``ids`` holds its id."""
    row = shared.filled({key: value for key, value in record.columns.items() if key != "captions"})
    row |= ids | {"file_name": shared.relative(record.path, path.parent)}
    for key in ("width", "height", "label"):
        if value := getattr(record, key):
            row[key] = value
    if record.split or shared.split_in(path):
        row["split"] = record.split
    if isinstance(row.get("depth"), str):
        row["depth"] = shared.relative(row["depth"], path.parent)
    return row


@dataclass
class Numbers:
    """Numbers for ids: those that are numbers keep theirs, all others get the next that is free."""

    next_image: int = 1
    next_annotation: int = 1
    images: dict[str, Row] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: Dataset) -> Numbers:
        """Go through a data set to see which numbers are taken."""
        numbers = cls()
        for record in dataset.records():
            numbers.next_image = max(numbers.next_image, (shared.number_in(record.id) or 0) + 1)
            for one in record.annotations:
                numbers.next_annotation = max(numbers.next_annotation, (shared.number_in(one.id) or 0) + 1)
        return numbers

    def image(self, id: str) -> Row:
        """The id of a picture, as its row holds it."""
        if id not in self.images:
            number = shared.number_in(id)
            self.images[id] = {"id": self.next_image, _OWN_ID: id} if number is None else {"id": number}
            self.next_image += number is None
        return self.images[id]

    def annotation(self, id: str | None = None) -> Row:
        """The id of an annotation, as its row holds it; a free one for None."""
        number = None if id is None else shared.number_in(id)
        if number is not None:
            return {"id": number}
        self.next_annotation += 1
        return {"id": self.next_annotation - 1} | ({} if id is None else {_OWN_ID: id})


def _annotation_rows(dataset: Dataset, numbers: Numbers) -> Iterator[Row]:
    ids = {category.name: category.id for category in dataset.categories}
    for record in dataset.records():
        image_id = {"image_id": numbers.image(record.id)["id"]}
        for caption in record.columns.get("captions") or ():
            yield numbers.annotation() | image_id | {"caption": caption}
        for one in record.annotations:
            row = shared.filled(one.columns)
            row |= numbers.annotation(one.id) | image_id | {"iscrowd": int(one.crowd)}
            if one.category in ids:
                row["category_id"] = ids[one.category]
            if one.box is not None:
                x0, y0, x1, y1 = one.box
                row["bbox"] = [x0, y0, x1 - x0, y1 - y0]
            if one.mask is not None:
                row["segmentation"] = {"size": list(one.mask["size"]), "counts": one.mask["counts"]}
            if one.area is not None:
                row["area"] = one.area
            if one.ignore:
                row["ignore"] = 1
            yield row
