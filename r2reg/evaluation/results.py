"""The folder of a benchmark: its tables, and where each run's files lie."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r2reg.io.tables import write_table

RESULTS_FILE, LABELS_FILE, ENVIRONMENT_FILE, RUNS = "results.csv", "labels.csv", "environment.json", "runs"


def folder_name(name: str) -> str:
    """A name that every file system takes; one that had to be changed ends in its checksum."""
    plain = re.sub(r"[^\w.+-]+", "_", name)[:80].lstrip(".")
    return plain if plain == name else f"{plain}_{zlib.crc32(name.encode()):08x}"


def run_folder(output: Path, pair: str, method: str) -> Path:
    """Where a pair's files by a method lie."""
    return output / RUNS / folder_name(pair) / folder_name(method)


def write_results(output: Path, columns: Sequence[str], rows: Sequence[dict[str, Any] | None]) -> None:
    """Write results.csv and labels.csv, whole; results that are not there yet are left out."""
    known = [row for row in rows if row]
    write_table(output / RESULTS_FILE, known, columns)
    names = [name for name in ("id", "method") if name in columns]
    by_label = [
        {name: row[name] for name in names} | {"label": label, **scores}
        for row in known
        for label, scores in row.get("per_label", {}).items()
    ]
    write_table(output / LABELS_FILE, by_label, (*names, "label", "dice", "hd95_mm"))
