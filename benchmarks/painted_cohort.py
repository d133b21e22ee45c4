"""A cohort painted from whole-head label maps, for `r2reg train`: T1-like scans of each person, as the map lies.

    python benchmarks/painted_cohort.py LABELS -o DIR [--train 12] [--val 2] [--paintings 3] [--seed 0]

LABELS is a folder of FreeSurfer maps, as for painted_pairs.py. The scans are painted at 1 mm, so that a training at a
coarser spacing sees partial volume; without a bias field, as after its correction. DIR gets the images, their labels,
and `cohort.csv`: by name the first people are trained on, the next validated on, the others tested on. A person whom
the training sees has --paintings scans, which differ in contrast and noise; of the others there is one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from painted_pairs import SHAPE, plain_view, write_rows

from r2reg.io.images import Volume, read_labels, write_image
from r2reg.resampling import resample
from r2reg.training.synthesis import draw, paint, strip_skull


def paint_person(file: Path, seeds: Sequence[int], folder: Path) -> list[dict[str, str]]:
    """Write one person's labels and a scan per seed; returns their names."""
    volume = read_labels(file)
    volume = volume.with_array(strip_skull(volume.array))
    grid = plain_view(volume, SHAPE)
    labels = resample(volume, grid, [], "nearest")
    where = Volume(labels, grid)
    name = file.name.removesuffix(".nii.gz")
    label_file = f"{name}_labels.nii.gz"
    write_image(folder / label_file, labels.astype(np.int16), where)
    ids = np.unique(labels).tolist()
    rows = []
    for k, seed in enumerate(seeds, start=1):
        image_file = f"{name}_{k}.nii.gz"
        write_image(folder / image_file, paint(labels, draw(np.random.default_rng(seed), ids, "t1")), where)
        rows.append({"image": image_file, "labels": label_file})
    return rows


def main() -> None:
    """Paint everybody, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, help="folder of label maps")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--train", type=int, default=12, help="people [%(default)s]")
    parser.add_argument("--val", type=int, default=2, help="people [%(default)s]")
    parser.add_argument("--paintings", type=int, default=3, help="of each person to train on [%(default)s]")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    files = sorted(options.labels.glob("*.nii.gz"))
    if len(files) <= options.train + options.val:
        parser.error(f"{options.labels}: {len(files)} maps leave nobody to test on")
    options.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for k, file in enumerate(files):
        split = "train" if k < options.train else "val" if k < options.train + options.val else "test"
        seeds = np.random.SeedSequence([options.seed, k]).generate_state(options.paintings if split == "train" else 1)
        found = paint_person(file, seeds.tolist(), options.output)
        rows += [{**row, "split": split, "subject": f"s{k + 1:02d}"} for row in found]
        print(file.name, split, flush=True)
    write_rows(options.output / "cohort.csv", rows)


if __name__ == "__main__":
    main()
