"""What the choices of the shipped pyramid give: trained alike with and without each, on people not seen.

    python benchmarks/pyramid_choices.py LABELS -o DIR [--steps 1000] [--spacing 4] [--only NAME ...]

LABELS as for shipped_pyramids.py, whose options all have in common; from new weights, at a constant rate, seed 0, on
one thread; people 1 to 12 train, all ordered pairs of 13 to 16 validate, fifteen times. DIR gets a run folder for each
and pyramid_choices.csv, a row per validation. Stopped, it goes on where it was. Seconds hold what other programs took.
"""

from __future__ import annotations

import csv
from pathlib import Path

import trainings
from results import markdown
from shipped_pyramids import BRAINS, people

from r2reg.io.tables import write_table

PLAIN = "--network nsvf-r2net --integrator flow --decoder 32,32,32,32,16,16,3"
# Name -> options of `r2reg train`; the first is what ships.
CHOICES = {
    "pyramid": "--symmetric",
    "one-sided": "--no-symmetric",
    "full-size": "--symmetric --velocity-size full",
    "two-rounds": "--symmetric --rounds 2",
    "r2net": f"{PLAIN} --velocity-size half",
    "r2net-full-size": PLAIN,
}
ALIKE = "--contrast t1 --one-contrast --weights diffusion=0.05 --validation-pairs 12 --seed 0 --threads 1"
COLUMNS = ("step", "seconds", "val_dice_labels", "val_folds_percent")


def main() -> None:
    """Train one after the other, write the table."""
    parser = trainings.parser_of(__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=CHOICES, default=list(CHOICES), metavar="NAME", help=", ".join(CHOICES)
    )
    parser.set_defaults(steps=1000)
    options = trainings.parsed(parser)
    labels, options.cohort = options.cohort, options.output / "people.csv"
    write_table(options.cohort, people(labels, dict.fromkeys(range(13, 17), "val")))
    shape = "x".join(str(round(2 * length / options.spacing)) for length in (80, 96, 112))
    alike = [*BRAINS.split(), *ALIKE.split(), "--spacing", str(options.spacing), "--shape", shape]
    rows, table = [], []
    for name, own in CHOICES.items():
        if name in options.only:
            trainings.train(name, [*alike, *own.split()], options)
        history: Path = options.output / name / "history.csv"
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
