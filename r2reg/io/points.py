"""Point lists: CSV with columns x, y[, z] in LPS mm, as ANTs reads and writes them; and 3-D Slicer's."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from r2reg.errors import TableError, listed
from r2reg.geometry.grid import Array
from r2reg.geometry.transforms import Transform, outside_of_fields
from r2reg.io import slicer
from r2reg.io.files import atomic_path, full_suffix
from r2reg.io.itk import lps_signs

log = logging.getLogger(__name__)
AXES = ("x", "y", "z")
SLICER = (".json", ".fcsv")


@dataclass(frozen=True, eq=False)
class Points:
    """Points and the table they came in.

    Args:
        ras: (n, d) RAS mm.
        header: column names, as in the file.
        rows: n rows of cells, as in the file; the coordinates' cells are replaced on writing.
        suffix, document: of a file of Slicer, its ending and all that is in it.
    """

    ras: Array
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    suffix: str = ""
    document: Any = None

    @property
    def labels(self) -> list[str]:
        """A name per point: the column `label` or `name`, else the row's number."""
        column = next((k for k, name in enumerate(self.header) if name.strip().lower() in ("label", "name")), None)
        return [str(n) if column is None else row[column] for n, row in enumerate(self.rows, start=1)]

    def moved_to(self, ras: Array) -> Points:
        """The same table with other coordinates, (n, d) RAS mm."""
        return replace(self, ras=ras)


def read_points(path: Path | str, ndim: int) -> Points:
    """Read a point list, .csv, or .mrk.json and .fcsv of Slicer; whatever else is in it is kept.

    Raises:
        TableError: missing or unreadable file, a column missing or twice, a row of another length, a
            coordinate that is not a finite number, no rows.
    """
    path = Path(path)
    if full_suffix(path) in SLICER:
        if ndim != 3:
            raise TableError(f"{path}: Slicer's points are 3-D; give a CSV with columns x,y (LPS mm)")
        read = slicer.read_fcsv if full_suffix(path) == ".fcsv" else slicer.read_markups
        lps, labels, document = read(path)
        rows_of_three = tuple((*map(repr, point), label) for point, label in zip(lps.tolist(), labels, strict=True))
        return Points(lps * lps_signs(3), (*AXES, "label"), rows_of_three, full_suffix(path), document)
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
    """Write a point list as it was read, with other coordinates; or in another format, with its labels.

    Raises:
        OutputError: the file cannot be written. TableError: 2-D points for Slicer.
    """
    path = Path(path)
    ndim = points.ras.shape[1]
    if full_suffix(path) in SLICER:
        if ndim != 3:
            raise TableError(f"{path}: Slicer's points are 3-D; write a .csv")
        write = slicer.write_fcsv if full_suffix(path) == ".fcsv" else slicer.write_markups
        write(
            path,
            points.ras * lps_signs(3),
            points.labels,
            points.document if points.suffix == full_suffix(path) else None,
        )
        return
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


def warn_of_outside(transforms: Sequence[Transform], ras: Array) -> None:
    """Name the points (n, d) at which a field ends: it leaves them where they are."""
    outside = outside_of_fields(transforms, ras)
    if outside.any():
        log.warning(
            "%d of %d points lie outside of a field's view, which does not move them: %s",
            outside.sum(), len(outside), listed_rows(outside),
        )  # fmt: skip


def listed_rows(chosen: np.ndarray) -> str:
    """The numbers, from 1, of the first few rows that are chosen."""
    return listed(np.flatnonzero(chosen) + 1)
