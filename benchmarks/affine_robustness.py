"""The affine search from random starts of one brain pair: how often it ends near the truth.

    python benchmarks/affine_robustness.py LABELS_FOLDER --subjects 01 02 --starts 50 --seed 0 -o starts.csv

Fixed and moving are painted from the label maps subject_ID.nii.gz of two people, the skull left out. Each start
turns moving by up to 45 degrees about any axis, shifts it by up to 40 mm, scales it by .8 to 1.25, paints it like T1
or like T2, and for half of the starts cuts the view of one of the two images so that up to half of the brain is lost.
The truth is the start's own transform after a reference affine of the untouched pair: the least-squares affine of
the centroids of 30 structures (which knows nothing of the search), or the search's own result (--reference).
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from painted_pairs import scan
from scipy.ndimage import center_of_mass
from scipy.spatial.transform import Rotation

from r2reg.errors import R2RegError
from r2reg.geometry.grid import Array, Grid
from r2reg.geometry.transforms import Affine
from r2reg.io.images import Volume, read_labels
from r2reg.preprocessing.affine.initial import initial_affine
from r2reg.resampling import resample
from r2reg.training.synthesis import strip_skull

# The structures over which papers of the field report mean Dice, FreeSurfer ids.
STRUCTURES = [2, 3, 4, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 24, 28, 31, 41, 42, 43, 46, 47, 49, 50, 51, 52, 53,
              54, 60, 63]  # fmt: skip
LARGEST_TURN, LARGEST_SHIFT, SCALES = 45.0, 40.0, (0.8, 1.25)  # degrees, mm
CUT_CASES, LARGEST_CUT = 0.5, 0.5  # share of the starts; share of the brain, along an array axis
NEAR_MM, NEAR_DEGREES = 3.0, 3.0
MARGIN = 10  # voxels around the brain in fixed's view
BRAIN_POINTS = 20_000


@dataclass(frozen=True, kw_only=True)
class Start:
    """What is done to one pair: rotation vector (degrees), shift (mm), scale, which view is cut and how."""

    rotation: Array
    shift: Array
    scale: float
    contrast: str
    cut: str  # none, fixed or moving
    cut_axis: int
    cut_side: int
    cut_share: float

    def about(self, center: Array) -> Affine:
        """x -> center + scale * R (x - center) + shift, RAS mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.scale * Rotation.from_rotvec(self.rotation, degrees=True).as_matrix()
        matrix[:3, 3] = center + self.shift - matrix[:3, :3] @ center
        return Affine(matrix)


def draw_start(rng: np.random.Generator) -> Start:
    """Angle, length of the shift, logarithm of the scale and cut are uniform; axes and directions are, too."""
    axis, direction = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    return Start(
        rotation=axis * rng.uniform(0, LARGEST_TURN),
        shift=direction * rng.uniform(0, LARGEST_SHIFT),
        scale=float(np.exp(rng.uniform(*np.log(SCALES)))),
        contrast=str(rng.choice(["t1", "t2"])),
        cut=str(rng.choice(["fixed", "moving"])) if rng.uniform() < CUT_CASES else "none",
        cut_axis=int(rng.integers(3)),
        cut_side=int(rng.integers(2)),
        cut_share=float(rng.uniform(0, LARGEST_CUT)),
    )


def window(volume: Volume, low: Array, high: Array) -> Volume:
    """The voxels low <= index < high, where they are."""
    low, high = np.maximum(low, 0).astype(int), np.minimum(high, volume.grid.shape).astype(int)
    affine = volume.grid.affine.copy()
    affine[:3, 3] = volume.grid.index_to_ras(low)
    part = volume.array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return Volume(np.ascontiguousarray(part), Grid(part.shape, affine), volume.path)


def extent(inside: np.ndarray) -> tuple[Array, Array]:
    """First index and one past the last of what is inside, along each axis."""
    ends = [np.flatnonzero(inside.any(axis=tuple(k for k in range(3) if k != axis)))[[0, -1]] for axis in range(3)]
    return np.array([e[0] for e in ends]), np.array([e[1] + 1 for e in ends])


def cut_view(volume: Volume, start: Start) -> Volume:
    """The view with a share of what is not 0 cut away along one array axis."""
    others = tuple(k for k in range(3) if k != start.cut_axis)
    before = np.cumsum((volume.array > 0).sum(axis=others)) / np.count_nonzero(volume.array > 0)
    low, high = np.zeros(3), np.array(volume.grid.shape, float)
    if start.cut_side:
        high[start.cut_axis] = np.searchsorted(before, 1 - start.cut_share)
    else:
        low[start.cut_axis] = np.searchsorted(before, start.cut_share)
    return window(volume, low, high)


def brain_labels(path: Path) -> Volume:
    """The label map without skull, in a view of its brain and a margin."""
    labels = read_labels(path)
    stripped = labels.with_array(strip_skull(labels.array))
    low, high = extent(stripped.array > 0)
    return window(stripped, low - MARGIN, high + MARGIN)


def centroid_affine(fixed: Volume, moving: Volume) -> Affine:
    """Least-squares affine from the centroids of fixed's structures to those of moving."""
    shared = [k for k in STRUCTURES if (fixed.array == k).any() and (moving.array == k).any()]
    centers = [v.grid.index_to_ras(center_of_mass(v.array > 0, v.array, shared)) for v in (fixed, moving)]
    from_points = np.column_stack([centers[0], np.ones(len(shared))])
    solution = np.linalg.lstsq(from_points, centers[1], rcond=None)[0]
    return Affine(np.vstack([solution.T, [0, 0, 0, 1]]))


def brain_points(image: Volume) -> Array:
    """(n, 3) places of the brain in an image's view, RAS mm."""
    inside = np.argwhere(image.array > 0)
    return image.grid.index_to_ras(inside[:: max(1, len(inside) // BRAIN_POINTS)])


def difference(found: Affine, truth: Affine, points: Array) -> tuple[float, float]:
    """Mean distance in mm of where points are carried, and the angle in degrees between the maps' rotations."""
    gap = np.linalg.norm(found.map_points(points) - truth.map_points(points), axis=-1).mean()
    u, _, vt = np.linalg.svd(found.matrix[:3, :3] @ np.linalg.inv(truth.matrix[:3, :3]))
    return float(gap), float(np.rad2deg(Rotation.from_matrix(u @ vt).magnitude()))


@dataclass(frozen=True)
class Brains:
    """Painted images of the pair, their views as they are, and the reference affine of fixed to moving points."""

    fixed: Volume
    moving: dict[str, Volume]
    view: Grid
    reference: Affine

    def started(self, start: Start) -> tuple[Volume, Volume, Affine]:
        """Fixed and moving after a start, and the true affine between them."""
        moving = self.moving[start.contrast]
        placed = start.about(moving.grid.index_to_ras(center_of_mass(moving.array > 0)))
        moved = Volume(resample(moving, self.view, [placed.inverse()], "linear", 0), self.view)
        truth = Affine(placed.matrix @ self.reference.matrix)
        if start.cut == "moving":
            moved = cut_view(moved, start)
        return (cut_view(self.fixed, start) if start.cut == "fixed" else self.fixed), moved, truth


def row_of(number: int, brains: Brains, start: Start, threads: int) -> dict[str, object]:
    """One start, searched and compared with the truth."""
    fixed, moving, truth = brains.started(start)
    begin, begin_cpu = time.perf_counter(), time.process_time()
    try:
        found = initial_affine(fixed, moving, "affine", threads=threads)
        seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - begin_cpu
        mm, degrees = difference(found, truth, brain_points(fixed))
    except R2RegError as error:
        print(f"start {number}: {error}", file=sys.stderr)
        mm = degrees = seconds = cpu_seconds = float("inf")
    whole = (brains.moving[start.contrast].array > 0).sum() * start.scale**3
    lost = {"fixed": 1 - (fixed.array > 0).sum() / (brains.fixed.array > 0).sum(),
            "moving": 1 - (moving.array > 0).sum() / whole}  # fmt: skip
    return {
        "start": number,
        "rotation_degrees": round(float(np.linalg.norm(start.rotation)), 1),
        "shift_mm": round(float(np.linalg.norm(start.shift)), 1),
        "scale": round(start.scale, 3),
        "cut": start.cut,
        **{f"{name}_brain_out_of_view": round(max(float(share), 0.0), 2) for name, share in lost.items()},
        "contrast": start.contrast,
        "error_mm": round(mm, 2),
        "error_degrees": round(degrees, 2),
        "near": mm <= NEAR_MM and degrees <= NEAR_DEGREES,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
    }


def prepare(folder: Path, subjects: list[str], reference: str, threads: int) -> Brains:
    """Paint the pair and find the reference; say how far the two ways to find it are apart."""
    rng = np.random.default_rng(0)
    fixed_path, moving_path = (folder / f"subject_{name}.nii.gz" for name in subjects)
    fixed_labels, moving_labels = brain_labels(fixed_path), brain_labels(moving_path)
    ids = sorted(set(np.unique(fixed_labels.array)) | set(np.unique(moving_labels.array)))
    fixed = fixed_labels.with_array(scan(rng, fixed_labels.array, ids, "t1"))
    moving = {k: moving_labels.with_array(scan(rng, moving_labels.array, ids, k)) for k in ("t1", "t2")}
    centroids = centroid_affine(fixed_labels, moving_labels)
    searched = {k: initial_affine(fixed, image, "affine", threads=threads) for k, image in moving.items()}
    for name, other in searched.items():
        gap = difference(other, centroids, brain_points(fixed))
        print(
            f"untouched pair, {name}: the search ends {gap[0]:.2f} mm, {gap[1]:.2f} degrees from the centroids' affine"
        )
    gap = difference(searched["t2"], searched["t1"], brain_points(fixed))
    print(f"untouched pair: the search of t1 and t2 end {gap[0]:.2f} mm, {gap[1]:.2f} degrees apart")
    chosen = centroids if reference == "centroids" else searched["t1"]
    return Brains(fixed, moving, read_labels(moving_path).grid, chosen)


def main() -> None:
    """Run the starts, write a row each, print how many ended near the truth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, help="folder of subject_ID.nii.gz label maps")
    parser.add_argument("--subjects", nargs=2, default=["01", "02"], metavar=("FIXED", "MOVING"))
    parser.add_argument("--starts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reference", choices=["search", "centroids"], default="search")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=Path("affine_robustness.csv"))
    given = parser.parse_args()
    brains = prepare(given.labels, given.subjects, given.reference, given.threads)
    rng = np.random.default_rng(given.seed)
    starts = [draw_start(rng) for _ in range(given.starts)]
    rows = []
    with given.output.open("w", newline="", encoding="utf-8") as file:
        for number, start in enumerate(starts):
            rows.append(row_of(number, brains, start, given.threads))
            if not number:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
            writer.writerow(rows[-1])
            file.flush()
            print(" ".join(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    near = sum(bool(row["near"]) for row in rows)
    wall, cpu, mm, degrees = (
        np.median([float(str(row[key])) for row in rows])
        for key in ("seconds", "cpu_seconds", "error_mm", "error_degrees")
    )
    truth = "the search of the untouched pair" if given.reference == "search" else "the centroids' affine"
    print(f"{near} of {len(rows)} within {NEAR_MM:g} mm and {NEAR_DEGREES:g} degrees of {truth}")
    print(f"medians: {mm:.2f} mm, {degrees:.2f} degrees, {wall:.1f} s a search, {cpu:.1f} s of the processor")


if __name__ == "__main__":
    main()
