"""CSV tables of images: a cohort (one image a row) or given pairs (moving and fixed a row).

Paths in a table are relative to the table's own folder. Every error is one line that names the table, the
line of the file (the header is line 1) and the way out.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from r2reg.errors import TableError
from r2reg.io.files import atomic_path

SPLITS = ("train", "val", "test")
COHORT_FILES = ("image", "labels", "mask")
COHORT_COLUMNS = (*COHORT_FILES, "subject", "group", "split")
PAIR_FILES = (
    "moving",
    "fixed",
    "moving_labels",
    "fixed_labels",
    "moving_mask",
    "fixed_mask",
    "moving_points",
    "fixed_points",
)
PAIR_COLUMNS = (*PAIR_FILES, "id", "split")
HELD_OUT = 0.1  # share of subjects (or pairs) kept for validation where the table has no `split` column


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One row of a cohort. `subject` is the person: rows that share it never fall into different splits by
    default.

    `group`: training pairs are drawn within one group (for example the two time points of a patient);
    without the column all rows form one group. `line` is the row's line in the file.
    """

    subject: str
    image: Path | None = None
    labels: Path | None = None
    mask: Path | None = None
    group: str = ""
    split: str = "train"
    line: int = 0


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One row of a pairs table; `id` defaults to `pair_0001` and so on, in the order of the rows."""

    id: str
    moving: Path
    fixed: Path
    moving_labels: Path | None = None
    fixed_labels: Path | None = None
    moving_mask: Path | None = None
    fixed_mask: Path | None = None
    moving_points: Path | None = None
    fixed_points: Path | None = None
    split: str = "train"
    line: int = 0


@dataclass(frozen=True)
class _Row:
    """One line: a cell, stripped and perhaps empty, for every column of the header."""

    line: int
    cells: dict[str, str]


def is_pairs(path: str | Path) -> bool:
    """Whether the table's header has a `moving` or a `fixed` column: given pairs rather than a cohort."""
    header, _ = _read(Path(path), rows=False)
    return bool({"moving", "fixed"} & set(header))


def read_cohort(path: str | Path, *, required: Sequence[str] = ("image",)) -> list[Subject]:
    """Read a cohort CSV: columns image, labels, mask, subject, group, split, in any order.

    Args:
        path: the CSV file.
        required: file columns without which no row can be used: `image`, or `labels` where images are
        painted.
    Returns:
        The rows in the file's order. Without a `split` column the last tenth of the subjects (at least one,
        by the order of their first row) is the validation set and the others train; with fewer than three
        subjects all train and none is held out.
    Raises:
        TableError: unknown or missing column, missing file, duplicate row, empty table, a split that is not
            train, val or test, bytes that are not UTF-8, or fewer than two rows to train on.
    """
    path = Path(path)
    header, rows = _read(path)
    _check_columns(path, header, COHORT_COLUMNS, required)
    _check_duplicates(path, rows, required)
    subjects = [_subject(path, row, required) for row in rows]
    if "split" not in header:
        held_out = _held_out([s.subject for s in subjects])
        subjects = [replace(s, split="val" if s.subject in held_out else "train") for s in subjects]
    training = sum(s.split == "train" for s in subjects)
    if training < 2:
        raise TableError(
            f"{path}: {training} training row{'s' if training != 1 else ''}; a pair needs two images, "
            "add rows or change the split column"
        )
    return subjects


def read_pairs(path: str | Path) -> list[Pair]:
    """Read a pairs CSV: columns moving and fixed, optionally their labels, masks and points, id, split.

    Returns:
        The rows in the file's order. Without a `split` column the last tenth of the pairs (at least one) is
        the validation set; with fewer than three pairs all train and none is held out.
    Raises:
        TableError: as `read_cohort`; also two rows with the same id. A single row is enough.
    """
    path = Path(path)
    header, rows = _read(path)
    _check_columns(path, header, PAIR_COLUMNS, ("moving", "fixed"))
    _check_duplicates(path, rows, ("moving", "fixed"))
    pairs = [_pair(path, row, number) for number, row in enumerate(rows, start=1)]
    _check_ids(path, pairs)
    if "split" not in header:
        held_out = _held_out([p.id for p in pairs])
        pairs = [replace(p, split="val" if p.id in held_out else "train") for p in pairs]
    return pairs


def write_table(path: Path | str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> Path:
    """Write rows to a CSV, whole or not at all; numbers with six digits, empty cells where a row lacks a value.

    Args:
        columns: the others are left out. Default: all, in the order in which they come.
    Returns:
        The path.
    Raises:
        OutputError: it cannot be written.
    """
    names = list(dict.fromkeys(name for row in rows for name in row)) if columns is None else columns
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return Path(path)


def _read(path: Path, rows: bool = True) -> tuple[list[str], list[_Row]]:
    """The header's names and the non-empty lines; only the header with rows=False."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            if not any(header):
                raise TableError(f"{path}: the table is empty; the first line names the columns")
            body = [_row(path, header, reader.line_num, cells) for cells in reader if any(cells)] if rows else []
    except FileNotFoundError:
        raise TableError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise TableError(f"{path}: is a folder; give a CSV file") from None
    except UnicodeDecodeError:
        raise TableError(f"{path}: is not a text file in UTF-8; save the table as CSV (UTF-8)") from None
    except csv.Error as error:
        raise TableError(f"{path}: is not a CSV file ({error})") from None
    except OSError as error:
        raise TableError(f"{path}: cannot be read ({error.strerror})") from None
    if rows and not body:
        raise TableError(f"{path}: the table has a header and no rows")
    return header, body


def _row(path: Path, header: list[str], line: int, cells: list[str]) -> _Row:
    if len(cells) > len(header):
        raise TableError(f"{path}: line {line} has {len(cells)} cells for {len(header)} columns; quote the commas")
    return _Row(line, {name: cell.strip() for name, cell in zip_longest(header, cells, fillvalue="")})


def _check_columns(path: Path, header: list[str], known: Sequence[str], required: Iterable[str]) -> None:
    unknown = [name for name in header if name not in known]
    if unknown:
        names = ", ".join(repr(name) for name in unknown)
        raise TableError(f"{path}: unknown column {names}; known are {', '.join(known)}")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise TableError(f"{path}: column {', '.join(twice)} stands twice; keep one")
    missing = [name for name in required if name not in header]
    if missing:
        raise TableError(f"{path}: no column {', '.join(missing)}; the header reads {', '.join(header)}")


def _check_duplicates(path: Path, rows: Iterable[_Row], names: Sequence[str]) -> None:
    """Two rows of the same files would count twice; links and detours resolved."""
    seen: dict[tuple[str, ...], int] = {}
    for row in rows:
        key = tuple(str((path.parent / row.cells.get(name, "")).resolve()) for name in names)
        if key in seen:
            raise TableError(f"{path}: line {row.line} repeats line {seen[key]} ({', '.join(key)}); remove one")
        seen[key] = row.line


def _check_ids(path: Path, pairs: Iterable[Pair]) -> None:
    seen: dict[str, int] = {}
    for pair in pairs:
        if pair.id in seen:
            raise TableError(f"{path}: line {pair.line} repeats the id {pair.id!r} of line {seen[pair.id]}")
        seen[pair.id] = pair.line


def _files(path: Path, row: _Row, names: Sequence[str], required: Sequence[str]) -> dict[str, Path]:
    """The row's files, resolved against the table's folder and found to exist."""
    missing = [name for name in required if not row.cells.get(name)]
    if missing:
        raise TableError(f"{path}: line {row.line} has no {missing[0]}; fill the cell or remove the row")
    files = {name: path.parent / row.cells[name] for name in names if row.cells.get(name)}
    for name, file in files.items():
        if not file.exists():
            raise TableError(f"{path}: line {row.line}: {name} {file} does not exist; paths are relative to the table")
    return files


def _split(path: Path, row: _Row) -> str:
    value = row.cells.get("split", "train")
    if value not in SPLITS:
        raise TableError(f"{path}: line {row.line}: split must be one of {', '.join(SPLITS)}. Received: {value!r}")
    return value


def _subject(path: Path, row: _Row, required: Sequence[str]) -> Subject:
    files = _files(path, row, COHORT_FILES, required)
    named_by = files.get("image") or files[required[0]]
    return Subject(
        **files,
        subject=row.cells.get("subject") or str(named_by),
        group=row.cells.get("group", ""),
        split=_split(path, row),
        line=row.line,
    )


def _pair(path: Path, row: _Row, number: int) -> Pair:
    files = _files(path, row, PAIR_FILES, ("moving", "fixed"))
    return Pair(
        **files,
        id=row.cells.get("id") or f"pair_{number:04d}",
        split=_split(path, row),
        line=row.line,
    )


def _held_out(names: Sequence[str]) -> set[str]:
    """The last tenth of the different names, at least one; none where fewer than two would be left to
    train."""
    different = list(dict.fromkeys(names))
    if len(different) < 3:
        return set()
    return set(different[-max(1, round(HELD_OUT * len(different))) :])
