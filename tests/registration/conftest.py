"""A phantom pair with a known deformation, small enough for unit tests."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine
from r2reg.io.images import Volume, write_image
from r2reg.io.points import AXES, Points, write_points
from r2reg.io.transforms import write_affine
from r2reg.phantom import labels_on, landmarks, painted, random_deformation

SPACING = 5.0


def cube(codes_affine, count=32):
    affine = np.eye(4)
    affine[:3, :3] = np.array(codes_affine) * SPACING
    affine[:3, 3] = -affine[:3, :3] @ np.full(3, (count - 1) / 2)
    return Grid((count,) * 3, affine)


@dataclass(frozen=True)
class Files:
    """Paths of a pair and what goes with it."""

    folder: Path

    def __getattr__(self, name: str) -> Path:
        ending = {"points": "csv", "affine": "mat"}.get(name.split("_")[-1], "nii.gz")
        return self.folder / f"{name}.{ending}"


@pytest.fixture(scope="session")
def phantom_pair(tmp_path_factory):
    """moving (RAS) and fixed (oblique, 35 x 32 x 30 voxels) with labels, landmarks, a mask and the true affine."""
    files = Files(tmp_path_factory.mktemp("pair"))
    rng = np.random.default_rng(3)
    truth, points = random_deformation(rng), landmarks(rng, 60)
    turn = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]])
    oblique = turn @ np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # LIA, turned by 17 degrees
    grids = {"moving": cube(np.eye(3)), "fixed": cube(oblique)}
    for name, deformation, ras in (("moving", None, truth(points)), ("fixed", truth, points)):
        grid = grids[name]
        labels = labels_on(grid, deformation)
        write_image(getattr(files, name), painted(labels, rng), Volume(labels, grid))
        write_image(getattr(files, f"{name}_labels"), labels, Volume(labels, grid))
        write_image(getattr(files, f"{name}_mask"), (labels > 0).astype(np.uint8), Volume(labels, grid))
        write_points(getattr(files, f"{name}_points"), Points(ras, AXES, tuple(("0",) * 3 for _ in ras)))
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = truth.matrix, truth.shift
    write_affine(files.true_affine, Affine(matrix))
    return files
