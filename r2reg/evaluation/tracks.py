"""How straight voxels travel through a network's blocks, and through the steps of a refinement.

Gai & Zhang 2021 carried over to registration: a voxel's states are its places after each of the steps.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from r2reg.config import RegisterConfig
from r2reg.errors import ModelError, OutputError, TrainingError
from r2reg.evaluation.inspection import validation_batches
from r2reg.geometry.grid import Grid, identity_points
from r2reg.io.files import atomic_path, staging
from r2reg.io.images import Volume, write_map
from r2reg.io.tables import write_table
from r2reg.metrics.tracks import line_shape_ratio, line_shape_score, optimal_transport_score

if TYPE_CHECKING:
    from r2reg.networks.saving import SavedModel
    from r2reg.registration.aligned import Aligned
    from r2reg.registration.refinement import LevelImages, MapOnGrid

Tensor = Any
log = logging.getLogger("r2reg")

MOVED = 0.1  # voxels between a track's ends; of a shorter one rounding and interpolation decide the directions
SAMPLED = 1000  # voxels that are assigned to each other: time grows with their cube
AT_ONCE = 2**15  # voxels measured together: float64 copies of their tracks stay below a gigabyte
TABLE, FIGURE = "tracks.csv", "figures/lss.png"
MAPS = {"network": "lss.nii.gz", "refinement": "lss_refinement.nii.gz"}


@dataclass(frozen=True)
class Tracks:
    """Tracks of an image's voxels through some stages.

    Attributes:
        grid: the network's.
        fixed: (*S,) the image, in [0, 1].
        where: (*S,) bool, the V voxels that are followed.
        stages: by name (n + 1, V, d) float32: displacements in voxels, before the first step and after each of n.
    """

    grid: Grid
    fixed: np.ndarray
    where: np.ndarray
    stages: dict[str, np.ndarray]


def network_states(model: SavedModel, network: Any, inputs: list[np.ndarray]) -> dict[str, list[Tensor]]:
    """Displacements (1, *S, d), in voxels, with which a network's voxels come to their places.

    Args:
        network: the model, built. inputs: of one pair.
    Returns:
        "network": 0, and what the integrator has come to after each step: of `residual` v0 and the velocity after
        each block; of `flow` the flow after each velocity's share of the time; of `scaling_squaring` the same, or of
        one velocity its exponential at as many times as there are blocks. "blocks", of `residual` alone: from v0 on.
    Raises:
        ModelError: a network without velocities at the image's voxels.
    """
    from keras import ops

    from r2reg.networks.build import block_model, velocity_model
    from r2reg.registration.network import forward_pass

    check_followed(model)
    config = model.network
    if config.integrator == "residual":
        blocks = forward_pass(block_model(network, config), inputs)
        return {"network": [ops.zeros_like(blocks[0]), *blocks], "blocks": blocks}
    velocities = forward_pass(velocity_model(network), inputs)
    return {"network": [ops.zeros_like(velocities[0]), *integrated_states(model, velocities)]}


def integrated_states(model: SavedModel, velocities: Sequence[Tensor]) -> list[Tensor]:
    """The displacement after each step of `flow` or `scaling_squaring`, see `network_states`."""
    from r2reg.flow.integrate import partial_exponentials, partial_flows, scaling_squaring

    config = model.network
    if config.integrator == "flow":
        return list(partial_flows(velocities, config.scheme, config.substeps))
    if len(velocities) > 1:
        return list(partial_exponentials(velocities, config.squarings))
    times = np.arange(1, config.blocks + 1) / config.blocks
    return [scaling_squaring(velocities[0] * float(time), config.squarings) for time in times]


def check_followed(model: SavedModel) -> None:
    """Raise ModelError unless the network integrates velocities at the image's voxels."""
    if model.network.parametric:
        raise ModelError(f"{model.folder}: {model.network.network} has no blocks that carry voxels; it has no tracks")
    if model.network.velocity_size == "half":
        raise ModelError(
            f"{model.folder}: integrates at half size, and tracks are followed at full size; "
            "train with --velocity-size full"
        )


def pair_tracks(model: SavedModel, moving: Path, fixed: Path, config: RegisterConfig) -> Tracks:
    """Tracks of a pair's voxels: through the network and, where `config.refine` asks for it, the refinement after it.

    Memory: 12 bytes for each followed voxel and step.

    Raises:
        R2RegError: one line, as a registration of the pair.
    """
    from keras import ops

    from r2reg.networks.branches import network_inputs
    from r2reg.registration.network import network_grid
    from r2reg.registration.pair import read_pair
    from r2reg.registration.pipeline import align_pair, load_fitting_model

    check_followed(model)
    pair = read_pair(moving, fixed)
    load_fitting_model(pair, config)
    model.check()
    aligned = align_pair(pair, config)
    images = aligned.images_on(network_grid(model, pair.fixed.grid))
    image = ops.convert_to_numpy(images.fixed)
    where = foreground(image[0, ..., 0])
    inputs = network_inputs(model, ops.convert_to_numpy(images.moving), image)
    states = network_states(model, model.build(images.grid.shape), inputs)
    stages = {name: followed(stage, where) for name, stage in states.items()}
    if config.refine != "none":
        stages["refinement"] = np.stack(list(refinement_states(model, aligned, images, where, config)))
    return Tracks(images.grid, image[0, ..., 0], where, stages)


def refinement_states(
    model: SavedModel, aligned: Aligned, images: LevelImages, where: np.ndarray, config: RegisterConfig
) -> list[np.ndarray]:
    """Displacements (V, d), in voxels of the network's grid: the network's map, and the warp after each step.

    Args:
        images: the pair on the network's grid. where: (*S,) bool, the voxels that are followed.
    """
    from r2reg.flow.warp import compose
    from r2reg.registration.deformation import terms
    from r2reg.registration.network import Estimator
    from r2reg.registration.refinement import carry_displacement, levels_from, refine

    start = Estimator(model, images.grid)(images)
    network = start.phi.displacement
    states = [followed([network], where)[0]]

    def observe(increment: MapOnGrid) -> None:
        inner = carry_displacement(increment.phi.displacement, increment.grid, images.grid)
        states.append(followed([compose(network, inner)], where)[0])

    full = aligned.pair.fixed.grid.canonical()
    levels = levels_from(config.refine, full, model.network)
    refine(terms([aligned], config), full, levels, start, log.info, observe)
    return states


def validation_tracks(run: Path, model: SavedModel) -> Iterator[Tracks]:
    """Tracks through the network of the voxels of each pair that it was validated on.

    Prepared images have no place in the world any more: the grid's first voxel is its origin.

    Raises:
        ModelError, TrainingError: as `validation_batches`.
    """
    check_followed(model)
    try:
        batches = validation_batches(run, model)
    except TrainingError:
        raise TrainingError(f"{run}: the images that it was validated on are gone; give --moving and --fixed") from None
    network = model.build(batches.view.shape)
    grid = Grid(batches.view.shape, np.diag([*model.network.spacing, 1.0]))
    for k in range(len(batches.dataset.validation)):
        batch = batches.validation(k)
        fixed = batch["fixed"][0, ..., 0]
        where = foreground(fixed, batch["mask"][0, ..., 0] > 0 if batches.masked else None)
        states = network_states(model, network, [batch[tensor.name] for tensor in network.inputs])
        yield Tracks(grid, fixed, where, {name: followed(stage, where) for name, stage in states.items()})


def foreground(image: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """(*S,) bool: the mask, or what is brighter than the mean as in training; all of an image without any."""
    inside = image > image.mean() if mask is None else mask
    return inside if inside.any() else np.ones(image.shape, bool)


def followed(states: Sequence[Tensor], where: np.ndarray) -> np.ndarray:
    """(n, V, d) of n displacements (1, *S, d), at the voxels that `where` says."""
    from keras import ops

    return np.stack([ops.convert_to_numpy(state)[0][where] for state in states])


def measured(states: np.ndarray, points: np.ndarray, seed: int = 0) -> tuple[dict[str, Any], np.ndarray]:
    """Scores of one stage, over the voxels that it moves by more than MOVED.

    Args:
        states: (n + 1, V, d) displacements, voxels. points: (V, d) the voxels' own places.
    Returns:
        "steps", "voxels", "lss_mean", "lss_p95", "lsr_mean", "lsr_p95" and "ots", of up to SAMPLED voxels; NaN where
        nothing moves. Means leave out tracks whose steps cancel out, of which the ratio is infinite. Voxels drawn
        from a whole image lie so far apart that OTS is 1 unless they move by as much.
        And the line shape score of each voxel, (V,), 0 of those that stay.
    """
    moves = np.flatnonzero(np.linalg.norm(states[-1] - states[0], axis=-1) > MOVED)
    scores, ratios = np.zeros(len(points)), np.zeros(len(points))
    for part in np.array_split(moves, max(1, -(-len(moves) // AT_ONCE))) if len(moves) else []:
        scores[part], ratios[part] = line_shape_score(states[:, part]), line_shape_ratio(states[:, part])
    found: dict[str, Any] = {"steps": len(states) - 1, "voxels": len(moves)}
    for name, values in (("lss", scores[moves]), ("lsr", ratios[moves])):
        finite = values[np.isfinite(values)]
        found[f"{name}_mean"] = float(finite.mean()) if len(finite) else math.nan
        found[f"{name}_p95"] = float(np.percentile(finite, 95)) if len(finite) else math.nan
    drawn = np.random.default_rng(seed).choice(moves, min(SAMPLED, len(moves)), replace=False)
    before, after = (points[drawn] + states[k, drawn] for k in (0, -1))
    found["ots"] = optimal_transport_score(before, after) if len(drawn) else math.nan
    return found, scores


def score_pair(tracks: Tracks) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """Of each stage its scores, and the line shape score over the image (*S,) float32, 0 where none is measured."""
    points = identity_points(tracks.where.shape)[tracks.where]
    rows, maps = {}, {}
    for name, states in tracks.stages.items():
        rows[name], scores = measured(states, points)
        maps[name] = np.zeros(tracks.where.shape, np.float32)
        maps[name][tracks.where] = scores
    return rows, maps


def inspect_tracks(
    run: Path,
    pair: tuple[Path, Path] | None = None,
    config: RegisterConfig | None = None,
    folder: Path | None = None,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """What `r2reg inspect --tracks` says: the scores of each stage, means over pairs.

    Args:
        run: the model's folder. pair: moving and fixed; None: the run's validation pairs, through the network alone.
        config: how the pair is registered, but for the model.
        folder: gets tracks.csv, lss.nii.gz and figures/lss.png, and lss_refinement.nii.gz of a refinement; the maps
            and the figure are the first pair's.
    Raises:
        R2RegError: one line.
    """
    from r2reg.networks.saving import load_model

    model = load_model(run)
    if folder is not None:
        check_output_folder(folder, overwrite)
    if pair is None:
        of_pairs = validation_tracks(run, model)
    else:
        settings = (config or RegisterConfig()).to_dict() | {"model": str(run)}
        of_pairs = iter([pair_tracks(model, *pair, RegisterConfig.from_dict(settings))])
    first = next(of_pairs)
    scored, maps = score_pair(first)
    rows = [scored, *(score_pair(tracks)[0] for tracks in of_pairs)]
    stages = _plain({name: _means([row[name] for row in rows]) for name in scored})
    if folder is not None:
        _write(folder, first, stages, maps)
    return {"pairs": len(rows), "stages": stages}


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Over the pairs in which anything moves; voxels are summed up."""
    moving = [row for row in rows if row["voxels"]] or rows
    found: dict[str, Any] = {name: float(np.mean([row[name] for row in moving])) for name in rows[0]}
    return found | {"steps": rows[0]["steps"], "voxels": sum(row["voxels"] for row in rows)}


def _plain(stages: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """With None for numbers that do not exist, where nothing moves."""
    return {
        stage: {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        for stage, row in stages.items()
    }


def check_output_folder(folder: Path, overwrite: bool) -> None:
    """Raise OutputError, before the work, unless what is measured can be written."""
    there = [name for name in (TABLE, FIGURE, *MAPS.values()) if (folder / name).exists()]
    if there and not overwrite:
        raise OutputError(f"{folder}: holds {there[0]}; give --overwrite to replace what is there, or another folder")
    with staging(folder):
        pass


def _write(folder: Path, tracks: Tracks, stages: dict[str, dict[str, Any]], maps: dict[str, np.ndarray]) -> None:
    """The maps, the figure, and last the table."""
    (folder / FIGURE).parent.mkdir(parents=True, exist_ok=True)
    shown = {name: maps[name] for name in MAPS if name in maps}
    for name, file in MAPS.items():
        if name in shown:
            write_map(folder / file, shown[name], tracks.grid)
        else:
            (folder / file).unlink(missing_ok=True)  # of an earlier pair
    with atomic_path(folder / FIGURE) as path:
        draw(path, tracks, shown)
    write_table(folder / TABLE, [{"stage": name, **row} for name, row in stages.items()])


def draw(path: Path, tracks: Tracks, maps: dict[str, np.ndarray]) -> None:
    """A slice through the middle of fixed, and beside it the line shape scores over the same slice."""
    from matplotlib.figure import Figure

    from r2reg.report.views import slices, views

    view = next(iter(views(tracks.fixed, tracks.grid).values()))  # a volume's axial one
    picture = slices(Volume(tracks.fixed, tracks.grid), view)[0]
    figure = Figure(figsize=(3.6 * (1 + len(maps)), 4), layout="constrained")
    first, *others = figure.subplots(1, 1 + len(maps), squeeze=False)[0]
    first.imshow(picture, cmap="gray", vmin=0, vmax=1)
    first.set_title("fixed")
    for axes, (name, scores) in zip(others, maps.items(), strict=True):
        shown = slices(Volume(scores, tracks.grid), view, (), "nearest")[0]
        most = np.percentile(scores[scores > 0], 95) if (scores > 0).any() else 1
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
        colours = axes.imshow(np.ma.masked_equal(shown, 0), cmap="viridis", vmin=1, vmax=max(most, 1.01))
        axes.set_title(f"LSS, {name}")
        figure.colorbar(colours, ax=axes, shrink=0.7, extend="max")
    for axes in (first, *others):
        axes.set_axis_off()
    figure.savefig(path, dpi=110)
