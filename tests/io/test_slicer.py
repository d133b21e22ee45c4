"""Slicer's point lists: read, carried, written as they were."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from r2reg.cli.main import main
from r2reg.errors import TableError
from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine, Displacement
from r2reg.io.fields import write_displacement
from r2reg.io.points import read_points, write_points
from r2reg.io.transforms import write_affine

POINTS = np.array([[1.0, -2.0, 3.0], [10.5, 0.0, -7.25]])  # LPS
RAS = POINTS * [-1, -1, 1]

MARKUPS = {
    "@schema": "https://example.org/markups-schema-v1.0.3.json#",
    "markups": [
        {
            "type": "Fiducial",
            "coordinateSystem": "RAS",
            "coordinateUnits": "mm",
            "controlPoints": [
                {"id": "1", "label": "AC", "position": RAS[0].tolist(), "orientation": [-1, 0, 0], "locked": True},
                {"id": "2", "label": "PC", "position": RAS[1].tolist()},
            ],
            "display": {"visibility": True},
        }
    ],
}
FCSV = """# Markups fiducial file version = 4.10
# CoordinateSystem = 0
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
vtkMRMLMarkupsFiducialNode_0,-1.0,2.0,3.0,0,0,0,1,1,1,0,AC,,vtkMRMLScalarVolumeNode1
vtkMRMLMarkupsFiducialNode_1,-10.5,0.0,-7.25,0,0,0,1,1,1,0,PC,,
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "p.mrk.json").write_text(json.dumps(MARKUPS), encoding="utf-8")
    (tmp_path / "p.fcsv").write_text(FCSV, encoding="utf-8")
    (tmp_path / "p.csv").write_text("label,x,y,z,score\nAC,1,-2,3,7\nPC,10.5,0,-7.25,8\n", encoding="utf-8")
    matrix = np.eye(4)
    matrix[:3, 3] = (5, 6, 7)
    write_affine(tmp_path / "shift.mat", Affine(matrix))
    return tmp_path


@pytest.mark.parametrize("name", ["p.mrk.json", "p.fcsv", "p.csv"])
@pytest.mark.parametrize("out", ["o.mrk.json", "o.fcsv", "o.csv"])
def test_carried_from_any_to_any(files, name, out):
    words = ["points", "-t", str(files / "shift.mat"), "-i", str(files / name), "-o", str(files / out)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    found = read_points(files / out, 3)
    np.testing.assert_allclose(found.ras, RAS + np.array([5, 6, 7]), atol=1e-9)
    assert found.labels == ["AC", "PC"]


def test_the_rest_stays(files):
    for name in ("p.mrk.json", "p.fcsv"):
        points = read_points(files / name, 3)
        write_points(files / f"same.{name}", points)
    assert json.loads((files / "same.p.mrk.json").read_text(encoding="utf-8")) == MARKUPS
    assert (files / "same.p.fcsv").read_text(encoding="utf-8") == FCSV


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.mrk.json", "{", "is not a list of points that Slicer wrote"),
        ("a.mrk.json", '{"markups": []}', "is not a list of points that Slicer wrote"),
        ("a.mrk.json", '{"markups": [{"controlPoints": []}]}', "holds no points"),
        ("a.mrk.json", '{"markups": [{"controlPoints": [{"position": [1, 2, NaN]}]}]}', "are not placed"),
        ("a.mrk.json", '{"markups": [{"coordinateSystem": "IJK", "controlPoints": []}]}', "is not a list of points"),
        ("a.mrk.json", '{"markups": [{"controlPoints": [{"position": ""}]}]}', "are not placed"),
        (
            "a.mrk.json",
            '{"markups": [{"controlPoints": [{"position": [0, 0, 0], "positionStatus": "undefined"}]}]}',
            "are not placed",
        ),
        ("a.mrk.json", '{"markups": [{"type": "Plane", "controlPoints": []}]}', "holds a Plane"),
        ("a.fcsv", "# CoordinateSystem = LPS\n", "holds no points"),
        ("a.fcsv", "# CoordinateSystem = IJK\n1,2,3,4\n", "is not a list of points that Slicer wrote"),
        ("a.fcsv", "1,2\n", "is not a list of points that Slicer wrote"),
    ],
)
def test_what_cannot_be_used(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(TableError, match=message) as caught:
        read_points(tmp_path / name, 3)
    assert str(caught.value).startswith(str(tmp_path / name))
    with pytest.raises(TableError, match="3-D"):
        read_points(tmp_path / name, 2)


def test_labels_with_commas_and_lines(files):
    text = FCSV.replace(",AC,", ',"a, b",')
    (files / "q.fcsv").write_text(text, encoding="utf-8")
    points = read_points(files / "q.fcsv", 3)
    assert points.labels == ["a, b", "PC"]
    write_points(files / "same.fcsv", points)
    assert (files / "same.fcsv").read_text(encoding="utf-8") == text
    (files / "n.csv").write_text('label,x,y,z\n"two\nlines",1,2,3\n', encoding="utf-8")
    write_points(files / "n.fcsv", read_points(files / "n.csv", 3))
    assert read_points(files / "n.fcsv", 3).labels == ["two lines"]
    with pytest.raises(TableError, match="no such file"):
        read_points(files / "none.fcsv", 3)


def test_points_outside_are_kept_and_named(files):
    grid = Grid((4, 4, 4), np.eye(4))
    write_displacement(files / "w.nii.gz", Displacement(grid, np.ones((4, 4, 4, 3), np.float32)))
    (files / "q.csv").write_text("x,y,z\n-1,-1,1\n50,0,0\n", encoding="utf-8")
    words = ["points", "-t", str(files / "w.nii.gz"), "-i", str(files / "q.csv"), "-o", str(files / "r.csv")]
    done = CliRunner().invoke(main, words)
    assert "1 of 2 points lie outside of a field's view, which does not move them: 2" in done.output
    lps = read_points(files / "r.csv", 3).ras * [-1, -1, 1]
    np.testing.assert_allclose(lps, [[-2, -2, 2], [50, 0, 0]], atol=1e-6)
