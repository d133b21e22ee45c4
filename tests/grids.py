"""Grids of every kind, and maps between them: what transforms are tried on."""

import numpy as np
from scipy.ndimage import gaussian_filter

from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine, Displacement

AXES = {
    "RAS": np.eye(3),
    "LAS": np.diag([-1.0, 1.0, 1.0]),
    "LPS": np.diag([-1.0, -1.0, 1.0]),
    "LIA": np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]),
}


def rotation(degrees: float, axis: int = 2, ndim: int = 3) -> np.ndarray:
    """(d, d) rotation about a world axis."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    if ndim == 2:
        return np.array([[c, -s], [s, c]])
    first, second = [a for a in range(3) if a != axis]
    matrix = np.eye(3)
    matrix[[first, first, second, second], [first, second, first, second]] = c, -s, s, c
    return matrix


AXES["oblique"] = rotation(25, 0) @ rotation(-15, 1) @ rotation(35, 2)


def make_grid(orientation: str, shape: tuple[int, ...], spacing: tuple[float, ...], center: tuple[float, ...]) -> Grid:
    """A grid with named axes, centred at a point in RAS mm; 2-D: the in-plane part (oblique: 30 degrees)."""
    d = len(shape)
    axes = AXES[orientation] if d == 3 else AXES[orientation][:2, :2]
    if d == 2 and orientation == "oblique":
        axes = rotation(30, ndim=2)
    affine = np.eye(d + 1)
    affine[:d, :d] = axes * np.array(spacing)
    affine[:d, d] = np.array(center) - affine[:d, :d] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def smooth_noise(shape: tuple[int, ...], seed: int, sigma: float = 2.0) -> np.ndarray:
    """Float32 noise between 0 and 1, smooth over `sigma` voxels."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigma, mode="nearest")
    return ((noise - noise.min()) / (noise.max() - noise.min())).astype(np.float32)


SPACINGS = {"isotropic": (1.0, 1.0, 1.0), "1x1x3": (1.0, 1.0, 3.0)}
SHAPES = {"isotropic": (28, 24, 26), "1x1x3": (28, 24, 10)}
NEXT = dict(zip(AXES, [*list(AXES)[1:], "RAS"], strict=True))
CENTER = (12.0, -30.0, 45.0)


def voxel_centres(grid: Grid) -> np.ndarray:
    axes = np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij")
    return grid.index_to_ras(np.stack(axes, -1))


def smooth_warp(grid: Grid, seed: int) -> Displacement:
    """Up to some 3 mm, smooth over 4 voxels, not zero at the border."""
    parts = [6 * (smooth_noise(grid.shape, seed + n, 4.0) - 0.5) for n in range(grid.ndim)]
    return Displacement(grid, np.stack(parts, -1))


def general_affine(grid: Grid) -> Affine:
    """Rotation, scale and shear about the grid's centre, and a shift."""
    d = grid.ndim
    linear = rotation(8, 0, d) @ rotation(-5, 2, d) @ np.diag([1.06, 0.95, 1.02][:d])
    linear[0, 1] += 0.04
    matrix = np.eye(d + 1)
    matrix[:d, :d] = linear
    matrix[:d, d] = grid.center_ras - linear @ grid.center_ras + np.array([1.5, -0.8, 0.6])[:d]
    return Affine(matrix)


def grid_pair(orientation: str, spacing: str, grids: str, ndim: int = 3) -> tuple[Grid, Grid]:
    """Fixed's and moving's grid: the same, or different in orientation, shape, spacing and place."""
    fixed = make_grid(orientation, SHAPES[spacing][:ndim], SPACINGS[spacing][:ndim], CENTER[:ndim])
    if grids == "same":
        return fixed, fixed
    center = tuple(np.array(CENTER[:ndim]) + [2, -1, 1.5][:ndim])
    return fixed, make_grid(NEXT[orientation], (30, 27, 16)[:ndim], (1.1, 0.9, 2.0)[:ndim], center)
