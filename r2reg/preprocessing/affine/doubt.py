"""Whether a pose that was given, not searched for, is a right angle or more away from the images' own."""

from __future__ import annotations

import itertools

import numpy as np

from r2reg.geometry.grid import Array
from r2reg.preprocessing.affine.information import Information
from r2reg.preprocessing.affine.likeness import likeness
from r2reg.preprocessing.affine.pyramid import Working, make_levels
from r2reg.preprocessing.affine.search import improve
from r2reg.preprocessing.affine.starts import Body, about, frames

SAMPLES = 8_000
FOLLOWED = 2  # turns that are searched from
CLEARLY = 1.25  # times the information: a rounded head turned by a right angle comes near its own
LEAST_DEGREES = 45.0


def better_turn(fixed: Working, moving: Working, matrix: Array) -> float | None:
    """How far one of the 23 right-angle turns, or in 2-D one of 3, that fits clearly better is from a pose, degrees.

    Args:
        matrix: (d+1, d+1) RAS mm, fixed -> moving points, the pose that was given.
    Returns:
        None where no turn fits clearly better.
    """
    level = make_levels(fixed, moving)[0]
    at_fixed, at_moving = frames(fixed, moving)
    turned = [about(matrix[:-1, :-1] @ turn, at_fixed[0], at_moving[0]) for turn in right_angles(fixed.grid.ndim)]
    best = np.argsort(-likeness(level, turned))[:FOLLOWED]
    information, body = Information(level, SAMPLES, 0), Body.of(at_fixed)
    starts = [matrix, *(turned[k] for k in best)]
    ends = [improve(information.whole, start, body, "similarity", level.spacing) for start in starts]
    values = [information.whole(end)[0] for end in ends]
    away = [_degrees(matrix, end) for end in ends]
    # Searched from as it is, the pose stays near itself, or there is nothing to be found near it.
    here = values[0] if away[0] <= LEAST_DEGREES else information.whole(matrix)[0]
    winner = int(np.argmax(values))
    return away[winner] if values[winner] > CLEARLY * here and away[winner] > LEAST_DEGREES else None


def right_angles(ndim: int) -> list[Array]:
    """The rotations that carry axes to axes, but for the identity: 3 or 23."""
    found = []
    for order in itertools.permutations(range(ndim)):
        for signs in itertools.product((1.0, -1.0), repeat=ndim):
            turn = np.eye(ndim)[list(order)] * np.array(signs)[:, None]
            if np.linalg.det(turn) > 0 and not np.array_equal(turn, np.eye(ndim)):
                found.append(turn)
    return found


def _degrees(first: Array, second: Array) -> float:
    """The angle between the rotations nearest to two maps' linear parts."""
    relative = np.linalg.solve(first[:-1, :-1], second[:-1, :-1])
    left, _, right = np.linalg.svd(relative)
    rotation = left @ right
    ndim = len(rotation)
    cosine = (np.trace(rotation) - (ndim - 2)) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
