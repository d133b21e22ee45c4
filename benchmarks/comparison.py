"""Sum up results.csv of `against_syn.py`: each method's mean, and its paired differences to a baseline."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from results import markdown, mean_sd, numbers

Row = dict[str, str]
SCORES = {  # column -> title, digits
    "dice_mean": ("Dice", 3),
    "lncc": ("LNCC", 3),
    "mse": ("MSE", 4),
    "folds": ("folds", 1),
    "ndv_percent": ("NDV %", 4),
    "digital_folds": ("digital folds", 1),
    "sdlogj": ("SDlogJ", 3),
    "inverse_residual_p99_voxels": ("inverse residual p99, voxels", 3),
    "inverse_residual_max_voxels": ("max", 2),
    "wall_seconds": ("process, s", 1),
    "registration_seconds": ("registration alone, s", 1),
    "peak_gigabytes": ("memory, GB", 2),
}
DIFFERENCES = ("dice_mean", "lncc", "sdlogj")
TIMES = ("wall_seconds", "registration_seconds")


def latest(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """Method -> pair -> its last row; methods in the order of their first."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row["method"], {})[row["id"]] = row
    return found


def done(runs: dict[str, Row]) -> dict[str, Row]:
    """The runs that succeeded."""
    return {name: row for name, row in runs.items() if row["status"] == "done"}


def means(methods: dict[str, dict[str, Row]]) -> str:
    """A row per method: mean +- sd over its pairs."""
    table = []
    for method, runs in methods.items():
        good = list(done(runs).values())
        certified = [row["certified"] for row in good if row["certified"]]
        share = f"{certified.count('True')}/{len(certified)}" if certified else "-"
        scores = [mean_sd(numbers(good, column), digits) for column, (_, digits) in SCORES.items()]
        table.append([f"`{method}`", f"{len(good)}/{len(runs)}", *scores, share])
    return markdown(["method", "done", *(title for title, _ in SCORES.values()), "certified"], table)


def paired(runs: dict[str, Row], base: dict[str, Row], column: str) -> list[tuple[float, float]]:
    """(method, baseline) of the pairs that both have."""
    common = [name for name in runs if name in base and runs[name][column] and base[name][column]]
    return [(float(runs[name][column]), float(base[name][column])) for name in common]


def difference(values: list[tuple[float, float]]) -> str:
    """Mean +- sd of the paired differences, and how often it is above zero."""
    gaps = [ours - theirs for ours, theirs in values]
    return f"{mean_sd(gaps, 4)} ({sum(gap > 0 for gap in gaps)}/{len(gaps)} above)" if gaps else "-"


def speed(values: list[tuple[float, float]]) -> str:
    """Geometric mean of baseline's time over the method's, with the smallest and largest."""
    ratios = [theirs / ours for ours, theirs in values]
    if not ratios:
        return "-"
    mean = math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))
    return f"{mean:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def against(methods: dict[str, dict[str, Row]], baseline: str) -> str:
    """A row per other method: paired differences and how many times faster it is."""
    base = done(methods[baseline])
    table = []
    for method, runs in methods.items():
        if method != baseline:
            good = done(runs)
            cells = [difference(paired(good, base, column)) for column in DIFFERENCES]
            table.append([f"`{method}`", *cells, *(speed(paired(good, base, column)) for column in TIMES)])
    titles = [f"{SCORES[column][0]} difference" for column in DIFFERENCES]
    return markdown(["method", *titles, "times faster, process", "times faster, registration alone"], table)


def summary(rows: Sequence[Row], baseline: str) -> str:
    """The Markdown report; failures are listed."""
    methods = latest(rows)
    parts = ["Mean ± sd over pairs.", means(methods)]
    if baseline in methods and len(methods) > 1:
        parts += [f"Against `{baseline}`, pair by pair.", against(methods, baseline)]
    failed = [row for runs in methods.values() for row in runs.values() if row["status"] != "done"]
    parts += [f"- {row['id']}, `{row['method']}` failed: {row['reason']}" for row in failed]
    return "\n\n".join(parts) + "\n"
