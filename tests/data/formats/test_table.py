import datetime
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from manylens.data.dataset import Dataset
from manylens.data.problems import DataError
from manylens.data.records import Category, Record
from tests.data.formats.making import HEIGHT, WIDTH, again, label_png, part, picture, read, rle, words


def table(tmp_path, text, name="data.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_row_for_each_picture(tmp_path):
    made = picture(tmp_path / "a b/ü.jpg")
    source = table(
        tmp_path,
        "image,label,split,age,weight,ok,code,note,empty\n"
        'a b/ü.jpg,7,train,3,1.5,TRUE,007,"x, ""y""",\n'
        "b.jpg,cat,val,,2,false,1,,\n",
    )
    categories, records, problems = read("csv", source)
    assert categories == (Category(0, "7"), Category(1, "cat"))
    first, second = records
    assert (first.id, first.path, first.label, first.split) == ("a b/ü.jpg", made, "7", "train")
    assert first.columns == {"age": 3, "weight": 1.5, "ok": True, "code": "007", "note": 'x, "y"'}
    assert second.columns == {"weight": 2.0, "ok": False, "code": "1"}
    assert not first.annotations
    assert not len(problems)


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("x0,y0,x1,y1", "1,2,4,6.5"),
        ("xmin,ymin,xmax,ymax", "1,2,4,6.5"),
        ("X1,Y1,X2,Y2", "1,2,4,6.5"),
        ("x,y,w,h", "1,2,3,4.5"),
        ("x,y,width,height", "1,2,3,4.5"),
        ("left,top,right,bottom", "1,2,4,6.5"),
        ("left,top,width,height", "1,2,3,4.5"),
    ],
)
def test_boxes(tmp_path, header, cells):
    _, [record], _ = read("csv", table(tmp_path, f"file_name,label,{header}\na.jpg,cat,{cells}\na.jpg,dog,{cells}\n"))
    assert [(one.id, one.category, one.box) for one in record.annotations] == [
        ("a.jpg:0", "cat", (1, 2, 4, 6.5)),
        ("a.jpg:1", "dog", (1, 2, 4, 6.5)),
    ]
    assert record.label == ""
    assert (record.width, record.height) == (None, None)


def test_rows_of_one_picture_need_not_stand_together(tmp_path):
    source = table(
        tmp_path,
        "image,width,height,x0,y0,x1,y1,label,place,seen\nb.jpg,9,8,1,1,2,2,cat,in,1\na.jpg,5,5,,,,,,out,\nb.jpg,9,8,3,3,4,4,dog,in,2\n",
    )
    categories, records, _ = read("csv", source)
    assert [one.name for one in categories] == ["cat", "dog"]
    assert [record.id for record in records] == ["b.jpg", "a.jpg"]
    assert [one.category for one in records[0].annotations] == ["cat", "dog"]
    assert [one.columns for one in records[0].annotations] == [{"seen": 1}, {"seen": 2}]
    assert records[0].columns == {"place": "in"}
    assert (records[0].width, records[0].height) == (9, 8)
    assert records[1].annotations == ()


def test_questions_texts_captions_and_depth(tmp_path):
    source = table(
        tmp_path,
        "id,path,question,answers,text,captions,depth\n"
        "q1,a.jpg,how many?,two|2,,a cat|the cat,d.png\n"
        'q2,a.jpg,what?,"[""x|y""]",,a cat|the cat,d.png\n'
        "q3,b.jpg,,,HELLO,,\n",
    )
    _, [first, second], _ = read("csv", source)
    assert [(one.id, dict(one.columns)) for one in first.annotations] == [
        ("q1", {"question": "how many?", "answers": ["two", "2"]}),
        ("q2", {"question": "what?", "answers": ["x|y"]}),
    ]
    assert first.columns == {"captions": ["a cat", "the cat"], "depth": str(tmp_path / "d.png")}
    assert [(one.id, dict(one.columns)) for one in second.annotations] == [("q3", {"text": "HELLO"})]


def test_several_captions_in_several_rows(tmp_path):
    _, [record], _ = read("csv", table(tmp_path, "image\tcaption\na.jpg\tone, two\na.jpg\tthree\n", "x.tsv"))
    assert record.columns == {"captions": ["one, two", "three"]}


def test_masks_are_files(tmp_path):
    on = np.zeros((HEIGHT, WIDTH), np.uint8)
    on[1:3, 2:5] = 255
    label_png(tmp_path / "m" / "1.png", on)
    _, [record], problems = read("csv", table(tmp_path, "image,mask,label\na.jpg,m/1.png,cat\na.jpg,m/2.png,cat\n"))
    assert [one.mask for one in record.annotations] == [rle(on)]
    assert [(one.kind, one.id) for one in problems] == [("missing mask", "a.jpg:1")]
    png = tmp_path / "m" / "1.png"
    png.write_bytes(png.read_bytes()[:45])
    with pytest.raises(DataError, match=r"1\.png"):
        read("csv", tmp_path / "data.csv")


@pytest.mark.parametrize(
    ("text", "kind", "id", "kept"),
    [
        ("image,x0,y0,x1,y1\na.jpg,1,2,3,4\na.jpg,1,2,x,4\n", "bad box", "a.jpg:1", 1),
        ("image,x0,y0,x1,y1\na.jpg,1,2,3,4\na.jpg,1,2,,4\n", "bad box", "a.jpg:1", 1),
        ("image,category,crowd\na.jpg,cat,1\na.jpg,cat,maybe\n", "bad crowd", "a.jpg:1", 1),
        ("image,category,area\na.jpg,cat,1\na.jpg,cat,big\n", "bad area", "a.jpg:1", 1),
        ("image,category\na.jpg,cat\n,dog\n", "broken row", "3", 1),
        ("image,category\na.jpg,cat\na.jpg,dog,more\n", "broken row", "3", 1),
        ("id,image,annotation_id\n1,a.jpg,x\n1,b.jpg,y\n", "duplicate id", "1", 1),
    ],
)
def test_a_broken_row_is_a_problem_with_its_id(tmp_path, text, kind, id, kept):
    source = table(tmp_path, text)
    _, [record], problems = read("csv", source)
    assert [(one.kind, one.id) for one in problems] == [(kind, id)]
    assert len(record.annotations) == kept
    with pytest.raises(DataError):
        read("csv", source, strict=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"name,kind\na,b\n", r"its header is name, kind\); name one of its columns one of image, file, path"),
        (b"image,image\na,b\n", "two columns have the same name"),
        ("image,note\na.jpg,Häuser\n".encode("latin-1"), "not UTF-8"),
        ("imäge,note\na.jpg,x\n".encode("latin-1"), "not UTF-8"),
        ("image,note\na.jpg,x\n".encode("utf-16"), "not UTF-8"),
    ],
)
def test_a_broken_file_is_one_error_that_names_it(tmp_path, content, message):
    source = tmp_path / "broken.csv"
    source.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read("csv", source)
    assert error.value.what.startswith(str(source))
    assert error.value.remedy
    assert "\n" not in str(error.value)


def test_files_that_are_missing_or_no_parquet(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read("csv", tmp_path / "none.csv")
    (tmp_path / "no.parquet").write_text("text")
    with pytest.raises(DataError, match=r"no\.parquet: not Parquet"):
        read("csv", tmp_path / "no.parquet")


def test_tables_of_other_hands(tmp_path):
    picture(tmp_path / "images" / "a.jpg")
    path = tmp_path / "x.csv"
    path.write_bytes("\ufeffImage;Label;when\r\nC:\\data\\a.jpg;cat;2020-01-01\r\n".encode())
    _, [record], _ = read("csv", path)
    assert record.path == tmp_path / "images" / "a.jpg"
    assert (record.label, record.columns) == ("cat", {"when": "2020-01-01"})


def test_parquet_keeps_its_types(tmp_path):
    rows = {
        "image": ["a.jpg", "b.jpg"],
        "label": [1, 2],
        "code": ["1", "2"],
        "when": [datetime.date(2020, 1, 1), None],
        "sizes": [[1, 2], []],
    }
    parquet.write_table(pa.table(rows), tmp_path / "x.parquet")
    _, [record, _], _ = read("csv", tmp_path / "x.parquet")
    assert record.label == "1"
    assert record.columns == {"code": "1", "when": "2020-01-01", "sizes": [1, 2]}
    parquet.write_table(pa.table({"image": [{"bytes": b""}]}), tmp_path / "y.parquet")
    with pytest.raises(DataError, match="its column 'image' holds struct"):
        read("csv", tmp_path / "y.parquet")


def test_a_large_table_streams(tmp_path):
    count = 10_001
    source = table(tmp_path, "image,label\n" + "".join(f"{i % 5000}.jpg,c{i % 5000}\n" for i in range(count)))
    _, records, _ = read("csv", source)
    assert [record.id for record in records] == [f"{i}.jpg" for i in range(5000)]
    assert all(record.label == f"c{i}" for i, record in enumerate(records))


plain_words = words.filter(lambda word: not word.startswith("["))
parts = st.fixed_dictionaries(
    {
        "on": st.none() | st.lists(st.booleans(), min_size=35, max_size=35).filter(any),
        "category": st.sampled_from(["", "cat", "7"]),
        "crowd": st.booleans(),
        "ignore": st.booleans(),
        "columns": st.fixed_dictionaries(
            {},
            optional={
                "text": words,
                "question": words,
                "answers": st.lists(words, min_size=1, max_size=3),
                "pose": plain_words,
                "text2": st.integers(0, 5),
            },
        ),
    }
)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_what_is_written_reads_the_same(data):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        records = []
        for i, id in enumerate(data.draw(st.lists(words, min_size=1, max_size=3, unique=True))):
            annotations = []
            for k, fields in enumerate(data.draw(st.lists(parts, max_size=3))):
                on = fields.pop("on")
                on = None if on is None else np.array(on).reshape(HEIGHT, WIDTH)
                own = {} if on is not None else {"box": (0.1, 1.0, 3.5, 4.0), "area": 1 / 3}
                annotations.append(part(f"{i}.{k}", on, **own, **fields))
            columns = {
                "depth": str(folder / "d.png"),
                "captions": data.draw(st.lists(words, min_size=1, max_size=3, unique=True)),
                "text": "its own",
                "n": i,
                "point": [i, i + 0.5],
                "names": ["a|b", "c"],
                "f": i / 3,
                "ok": i == 1,
            }
            split, label = data.draw(st.sampled_from(["", "train", "x"])), data.draw(st.sampled_from(["cat", "7"]))
            records.append(
                Record(id, folder / "pictures" / f"{id}.jpg", WIDTH, HEIGHT, split, label, tuple(annotations), columns)
            )
        first = list(Dataset.of(records, (Category(0, "7"), Category(1, "cat"))).records())
        _, back = again("csv", first, (), folder / data.draw(st.sampled_from(["a.csv", "a.tsv", "a.parquet"])))
        assert back == first


def test_a_plain_table_stays_plain(tmp_path):
    records = [
        Record("1", tmp_path / "a.jpg", label="cat", columns={"site": "x"}),
        Record("2", tmp_path / "b.jpg", label="dog"),
    ]
    again("csv", records, (), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines() == ["id,image,label,site", "1,a.jpg,cat,x", "2,b.jpg,dog,"]
