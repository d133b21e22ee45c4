"""A network asked about a pair: of two contrasts also in one of them, and again from where its map has got."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from r2reg.flow.diffeomorphism import follow
from r2reg.flow.warp import warp
from r2reg.registration import network
from r2reg.registration.contrast import match_contrast, share_contrast
from r2reg.registration.refinement import LevelImages, MapOnGrid

if TYPE_CHECKING:
    from r2reg.registration.network import Estimator

Tensor = Any

# Correlation of moving's greys with what they become in fixed's contrast, from which both count as of one: painted T1,
# T2 and FLAIR pairs, 0.91 to 0.99; T1-T2 and T2-FLAIR, below 0.35.
SAME_CONTRAST = 0.9


@dataclass(frozen=True)
class Answer:
    """What a network found.

    Attributes:
        found: the composition of its passes' maps.
        before, after: LNCC on its grid, without and with it.
        matched: whether it was shown moving in fixed's contrast.
        passes: that found is composed of.
    """

    found: MapOnGrid
    before: float
    after: float
    matched: bool
    passes: int


def ask(estimator: Estimator, images: LevelImages, passes: int) -> Answer:
    """The network's map of a pair: of all that it answers, what raises LNCC most.

    It is shown the pair as it is; of two contrasts, also in one of them, by its greys as the affine aligns them and
    again as its own map does. What it left of a pair as it is, it is asked for again, as long as that raises LNCC. Of
    two contrasts it is not: LNCC goes up there while the anatomy comes apart (painted T2-FLAIR, T1-T2).

    Args:
        passes: to compose, at most; 1: what the network answers.
    """
    answers = [estimator(images), *_in_one_contrast(estimator, images)]
    alike = [network.likeness(images, found) for found in answers]
    best = int(np.argmax(alike))
    answer = Answer(answers[best], network.likeness(images), alike[best], best > 0, 1)
    while answer.passes < passes and not answer.matched:
        onward = estimator(replace(images, moving=_moved(images.moving, answer.found, images)))
        found = replace(onward, phi=follow(answer.found.phi, onward.phi))
        after = network.likeness(images, found)
        if after <= answer.after:
            break
        answer = replace(answer, found=found, after=after, passes=answer.passes + 1)
    return answer


def _in_one_contrast(estimator: Estimator, images: LevelImages) -> list[MapOnGrid]:
    """The network's maps for moving in fixed's contrast, matched as the affine aligns them, then as the first map does;
    none where they are of one contrast."""

    def shown(greys: np.ndarray) -> MapOnGrid:
        return estimator(replace(images, moving=ops.convert_to_tensor(greys[None, ..., None])))

    fixed, moving, mask = _array(images.fixed), _array(images.moving), images.moving_mask
    matched = match_contrast(moving, moving, fixed, _within(images.mask, mask))
    if share_contrast(moving, matched, SAME_CONTRAST, _within(mask)):
        return []
    first = shown(matched)
    aligned = _array(_moved(images.moving, first, images))
    inside = _within(images.mask, None if mask is None else _moved(mask, first, images))
    return [first, shown(match_contrast(moving, aligned, fixed, inside))]


def _moved(tensor: Tensor, found: MapOnGrid, images: LevelImages) -> Tensor:
    return warp(tensor, found.on(images.grid).phi.displacement)


def _array(tensor: Tensor) -> np.ndarray:
    found: np.ndarray = ops.convert_to_numpy(tensor)[0, ..., 0]
    return found


def _within(*masks: Tensor | None) -> np.ndarray | None:
    given = [_array(mask) > 0.5 for mask in masks if mask is not None]
    return np.logical_and.reduce(given) if given else None
