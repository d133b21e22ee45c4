"""Train every network of the R2Net paper alike, and compare them on people that none of them has seen.

    python benchmarks/zoo.py COHORT -o OUT [--steps 1500] [--spacing 4] [--only NAME ...] [-- OPTIONS OF r2reg train]

COHORT is a table for `r2reg train` with columns image and labels and splits train, val and test, such as
painted_cohort.py makes. OUT gets a run folder per network, zoo.csv (a row as soon as a network is scored), zoo.md with
the paper's rows beside ours, and environment.json. Stopped, it goes on where it was: a training from its checkpoint. A
network that fails is told and left out; the rest goes on.

The networks are the paper's: no penalty of the gradient but for `multi`, and MSE; ours (`flow`, `kernel`, with the
gradient penalised) stand beside them under names of their own. A multi-scale network takes --steps in each of its
three parts.
Trainings may have shared the machine with other programs: zoo_times.py puts times into the table that can be compared.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import trainings
from results import append_row, markdown, read_rows

VELOCITIES = ("prob", "nokl", "gauss", "multi", "nonprob", "nonprob-gauss")
SMOOTH = "diffusion=0.001"
HISTORY = "history.csv"
# Name -> options of `r2reg train`.
ZOO: dict[str, list[str]] = {
    **{
        f"{network}-r2net-{velocity}": [
            *("--network", f"{network}-r2net", "--velocity", velocity),
            *([] if velocity == "multi" else ["--weights", "diffusion=0"]),
        ]
        for network in ("svf", "nsvf")
        for velocity in VELOCITIES
    },
    "vm-diff-half": ["--network", "vm-diff"],
    "vm-diff-full": ["--network", "vm-diff", "--velocity-size", "full"],
    "ms-vm-diff": ["--network", "ms-vm-diff"],
    "ms-svf-r2net": ["--network", "ms-svf-r2net", "--weights", "diffusion=0"],
    "ms-nsvf-r2net": ["--network", "ms-nsvf-r2net", "--weights", "diffusion=0"],
    "svf-r2net-nonprob-flow": ["--network", "svf-r2net", "--integrator", "flow", "--weights", "diffusion=0"],
    "nsvf-r2net-nonprob-flow": ["--network", "nsvf-r2net", "--integrator", "flow", "--weights", "diffusion=0"],
    "nsvf-r2net-nonprob-smooth": ["--network", "nsvf-r2net", "--weights", SMOOTH],
    "nsvf-r2net-nonprob-flow-smooth": ["--network", "nsvf-r2net", "--integrator", "flow", "--weights", SMOOTH],
    "nsvf-r2net-nonprob-kernel": ["--network", "nsvf-r2net", "--spectral-norm", "kernel", "--weights", "diffusion=0"],
}
# Joshi & Hong 2023, Table 1: data, MSE in 1e-3, Dice, folds as they counted them (with a faulty determinant), ms.
# Two networks stand there twice, with MSEs that differ by a factor of 2.
PAPER: dict[str, list[tuple[str, float, float, float, int]]] = {
    "nsvf-r2net-prob": [("OASIS, ablation", 2.68, 0.61, 3.55, 838), ("OASIS", 1.34, 0.70, 27.2, 838)],
    "nsvf-r2net-nokl": [("OASIS, ablation", 2.33, 0.64, 16.67, 623)],
    "nsvf-r2net-gauss": [("OASIS, ablation", 2.32, 0.65, 14.81, 645)],
    "nsvf-r2net-multi": [("OASIS, ablation", 2.55, 0.62, 34.35, 817)],
    "nsvf-r2net-nonprob": [("OASIS, ablation", 2.66, 0.63, 2.72, 624), ("OASIS", 1.33, 0.71, 33.5, 624)],
    "nsvf-r2net-nonprob-gauss": [("OASIS, ablation", 3.05, 0.60, 15.28, 635)],
    "svf-r2net-prob": [("OASIS", 1.54, 0.69, 28.41, 840)],
    "svf-r2net-nonprob": [("OASIS", 1.49, 0.70, 38.84, 619)],
    "vm-diff-half": [("OASIS", 1.10, 0.72, 51.43, 450)],
    "ms-vm-diff": [("IBSR18", 1.32, 0.60, 460.0, 647)],
    "ms-svf-r2net": [("IBSR18", 1.58, 0.58, 81.85, 1000)],
    "ms-nsvf-r2net": [("IBSR18", 1.46, 0.61, 115.5, 1000)],
}
SCORES = (
    "dice_affine", "dice_network", "mse", "folds", "ndv_percent", "digital_folds", "jacobian_min", "jacobian_max",
    "sdlogj", "seam_ratio_u", "seam_ratio_jacobian", "forward_seconds", "pairs",
)  # fmt: skip
COLUMNS = ("name", "steps", "step_seconds", "best_step", *SCORES, "peak_gigabytes_scoring", "peak_gigabytes_training")


def train(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train a network to its last step, from where it stands; what that took."""
    folder = options.output / name
    cost_file = folder / "cost.json"
    done = json.loads(cost_file.read_text(encoding="utf-8")) if cost_file.exists() else {}
    asked = trainings.settings_of(options) + options.more
    if done.pop("options", None) != asked:
        done = {"peak_gigabytes_training": trainings.train(name, ZOO[name], options).peak_gigabytes}
        cost_file.write_text(json.dumps(done | {"options": asked}), encoding="utf-8")
    parts = [history_of(part) for part in (folder / "chunk", folder / "coarse", folder) if (part / HISTORY).exists()]
    steps = sum(int(float(history[-1]["step"])) for history in parts)
    seconds = sum(float(history[-1]["seconds"]) for history in parts)
    best = min(parts[-1], key=lambda row: float(row["val_loss"]))
    return {
        "steps": steps,
        "step_seconds": seconds / steps,
        "best_step": best["step"],
        **done,  # of an interrupted training the last process' memory
    }


def history_of(folder: Path) -> list[dict[str, str]]:
    """The rows that a training wrote."""
    with (folder / HISTORY).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def score(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """What the test people say of a network."""
    found, cost = trainings.score(name, options)
    return {key: found[key] for key in SCORES} | {"peak_gigabytes_scoring": cost.peak_gigabytes}


# Heading -> column and digits.
SHOWN = {
    "Dice": ("dice_network", 3), "MSE": ("mse", 5), "folds": ("folds", 1), "NDV, %": ("ndv_percent", 4),
    "digital folds": ("digital_folds", 1), "SDlogJ": ("sdlogj", 3), "seam of u": ("seam_ratio_u", 2),
    "seam of J": ("seam_ratio_jacobian", 2), "steps": ("steps", 0),
    "training, GB": ("peak_gigabytes_training", 2), "step, s": ("step_seconds", 2),
    "forward, s": ("forward_seconds", 2),
}  # fmt: skip
CHUNKED = ("ms-svf", "ms-nsvf")
PAPER_SHOWN = ("paper: data", "MSE, 1e-3", "Dice", "folds (faulty)", "ms")


def report(rows: list[dict[str, str]]) -> str:
    """The table, with the paper's figures where it has them."""
    body = []
    order = list(ZOO)
    for row in sorted(rows, key=lambda row: order.index(row["name"])):
        cells = [f"{float(row[column]):.{digits}f}" for column, digits in SHOWN.values()]
        if not row["name"].startswith(CHUNKED):  # seams of others are 1 by definition
            cells = ["" if "seam" in heading else cell for heading, cell in zip(SHOWN, cells, strict=True)]
        rows_of_paper = PAPER.get(row["name"], [])
        theirs = [" / ".join(str(cells[k]) for cells in rows_of_paper) for k in range(len(PAPER_SHOWN))]
        body.append([row["name"], *cells, *theirs])
    affine = f"Dice after the affine alone: {float(rows[0]['dice_affine']):.3f}." if rows else ""
    return f"{markdown(['network', *SHOWN, *PAPER_SHOWN], body)}\n\n{affine}\n"


def main() -> None:
    """Train and score what is missing."""
    parser = trainings.parser_of(__doc__)
    parser.add_argument("--only", nargs="+", choices=ZOO, default=list(ZOO), metavar="NAME", help=", ".join(ZOO))
    options = trainings.parsed(parser)
    table = options.output / "zoo.csv"
    for name in options.only:
        if name in {row["name"] for row in read_rows(table)}:
            continue
        try:
            row = {"name": name, **train(name, options)}
            row |= score(name, options)
        except RuntimeError as error:
            print(error, flush=True)
            continue
        append_row(table, COLUMNS, row)
        print(
            f"{name}: Dice {row['dice_network']:.3f}, folds {row['folds']:.1f}, {row['step_seconds']:.2f} s a step",
            flush=True,
        )
        (options.output / "zoo.md").write_text(report(read_rows(table)), encoding="utf-8")
    (options.output / "zoo.md").write_text(report(read_rows(table)), encoding="utf-8")
    print((options.output / "zoo.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
