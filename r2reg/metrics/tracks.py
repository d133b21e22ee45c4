"""How straight, and how close to optimal transport, points travel through the layers of a network or a flow.

The states of N points are (n + 1, N, D): their places before the first step, and after each of n. Source: Gai & Zhang
2021, "A Mathematical Principle of Deep Learning".
"""

from __future__ import annotations

import numpy as np

from r2reg.errors import GeometryError


def line_shape_ratio(states: np.ndarray) -> np.ndarray:
    """(N,) length of each track over the distance of its ends (eq. 42): 1 on a straight line, infinite on a loop.

    A point that never moves has 1.

    Raises:
        GeometryError: no step, or values that are not finite.
    """
    steps = _steps(states)
    length = np.linalg.norm(steps, axis=-1).sum(axis=0)
    ends = np.linalg.norm(steps.sum(axis=0), axis=-1)
    ratio = np.divide(length, ends, out=np.full_like(length, np.inf), where=ends > 0)
    return np.where(length > 0, ratio, 1.0)


def line_shape_score(states: np.ndarray) -> np.ndarray:
    """(N,) the same with every step scaled to length 1 (eqs. 43, 44): at least 1, and 1 where none turns.

    Steps of no length have no direction and are left out.

    Raises:
        GeometryError: as `line_shape_ratio`.
    """
    steps = _steps(states)
    length = np.linalg.norm(steps, axis=-1, keepdims=True)
    directions = steps / np.where(length > 0, length, 1)
    return line_shape_ratio(np.concatenate([np.zeros_like(steps[:1]), directions.cumsum(axis=0)]))


def optimal_transport_score(before: np.ndarray, after: np.ndarray) -> float:
    """The share of points that the cheapest assignment of inputs to outputs leaves with their own (eqs. 45-47).

    Args:
        before, after: (N, D); the cost is the squared distance. Memory and time grow as N^2 and N^3.
    Raises:
        GeometryError: other shapes than each other's, or values that are not finite.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if before.shape != after.shape or before.ndim != 2 or not len(before):
        raise GeometryError(f"inputs and outputs must be the same points. Received: {before.shape}, {after.shape}")
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        raise GeometryError("the points hold NaN or infinite values")
    _, partner = linear_sum_assignment(cdist(before, after, "sqeuclidean"))
    return float(np.mean(partner == np.arange(len(before))))


def track_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N,) how close two points' tracks come at the same step (eq. 35).

    Args:
        first, second: (n + 1, N, D), pair by pair.
    Raises:
        GeometryError: tracks of different length, or of other points.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape or first.ndim != 3:
        raise GeometryError(f"tracks must have equal shapes (n + 1, N, D). Received: {first.shape}, {second.shape}")
    found: np.ndarray = np.linalg.norm(first - second, axis=-1).min(axis=0)
    return found


def track_bound(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(N,) how close tracks come at least where the transport is optimal (eqs. 36, 41): ab / sqrt(a^2 + b^2).

    Args:
        before, after: (N,) a and b, the distances of the two points at both ends.
    """
    longest = np.hypot(before, after)
    return np.where(longest > 0, np.multiply(before, after) / np.where(longest > 0, longest, 1), 0.0)


def _steps(states: np.ndarray) -> np.ndarray:
    states = np.asarray(states, np.float64)
    if states.ndim != 3 or len(states) < 2:
        raise GeometryError(f"tracks need states (n + 1, N, D) of at least one step. Received: {states.shape}")
    if not np.isfinite(states).all():
        raise GeometryError("the tracks hold NaN or infinite values")
    return np.diff(states, axis=0)
