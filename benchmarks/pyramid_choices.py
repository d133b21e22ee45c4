"""What the choices of the shipped pyramid give: trained alike with and without each, on people not seen.

    python benchmarks/pyramid_choices.py LABELS -o DIR [--steps 1000] [--spacing 4] [--only NAME ...]

LABELS as for shipped_pyramids.py, whose options all have in common; from new weights, at a constant rate, seed 0;
people 1 to 12 train, all ordered pairs of 13 to 16 validate, twenty times. DIR gets a run folder for each and
pyramid_choices.csv, a row per validation. Stopped, it goes on where it was. Seconds hold what other programs took.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from results import markdown
from shipped_pyramids import BRAINS, people

from r2reg.evaluation.processes import R2REG, last_line, run, stop_children_when_stopped
from r2reg.io.tables import write_table

PLAIN = "--network nsvf-r2net --integrator flow --decoder 32,32,32,32,16,16,3"
# Name -> options of `r2reg train`; the first is what ships.
CHOICES = {
    "pyramid": "--symmetric",
    "one-sided": "--no-symmetric",
    "full-size": "--symmetric --velocity-size full",
    "two-rounds": "--symmetric --rounds 2",
    "r2net": f"{PLAIN} --velocity-size half",
    "r2net-full-size": f"{PLAIN} --velocity-size full",
}
ALIKE = "--contrast t1 --one-contrast --learning-rate 1e-3 --weights diffusion=0.05 --validation-pairs 12 --seed 0"
COLUMNS = ("step", "seconds", "val_dice_labels", "val_folds_percent")


def main() -> None:
    """Train one after the other, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, help="folder of label maps")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000, help="of each [%(default)s]")
    parser.add_argument("--spacing", type=int, choices=(2, 4), default=4, help="mm [%(default)s]")
    parser.add_argument(
        "--only", nargs="+", choices=CHOICES, default=list(CHOICES), metavar="NAME", help=", ".join(CHOICES)
    )
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    cohort = options.output / "people.csv"
    write_table(cohort, people(options.labels, dict.fromkeys(range(13, 17), "val")))
    shape = "x".join(str(2 * length // options.spacing) for length in (80, 96, 112))
    stop_children_when_stopped()
    rows, table = [], []
    for name, own in CHOICES.items():
        folder, log = options.output / name, options.output / f"{name}.log"
        if name in options.only:
            asked = [*BRAINS.split(), *ALIKE.split(), *own.split(), "--threads", "1", "--steps", str(options.steps)]
            asked += ["--spacing", str(options.spacing), "--shape", shape, "--validate-every", str(options.steps // 20)]
            if run([*R2REG, "train", str(cohort), "-o", str(folder), *asked, "--resume"], log).status:
                raise SystemExit(f"{name}: {last_line(log)}")
        history = folder / "history.csv"
        if not history.exists():
            continue
        with history.open(newline="", encoding="utf-8") as file:
            found = [{"name": name} | {key: row[key] for key in COLUMNS} for row in csv.DictReader(file)]
        rows += found
        best = max(found, key=lambda row: float(row["val_dice_labels"]))
        table.append([name, f"{float(best['val_dice_labels']):.3f}", best["step"], found[-1]["seconds"]])
    write_table(options.output / "pyramid_choices.csv", rows)
    print(markdown(["choice", "Dice, best", "after steps", "seconds in all"], table))


if __name__ == "__main__":
    main()
