"""What the choices of the shipped pyramid give: trained alike with and without each, on people not seen.

    python benchmarks/pyramid_choices.py LABELS -o DIR [--steps 1500] [--spacing 2] [--only NAME ...]
                                         [-- OPTIONS OF r2reg train]

LABELS as for shipped_pyramids.py, whose options all have in common; from new weights, at a constant rate, seed 0, on
one thread; people 1 to 12 train, all ordered pairs of 13 to 16 validate. DIR gets a run folder for each and
pyramid_choices.csv, a row per validation of each run that is there. Stopped, it goes on where it was; a training that
fails is told and left out. Seconds are of the training alone, and hold what other programs took.
"""

from __future__ import annotations

import trainings
from results import markdown, read_rows
from shipped_pyramids import BRAINS, people_rows

from r2reg.io.tables import write_table

PLAIN = "--network nsvf-r2net --integrator flow --decoder 32,32,32,32,16,16,3"
# Name -> options of `r2reg train` after those in common; the first is what ships.
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
LAST = 5  # validations whose mean is told: the best of all would be chosen by the people it is told of


def main() -> None:
    """Train one after the other, write the table."""
    parser = trainings.parser_of(__doc__, data="labels")
    names = ", ".join(CHOICES)
    parser.add_argument("--only", nargs="+", choices=CHOICES, default=list(CHOICES), metavar="NAME", help=names)
    parser.set_defaults(spacing=2.0)
    options = trainings.parsed(parser)
    options.cohort = options.output / "people.csv"
    write_table(options.cohort, people_rows(options.labels, dict.fromkeys(range(13, 17), "val")))
    rows, table = [], []
    for name, own in CHOICES.items():
        if name in options.only:
            # Of an option that is given twice the last counts.
            asked = [*BRAINS.split(), *ALIKE.split(), *own.split(), *trainings.settings_of(options)]
            try:
                trainings.train(name, asked, options)
            except RuntimeError as error:
                print(error, flush=True)
        history = read_rows(options.output / name / "history.csv")
        if not history:
            continue
        rows += [{"name": name} | {key: row[key] for key in COLUMNS} for row in history]
        dice = [float(row["val_dice_labels"]) for row in history[-LAST:]]
        seconds = float(history[-1]["seconds"])
        table.append([name, history[-1]["step"], f"{sum(dice) / len(dice):.3f}", f"{seconds:.0f}"])
        write_table(options.output / "pyramid_choices.csv", rows)
    print(markdown(["choice", "steps", f"Dice, the last {LAST} validations", "seconds"], table))


if __name__ == "__main__":
    main()
