"""Augmentation: the same pair seen differently, a pure function of a random generator.

affine: both images by one random affine map of space, moving by a smaller one of its own besides, so that alignment is
never perfect. warp: both by one smooth one-to-one warp, as if they were two other people, moving by a smaller one of
its own besides; where both are one image, each by a whole warp of its own, as nothing else tells them apart. flip:
the first axis turned round, which lies from right to left, and the labels of FreeSurfer's paired structures exchanged
with it. resolution, bias, intensity (gamma and noise) and crop: of each image its own, see `look`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from r2reg.config import Augment
from r2reg.training.look import Look, draw_look, looked
from r2reg.training.motion import PUSH_MM, WAVES_MM, Motion, draw_matrix, moved_image, moved_labels, places
from r2reg.training.synthesis import is_freesurfer, other_side

VERSION = 2  # part of a run's identity: raise it when the same seed and step give another augmentation
OWN = 0.3  # of the affine's bounds and of the warp's, moving's own
ROLES = ("moving", "fixed")
Paint = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Augmentation:
    """What is done to a pair: motions and looks by role, and whether right and left change places."""

    flip: bool
    motions: dict[str, Motion]
    looks: dict[str, Look]


def draw_augmentation(
    rng: np.random.Generator, kinds: Sequence[Augment], spacing: Sequence[float], one_image: bool = False
) -> Augmentation:
    """An augmentation of the given kinds.

    The numbers drawn do not depend on the kinds, so a kind more or less leaves the others as they were.

    Args:
        spacing: of the grid, mm.
        one_image: moving and fixed are the same before it.
    """
    ndim = len(spacing)
    common, own = (draw_matrix(rng, np.asarray(spacing), share) for share in (1.0, OWN))
    matrices = {"fixed": common, "moving": common @ own}
    flip = bool(rng.random() < 0.5)
    motions, looks = {}, {}
    for role in ROLES:
        push, waves, seed = float(rng.uniform(0, PUSH_MM)), float(rng.uniform(*WAVES_MM)), int(rng.integers(2**31))
        matrix = matrices[role] if "affine" in kinds else np.eye(ndim + 1)
        motions[role] = Motion(matrix, push if "warp" in kinds else 0.0, waves, seed)
        looks[role] = draw_look(rng, kinds, ndim)
    if "warp" in kinds and not one_image:
        of_its_own = motions["moving"]
        motions["moving"] = replace(
            motions["fixed"],
            matrix=of_its_own.matrix,
            own_push=OWN * of_its_own.push,
            own_seed=of_its_own.seed,
        )
    return Augmentation(flip and "flip" in kinds, motions, looks)


def augmented(
    pair: Mapping[str, np.ndarray],
    change: Augmentation,
    label_ids: Sequence[int],
    shape: Sequence[int],
    spacing: Sequence[float],
    paint: Mapping[str, Paint] | None = None,
) -> dict[str, np.ndarray]:
    """A pair, changed.

    Args:
        pair: moving, fixed and mask (*S); moving_labels, fixed_labels compact, 0 or 1 + the place in label_ids, on
            S or on a grid that divides its voxels; each where it exists.
        shape, spacing: S, and its voxels in mm.
        paint: by role, what makes an image of labels after they have moved; else the image moves.
    """
    exchanged = exchanged_sides(label_ids)
    where = {
        role: None if motion.still else places(motion, shape, np.asarray(spacing))
        for role, motion in change.motions.items()
    }
    done = {}
    for name, array in pair.items():
        points = where["moving" if name.startswith("moving") else "fixed"]
        of_labels = name.endswith("labels")
        if points is not None:
            array = moved_labels(array, points) if of_labels or name == "mask" else moved_image(array, points)
        if change.flip:
            array = exchanged[array[::-1]] if of_labels else array[::-1]
        done[name] = array
    for role in ROLES:
        image = paint[role](done[f"{role}_labels"]) if paint else done[role]
        done[role] = looked(image, change.looks[role], np.asarray(spacing))
    return {name: np.ascontiguousarray(array) for name, array in done.items()}


def exchanged_sides(label_ids: Sequence[int]) -> np.ndarray:
    """Compact id -> compact id of the other side; the same where the list, or the structure, has no other side."""
    place = {label: k for k, label in enumerate(label_ids, start=1)}
    paired = is_freesurfer(label_ids)
    other = {label: other_side(label) if paired else label for label in label_ids}
    return np.array([0, *(place.get(other[label], place[label]) for label in label_ids)], np.int32)
