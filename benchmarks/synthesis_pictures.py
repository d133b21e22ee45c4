"""Pictures of what `r2reg train --synthesis` paints, and what a pair costs to make.

    python benchmarks/synthesis_pictures.py COHORT -o DIR [--spacing 4]

COHORT has a column of FreeSurfer label maps, as for `r2reg train COHORT --synthesis labels`. Writes labels.jpg (pairs
of people, with and without skull, of T1-like and random contrast), shapes.jpg (pairs of random shapes) and steps.jpg
(one image, one kind of augmentation at a time), and prints the CPU seconds of one pair.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import matplotlib
import numpy as np

from r2reg.config import Augment, NetworkConfig, TrainConfig
from r2reg.training.batches import Batches
from r2reg.training.dataset import make_dataset, read_table

matplotlib.use("Agg")
PAIRS = 6
EVERYTHING: tuple[Augment, ...] = get_args(Augment)


def batches_of(table: Path | None, config: TrainConfig, folder: Path) -> Batches:
    """Batches of a table's labels, or of random shapes."""
    rows = [] if table is None else read_table(table, config)
    dataset, config = make_dataset(rows, config, folder)
    return Batches(dataset, config)


def fullest(image: np.ndarray) -> int:
    """The slice along the last spatial axis of (1, X, Y, Z, 1) in which most is bright."""
    return int((image > 0.1).sum(axis=(0, 1, 2, 4)).argmax())


def classes(shares: np.ndarray) -> np.ndarray:
    """(X, Y, C) uint8 shares -> one of twenty colours for the largest class, masked where there is none."""
    return np.ma.masked_where(shares.max(axis=-1) < 64, shares.argmax(axis=-1) % 20)


def draw_rows(rows: list[tuple[str, list[np.ndarray]]], file: Path, titles: list[str] | None = None) -> None:
    """One picture of rows of slices (X, Y), greys or classes, with titles of the columns."""
    import matplotlib.pyplot as plt

    width = len(rows[0][1])
    figure, axes = plt.subplots(len(rows), width, figsize=(1.7 * width, 1.8 * len(rows)), layout="constrained")
    for line, (name, slices) in zip(axes, rows, strict=True):
        for axis, image in zip(line, slices, strict=True):
            greys: dict[str, Any] = (
                {"cmap": "tab20", "vmin": 0, "vmax": 19}
                if np.ma.isMA(image)
                else {"cmap": "gray", "vmin": 0, "vmax": 1}
            )
            axis.imshow(np.rot90(image), interpolation="nearest", **greys)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name)
    for axis, title in zip(axes[0], titles or [], strict=False):
        axis.set_title(title)
    figure.savefig(file, dpi=110, pil_kwargs={"quality": 85})
    plt.close(figure)


def pairs_picture(batches: Batches, file: Path) -> None:
    """Moving, fixed and fixed's classes of a few pairs."""
    made = [batches.training(step) for step in range(PAIRS)]
    at = [fullest(batch["fixed"]) for batch in made]
    rows = [(n, [b[n][0, :, :, z, 0] for b, z in zip(made, at, strict=True)]) for n in ("moving", "fixed")]
    shares = [classes(b["fixed_labels"][0, :, :, z]) for b, z in zip(made, at, strict=True)]
    draw_rows([*rows, ("fixed's classes", shares)], file)


def steps_picture(batches: Batches, file: Path) -> None:
    """The fixed image of two steps as it is painted, with one kind of augmentation each, and with all."""
    columns: list[tuple[str, tuple[Augment, ...]]] = [
        ("none", ()),
        *((k, (k,)) for k in EVERYTHING),
        ("all", EVERYTHING),
    ]
    rows = []
    for step in (1, 2, 3):
        images = []
        for _, kinds in columns:
            changed = Batches(batches.dataset, replace(batches.config, augment=kinds))
            fixed = changed.training(step)["fixed"]
            images.append(fixed[0, :, :, fullest(fixed), 0])
        rows.append((f"pair {step}", images))
    draw_rows(rows, file, [name for name, _ in columns])


def main() -> None:
    """Draw and time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--spacing", type=float, default=4.0, help="mm [%(default)g]")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    n = int(192 / options.spacing)
    labels = TrainConfig(
        model=NetworkConfig(spacing=(options.spacing,) * 3),
        synthesis="labels",
        contrast="mixed",
        skull="mixed",
        similarity="dice",
        shape=(n, n, n),
        augment=EVERYTHING,
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, table, config in (
            ("labels", options.cohort, labels),
            ("shapes", None, replace(labels, synthesis="shapes")),
        ):
            batches = batches_of(table, config, Path(folder))
            pairs_picture(batches, options.output / f"{name}.jpg")
            if table is not None:
                steps_picture(batches, options.output / "steps.jpg")
            began = time.process_time()
            for step in range(10):
                batches.training(step)
            print(f"{name}: {(time.process_time() - began) / 10:.2f} CPU seconds a pair of {n}^3")


if __name__ == "__main__":
    main()
