"""Tables of results: a CSV that grows row by row and survives an interruption, and Markdown."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append_row(path: Path, columns: Sequence[str], row: Mapping[str, Any]) -> None:
    """Add a row, rounded to six digits, and a header where the file is new; missing cells stay empty.

    Ends the program where the file has other columns.
    """
    fresh = not path.exists()
    if not fresh:
        with path.open(newline="", encoding="utf-8") as file:
            if (header := next(csv.reader(file), [])) != list(columns):
                raise SystemExit(f"{path}: has columns {', '.join(header)}, not {', '.join(columns)}; name another")
    with path.open("a", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns)
        if fresh:
            table.writeheader()
        table.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows])
