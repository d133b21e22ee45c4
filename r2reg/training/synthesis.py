"""Grey images painted from label maps.

What is random is drawn by `draw` and applied by `paint`, so an image can be painted again from its recipe.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from r2reg.errors import TrainingError
from r2reg.preprocessing.intensity import normalise
from r2reg.training.grids import block_means

# FreeSurfer's classes outside the brain in whole-head maps (skull, skin, eyes, ...).
EXTRA_CEREBRAL = range(500, 600)
# A map with all four sides of the cerebrum (white matter 2/41, cortex 3/42) is taken for a FreeSurfer map.
FREESURFER_MARKS = frozenset({2, 3, 41, 42})
# FreeSurfer's left and right ids, as left: right.
RIGHT_OF = {
    2: 41, 3: 42, 4: 43, 5: 44, 7: 46, 8: 47, 10: 49, 11: 50, 12: 51, 13: 52, 17: 53, 18: 54, 25: 57, 26: 58,
    28: 60, 30: 62, 31: 63, 136: 137, 163: 164,
}  # fmt: skip
CORPUS_CALLOSUM = range(251, 256)  # FreeSurfer's parts of it
LEFT_OF = {right: left for left, right in RIGHT_OF.items()}
# T1 contrast: mean grey per FreeSurfer id (left), on a scale where white matter is near 0.85 and fluid near
# 0.15; our reading of textbook T1-weighted images, jittered when drawn.
T1_MEANS = {
    2: 0.85, 3: 0.55, 4: 0.15, 5: 0.18, 7: 0.82, 8: 0.52, 10: 0.70, 11: 0.60, 12: 0.64, 13: 0.76, 14: 0.18,
    15: 0.18, 16: 0.77, 17: 0.55, 18: 0.55, 24: 0.15, 26: 0.58, 28: 0.74, 30: 0.35, 31: 0.35, 72: 0.18,
    77: 0.60, 85: 0.72,
}  # fmt: skip
T1_JITTER = 0.03  # sd of a class mean around the table's value
MEAN_RANGE = (0.1, 1.0)  # of a class without a prior; background stays 0
SD_RANGE = (0.01, 0.06)  # of the grey values within a class
BLUR_RANGE = (0.3, 0.9)  # sd of the smoothing, voxels of the labels
NOISE_RANGE = (0.0, 0.03)  # sd of the noise after smoothing


@dataclass(frozen=True, kw_only=True)
class Paint:
    """The recipe of one image: mean and sd per label id, smoothing (voxels), noise; `seed` is the voxels'."""

    means: dict[int, float]
    sds: dict[int, float]
    blur: float
    noise: float
    seed: int

    def without(self, ids: Collection[int]) -> Paint:
        """This recipe with classes that stay black."""
        return replace(self, means={k: mean for k, mean in self.means.items() if k not in ids})

    def with_contrast_of(self, other: Paint) -> Paint:
        """This recipe with the other's class means: other noise and texture, the same contrast."""
        return replace(self, means=other.means)


def is_freesurfer(ids: Collection[int]) -> bool:
    """Whether a map's ids are FreeSurfer's, as far as its ids can tell."""
    return set(ids) >= FREESURFER_MARKS


def ids_around_brain(ids: Collection[int]) -> tuple[int, ...]:
    """Those of a map's ids that are FreeSurfer's of what lies around the brain; none where its ids are others."""
    return tuple(k for k in sorted(ids) if k in EXTRA_CEREBRAL) if is_freesurfer(ids) else ()


def around_brain(labels: np.ndarray) -> np.ndarray:
    """Where FreeSurfer ids are of what lies around the brain: skull, skin, eyes."""
    return (labels >= EXTRA_CEREBRAL.start) & (labels < EXTRA_CEREBRAL.stop)


def strip_skull(labels: np.ndarray) -> np.ndarray:
    """The map with extra-cerebral classes set to 0 where its ids are FreeSurfer's; else the map itself."""
    if not is_freesurfer(np.unique(labels).tolist()):
        return labels
    return np.where(around_brain(labels), np.zeros((), labels.dtype), labels)


def unknown_ids(ids: Collection[int]) -> tuple[int, ...]:
    """Those of a FreeSurfer map's ids that have no grey of their own here; none where its ids are others."""
    known = {*T1_MEANS, *RIGHT_OF, *EXTRA_CEREBRAL}
    return tuple(k for k in sorted(ids) if k > 0 and tissue(k) not in known) if is_freesurfer(ids) else ()


def tissue(label: int) -> int:
    """The FreeSurfer id that gives a class its grey: left for right, cortex and white matter for parcels."""
    if label in CORPUS_CALLOSUM:
        return 2
    if 1000 <= label < 5000:  # aparc: 1xxx, 2xxx left and right cortex; 3xxx, 4xxx the white matter below
        return 3 if label < 3000 else 2
    return LEFT_OF.get(label, label)


def other_side(label: int) -> int:
    """The FreeSurfer id of the same structure on the other side; of one in the middle its own."""
    if 1000 <= label < 5000:  # aparc: 1xxx and 3xxx on the left
        return label + 1000 if label // 1000 in (1, 3) else label - 1000
    return RIGHT_OF.get(label, LEFT_OF.get(label, label))


def draw(rng: np.random.Generator, ids: Collection[int], contrast: str = "t1") -> Paint:
    """Draw a recipe.

    Args:
        ids: the label ids of the cohort; 0 (background) is black and needs no entry. A draw depends on all
            ids, so images that must look alike are drawn with the same ones.
        contrast: "t1": recognised FreeSurfer tissues near their T1 grey; "random": every class at random; "mixed":
            one or the other. Ids that are not FreeSurfer's are always at random.
    """
    brain = is_freesurfer(ids)
    if contrast == "mixed":
        contrast = "t1" if rng.random() < 0.5 else "random"
    group = {label: tissue(label) if brain else label for label in sorted(ids) if label > 0}
    means, sds = {}, {}
    for name in sorted(set(group.values())):
        mean = float(rng.uniform(*MEAN_RANGE))
        jitter = float(rng.normal(0, T1_JITTER))
        known = brain and contrast == "t1" and name in T1_MEANS
        means[name] = max(T1_MEANS[name] + jitter, 0.0) if known else mean
        sds[name] = float(rng.uniform(*SD_RANGE))
    return Paint(
        means={label: means[name] for label, name in group.items()},
        sds={label: sds[name] for label, name in group.items()},
        blur=float(rng.uniform(*BLUR_RANGE)),
        noise=float(rng.uniform(*NOISE_RANGE)),
        seed=int(rng.integers(2**31)),
    )


def paint(labels: np.ndarray, recipe: Paint) -> np.ndarray:
    """An image from a label map, see `paint_classes`.

    Args:
        labels: (X, Y[, Z]) integers; ids without an entry in the recipe are background.
    """
    known = sorted(recipe.means)
    return paint_classes(compact(labels, known), known, recipe, labels.shape)


def paint_classes(index: np.ndarray, ids: Sequence[int], recipe: Paint, shape: Sequence[int]) -> np.ndarray:
    """An image: Gaussian grey values per class, smoothed, brought to a grid, with noise, then scaled to [0, 1].

    Args:
        index: (*S') compact classes, 0 or 1 + the place in `ids`; those without an entry in the recipe are black.
        shape: S, whose voxels the grid of `index` divides into equal parts, so that they mix classes.
    Returns:
        (*S) float32 in [0, 1]; the background stays 0.
    Raises:
        TrainingError: no voxel that could be painted.
    """
    from scipy.ndimage import gaussian_filter

    means = np.array([0, *(recipe.means.get(k, 0) for k in ids)], np.float32)
    sds = np.array([0, *(recipe.sds.get(k, 0) for k in ids)], np.float32)
    painted = np.array([False, *(k in recipe.means for k in ids)])
    rng = np.random.default_rng(recipe.seed)
    image = means[index] + sds[index] * rng.standard_normal(index.shape, np.float32)
    image = block_means(gaussian_filter(image, recipe.blur, truncate=3), shape)
    inside = block_means(painted[index], shape) >= 0.5
    if not inside.any():
        raise TrainingError("the label map holds no class to paint; check its ids")
    # Like a skull-stripped scan, no noise outside: it would be a texture to align.
    image += np.float32(recipe.noise) * rng.standard_normal(image.shape, np.float32) * inside
    return normalise(np.maximum(image, 0), name="painted image")


def compact(labels: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    """Per voxel 1 + the place of its id in the rising list `ids`, or 0: (X, Y[, Z]) int32."""
    known = np.asarray(ids, labels.dtype)
    place = np.minimum(np.searchsorted(known, labels), max(len(known) - 1, 0))
    return np.where(known[place] == labels, place + 1, 0).astype(np.int32) if len(known) else np.zeros_like(place)


def class_shares(index: np.ndarray, classes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The share of each class in each voxel.

    Args:
        index: (*S') integers, places in `classes`.
        classes: what is counted: 0 nothing, k the class k of C.
        shape: S, whose voxels the grid of `index` divides into equal parts.
    Returns:
        (*S, C) uint8, 255 a whole voxel: a quarter of float32's memory while batches wait.
    """
    parts = [n // m for n, m in zip(index.shape, shape, strict=True)]
    bins = int(classes.max()) + 1
    within = np.zeros(1, np.int32)  # the first place of each voxel of a plane among its counts
    for n, m in zip(index.shape[1:], shape[1:], strict=True):
        within = (within[..., None] * m + np.arange(n, dtype=np.int32) // (n // m)).astype(np.int32)
    within = within * np.int32(bins)
    shares = np.empty((*shape, bins - 1), np.uint8)
    for k, planes in enumerate(index.reshape(shape[0], parts[0], *index.shape[1:])):
        places = within + classes[planes].astype(np.int32)
        count = np.bincount(places.ravel(), minlength=int(np.prod(shape[1:])) * bins)
        shares[k] = (count.reshape(*shape[1:], bins)[..., 1:] * 255) // int(np.prod(parts))
    return shares


def main_class(shares: np.ndarray) -> np.ndarray:
    """(*S, C) shares -> (*S) int32: 0 where most is background, else 1 + the largest class."""
    rest = 255 - np.minimum(shares.sum(axis=-1, dtype=np.int32), 255)
    return np.where(shares.max(axis=-1, initial=0) > rest, shares.argmax(axis=-1) + 1, 0).astype(np.int32)
