"""Augmentation: the same pair seen differently, a pure function of a random generator.

affine: both images by one random affine map of space, moving by a smaller one of its own besides, so that alignment is
never perfect. flip: the first axis turned round, which lies from right to left, and the labels of FreeSurfer's paired
structures exchanged with it. intensity: gamma and noise, of each image its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from r2reg.config import Augment
from r2reg.training.synthesis import is_freesurfer, other_side

TURN, SCALE, SHIFT = 10.0, 0.1, 10.0  # degrees, share, mm: uniform within, of both images
OWN = 0.3  # of these, moving's own
GAMMA = 0.3  # log of the exponent, uniform within
NOISE = 0.03  # standard deviation of the largest noise, intensities in [0, 1]


@dataclass(frozen=True)
class Augmentation:
    """What is done to a pair.

    Attributes:
        fixed, moving: (d+1, d+1), from places in the new image to places in the old one, voxels about the centre.
        gamma, noise: fixed's and moving's.
        seed: of the noise.
    """

    flip: bool
    fixed: np.ndarray
    moving: np.ndarray
    gamma: tuple[float, float]
    noise: tuple[float, float]
    seed: int


def draw_augmentation(rng: np.random.Generator, kinds: Sequence[Augment], spacing: Sequence[float]) -> Augmentation:
    """An augmentation of the given kinds.

    The numbers drawn do not depend on the kinds, so a kind more or less leaves the others as they were.

    Args:
        spacing: of the grid, mm.
    """
    ndim = len(spacing)
    common, own = (_matrix(rng, np.asarray(spacing), share) for share in (1.0, OWN))
    flip = bool(rng.random() < 0.5)
    gamma = np.exp(rng.uniform(-GAMMA, GAMMA, 2))
    noise = rng.uniform(0, NOISE, 2)
    still = np.eye(ndim + 1)
    moves, changes = "affine" in kinds, "intensity" in kinds
    return Augmentation(
        flip=flip and "flip" in kinds,
        fixed=common if moves else still,
        moving=common @ own if moves else still,
        gamma=(float(gamma[0]), float(gamma[1])) if changes else (1.0, 1.0),
        noise=(float(noise[0]), float(noise[1])) if changes else (0.0, 0.0),
        seed=int(rng.integers(2**31)),
    )


def _matrix(rng: np.random.Generator, spacing: np.ndarray, share: float) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    ndim = len(spacing)
    angles = share * rng.uniform(-TURN, TURN, 3)
    turn = Rotation.from_euler("xyz", angles if ndim == 3 else [0, 0, angles[2]], degrees=True).as_matrix()
    matrix = np.eye(ndim + 1)
    in_mm = turn[:ndim, :ndim] * (1 + share * rng.uniform(-SCALE, SCALE, ndim))
    matrix[:-1, :-1] = in_mm * spacing / spacing[:, None]  # to voxels
    matrix[:-1, -1] = share * rng.uniform(-SHIFT, SHIFT, ndim) / spacing
    return matrix


def augmented(pair: Mapping[str, np.ndarray], change: Augmentation, label_ids: Sequence[int]) -> dict[str, np.ndarray]:
    """A pair as a batch holds it, changed.

    Args:
        pair: moving, fixed and mask (*S, 1) float32; moving_labels, fixed_labels (*S) int32, compact: 0 or 1 + the
            place in label_ids; each where it exists.
    """
    exchanged = exchanged_sides(label_ids)
    done = {}
    for name, array in pair.items():
        of_labels = name.endswith("labels")
        image = array if of_labels else array[..., 0]
        matrix = change.moving if name.startswith("moving") else change.fixed
        image = _moved(image, matrix, order=0 if of_labels or name == "mask" else 1)
        if change.flip:
            image = exchanged[image[::-1]] if of_labels else image[::-1]
        if name in ("fixed", "moving"):
            image = _toned(image, change, ("fixed", "moving").index(name))
        done[name] = np.ascontiguousarray(image if of_labels else image[..., None], array.dtype)
    return done


def _moved(image: np.ndarray, matrix: np.ndarray, order: int) -> np.ndarray:
    from scipy.ndimage import affine_transform

    if np.array_equal(matrix, np.eye(len(matrix))):
        return image
    centre = (np.array(image.shape) - 1) / 2
    offset = centre + matrix[:-1, -1] - matrix[:-1, :-1] @ centre
    moved: np.ndarray = affine_transform(image, matrix[:-1, :-1], offset, order=order)
    return moved


def _toned(image: np.ndarray, change: Augmentation, which: int) -> np.ndarray:
    toned = np.clip(image, 0, 1) ** change.gamma[which]
    if change.noise[which] > 0:
        noise = np.random.default_rng([change.seed, which]).standard_normal(image.shape, np.float32)
        toned = toned + change.noise[which] * noise * (image > 0)
    return np.clip(toned, 0, 1)


def exchanged_sides(label_ids: Sequence[int]) -> np.ndarray:
    """Compact id -> compact id of the other side; the same where the list, or the structure, has no other side."""
    place = {label: k for k, label in enumerate(label_ids, start=1)}
    paired = is_freesurfer(label_ids)
    other = {label: other_side(label) if paired else label for label in label_ids}
    return np.array([0, *(place.get(other[label], place[label]) for label in label_ids)], np.int32)
