"""The folder of a benchmark: its tables, and where each run's files lie."""

from __future__ import annotations

import csv
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r2reg.io.files import atomic_path

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
    _write_csv(output / RESULTS_FILE, columns, known)
    names = [name for name in ("id", "method") if name in columns]
    by_label = [
        {name: row[name] for name in names} | {"label": label, **scores}
        for row in known
        for label, scores in row.get("per_label", {}).items()
    ]
    _write_csv(output / LABELS_FILE, (*names, "label", "dice", "hd95_mm"), by_label)


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
