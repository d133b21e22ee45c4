"""Whether a straighter flow registers better: one small network, trained with more and less to straighten it.

    python benchmarks/straightness.py COHORT -o OUT [--decay 0 0.1 1 10] [--diffusion 0 1e-4 1e-3 1e-2]
                                      [--kinetic 1e-4 1e-3] [--steps 1500] [--spacing 4] [-- OPTIONS OF r2reg train]

COHORT is a table for `r2reg train` with columns image and labels and splits train, val and test, such as
painted_cohort.py makes. OUT gets a run folder per setting, straightness.csv (a row as soon as a network is scored),
straightness.md and environment.json. Stopped, it goes on where it was: a training from its checkpoint. A network that
fails is told and left out; the rest goes on.

Gai & Zhang 2021 find straighter tracks and better classifiers with a moderate decay of the blocks' weights. Here
--decay is `--weight-decay`, --diffusion the weight of the penalty of the velocity's gradient and --kinetic that of its
kinetic energy, each with the other two 0. Two differences to the paper: AdamW's decay is on every kernel, times the
learning rate, so that it acts within 1 / (decay x rate) steps; and the blocks' kernels are divided by their norms, so
that it changes the tracks through the U-Net's velocity alone.

LSS, LSR and OTS are `r2reg inspect --tracks`' of the validation pairs, through the whole network; Dice, MSE and folds
are network_scores.py's of the test people.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import trainings
from results import append_row, markdown, read_rows

from r2reg.evaluation.processes import R2REG

TRACKS = ("voxels", "lss_mean", "lss_p95", "lsr_mean", "lsr_p95", "ots")
SCORES = ("dice_affine", "dice_network", "mse", "folds", "ndv_percent", "sdlogj", "pairs")
KINDS = {"decay": "weight_decay", "diffusion": "diffusion", "kinetic": "kinetic"}  # of settings -> column
COLUMNS = ("name", *KINDS.values(), *TRACKS, *SCORES)
# Heading -> column and digits.
SHOWN = {
    "LSS": ("lss_mean", 3), "LSS, 95 %": ("lss_p95", 3), "LSR": ("lsr_mean", 3), "OTS": ("ots", 3),
    "Dice": ("dice_network", 3), "MSE": ("mse", 5), "folds": ("folds", 1), "SDlogJ": ("sdlogj", 3),
}  # fmt: skip
FEWEST = 4  # settings for a rank correlation


def settings_of(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Name -> column -> value; the plain network once."""
    found: dict[str, dict[str, float]] = {}
    for kind, column in KINDS.items():
        for value in getattr(options, kind):
            setting = dict.fromkeys(KINDS.values(), 0.0) | {column: value}
            if setting not in found.values():
                found[f"{kind}-{value:g}"] = setting
    return found


def tracks(folder: Path) -> dict[str, Any]:
    """How straight the validation pairs' voxels travel."""
    command = [*R2REG, "inspect", str(folder), "--tracks", "-o", str(folder / "tracks"), "--overwrite", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode:
        raise RuntimeError(f"{folder.name}: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(done.stdout)["tracks"]["stages"]["network"]
    return {key: found[key] for key in TRACKS}


def report(rows: list[dict[str, str]]) -> str:
    """The table, and how LSS and Dice go together."""
    body = [
        [row["name"], *(f"{float(row[key]):.{digits}f}" if row[key] else "-" for key, digits in SHOWN.values())]
        for row in rows
    ]
    told = f"Dice after the affine alone: {float(rows[0]['dice_affine']):.3f}." if rows else ""
    pairs = [(float(row["lss_mean"]), float(row["dice_network"])) for row in rows if row["lss_mean"]]
    if len(pairs) >= FEWEST:
        from scipy.stats import spearmanr

        found = spearmanr(*zip(*pairs, strict=True))
        told += f" Rank correlation of LSS with Dice over {len(pairs)} settings: {found.statistic:.2f} "
        told += f"(p = {found.pvalue:.2g}); below 0, the straighter registers better."
    return f"{markdown(['setting', *SHOWN], body)}\n\n{told}\n"


def main() -> None:
    """Train and score what is missing."""
    parser = trainings.parser_of(__doc__)
    parser.add_argument("--decay", type=float, nargs="*", default=[0, 0.1, 1, 10], help="[%(default)s]")
    parser.add_argument("--diffusion", type=float, nargs="*", default=[0, 1e-4, 1e-3, 1e-2], help="[%(default)s]")
    parser.add_argument("--kinetic", type=float, nargs="*", default=[1e-4, 1e-3], help="[%(default)s]")
    options = trainings.parsed(parser)
    table = options.output / "straightness.csv"
    for name, setting in settings_of(options).items():
        if name in {row["name"] for row in read_rows(table)}:
            continue
        try:
            own = ["--weight-decay", str(setting["weight_decay"])]
            own += [part for key in ("diffusion", "kinetic") for part in ("--weights", f"{key}={setting[key]}")]
            trainings.train(name, own, options)
            scores, _ = trainings.score(name, options)
            found = tracks(options.output / name) | {key: scores[key] for key in SCORES}
        except RuntimeError as error:
            print(error, flush=True)
            continue
        append_row(table, COLUMNS, {"name": name, **setting, **found})
        print(f"{name}: LSS {found['lss_mean']}, Dice {found['dice_network']:.3f}", flush=True)
    text = report(read_rows(table))
    (options.output / "straightness.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
