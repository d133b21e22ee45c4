"""Scores of a trained network alone, on pairs of the people that its cohort's table holds back for testing.

    python benchmarks/network_scores.py RUN COHORT [--draws 3]

The people of split `test` are prepared as the training's were, onto its grid; every ordered pair of them is painted
--draws times (images that were given, once). Labels are carried by nearest neighbour at about 1 mm, by the displacement
interpolated linearly, so that Dice tells of the alignment and not of the sampling; all else is on the network's grid.
Prints JSON: means over pairs and draws, and the median seconds of a forward pass.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from r2reg.config import TrainConfig
from r2reg.evaluation.scoring import FREESURFER_STRUCTURES as STRUCTURES
from r2reg.io.tables import Subject
from r2reg.training.grids import finer, training_grid

FORWARDS = 5
NEARBY = (-4, -3, -2, 2, 3, 4)  # planes from a seam


def test_pairs(run: Path, cohort: Path, draws: int, cache: Path) -> tuple[list[dict[str, np.ndarray]], int]:
    """The test people's pairs, painted anew in each draw where the training painted, with labels of about 1 mm.

    Returns:
        batches, whose labels are FreeSurfer's ids on a grid finer than the images' by a factor; the factor.
    """
    from r2reg.networks.saving import load_model
    from r2reg.training.batches import Batches
    from r2reg.training.dataset import Dataset, read_table
    from r2reg.training.prepare import Cache, Source, foreground, load, prepare

    saved = load_model(run)
    known = saved.network.to_dict() | saved.details["training"]
    config = TrainConfig.from_flat({name: value for name, value in known.items() if name != "ndim"})
    data = saved.details["data"]
    config = replace(config, shape=tuple(data["shape"]), workers=1)
    rows = [row for row in read_table(cohort, config) if isinstance(row, Subject)]
    sources = [(row.split, Source(str(row.image or row.labels), row.image, row.labels, row.mask)) for row in rows]
    reference = next(source for split, source in sources if split == "train")
    loaded = load(reference, config)
    grid = training_grid(
        loaded.image.grid,
        foreground(loaded, config),
        config.model.spacing,
        config.shape,
        config.model.stride,
        crop=config.synthesis == "labels",
    )
    parts = max(round(float(grid.spacing.min())), 1)
    fine = finer(grid, [parts] * grid.ndim)
    store = Cache(cache, config)
    tested = [source for split, source in sources if split == "test"]
    coarse, full = ([prepare(source, reference, loaded, g, config, store) for source in tested] for g in (grid, fine))
    places = tuple((m, f) for m in range(len(tested)) for f in range(len(tested)) if m != f)
    dataset = Dataset(
        items=tuple(coarse),
        training=places,
        validation=places,
        shape=grid.shape,
        spacing=tuple(config.model.spacing),
        label_ids=tuple(data["labels"]),
        trained_ids=tuple(data["labels"]),
        given=True,
        held_out=True,
    )
    pairs = []
    for draw in range(draws if config.synthesis == "labels" else 1):
        batches = Batches(dataset, replace(config, seed=1000 + draw))
        for number, (moving, fixed) in enumerate(places):
            labels = {"moving_labels": full[moving].load("labels"), "fixed_labels": full[fixed].load("labels")}
            pairs.append(batches.validation(number) | labels)
    return pairs, parts


def forward(run: Path, shape: tuple[int, ...]) -> Any:
    """What registration computes, moving, fixed -> displacement; and the chunks of which it is made."""
    from r2reg.flow import backend
    from r2reg.networks.branches import Branches
    from r2reg.networks.saving import load_model

    saved = load_model(run)
    network = saved.build(shape)
    network.compile(jit_compile=backend.jit_compile())
    branches = Branches(saved, shape) if saved.network.two_phase else None

    tiles = branches.tiles if branches else []

    def call(moving: np.ndarray, fixed: np.ndarray) -> np.ndarray:
        inputs = list(branches(moving, fixed).values()) if branches else [moving, fixed]
        return np.asarray(network.predict_on_batch(inputs)["displacement"])

    return call, tiles


def scores(batch: dict[str, np.ndarray], displacement: np.ndarray, parts: int) -> dict[str, float]:
    """Of one pair, whose labels are `parts` times as fine as its images."""
    from keras import ops

    from r2reg.flow.resize import enlarge
    from r2reg.flow.warp import warp
    from r2reg.metrics.deformation import deformation_metrics
    from r2reg.metrics.overlap import dice

    def carried(array: np.ndarray, field: Any, mode: str) -> np.ndarray:
        return ops.convert_to_numpy(warp(ops.convert_to_tensor(array.astype(np.float32)), field, mode))

    field = ops.convert_to_tensor(displacement)
    moving, fixed = batch["moving_labels"], batch["fixed_labels"]
    moved = np.rint(carried(moving[None, ..., None], enlarge(field, parts) * parts, "nearest"))[0, ..., 0].astype(int)
    found = {
        f"dice_{stage}": dice(fixed, array, STRUCTURES)["mean"]
        for stage, array in (("affine", moving), ("network", moved))
    }
    found["mse"] = float(np.mean((carried(batch["moving"], field, "linear") - batch["fixed"]) ** 2))
    return found | deformation_metrics(displacement[0])


def seam_ratios(displacement: np.ndarray, tiles: Sequence[tuple[slice, ...]]) -> dict[str, float]:
    """How much more a field and its determinant jump across the faces of chunks than NEARBY planes beside them."""
    from r2reg.flow.reference import full_jacobian_determinant

    shape = displacement.shape[:-1]
    fields = {"seam_ratio_u": displacement, "seam_ratio_jacobian": full_jacobian_determinant(displacement)[..., None]}
    ratios = {}
    for name, field in fields.items():
        seams, beside = [], []
        for axis, n in enumerate(shape):
            jump = np.abs(np.diff(field, axis=axis)).mean(axis=tuple(a for a in range(len(shape) + 1) if a != axis))
            faces = {end for tile in tiles for end in (tile[axis].start, tile[axis].stop)} - {0, n}
            planes = {face - 1 for face in faces}  # jump[k] is from plane k to k + 1
            near = {face + k for face in planes for k in NEARBY} - planes
            seams += [jump[k] for k in planes]
            beside += [jump[k] for k in near if 0 <= k < len(jump)]
        ratios[name] = float(np.mean(seams) / np.mean(beside)) if seams else 1.0
    return ratios


def main() -> None:
    """Score one network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--cache", type=Path, help="folder for the prepared images [a temporary one]")
    options = parser.parse_args()

    from r2reg.startup import start_backend

    start_backend("cpu", 0, False, 0)
    with tempfile.TemporaryDirectory() as folder:
        batches, parts = test_pairs(options.run, options.cohort, options.draws, options.cache or Path(folder))
    call, tiles = forward(options.run, batches[0]["moving"].shape[1:-1])
    rows = []
    for batch in batches:
        displacement = call(batch["moving"], batch["fixed"])
        rows.append(scores(batch, displacement, parts) | seam_ratios(displacement[0], tiles))
    result = {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}
    seconds = []
    for _ in range(FORWARDS):
        start = time.perf_counter()
        call(batches[0]["moving"], batches[0]["fixed"])
        seconds.append(time.perf_counter() - start)
    print(json.dumps(result | {"forward_seconds": statistics.median(seconds), "pairs": len(rows)}))


if __name__ == "__main__":
    main()
