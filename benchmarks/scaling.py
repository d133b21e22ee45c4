"""Time and memory of `r2reg register` against the number of voxels: phantoms of n^3, each command its own process.

    python benchmarks/scaling.py -o OUT [--sizes 64 96 128 160 192 224 256] [--refine fast default best] [--threads 2]

The field of view stays one head (192 mm across) and the voxels shrink, so that every size shows the same picture;
--spacing keeps the voxels instead. OUT gets scaling.csv (a row as soon as it is known; a rerun does what is missing),
scaling.md, environment.json, and scaling.png where matplotlib is installed: each with a line fitted by least squares.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phantoms import phantom_pair
from results import append_row, markdown, read_rows

from r2reg.evaluation.processes import R2REG, environment, run_or_fail, stop_children_when_stopped

COLUMNS = ("size", "spacing_mm", "voxels", "refine", "wall_seconds", "cpu_seconds", "peak_gigabytes", "threads")
FIELD_OF_VIEW_MM = 192.0
MEASURED = {"wall_seconds": "seconds", "peak_gigabytes": "GB"}


def measure(images: Sequence[str], folder: Path, refine: str, threads: int) -> dict[str, float]:
    """What one registration costs."""
    options = ["-o", str(folder / "out"), "--overwrite", "--model", "none", "--refine", refine]
    cost = run_or_fail([*R2REG, "register", *images, *options, "--threads", str(threads)], threads)
    return {key: value for key, value in vars(cost).items() if key in COLUMNS}


def run_all(options: argparse.Namespace, table: Path) -> None:
    """Fill the table with what it lacks."""
    done = {(row["size"], row["refine"]) for row in read_rows(table)}
    for size in options.sizes:
        missing = [refine for refine in options.refine if (str(size), refine) not in done]
        if not missing:
            continue
        spacing = options.spacing or FIELD_OF_VIEW_MM / size
        with tempfile.TemporaryDirectory() as name:
            images = phantom_pair(Path(name), (size,) * 3, spacing)
            for refine in missing:
                row = {"size": size, "spacing_mm": spacing, "voxels": size**3, "refine": refine}
                row |= measure(images, Path(name), refine, options.threads) | {"threads": options.threads}
                append_row(table, COLUMNS, row)
                print(f"{size}^3 {refine}: {row['wall_seconds']:.1f} s, {row['peak_gigabytes']:.2f} GB", flush=True)


def points(rows: Sequence[dict[str, str]], refine: str, column: str) -> tuple[list[float], list[float]]:
    """Millions of voxels, and what was measured."""
    chosen = sorted((int(row["voxels"]) / 1e6, float(row[column])) for row in rows if row["refine"] == refine)
    return [x for x, _ in chosen], [y for _, y in chosen]


def fit(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Slope and intercept of the least-squares line, and its coefficient of determination."""
    slope, intercept = statistics.linear_regression(x, y)
    return slope, intercept, statistics.correlation(x, y) ** 2 if len(set(y)) > 1 else 1.0


def levels(rows: Sequence[dict[str, str]]) -> list[str]:
    """The refinements in the order of their first row."""
    return list(dict.fromkeys(row["refine"] for row in rows))


def report(rows: Sequence[dict[str, str]]) -> str:
    """A Markdown table of what was measured, and one of the fitted lines."""
    header = ["size", "spacing, mm", "refine", "wall seconds", "CPU seconds", "memory, GB"]
    body = [
        [f"{row['size']}^3", f"{float(row['spacing_mm']):.2f}", row["refine"], f"{float(row['wall_seconds']):.1f}",
         f"{float(row['cpu_seconds']):.1f}", f"{float(row['peak_gigabytes']):.2f}"]
        for row in sorted(rows, key=lambda row: (int(row["size"]), levels(rows).index(row["refine"])))
    ]  # fmt: skip
    lines = []
    for refine in levels(rows):
        for column, unit in MEASURED.items():
            x, y = points(rows, refine, column)
            if len(set(x)) > 1:
                slope, intercept, share = fit(x, y)
                lines.append([refine, unit, f"{slope:.3g}", f"{intercept:.3g}", f"{share:.4f}"])
    fitted = markdown(["refine", "unit", "per million voxels", "intercept", "R^2"], lines)
    return f"{markdown(header, body)}\n\nFitted lines:\n\n{fitted}\n"


def plot(rows: Sequence[dict[str, str]], path: Path) -> None:
    """Seconds and gigabytes over voxels, with the fitted lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(MEASURED), figsize=(9, 3.6), layout="constrained")
    for axis, (column, unit) in zip(axes, MEASURED.items(), strict=True):
        for number, refine in enumerate(levels(rows)):
            x, y = points(rows, refine, column)
            axis.plot(x, y, "o", color=f"C{number}", label=refine)
            if len(set(x)) > 1:
                slope, intercept, _ = fit(x, y)
                axis.axline((0, intercept), slope=slope, color=f"C{number}", linewidth=1)
        axis.margins(0.06)
        axis.set(xlabel="million voxels", ylabel=unit, xlim=(0, None), ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].legend(title="--refine")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure what is missing; write table and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 128, 160, 192, 224, 256])
    parser.add_argument("--refine", nargs="+", default=["fast", "default", "best"])
    parser.add_argument("--spacing", type=float, help="mm, of every size [192 mm / size]")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="[all cores]")
    options = parser.parse_args()
    stop_children_when_stopped()
    options.output.mkdir(parents=True, exist_ok=True)
    table = options.output / "scaling.csv"
    settings: dict[str, Any] = environment(options.threads)
    (options.output / "environment.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    run_all(options, table)
    rows = read_rows(table)
    (options.output / "scaling.md").write_text(report(rows), encoding="utf-8")
    print(report(rows))
    if importlib.util.find_spec("matplotlib") is None:
        print("no plot: matplotlib is not installed; pip install matplotlib and run again", file=sys.stderr)
    else:
        plot(rows, options.output / "scaling.png")


if __name__ == "__main__":
    main()
