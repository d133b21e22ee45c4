"""Train the shipped models `brain` and `anatomy` as they were trained, from a folder of label maps.

    python benchmarks/shipped_pyramids.py LABELS -o DIR [--steps N]

LABELS holds subject_01.nii.gz to subject_16.nii.gz, FreeSurfer's ids. Some four hours on a core; stopped and started
again it goes on. --steps: at most so many of each training, validated after each, to look at the first losses: they
stand in each run's history.csv. Where the rate falls, it falls over so many steps then.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import h5py

from r2reg.evaluation.processes import R2REG
from r2reg.io.tables import write_table
from r2reg.released import WEIGHTS

NETWORK = "--similarity dice --network pyramid-nsvf-r2net --decoder 32,32,32,16,16,16,3 --spacing 2 --workers 1"
BRAINS = f"{NETWORK} --synthesis labels --skull strip --augment affine,warp,flip,bias,intensity --shape 80x96x112"
SHAPES = f"{NETWORK} --synthesis shapes --augment affine,warp,flip,resolution,bias,intensity,crop --shape 80x80x80"
LATER = "--symmetric --learning-rate 5e-4 --schedule cosine"
STEADY = f"{LATER} --threads 1 --weights diffusion=0.05 --validation-pairs 4"


@dataclass(frozen=True)
class Training:
    """A run, which begins with the weights of another; `people`: the table of label maps, None for shapes.

    Afterwards `kept` of the weights that it began with and the rest of its own are averaged, into the run `mean`.
    """

    name: str
    people: str | None
    options: str
    steps: int
    every: int = 0
    begins: str = ""
    mean: str = ""
    kept: float = 0.3


TRAININGS = (
    Training("first", "maps", f"{BRAINS} --threads 1 --contrast t1 --learning-rate 1e-3 --seed 0", 1000),
    Training("second", "maps", f"{BRAINS} {LATER} --threads 2 --contrast t1 --seed 3", 1500, begins="first"),
    Training("third", "twelve", f"{BRAINS} {STEADY} --contrast t1 --seed 7", 2000, 250, "second", "third-mean"),
    Training(
        "fourth",
        "twelve",
        f"{BRAINS} {STEADY} --contrast mixed --one-contrast --seed 11",
        1300,
        260,
        "third-mean",
        "brain",
    ),
    Training(
        "anatomy",
        None,
        f"{SHAPES} {LATER} --threads 1 --one-contrast --weights diffusion=0.3 --validation-pairs 6 --seed 5",
        1600,
        200,
        "second",
    ),
)


def write_people(labels: Path, folder: Path) -> None:
    """maps.csv: people 13 and 14 for validation, 15 and 16 left out; twelve.csv: people 1 to 12, all to train on."""
    split = {13: "val", 14: "val", 15: "test", 16: "test"}
    rows = [
        {
            "subject": f"{k:02d}",
            "labels": str(labels.absolute() / f"subject_{k:02d}.nii.gz"),
            "split": split.get(k, "train"),
        }
        for k in range(1, 17)
    ]
    write_table(folder / "maps.csv", rows)
    write_table(folder / "twelve.csv", rows[:12])


def average(share: float, one: Path, other: Path, out: Path) -> None:
    """A run whose weights are `share` of one run's and the rest of another's, of which it is a copy."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(other, out)
    with h5py.File(one / WEIGHTS) as first, h5py.File(out / WEIGHTS, "r+") as mean:

        def mix(name: str, data: h5py.Dataset | h5py.Group) -> None:
            if isinstance(data, h5py.Dataset):
                data[...] = share * first[name][...] + (1 - share) * data[...]

        mean.visititems(mix)


def main() -> None:
    """Train one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, help="folder of label maps")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, help="of each training, at most")
    parser.add_argument(
        "--only", choices=[one.name for one in TRAININGS], help="this one; what it begins with is there"
    )
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    write_people(options.labels, options.output)
    for one in TRAININGS:
        if options.only not in (None, one.name):
            continue
        command = [
            *R2REG,
            "train",
            *([f"{one.people}.csv"] if one.people else []),
            "-o",
            one.name,
            *one.options.split(),
        ]
        command += ["--steps", str(min(one.steps, options.steps or one.steps)), "--resume"]
        command += ["--validate-every", "1" if options.steps else str(one.every)]
        command += ["--initial-weights", one.begins] if one.begins else []
        subprocess.run(command, cwd=options.output, check=True)
        if one.mean:
            average(one.kept, options.output / one.begins, options.output / one.name, options.output / one.mean)


if __name__ == "__main__":
    main()
