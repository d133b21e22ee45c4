"""3-D Slicer's point lists: .mrk.json and .fcsv."""

from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from r2reg.errors import TableError
from r2reg.geometry.grid import Array
from r2reg.io.files import atomic_path

COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"  # of a .fcsv
SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
OF_POINTS = ("Fiducial", "Line", "Curve", "ClosedCurve", "Angle")  # the others hold more than their points
SIGNS = {"LPS": (1.0, 1.0, 1.0), "RAS": (-1.0, -1.0, 1.0), "1": (1.0, 1.0, 1.0), "0": (-1.0, -1.0, 1.0)}


def read_markups(path: Path) -> tuple[Array, list[str], Any]:
    """(n, 3) LPS mm, labels, and the document, of a .mrk.json with one list of points.

    Raises:
        TableError: not such a file, no points, points that are not placed.
    """
    _check_there(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        (markup,) = document["markups"]
        if markup.get("type", "Fiducial") not in OF_POINTS:
            raise TableError(f"{path}: holds a {markup['type']}; give a list of points, or a line or curve")
        unplaced = [p for p in markup["controlPoints"] if p.get("positionStatus", "defined") != "defined"]
        if unplaced or any(not p["position"] for p in markup["controlPoints"]):
            raise TableError(f"{path}: holds points that are not placed; place or remove them")
        signs = np.array(SIGNS[markup.get("coordinateSystem", "LPS")])
        points = [(point["position"], str(point.get("label", ""))) for point in markup["controlPoints"]]
        lps = np.array([position for position, _ in points], dtype=np.float64).reshape(len(points), 3) * signs
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TableError(f"{path}: is not a list of points that Slicer wrote ({error}); save it again") from None
    _check(path, lps)
    return lps, [label for _, label in points], document


def write_markups(path: Path, lps: Array, labels: Sequence[str], document: Any = None) -> None:
    """Write a .mrk.json, in the coordinates of `document` where it is given, else LPS."""
    if document is None:
        points = [{"id": str(k + 1), "label": label, "position": [0, 0, 0]} for k, label in enumerate(labels)]
        markup = {"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": points}
        document = {"@schema": SCHEMA, "markups": [markup]}
    document = copy.deepcopy(document)
    (markup,) = document["markups"]
    signs = np.array(SIGNS[markup.get("coordinateSystem", "LPS")])
    for point, position in zip(markup["controlPoints"], lps * signs, strict=True):
        point["position"] = [value + 0.0 for value in position.tolist()]
    markup.pop("measurements", None)  # lengths and angles of the points that were
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def read_fcsv(path: Path) -> tuple[Array, list[str], list[str]]:
    """(n, 3) LPS mm, labels, and the lines, of a .fcsv.

    Raises:
        TableError: as `read_markups`.
    """
    _check_there(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        signs, place = np.array(_fcsv_signs(lines)), _fcsv_columns(lines)
        rows = [_cells(line) for line in lines if line.strip() and not line.startswith("#")]
        lps = np.array([[float(row[place[axis]]) for axis in "xyz"] for row in rows]).reshape(len(rows), 3) * signs
        labels = [row[place["label"]] if place.get("label", len(row)) < len(row) else "" for row in rows]
    except (OSError, ValueError, KeyError, IndexError, csv.Error) as error:
        raise TableError(f"{path}: is not a list of points that Slicer wrote ({error}); save it again") from None
    _check(path, lps)
    return lps, labels, lines


def write_fcsv(path: Path, lps: Array, labels: Sequence[str], lines: Sequence[str] | None = None) -> None:
    """Write a .fcsv, in the coordinates and columns of `lines` where they are given, else LPS."""
    if lines is None:
        head = ["# Markups fiducial file version = 4.11", "# CoordinateSystem = LPS", f"# columns = {COLUMNS}"]
        lines = head + [_line([str(k + 1), *"0000001110", label, "", ""]) for k, label in enumerate(labels)]
    signs, place = np.array(_fcsv_signs(lines)), _fcsv_columns(lines)
    rest = iter((lps * signs).tolist())
    written = []
    for line in lines:
        if line.strip() and not line.startswith("#"):
            cells = _cells(line)
            for axis, value in zip("xyz", next(rest), strict=True):
                cells[place[axis]] = repr(value + 0.0)
            line = _line(cells)
        written.append(line)
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(written) + "\n", encoding="utf-8")


def _cells(line: str) -> list[str]:
    return next(csv.reader([line]))


def _line(cells: Sequence[str]) -> str:
    """One line, quoted where it must be; a label of several lines becomes one."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="").writerow([" ".join(cell.splitlines()) for cell in cells])
    return stream.getvalue()


def _check_there(path: Path) -> None:
    if not path.exists():
        raise TableError(f"{path}: no such file; check the path")


def _settings(lines: Sequence[str]) -> dict[str, str]:
    pairs = (line[1:].partition("=") for line in lines if line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def _fcsv_signs(lines: Sequence[str]) -> tuple[float, ...]:
    # Slicer before 4.11 wrote numbers, and before that nothing for RAS.
    return SIGNS[_settings(lines).get("CoordinateSystem", "RAS")]


def _fcsv_columns(lines: Sequence[str]) -> dict[str, int]:
    return {name: k for k, name in enumerate(_settings(lines).get("columns", COLUMNS).split(","))}


def _check(path: Path, lps: Array) -> None:
    if not lps.size:
        raise TableError(f"{path}: holds no points; place some")
    if not np.isfinite(lps).all():
        raise TableError(f"{path}: holds points that are not placed; place or remove them")
