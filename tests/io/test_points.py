"""Point lists: LPS in the file, RAS inside, everything else untouched."""

import csv

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from r2reg.errors import TableError
from r2reg.io.points import Points, read_points, write_points


def test_lps_becomes_ras_and_other_columns_are_kept(tmp_path):
    text = 'name,x,y,z,comment\n"a, left",1,2,3,"say ""hi"""\nb,-4.5,1e2,-0,\n'
    (tmp_path / "in.csv").write_text(text, encoding="utf-8")
    points = read_points(tmp_path / "in.csv", 3)
    np.testing.assert_array_equal(points.ras, [[-1, -2, 3], [4.5, -100, 0]])
    write_points(tmp_path / "out.csv", points.moved_to(points.ras + 1))
    expected = 'name,x,y,z,comment\n"a, left",0.0,1.0,4.0,"say ""hi"""\nb,-5.5,99.0,1.0,\n'
    assert (tmp_path / "out.csv").read_text(encoding="utf-8") == expected


def test_order_of_columns_bom_and_windows_lines(tmp_path):
    (tmp_path / "in.csv").write_bytes("\ufeffz,label, y,x\r\n3,7,2,1\r\n\r\n".encode())
    points = read_points(tmp_path / "in.csv", 3)
    np.testing.assert_array_equal(points.ras, [[-1, -2, 3]])
    write_points(tmp_path / "out.csv", points)
    assert (tmp_path / "out.csv").read_text(encoding="utf-8") == "z,label, y,x\n3.0,7,2.0,1.0\n"


def test_2d_points_carry_z_along(tmp_path):
    (tmp_path / "in.csv").write_text("x,y,z,t\n1,2,0,0\n", encoding="utf-8")
    points = read_points(tmp_path / "in.csv", 2)
    np.testing.assert_array_equal(points.ras, [[-1, -2]])
    write_points(tmp_path / "out.csv", points)
    assert (tmp_path / "out.csv").read_text(encoding="utf-8") == "x,y,z,t\n1.0,2.0,0,0\n"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(*[st.floats(-1e4, 1e4)] * 3, st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)),
        min_size=1,
        max_size=5,
    )
)
def test_round_trip_to_the_last_digit(tmp_path, rows):
    ras = np.array([row[:3] for row in rows])
    table = Points(ras, ("x", "y", "z", "note"), tuple(("", "", "", row[3]) for row in rows))
    write_points(tmp_path / "a.csv", table)
    back = read_points(tmp_path / "a.csv", 3)
    np.testing.assert_array_equal(back.ras, ras)
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as stream:
        assert [row["note"] for row in csv.DictReader(stream)] == [row[3] for row in rows]


BAD = {
    "missing": (None, "no such file; check the path"),
    "empty": (b"", "is empty; it needs columns x,y,z"),
    "no rows": (b"x,y,z\n", "holds no points"),
    "no z": (b"x,y,name\n1,2,a\n", "has no column z; 3-D points need x,y,z (LPS mm), found x,y,name"),
    "x twice": (b"x,y,z,x\n1,2,3,4\n", "has more than one column x"),
    "text": (b"x,y,z\n1,2,3\n1,here,3\n", "line 3, column y: 'here' is not a finite number"),
    "NaN": (b"x,y,z\n1,nan,3\n", "line 2, column y: 'nan' is not a finite number"),
    "short row": (b"x,y,z\n1,2\n", "line 2 has 2 cells, the header 3"),
    "binary": (b"\x1f\x8b\x08\x00\xff\xfe", "cannot be read"),
}


@pytest.mark.parametrize(("raw", "message"), BAD.values(), ids=BAD)
def test_bad_tables_are_one_line(tmp_path, raw, message):
    if raw is not None:
        (tmp_path / "a.csv").write_bytes(raw)
    with pytest.raises(TableError) as caught:
        read_points(tmp_path / "a.csv", 3)
    assert str(caught.value).startswith(f"{tmp_path / 'a.csv'}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
