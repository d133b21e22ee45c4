"""Registration pairs painted from whole-head label maps: two people, grey images, an unknown affine between them.

    python benchmarks/painted_pairs.py LABELS -o DIR --pairs 10 --contrast t1 --subjects 9-16 --seed 0

LABELS is a folder of FreeSurfer maps (*.nii.gz, conformed: 256^3, 1 mm, LIA). Each label map is resampled once, by
nearest neighbour, to voxels of --spacing, and painted on the final grid: class means and texture, partial volume, a
bias field, noise. Fixed keeps its person's pose; moving is rotated, scaled, sheared and shifted. The background
is exactly 0.

DIR gets `pairs.csv` (paths relative to it, as `r2reg` reads tables), `recipes.csv` (a row per pair: seed, people,
and how moving was posed), the images and labels, and per pair `ID_pose.mat` (ITK: moving's points -> the original
map's). A pair's anatomy, pose and noise depend on its seed alone: sets of different contrast are otherwise alike.
With --skull greys and noise are others.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from r2reg.geometry.grid import Array, Grid
from r2reg.geometry.transforms import Affine
from r2reg.io.images import Volume, read_labels, write_image
from r2reg.io.transforms import write_affine
from r2reg.resampling import resample
from r2reg.training.synthesis import T1_JITTER, Paint, draw, paint, strip_skull, tissue

SHAPE = (160, 192, 224)  # mm along the map's axes: the usual crop around a brain in L, I, A
# Mean grey per FreeSurfer id (left) beside T1's own; our reading of textbook images. T2: fluid brightest, grey above
# white matter, iron-rich pallidum darkest, flow in vessels black. FLAIR: the same with fluid dark. CT, in a window for
# brains: fluid dark, grey a little above white matter, all else alike.
MEANS = {
    "t2": {
        2: 0.38, 3: 0.58, 4: 0.95, 5: 0.92, 7: 0.40, 8: 0.60, 10: 0.47, 11: 0.54, 12: 0.50, 13: 0.30, 14: 0.93,
        15: 0.93, 16: 0.43, 17: 0.60, 18: 0.59, 24: 0.95, 26: 0.55, 28: 0.42, 30: 0.20, 31: 0.75, 72: 0.92,
        85: 0.45,
    },
    "flair": {
        2: 0.50, 3: 0.68, 4: 0.12, 5: 0.15, 7: 0.52, 8: 0.68, 10: 0.58, 11: 0.64, 12: 0.60, 13: 0.45, 14: 0.12,
        15: 0.12, 16: 0.55, 17: 0.72, 18: 0.70, 24: 0.10, 26: 0.65, 28: 0.54, 30: 0.25, 31: 0.70, 72: 0.12,
        85: 0.55,
    },
    "ct": {
        2: 0.42, 3: 0.56, 4: 0.16, 5: 0.18, 7: 0.44, 8: 0.54, 10: 0.54, 11: 0.56, 12: 0.55, 13: 0.53, 14: 0.16,
        15: 0.16, 16: 0.46, 17: 0.54, 18: 0.54, 24: 0.14, 26: 0.55, 28: 0.48, 30: 0.60, 31: 0.60, 72: 0.16,
        85: 0.48,
    },
}  # fmt: skip
LOOKS = ("t1", *MEANS)
CONTRASTS = {a if a == b else f"{a}-{b}": (a, b) for a in LOOKS for b in LOOKS}  # fixed's, moving's
ROTATION = np.deg2rad(15)  # largest angle, about a random axis
STRETCH = 0.1  # largest scale along an axis, up or down, and largest shear
SHIFT_MM = 15.0  # largest length
OFF_CENTRE_MM = 4.0  # of the field of view, along each axis
BIAS = (0.1, 0.3)  # largest |log| of the bias field: grey values change by up to 10 to 35 %
BIAS_KNOTS = 4  # control points along an axis: one or two waves over the head
RUNS_DOWN = (16, 24)  # brain-stem and CSF go on into the spine, which every scan cuts off
FITTING, DRAWS = 0.999, 1000  # share of the brain that a field of view holds; draws until it does


@dataclass(frozen=True)
class Pose:
    """How a brain was moved about its centre.

    Args:
        turn: (3,) rotation vector, radians. scales: (3,). shears: (3,), upper triangle. shift: (3,) mm.
        off_centre: (3,) mm, the brain's centre to the view's.
    """

    turn: Array
    scales: Array
    shears: Array
    shift: Array
    off_centre: Array

    def to_original(self, centre: Array) -> Affine:
        """RAS mm: points of the moved brain -> points of the original one, whose centre is given."""
        from scipy.spatial.transform import Rotation

        shear = np.eye(3)
        shear[np.triu_indices(3, 1)] = self.shears
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_rotvec(self.turn).as_matrix() @ shear @ np.diag(self.scales)
        matrix[:3, 3] = centre - matrix[:3, :3] @ (centre + self.shift)
        return Affine(matrix)


def draw_pose(rng: np.random.Generator) -> Pose:
    """A random pose within the bounds above."""
    axis, way = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    return Pose(
        turn=axis * rng.uniform(0, ROTATION),
        scales=rng.uniform(1 - STRETCH, 1 + STRETCH, 3),
        shears=rng.uniform(-STRETCH, STRETCH, 3),
        shift=way * rng.uniform(0, SHIFT_MM),
        off_centre=rng.uniform(-OFF_CENTRE_MM, OFF_CENTRE_MM, 3),
    )


def brain_points(labels: Volume) -> Array:
    """(N, 3) RAS mm of every 16th voxel or so of the brain proper."""
    index = np.argwhere((labels.array > 0) & ~np.isin(labels.array, RUNS_DOWN))[::16]
    return labels.grid.index_to_ras(index.astype(np.float64))


def view(like: Grid, centre: Array, shape: Sequence[int], spacing: float) -> Grid:
    """A grid of cubic voxels with the axes of another, about a centre (RAS mm)."""
    affine = np.eye(4)
    affine[:3, :3] = like.directions * spacing
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(tuple(shape), affine)


def share_inside(grid: Grid, points: Array) -> float:
    """Share of RAS points within a grid."""
    index = grid.ras_to_index(points)
    return float(((index >= 0) & (index <= np.array(grid.shape) - 1)).all(axis=-1).mean())


def posed_view(
    rng: np.random.Generator, labels: Volume, shape: Sequence[int], spacing: float
) -> tuple[Pose, Affine, Grid]:
    """A pose under which the brain fits into a view, its map to the original, and that view.

    Raises:
        SystemExit: no draw fits: the brain is too large for the shape.
    """
    points = brain_points(labels)
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    for _ in range(DRAWS):
        pose = draw_pose(rng)
        to_original = pose.to_original(centre)
        grid = view(labels.grid, centre + pose.shift + pose.off_centre, shape, spacing)
        if share_inside(grid, to_original.inverse().map_points(points)) >= FITTING:
            return pose, to_original, grid
    raise SystemExit(f"{labels.path}: does not fit into {tuple(shape)} voxels of {spacing:g} mm: is it a brain's map?")


def plain_view(labels: Volume, shape: Sequence[int], spacing: float = 1.0) -> Grid:
    """A view of the brain as it lies, its first voxel about one of the map's own."""
    points = brain_points(labels)
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    half = spacing * (np.array(shape) - 1) / 2
    first = np.rint(labels.grid.ras_to_index(centre) - half)
    return view(labels.grid, labels.grid.index_to_ras(first + half), shape, spacing)


def bias_field(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """A smooth factor about 1, as a receive coil makes it: cubic between few control points; float32."""
    from scipy.ndimage import zoom

    knots = rng.normal(size=(BIAS_KNOTS,) * 3).astype(np.float32)
    field = zoom(knots, np.array(shape) / BIAS_KNOTS, order=3, mode="nearest", grid_mode=True)
    return np.exp(rng.uniform(*BIAS) * field / np.abs(field).max()).astype(np.float32)


def draw_contrast(rng: np.random.Generator, ids: Sequence[int], contrast: str) -> Paint:
    """A recipe of a contrast; the others differ from that of T1 in their class means alone."""
    recipe = draw(rng, ids, "t1")
    jitter = rng.normal(0, T1_JITTER, len(MEANS["t2"]))
    if contrast == "t1":
        return recipe
    greys = MEANS[contrast]
    means = {key: max(mean + float(j), 0.0) for (key, mean), j in zip(greys.items(), jitter, strict=True)}
    return replace(recipe, means={k: means.get(tissue(k), mean) for k, mean in recipe.means.items()})


def scan(rng: np.random.Generator, labels: np.ndarray, ids: Sequence[int], contrast: str) -> np.ndarray:
    """A scan of a label map, float32, 0 outside; grey values about 0 to 1, around the brain at random."""
    image = paint(labels, draw_contrast(rng, ids, contrast))
    return np.where(labels > 0, image * bias_field(rng, labels.shape), np.float32(0))


def choose_people(rng: np.random.Generator, people: Sequence[int], pairs: int) -> list[tuple[int, int]]:
    """Different (moving, fixed) pairs; all people take part before one does so again."""
    chosen: list[tuple[int, int]] = []
    while len(chosen) < pairs:
        order = rng.permutation(people).tolist()
        fresh = [pair for pair in zip(order[::2], order[1::2], strict=False) if pair not in chosen]
        chosen += fresh[: pairs - len(chosen)]
    return chosen


def make_pair(
    name: str, files: tuple[Path, Path], seed: int, contrast: str, spacing: float, folder: Path, skull: bool
) -> dict[str, str | float]:
    """Write one pair; returns its row of recipes.csv but for the people."""
    heads = [read_labels(path) for path in files]
    moving, fixed = brains = [volume.with_array(strip_skull(volume.array)) for volume in heads]
    shown = heads if skull else brains
    ids = sorted({label for volume in shown for label in np.unique(volume.array).tolist()})
    rngs = np.random.default_rng(seed).spawn(3)
    shape = [round(length / spacing) for length in SHAPE]
    pose, to_original, moving_view = posed_view(rngs[0], moving, shape, spacing)
    fixed_view = plain_view(fixed, shape, spacing)
    sides = {"fixed": (shown[1], fixed_view, []), "moving": (shown[0], moving_view, [to_original])}
    for (side, (volume, grid, transforms)), rng, look in zip(sides.items(), rngs[1:], CONTRASTS[contrast], strict=True):
        labels = resample(volume, grid, transforms, "nearest")
        where = Volume(labels, grid)
        write_image(folder / f"{name}_{side}_labels.nii.gz", strip_skull(labels).astype(np.int16), where)
        write_image(folder / f"{name}_{side}.nii.gz", scan(rng, labels, ids, look), where)
    write_affine(folder / f"{name}_pose.mat", to_original)
    return {"id": name, "seed": seed, "contrast": contrast, "skull": skull, "spacing": spacing, **describe(pose)}


def describe(pose: Pose) -> dict[str, str | float]:
    """A pose as cells of a table."""
    return {
        "rotation_deg": round(float(np.rad2deg(np.linalg.norm(pose.turn))), 2),
        "shift_mm": round(float(np.linalg.norm(pose.shift)), 2),
        "scales": " ".join(f"{scale:.3f}" for scale in pose.scales),
        "shears": " ".join(f"{shear:.3f}" for shear in pose.shears),
    }


def write_rows(path: Path, rows: Sequence[Mapping[str, str | float]]) -> None:
    """A CSV of rows that share their columns."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def number_range(text: str) -> range:
    """ "9-16" -> range(9, 17); "3" -> range(3, 4)."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> None:
    """Choose the people, make the pairs, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, help="folder of label maps")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--contrast", choices=CONTRASTS, default="t1", help="t1-ct: fixed T1-like, moving CT-like")
    parser.add_argument("--subjects", type=number_range, metavar="A-B", help="maps A to B by name, from 1 [all]")
    parser.add_argument("--skull", action="store_true", help="show the head around the brain, as far as the view goes")
    parser.add_argument("--spacing", type=float, default=1.0, help="voxel size of the images, mm")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    files = dict(enumerate(sorted(options.labels.glob("*.nii.gz")), start=1))
    people = [n for n in (options.subjects or files) if n in files]
    if not 0.5 <= options.spacing <= 8:
        parser.error(f"--spacing {options.spacing:g}: voxels of 0.5 to 8 mm show a brain")
    if len(people) < 2 or options.pairs > len(people) * (len(people) - 1):
        parser.error(f"{options.labels}: {len(people)} maps are too few for {options.pairs} different pairs")
    options.output.mkdir(parents=True, exist_ok=True)
    pairs, recipes = [], []
    chosen = choose_people(np.random.default_rng(options.seed), people, options.pairs)
    seeds = np.random.SeedSequence(options.seed).generate_state(options.pairs)
    for (m, f), seed in zip(chosen, seeds.tolist(), strict=True):
        name = f"{m:02d}_to_{f:02d}"
        paths = (files[m], files[f])
        row = make_pair(name, paths, seed, options.contrast, options.spacing, options.output, options.skull)
        recipes.append(row | {"moving_map": files[m].name, "fixed_map": files[f].name})
        columns = {key: f"{name}_{key}.nii.gz" for key in ("moving", "fixed", "moving_labels", "fixed_labels")}
        pairs.append({**columns, "id": name})
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    write_rows(options.output / "pairs.csv", pairs)
    write_rows(options.output / "recipes.csv", recipes)


if __name__ == "__main__":
    main()
