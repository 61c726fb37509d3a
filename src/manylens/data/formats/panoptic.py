"""COCO panoptic: a JSON, and for each picture a PNG whose colours are the numbers of its segments.

Follows https://cocodataset.org/#format-data and the reference implementation (Kirillov et al., Panoptic Segmentation,
CVPR 2019): the number of a pixel's segment is R + 256 G + 256^2 B, and 0 is void, which belongs to none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from manylens.data.formats import Source, coco, shared
from manylens.data.formats.shapes import BrokenError, Size, read_area, read_box, read_flag
from manylens.data.problems import DataError, Problems
from manylens.data.records import Annotation, Record

if TYPE_CHECKING:
    from manylens.data.dataset import Dataset

Row = dict[str, Any]

_SEGMENT_KEYS = frozenset({"id", "category_id", "bbox", "area", "iscrowd"})
_LAST = 256**3 - 1


def read(source: Path, images: Path | None, problems: Problems) -> Source:
    """Read a panoptic JSON; each segment becomes an annotation with a mask, its id ``picture:number``.

    Args:
        source: The JSON. Its PNGs are in the folder of the same stem beside it, or where ``file_name`` says.
        images: Folder of the pictures; None: looked for as `coco.read` does.
        problems: Where broken rows are taken down.

    Raises:
        DataError: The file cannot be read or is not of this form, or no folder of PNGs is found.
    """
    content = coco.load(source, ("images", "annotations", "categories"))
    categories, names = coco.read_categories(source, content["categories"], problems)
    path_of = coco.locate(source, content["images"], images)
    rows = {}
    for place, row in enumerate(content["annotations"]):
        image_id = shared.id_of(row.get("image_id"))
        if image_id is None or not isinstance(row.get("file_name"), str):
            raise DataError(f"{source}: annotations[{place}] has no 'image_id' or 'file_name'", "give each both")
        segments = row.get("segments_info")
        if not isinstance(segments, list) or not all(isinstance(segment, dict) for segment in segments):
            raise DataError(f"{source}: annotations[{place}] has no list 'segments_info'", "give a panoptic JSON")
        if image_id in rows:
            problems.add("duplicate id", image_id, f"annotation of image {image_id}: another is of this image")
        else:
            rows[image_id] = row
    png_of = _pngs(source, [row["file_name"] for row in rows.values()])
    for image_id in rows.keys() - {shared.id_of(picture["id"]) for picture in content["images"]}:
        problems.add("unknown image", image_id, f"annotation of image {image_id}: no image has this id")
    split = shared.split_in(source)
    stream = _records(content["images"], rows, names, path_of, png_of, split, problems)
    return Source(name=source.stem, categories=categories, records=stream)


def _pngs(source: Path, names: list[str]) -> Callable[[str], Path]:
    folder = source.absolute().parent
    places = [folder / source.stem, folder]
    png_of = shared.locator(names, places)
    if names and not any(shared.is_file(png_of(name)) for name in names):
        looked = " and ".join(str(place / names[0]) for place in places)
        raise DataError(f"{source}: its PNGs are not found (looked for {looked})", f"put them into {places[0]}")
    return png_of


def _records(
    pictures: list[Row],
    rows: Mapping[str, Row],
    names: Mapping[str, str],
    path_of: Callable[[str], Path],
    png_of: Callable[[str], Path],
    split: str,
    problems: Problems,
) -> Iterator[Record]:
    for picture in pictures:
        key = str(shared.id_of(picture["id"]))
        size = Size(path_of(picture["file_name"]), picture)
        if size.fault:
            problems.add("bad size", key, f"image {key}: {size.fault}", left_out=False)
        annotations: tuple[Annotation, ...] = ()
        if key in rows:
            png = png_of(rows[key]["file_name"])
            if not shared.is_file(png):
                problems.add("missing mask", key, f"image {key}: its PNG {png} is missing")
                continue
            try:
                numbers = read_numbers(png)
            except DataError as error:
                problems.add("unreadable mask", key, f"image {key}: {error.what}")
                continue
            height, width = numbers.shape
            if None not in size.stated and size.stated != (width, height):
                stated = "{} x {}".format(*size.stated)
                problems.add("mask size", key, f"image {key}: is {stated} pixels, its PNG {width} x {height}")
                continue
            size.stated = width, height
            annotations = tuple(_segments(coco.own_id(picture), rows[key]["segments_info"], numbers, names, problems))
        yield coco.record(picture, path_of, size, split, annotations)


def read_numbers(png: Path) -> npt.NDArray[np.int64]:
    """The number of the segment at each pixel, ``(H, W)``; 0 is void.

    Raises:
        DataError: It is cut short, or has neither colours nor 8-bit gray.
    """
    values = shared.read_labels(png)
    if values.dtype != np.uint8 or (values.ndim == 3 and values.shape[2] not in (3, 4)):
        raise DataError(f"{png}: not a panoptic PNG ({values.dtype})", "give 8-bit RGB, id = R + 256 G + 256^2 B")
    if values.ndim == 2:
        return values.astype(np.int64)
    return values[:, :, :3].astype(np.int64) @ np.array([1, 256, 256**2])


def _segments(
    image_id: str, rows: list[Row], numbers: npt.NDArray[np.int64], names: Mapping[str, str], problems: Problems
) -> Iterator[Annotation]:
    left = set(np.unique(numbers).tolist()) - {0}
    for row in rows:
        number = shared.id_of(row.get("id")) or ""
        id = f"{image_id}:{number}"
        try:
            if shared.number_in(number) not in left:
                raise BrokenError("empty mask", "no pixel of the PNG has its number, or a segment before it has it")
            left.remove(int(number))
            category = shared.id_of(row.get("category_id")) or ""
            if category not in names:
                raise BrokenError("unknown category", f"no category has the id {row.get('category_id')}")
            box = read_box(row.get("bbox"))
        except BrokenError as error:
            problems.add(error.kind, id, f"segment {id}: {error}")
            continue
        on = numbers == int(number)
        area = read_area(row.get("area"))
        area = float(on.sum()) if area is None else area
        columns = {key: value for key, value in row.items() if key not in _SEGMENT_KEYS and value is not None}
        yield Annotation(
            id, names[category], box, shared.encode(on), area, read_flag(row.get("iscrowd")), columns=columns
        )
    for number in sorted(left):
        message = f"segment {image_id}:{number}: is in the PNG and not in segments_info; its pixels are void"
        problems.add("unknown segment", f"{image_id}:{number}", message)


def write(dataset: Dataset, target: Path) -> Path:
    """Write a panoptic JSON, and its PNGs into the folder of the same stem.

    What a panoptic file cannot hold is lost: annotations without a mask or a category, those that are not judged
    (their pixels are void), ids that are not ``picture:number``, and where masks overlap the pixels of the later one.
    Ids of pictures are kept as `coco.write` keeps them.

    Args:
        dataset: What to write.
        target: The JSON, or a folder to write one named as the data set.
    """
    path = coco.json_file(dataset, target)
    numbers = coco.Numbers.of(dataset)
    pieces = (
        ("images", (coco.image_row(record, numbers.image(record.id), path) for record in dataset.records())),
        ("annotations", _rows(dataset, numbers, path.with_suffix(""))),
        ("categories", [coco.category_row(category) for category in dataset.categories]),
    )
    return shared.write_json(path, pieces)


def _rows(dataset: Dataset, ids: coco.Numbers, folder: Path) -> Iterator[Row]:
    categories = {category.name: category.id for category in dataset.categories}
    for record in dataset.records():
        kept = [one for one in record.annotations if one.mask and one.category in categories and not one.ignore]
        if not kept and (record.annotations or None in (record.width, record.height)):
            continue  # nothing of it is panoptic, or nothing says how large it is
        numbers = _segment_numbers(record.id, kept)
        canvas = shared.painted([(number, one) for number, one in zip(numbers, kept, strict=True)], record)
        colours = np.stack([canvas >> shift & 255 for shift in (0, 8, 16)], axis=2).astype(np.uint8)
        image_id = ids.image(record.id)["id"]
        name = f"{image_id:012d}.png"
        shared.write_png(colours, folder / name)
        segments = [_segment(number, one, categories, canvas) for number, one in zip(numbers, kept, strict=True)]
        yield {"image_id": image_id, "file_name": name, "segments_info": [row for row in segments if row["area"]]}


def _segment_numbers(image_id: str, annotations: list[Annotation]) -> list[int]:
    """The numbers that they had in a panoptic file, else free ones."""
    wished = [shared.part_number(one.id, image_id) for one in annotations]
    taken: set[int] = {number for number in wished if number and number <= _LAST}
    free = iter(sorted(set(range(1, len(annotations) + len(taken) + 1)) - taken))
    seen: set[int] = set()
    numbers = []
    for wish in wished:
        number = wish if wish in taken and wish not in seen else next(free)
        seen.add(number)
        numbers.append(number)
    return numbers


def _segment(number: int, one: Annotation, categories: Mapping[str, int], canvas: npt.NDArray[np.int64]) -> Row:
    rows, columns = np.nonzero(canvas == number)
    row = shared.filled(one.columns)
    row |= {"id": number, "category_id": categories[one.category], "iscrowd": int(one.crowd), "area": len(rows)}
    if one.box is not None:
        x0, y0, x1, y1 = one.box
        row["bbox"] = [x0, y0, x1 - x0, y1 - y0]
    elif len(rows):
        x0, y0 = columns.min(), rows.min()
        row["bbox"] = [x0, y0, columns.max() + 1 - x0, rows.max() + 1 - y0]
    return row
