from __future__ import annotations

import numpy as np
import pytest

from manylens.errors import MediaError
from manylens.media import Series

TABLE = b"time [s],speed [km/h],height (m),note\n0,10,1.5,1\n0.5,,2,2\n1,30,-1e3,3\n"


def test_csv(tmp_path):
    path = tmp_path / "drive.csv"
    path.write_bytes(TABLE)
    series = Series.of(path)
    np.testing.assert_array_equal(series.times, [0, 0.5, 1])
    np.testing.assert_array_equal(series["speed"], [10, np.nan, 30])
    np.testing.assert_array_equal(series["height"], [1.5, 2, -1000])
    assert dict(series.units) == {"speed": "km/h", "height": "m", "note": ""}
    assert (len(series), series.name, series.path) == (3, "drive.csv", path)
    assert Series.of(series) is series


@pytest.mark.parametrize(
    "table",
    [
        TABLE.replace(b",", b";"),
        TABLE.replace(b",", b"\t"),
        TABLE.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + TABLE,
        TABLE + b"\n\n",
        b"time [ms],speed [km/h],height [m],note\n0,10,1.5,1\n500,nan,2,2\n1000,30,-1000,3",
    ],
    ids=["semicolon", "tab", "crlf", "bom", "blank_lines", "milliseconds"],
)
def test_the_same_table_in_other_clothes_has_the_same_id(table):
    assert Series.of(table).id == Series.of(TABLE).id
    assert Series.of(table) == Series.of(TABLE)


@pytest.mark.parametrize(
    ("old", "new"), [(b"10", b"11"), (b"0.5", b"0.6"), (b"km/h", b"m/s"), (b"note", b"rest"), (b"10", b"")]
)
def test_id_differs_with_the_content(old, new):
    assert Series.of(TABLE.replace(old, new)).id != Series.of(TABLE).id


def test_dates():
    series = Series.of(b"time,v\n2024-01-01T00:00:00Z,1\n2024-01-01 00:00:01.5,2\n2024-01-01T02:00:00+01:00,3\n")
    np.testing.assert_array_equal(series.times - series.times[0], [0, 1.5, 3600])
    assert series.times[0] == 1704067200


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"time,v\n0,1\n2,1\n1,1\n", "bytes: the time in row 3 is not later than the one before; sort the rows"),
        (b"time,v\n0,1\n0,1\n", "the time in row 2 is not later"),
        (b"time,v\n0,1\nnan,1\n", "the time in row 2 is missing or not finite"),
        (b"time,v\ninf,1\n", "the time in row 1 is missing or not finite"),
        (b"time,v\n,1\n", "line 2: '' is no time"),
        (b"time,v\nnoon,1\n", "line 2: 'noon' is no time"),
        (b"time,v\n0,fast\n", "line 2: v: 'fast' is not a number"),
        (b"time,v\n0,1,2\n", "line 2 has 3 cells, the header 2"),
        (b"time,v\n", "has no rows"),
        (b"\n\n", "has no rows"),
        (b"time\n1\n", "line 1 does not name its columns"),
        (b"time,\n1,2\n", "line 1 does not name its columns"),
        (b"time,v,v\n1,2,3\n", "line 1 names a column twice"),
        (b"time [km],v\n1,2\n", "'km' is no unit of time"),
        (b'time,v\n1,"2\n', "broken CSV"),
        (b"\x89PNG\r\n\x1a\n", "not a CSV table in UTF-8"),
        (b"", "the file is empty"),
        (3, "int: not a series"),
        ("none.csv", r"none\.csv: no such file"),
    ],
)
def test_refuses(content, message):
    with pytest.raises(MediaError, match=message) as caught:
        Series.of(content)
    assert "\n" not in str(caught.value)


def test_made_in_memory():
    speed = np.array([1.0, 2.0])
    series = Series([0, 1], {"speed": speed}, {"speed": "m/s"})
    speed[:] = 9
    assert series["speed"].tolist() == [1, 2]
    with pytest.raises(ValueError, match="read-only"):
        series["speed"][0] = 3
    with pytest.raises(TypeError):
        series.columns["more"] = speed
    with pytest.raises(MediaError, match="column 'a' has 3 values for 2 times"):
        Series([0, 1], {"a": [1, 2, 3]})
    with pytest.raises(MediaError, match="has no column 'height'; the columns are speed"):
        series["height"]


def test_between():
    series = Series.of(TABLE)
    assert series.between(0.5, 1).times.tolist() == [0.5]
    assert series.between(-1, 9) == series
    with pytest.raises(MediaError, match="has no rows"):
        series.between(5, 9)


def test_summary():
    series = Series.of(TABLE)
    assert series.summary() == {
        "name": "bytes",
        "rows": 3,
        "seconds": 1.0,
        "columns": {"speed": "km/h", "height": "m", "note": ""},
        "id": series.id,
    }
