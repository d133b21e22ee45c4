"""Whether a straighter flow registers better: one small network, trained with more and less to straighten it.

    python benchmarks/straightness.py COHORT -o OUT [--decay 0 0.1 1 10] [--diffusion 0 1e-4 1e-3 1e-2]
                                      [--steps 1500] [--spacing 4] [-- OPTIONS OF r2reg train]

COHORT is a table for `r2reg train` with columns image and labels and splits train, val and test, such as
painted_cohort.py makes. OUT gets a run folder per setting, straightness.csv (a row as soon as a network is scored),
straightness.md and environment.json. Stopped, it goes on where it was: a training from its checkpoint. A network that
fails is told and left out; the rest goes on.

Gai & Zhang 2021 find straighter tracks and better classifiers with a moderate decay of the blocks' weights. Here
--decay is `--weight-decay` (with the weight of `diffusion` 0), and --diffusion the penalty of the velocity's gradient
(without decay). r2reg has no penalty of the kinetic energy itself; diffusion stands in for it. Two differences to the
paper: AdamW's decay is on every kernel, times the learning rate, so that it acts within 1 / (decay x rate) steps; and
the blocks' kernels are divided by their norms, so that it changes the tracks through the U-Net's velocity alone.

LSS, LSR and OTS are `r2reg inspect --tracks`' of the validation pairs, through the whole network; Dice, MSE and folds
are network_scores.py's of the test people.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from results import append_row, markdown, read_rows

from r2reg.evaluation.processes import R2REG, environment, last_line, run, stop_children_when_stopped

TRACKS = ("voxels", "lss_mean", "lss_p95", "lsr_mean", "lsr_p95", "ots")
SCORES = ("dice_affine", "dice_network", "mse", "folds", "ndv_percent", "sdlogj", "pairs")
COLUMNS = ("name", "weight_decay", "diffusion", *TRACKS, *SCORES)
# Heading -> column and digits.
SHOWN = {
    "LSS": ("lss_mean", 3), "LSS, 95 %": ("lss_p95", 3), "LSR": ("lsr_mean", 3), "OTS": ("ots", 3),
    "Dice": ("dice_network", 3), "MSE": ("mse", 5), "folds": ("folds", 1), "SDlogJ": ("sdlogj", 3),
}  # fmt: skip
FEWEST = 4  # settings for a rank correlation


def settings_of(options: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Name -> (weight decay, weight of diffusion); the plain network of both lists once."""
    found = {f"decay-{decay:g}": (decay, 0.0) for decay in options.decay}
    found |= {
        f"diffusion-{weight:g}": (0.0, weight) for weight in options.diffusion if weight or 0 not in options.decay
    }
    return found


def train(name: str, options: argparse.Namespace) -> Path:
    """Train a network to its last step, from where it stands; its folder."""
    decay, diffusion = settings_of(options)[name]
    folder = options.output / name
    folder.mkdir(exist_ok=True)
    cache = folder / "cache"
    if not cache.exists():  # the prepared images are the same for all
        cache.symlink_to(os.path.relpath(options.output / "cache", folder), target_is_directory=True)
    settings = ["--spacing", str(options.spacing), "--steps", str(options.steps)]
    settings += ["--learning-rate", str(options.learning_rate), "--validate-every", str(max(options.steps // 15, 1))]
    settings += ["--weight-decay", str(decay), "--weights", f"diffusion={diffusion}"]
    log = folder / "train.log"
    command = [*R2REG, "train", str(options.cohort), "-o", str(folder), *settings, *options.more, "--resume"]
    if run(command, log).status:
        raise RuntimeError(f"{name}: {last_line(log)}")
    return folder


def tracks(folder: Path) -> dict[str, Any]:
    """How straight the validation pairs' voxels travel."""
    command = [*R2REG, "inspect", str(folder), "--tracks", "-o", str(folder / "tracks"), "--overwrite", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode:
        raise RuntimeError(f"{folder.name}: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(done.stdout)["tracks"]["stages"]["network"]
    return {key: found[key] for key in TRACKS}


def score(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What the test people say of a network."""
    program, log = str(Path(__file__).with_name("network_scores.py")), folder / "scores.log"
    command = [*R2REG[:1], program, str(folder), str(options.cohort), "--cache", str(options.output / "cache")]
    if run(command, log).status:
        raise RuntimeError(f"{folder.name}: {last_line(log)}")
    found: dict[str, Any] = json.loads(last_line(log))
    return {key: found[key] for key in SCORES}


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--decay", type=float, nargs="*", default=[0, 0.1, 1, 10], help="[%(default)s]")
    parser.add_argument("--diffusion", type=float, nargs="*", default=[0, 1e-4, 1e-3, 1e-2], help="[%(default)s]")
    parser.add_argument("--steps", type=int, default=1500, help="[%(default)s]")
    parser.add_argument("--spacing", type=float, default=4.0, help="mm [%(default)s]")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="[%(default)s]")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:end], argparse.Namespace(more=sys.argv[end + 1 :]))
    stop_children_when_stopped()
    (options.output / "cache").mkdir(parents=True, exist_ok=True)
    (options.output / "environment.json").write_text(json.dumps(environment(0), indent=2), encoding="utf-8")
    table = options.output / "straightness.csv"
    for name, (decay, diffusion) in settings_of(options).items():
        if name in {row["name"] for row in read_rows(table)}:
            continue
        try:
            folder = train(name, options)
            found = tracks(folder) | score(folder, options)
        except RuntimeError as error:
            print(error, flush=True)
            continue
        append_row(table, COLUMNS, {"name": name, "weight_decay": decay, "diffusion": diffusion, **found})
        print(f"{name}: LSS {found['lss_mean']}, Dice {found['dice_network']:.3f}", flush=True)
    text = report(read_rows(table))
    (options.output / "straightness.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
