"""Dice against seconds: what a refinement reaches from the affine, and from where a network leads.

    python benchmarks/start_gain.py PAIRS.csv -o start_gain.csv [--model brain] [--pairs 4] [--threads 1]

PAIRS is a table for `r2reg benchmark` with labels, of images of one contrast. Of each pair the affine is found once;
then the default refinement runs twice, and along it Dice of FreeSurfer's 30 structures is scored (labels by nearest
neighbour). Seconds are those of the network's stage, as `register` runs it, and of the steps, once all has been
compiled by runs that do not count; the affine's are common to both and left out, and so is the scoring. Run it alone.
Prints for each pair when both runs get to what either has reached at its end, and draws both, as an SVG beside the CSV.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

from results import append_row, markdown, read_rows

from r2reg.config import RegisterConfig
from r2reg.evaluation.scoring import FREESURFER_STRUCTURES
from r2reg.flow.diffeomorphism import follow
from r2reg.geometry.transforms import Displacement
from r2reg.metrics.overlap import dice
from r2reg.registration.aligned import Aligned
from r2reg.registration.contrast import in_contrasts
from r2reg.registration.deformation import from_network, terms
from r2reg.registration.network import Estimator, network_grid
from r2reg.registration.pair import read_pair
from r2reg.registration.pipeline import align_pair
from r2reg.registration.refinement import MapOnGrid, levels_from, refine
from r2reg.resampling import Resampler

COLUMNS = ("id", "start", "step", "seconds", "dice")
SCORED_EVERY = 10  # steps


def overlap(aligned: Aligned, found: MapOnGrid | None) -> float:
    """Mean Dice of the structures after a map and the affine."""
    from keras import ops

    pair = aligned.pair
    assert pair.fixed_labels is not None
    assert pair.moving_labels is not None
    grid = pair.fixed.grid
    warp = []
    if found is not None:
        warp = [Displacement.from_voxels(grid, ops.convert_to_numpy(found.on(grid).phi.displacement)[0])]
    moved = Resampler(grid, [*warp, aligned.affine])(pair.moving_labels, "nearest", 0)
    return float(dice(pair.fixed_labels.array, moved, FREESURFER_STRUCTURES)["mean"])


def along(aligned: Aligned, network: Estimator | None, config: RegisterConfig) -> list[tuple[int, float, float]]:
    """(steps so far, seconds so far, Dice) along a refinement; the last one is its result."""
    full = aligned.pair.fixed.grid.canonical()
    lost, taken, seen = 0.0, 0, []
    began = time.perf_counter()
    start, pairs = None, [aligned]
    if network is not None:
        images = aligned.images_on(network.grid)
        start, _ = from_network(network, images, False)
        pairs = in_contrasts(aligned, images, start)

    def score(found: MapOnGrid | None) -> None:
        nonlocal lost
        paused = time.perf_counter()
        seen.append((taken, paused - began - lost, overlap(aligned, found)))
        lost += time.perf_counter() - paused

    def observe(increment: MapOnGrid) -> None:
        nonlocal taken
        taken += 1
        if taken % SCORED_EVERY == 0:
            score(increment if start is None else followed(start, increment))

    score(start)
    levels = levels_from("default", full, None if network is None else network.config)
    score(refine(terms(pairs, config), full, levels, start, observe=observe))
    return seen


def followed(start: MapOnGrid, increment: MapOnGrid) -> MapOnGrid:
    """start o increment on the finer of their grids."""
    grid = min(start.grid, increment.grid, key=lambda grid: grid.spacing.min())
    return MapOnGrid(follow(start.on(grid).phi, increment.on(grid).phi), grid)


def main() -> None:
    """Score all pairs, print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("start_gain.csv"))
    parser.add_argument("--model", default="brain")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    from r2reg.networks.saving import load_model
    from r2reg.released import find_model
    from r2reg.startup import start_backend
    from r2reg.threads import set_threads

    set_threads(options.threads)
    start_backend("cpu", options.threads, False, 0)
    config = RegisterConfig(threads=options.threads)
    model = load_model(find_model(options.model))
    options.output.unlink(missing_ok=True)
    told = []
    for row in read_rows(options.table)[: options.pairs]:
        name = row.pop("id")
        pair = read_pair(**{key: options.table.parent / file for key, file in row.items()})
        aligned = align_pair(pair, config)
        grid = network_grid(model, pair.fixed.grid)
        starts = {"affine": None, "network": Estimator(model, grid)}
        for first in starts.values():
            along(aligned, first, config)  # compiles, and looks at what is known of a pair once
        runs = {}
        for label, first in starts.items():
            runs[label] = along(aligned, first, config)
            for step, seconds, score in runs[label]:
                append_row(
                    options.output,
                    COLUMNS,
                    {"id": name, "start": label, "step": step, "seconds": seconds, "dice": score},
                )
        told += comparison(name, **runs)
    draw(read_rows(options.output), options.output.with_suffix(".svg"))
    print(markdown(["pair", "Dice", "from the network, s", "from the affine, s"], told))


def comparison(
    name: str, affine: list[tuple[int, float, float]], network: list[tuple[int, float, float]]
) -> Iterator[list[str]]:
    """When both runs reach what the one from the affine has at its end, and what the one from the network has."""
    for wanted in (affine[-1][2], network[-1][2]):
        when = [next((f"{s:.1f}" for _, s, score in run if score >= wanted), "never") for run in (network, affine)]
        yield [name, f"{wanted:.3f}", *when]


def draw(rows: list[dict[str, str]], path: Path) -> None:
    """Dice over seconds, a line per pair and start."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for k, name in enumerate(dict.fromkeys(row["id"] for row in rows)):
        for start, style in (("network", "-"), ("affine", "--")):
            run = [row for row in rows if (row["id"], row["start"]) == (name, start)]
            axes.plot(
                [float(row["seconds"]) for row in run],
                [float(row["dice"]) for row in run],
                style,
                color=f"C{k}",
                label=f"{name.replace('_', ' ')}, from the {start}",
            )
    axes.set(xlabel="seconds after the affine", ylabel="mean Dice of 30 structures")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, bbox_inches="tight")


if __name__ == "__main__":
    main()
