"""A phantom head with known anatomy and a known deformation, in world coordinates: for the demo and for tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from r2reg.geometry.grid import Array, Grid

# Label -> (name, T1-like grey value). Nested: background, fluid, cortex, white matter, and pieces inside it.
TISSUES = {
    0: ("background", 0.0),
    1: ("fluid", 0.25),
    2: ("cortex", 0.55),
    3: ("white matter", 0.9),
    4: ("left ventricle", 0.2),
    5: ("right ventricle", 0.2),
    6: ("left nucleus", 0.65),
    7: ("right nucleus", 0.65),
    8: ("stem", 0.8),
}
SEMI_AXES_MM = np.array([62.0, 76.0, 58.0])  # of the outer ellipsoid, a small adult brain's
CORTEX, WHITE = (0.9, 0.04), (0.74, 0.1)  # mean radius of the two surfaces and depth of their folds, shares
PIECES = (  # label, centre, semi-axes; shares of SEMI_AXES_MM
    (4, (-0.18, 0.05, 0.16), (0.12, 0.38, 0.18)),
    (5, (0.18, 0.05, 0.16), (0.12, 0.38, 0.18)),
    (6, (-0.32, -0.02, -0.14), (0.15, 0.26, 0.17)),
    (7, (0.32, -0.02, -0.14), (0.15, 0.26, 0.17)),
    (8, (0.0, -0.25, -0.48), (0.16, 0.18, 0.4)),
)


@dataclass(frozen=True)
class Deformation:
    """T(x) = A x + t + sum of Gaussian pushes: smooth, and one-to-one while the pushes' slopes stay below 1.

    Args:
        matrix: (3, 3). shift: (3,) mm. centers: (K, 3) mm. pushes: (K, 3) mm. widths: (K,) mm.
    """

    matrix: Array
    shift: Array
    centers: Array
    pushes: Array
    widths: Array

    def __call__(self, ras: Array) -> Array:
        """(..., 3) RAS mm -> (..., 3) RAS mm."""
        moved = ras @ self.matrix.T + self.shift
        for center, push, width in zip(self.centers, self.pushes, self.widths, strict=True):
            moved = moved + np.exp(-np.sum((ras - center) ** 2, axis=-1, keepdims=True) / (2 * width**2)) * push
        return moved


def random_deformation(rng: np.random.Generator, pushes: int = 24, push_mm: float = 5.0) -> Deformation:
    """Rotation up to 8 degrees, scale up to 6 %, shift up to 6 mm, and pushes about as steep as between two people."""
    angles = np.deg2rad(rng.uniform(-8, 8, 3))
    matrix = np.diag(rng.uniform(0.94, 1.06, 3))
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        i, j = [a for a in range(3) if a != axis]
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return Deformation(
        matrix,
        rng.uniform(-6, 6, 3),
        rng.uniform(-0.9, 0.9, (pushes, 3)) * SEMI_AXES_MM,
        rng.normal(scale=push_mm / np.sqrt(3), size=(pushes, 3)),
        rng.uniform(12, 22, pushes),
    )


def tissue_at(ras: Array) -> np.ndarray:
    """Labels at places: (..., 3) RAS mm -> (...) uint8."""
    unit = ras / SEMI_AXES_MM
    radius = np.linalg.norm(unit, axis=-1)
    x, y, z = np.moveaxis(unit / np.maximum(radius, 1e-6)[..., None], -1, 0)
    # Gyri: a fixed pattern of waves over the sphere, deepest at the surface.
    folds = np.sin(9 * x + 5 * y) * np.cos(8 * z - 4 * x) + 0.6 * np.sin(11 * y - 6 * z)
    labels = np.zeros(ras.shape[:-1], dtype=np.uint8)
    labels[radius < 1] = 1
    labels[radius < CORTEX[0] + CORTEX[1] * folds] = 2
    labels[radius < WHITE[0] + WHITE[1] * folds] = 3
    for label, center, axes in PIECES:
        inside = np.sum(((unit - np.array(center)) / np.array(axes)) ** 2, axis=-1) < 1
        labels[inside & (radius < 1)] = label
    return labels


def labels_on(grid: Grid, deformation: Deformation | None = None) -> np.ndarray:
    """The phantom's labels on a grid, deformed: out(x) = tissue(T(x)). (X, Y, Z) uint8."""
    axes = [np.arange(n, dtype=np.float64) for n in grid.shape]
    ras = grid.index_to_ras(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1))
    return tissue_at(ras if deformation is None else deformation(ras))


def painted(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A T1-like image of a label map: grey values, partial volume, a smooth bias field and noise; float32 >= 0."""
    from scipy.ndimage import gaussian_filter

    image = np.array([value for _, value in TISSUES.values()], dtype=np.float32)[labels]
    image = gaussian_filter(image, 0.6)  # voxels: the width of a scanner's point spread
    bias = gaussian_filter(rng.normal(size=labels.shape).astype(np.float32), 16, mode="nearest")
    image *= 1 + 0.15 * bias / np.abs(bias).max()
    image += 0.02 * rng.normal(size=labels.shape).astype(np.float32) * (image > 0.05)
    return np.maximum(image, 0) * 1000  # a scanner's arbitrary units


def landmarks(rng: np.random.Generator, count: int) -> Array:
    """(count, 3) random places inside the phantom, RAS mm."""
    places = rng.uniform(-0.85, 0.85, (8 * count, 3))
    inside = np.linalg.norm(places, axis=1) < 0.85
    return places[inside][:count] * SEMI_AXES_MM
