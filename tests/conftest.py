"""Images, fields and headers with a truth known in advance, made in the test."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from r2reg.geometry.grid import Grid

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
    """A grid with named axes, centred at a point in RAS mm; 2-D takes the in-plane part (oblique: 30 degrees)."""
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


@pytest.fixture
def write_nifti() -> Callable[..., None]:
    """write(path, array, affine, sform=1, qform=1, **header fields) through nibabel, codes as given."""
    import nibabel

    def write(path, array, affine=None, sform=1, qform=1, **fields):
        image = nibabel.Nifti1Image(array, None)
        affine = np.eye(4) if affine is None else np.asarray(affine)
        image.set_sform(affine, sform)
        if np.isfinite(affine).all() and abs(np.linalg.det(affine)) > 0:
            image.set_qform(affine, qform)
        image.header["sform_code"], image.header["qform_code"] = sform, qform
        for key, value in fields.items():
            image.header[key] = value
        image.to_filename(path)

    return write
