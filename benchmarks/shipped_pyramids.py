"""Train models as the shipped `brain` and `anatomy` were trained, from a folder of label maps.

    python benchmarks/shipped_pyramids.py LABELS -o DIR [--steps N] [--only NAME]

LABELS holds subject_01.nii.gz to subject_16.nii.gz, FreeSurfer's ids. Some four hours, most of them on one core;
stopped and started again it goes on. It repeats the recipe: the shipped ones began from weights of an earlier version.
--steps: of each training at most so many, validated after each, for a look at its first losses, in its history.csv.
Give that a folder of its own: a rate that falls does so over these few steps then.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py

from r2reg.evaluation.processes import R2REG, last_line, run, stop_children_when_stopped
from r2reg.io.tables import write_table
from r2reg.released import CONFIG_FILE, WEIGHTS

NETWORK = "--similarity dice --network pyramid-nsvf-r2net --decoder 32,32,32,16,16,16,3 --spacing 2 --workers 1"
BRAINS = f"{NETWORK} --synthesis labels --skull strip --augment affine,warp,flip,bias,intensity --shape 80x96x112"
SHAPES = f"{NETWORK} --synthesis shapes --augment affine,warp,flip,resolution,bias,intensity,crop --shape 80x80x80"
LATER = "--symmetric --learning-rate 5e-4 --schedule cosine"
STEADY = f"{LATER} --threads 1 --weights diffusion=0.05 --validation-pairs 4"


@dataclass(frozen=True)
class Training:
    """A run, which begins with the weights of another; `people`: the table of label maps, none for shapes.

    Afterwards the weights that it began with and its own are averaged, into the run `mean`.
    """

    name: str
    options: str
    steps: int
    every: int = 0
    people: str = ""
    begins: str = ""
    mean: str = ""


TRAININGS = (
    Training(
        "first", f"{BRAINS} --threads 1 --contrast t1 --learning-rate 1e-3 --seed 0", steps=1000, people="maps.csv"
    ),
    Training(
        "second",
        f"{BRAINS} {LATER} --threads 2 --contrast t1 --seed 3",
        steps=1500,
        people="maps.csv",
        begins="first",
    ),
    Training(
        "third",
        f"{BRAINS} {STEADY} --contrast t1 --seed 7",
        steps=2000,
        every=250,
        people="twelve.csv",
        begins="second",
        mean="third-mean",
    ),
    Training(
        "fourth",
        f"{BRAINS} {STEADY} --contrast mixed --one-contrast --seed 11",
        steps=1300,
        every=260,
        people="twelve.csv",
        begins="third-mean",
        mean="brain",
    ),
    Training(
        "anatomy",
        f"{SHAPES} {LATER} --threads 1 --one-contrast --weights diffusion=0.3 --validation-pairs 6 --seed 5",
        steps=1600,
        every=200,
        begins="second",
    ),
)
KEPT = 0.3  # of the weights that a run began with, in the mean


def people_rows(labels: Path, split: Mapping[int, str]) -> list[dict[str, str]]:
    """A row per person; whom `split` does not name is trained on."""
    return [
        {
            "subject": f"{k:02d}",
            "labels": str(labels.absolute() / f"subject_{k:02d}.nii.gz"),
            "split": split.get(k, "train"),
        }
        for k in range(1, 17)
    ]


def write_people(labels: Path, folder: Path) -> None:
    """maps.csv: people 13 and 14 for validation, 15 and 16 left out; twelve.csv: people 1 to 12, all to train on."""
    rows = people_rows(labels, {13: "val", 14: "val", 15: "test", 16: "test"})
    write_table(folder / "maps.csv", rows)
    write_table(folder / "twelve.csv", rows[:12])


def average(one: Path, other: Path, out: Path) -> None:
    """A model whose weights are KEPT of one run's and the rest of another's."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for name in (CONFIG_FILE, WEIGHTS):
        shutil.copy(other / name, out)
    with h5py.File(one / WEIGHTS) as first, h5py.File(out / WEIGHTS, "r+") as mean:

        def mix(name: str, data: h5py.Dataset | h5py.Group) -> None:
            if isinstance(data, h5py.Dataset):
                data[...] = KEPT * first[name][...] + (1 - KEPT) * data[...]

        mean.visititems(mix)


def main() -> None:
    """Train one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, help="folder of label maps")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, help="of each training, at most")
    parser.add_argument(
        "--only", choices=[one.name for one in TRAININGS], help="the run that it begins with must be there"
    )
    options = parser.parse_args()
    folder = options.output
    folder.mkdir(parents=True, exist_ok=True)
    write_people(options.labels, folder)
    stop_children_when_stopped()
    for one in TRAININGS:
        if options.only not in (None, one.name):
            continue
        table = [str(folder / one.people)] if one.people else []
        begins = ["--initial-weights", str(folder / one.begins)] if one.begins else []
        steps, every = (min(one.steps, options.steps), 1) if options.steps else (one.steps, one.every)
        own = [*one.options.split(), *begins, "--steps", str(steps), "--validate-every", str(every)]
        log = folder / f"{one.name}.log"
        if run([*R2REG, "train", *table, "-o", str(folder / one.name), *own, "--resume"], log).status:
            raise SystemExit(f"{one.name}: {last_line(log)}")
        if one.mean:
            average(folder / one.begins, folder / one.name, folder / one.mean)


if __name__ == "__main__":
    main()
