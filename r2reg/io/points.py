"""Point lists: CSV with columns x, y[, z] in LPS mm, as ANTs reads and writes them."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from r2reg.errors import TableError
from r2reg.geometry.grid import Array
from r2reg.io.files import atomic_path
from r2reg.io.itk import lps_signs

AXES = ("x", "y", "z")


@dataclass(frozen=True, eq=False)
class Points:
    """Points and the table they came in.

    Args:
        ras: (n, d) RAS mm.
        header: column names, as in the file.
        rows: n rows of cells, as in the file; the coordinates' cells are replaced on writing.
    """

    ras: Array
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def moved_to(self, ras: Array) -> Points:
        """The same table with other coordinates, (n, d) RAS mm."""
        return replace(self, ras=ras)


def read_points(path: Path | str, ndim: int) -> Points:
    """Read a point list; every other column is kept as it is.

    Raises:
        TableError: missing or unreadable file, a column missing or twice, a row of another length, a
            coordinate that is not a finite number, no rows.
    """
    path = Path(path)
    table = _read_table(path)
    if not table:
        raise TableError(f"{path}: is empty; it needs columns {','.join(AXES[:ndim])}")
    (_, header), *rows = table
    columns = _columns(path, header, ndim)
    if not rows:
        raise TableError(f"{path}: holds no points; add rows below the header")
    lps = np.array([_coordinates(path, line, row, header, columns) for line, row in rows])
    return Points(lps * lps_signs(ndim), tuple(header), tuple(tuple(row) for _, row in rows))


def write_points(path: Path | str, points: Points) -> None:
    """Write a point list with the header, columns and order that it was read with.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(path)
    ndim = points.ras.shape[1]
    columns = _columns(path, list(points.header), ndim)
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(points.header)
        for row, point in zip(points.rows, points.ras * lps_signs(ndim), strict=True):
            cells = list(row)
            for column, value in zip(columns, point.tolist(), strict=True):
                cells[column] = repr(value + 0.0)  # -0.0 would surprise
            writer.writerow(cells)


def _read_table(path: Path) -> list[tuple[int, list[str]]]:
    """Non-empty rows with their line numbers."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            return [(reader.line_num, row) for row in reader if row]
    except FileNotFoundError as error:
        raise TableError(f"{path}: no such file; check the path") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path}: cannot be read ({error}); give a CSV file in UTF-8") from error


def _columns(path: Path, header: list[str], ndim: int) -> list[int]:
    names = [name.strip() for name in header]
    for axis in AXES[:ndim]:
        if names.count(axis) != 1:
            what = "has no column" if axis not in names else "has more than one column"
            raise TableError(
                f"{path}: {what} {axis}; {ndim}-D points need {','.join(AXES[:ndim])} (LPS mm), found {','.join(names)}"
            )
    return [names.index(axis) for axis in AXES[:ndim]]


def _coordinates(path: Path, line: int, row: list[str], header: list[str], columns: list[int]) -> list[float]:
    if len(row) != len(header):
        raise TableError(f"{path}: line {line} has {len(row)} cells, the header {len(header)}; repair the row")
    values = []
    for column in columns:
        try:
            value = float(row[column])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise TableError(
                f"{path}: line {line}, column {header[column].strip()}: {row[column]!r} is not a finite "
                "number; repair the cell"
            )
        values.append(value)
    return values
