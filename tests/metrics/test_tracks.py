"""Tracks of points, against what is known of lines, polygons and optimal transport."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reg.errors import GeometryError
from r2reg.metrics.tracks import (
    line_shape_ratio,
    line_shape_score,
    optimal_transport_score,
    track_bound,
    track_distance,
)

RNG = np.random.default_rng(0)


def test_straight_tracks_score_1_however_uneven_their_steps():
    way = np.array([0, 0.1, 0.1, 0.7, 3.0])  # one step rests
    states = RNG.normal(size=(1, 20, 3)) + way[:, None, None] * RNG.normal(size=(1, 20, 3))
    np.testing.assert_allclose(line_shape_ratio(states), 1)
    np.testing.assert_allclose(line_shape_score(states), 1)


def test_a_corner_a_loop_and_a_point_at_rest():
    corner = np.array([[0.0, 0], [3, 0], [3, 4]])
    loop = np.array([[0.0, 0], [1, 0], [0, 0]])
    states = np.stack([corner, loop, np.zeros((3, 2))], axis=1)
    np.testing.assert_allclose(line_shape_ratio(states), [7 / 5, np.inf, 1])
    np.testing.assert_allclose(line_shape_score(states), [2 / np.sqrt(2), np.inf, 1])


@given(st.integers(0, 10**6))
def test_scores_are_at_least_1(seed):
    states = np.random.default_rng(seed).normal(size=(6, 10, 4))
    assert line_shape_ratio(states).min() >= 1
    assert line_shape_score(states).min() >= 1


def test_optimal_maps_score_1():
    """Gradients of convex functions are optimal (Brenier): a stretch, a shift, the Cholesky factor's square."""
    x = RNG.normal(size=(60, 3))
    root = RNG.normal(size=(3, 3))
    assert optimal_transport_score(x, x @ (root @ root.T) + 5) == 1
    assert optimal_transport_score(x, np.exp(x)) == 1


def test_other_maps_score_less():
    x = RNG.normal(size=(60, 2))
    assert optimal_transport_score(x, -x) < 0.2
    swapped = np.concatenate([x[1::-1], x[2:]])
    assert optimal_transport_score(x, swapped) == 58 / 60


def test_the_bound_holds_on_exact_transport():
    """Between the ends an optimal map carries each point along a straight line at its own speed."""
    x = RNG.normal(size=(80, 3))
    root = RNG.normal(size=(3, 3))
    y = x @ (root @ root.T)
    time = np.linspace(0, 1, 101)[:, None, None]
    states = (1 - time) * x + time * y
    first, second = np.triu_indices(80, 1)
    closest = track_distance(states[:, first], states[:, second])
    bound = track_bound(np.linalg.norm(x[first] - x[second], axis=1), np.linalg.norm(y[first] - y[second], axis=1))
    assert (closest >= bound - 1e-12).all()
    assert (closest / bound).min() < 1.5  # and it tells something


def test_the_bound_does_not_hold_of_a_reflection():
    x = np.array([[[-1.0, 0.0]], [[0.0, 0.0]], [[1.0, 0.0]]])
    assert track_distance(x, -x)[0] == 0 < track_bound(np.array([2.0]), np.array([2.0]))[0]
    assert track_bound(np.zeros(1), np.zeros(1))[0] == 0


def test_what_cannot_be_measured():
    with pytest.raises(GeometryError, match="at least one step"):
        line_shape_score(np.zeros((1, 4, 2)))
    with pytest.raises(GeometryError, match="NaN"):
        line_shape_ratio(np.full((3, 4, 2), np.nan))
    with pytest.raises(GeometryError, match="equal shapes"):
        track_distance(np.zeros((3, 4, 2)), np.zeros((4, 4, 2)))
    with pytest.raises(GeometryError, match="the same points"):
        optimal_transport_score(np.zeros((3, 2)), np.zeros((4, 2)))
    with pytest.raises(GeometryError, match="NaN"):
        optimal_transport_score(np.zeros((3, 2)), np.full((3, 2), np.nan))
