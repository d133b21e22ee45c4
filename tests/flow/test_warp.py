"""Sampling against closed forms, the numpy reference and finite differences."""

import numpy as np
import pytest
from keras import ops

from r2reg.flow import backend, reference
from r2reg.flow.warp import compose, identity_coordinates, sample, warp

pytestmark = pytest.mark.backends


def as_tensor(array):
    return ops.convert_to_tensor(np.asarray(array, dtype="float32"))


@pytest.mark.parametrize("shape", [(7, 9), (5, 6, 7)])
def test_linear_image_is_sampled_exactly(shape):
    here = ops.convert_to_numpy(identity_coordinates(shape))
    slopes = np.arange(1, len(shape) + 1)
    image = (here * slopes).sum(-1, keepdims=True)
    places = np.random.default_rng(0).uniform(0, np.array(shape) - 1, (1, 50, len(shape)))
    got = ops.convert_to_numpy(sample(as_tensor(image), as_tensor(places)))
    np.testing.assert_allclose(got[..., 0], (places * slopes).sum(-1), rtol=1e-5)  # float32


@pytest.mark.parametrize("shape", [(7, 9), (5, 6, 7)])
def test_agrees_with_numpy_reference(shape):
    rng = np.random.default_rng(1)
    image = rng.normal(size=(2, *shape, 3))
    displacement = rng.normal(scale=2, size=(2, *shape, len(shape)))
    got = ops.convert_to_numpy(warp(as_tensor(image), as_tensor(displacement)))
    for n in range(2):
        np.testing.assert_allclose(got[n], reference.warp(image[n], displacement[n]), atol=1e-5)  # float32


def test_beyond_the_border_the_edge_value_holds():
    image = as_tensor(np.arange(4.0).reshape(1, 2, 2, 1))
    places = as_tensor([[[-5.0, 0.0], [9.0, 9.0], [0.0, 1.5]]])
    assert ops.convert_to_numpy(sample(image, places)).ravel().tolist() == [0, 3, 1]
    assert ops.convert_to_numpy(sample(image, places, "nearest")).ravel().tolist() == [0, 3, 1]


def test_nearest_keeps_labels():
    labels = np.random.default_rng(2).integers(0, 9, (1, 6, 6, 6, 1))
    moved = warp(as_tensor(labels), as_tensor(np.full((1, 6, 6, 6, 3), 0.4)), "nearest")
    assert (ops.convert_to_numpy(moved) == labels).all()


def test_unknown_interpolation_is_named():
    with pytest.raises(ValueError, match="cubic"):
        warp(as_tensor(np.zeros((1, 4, 4, 1))), as_tensor(np.zeros((1, 4, 4, 2))), "cubic")


def test_composition_order():
    """Two linear maps: (id + outer) o (id + inner) applies the inner one first."""
    here = ops.convert_to_numpy(identity_coordinates((9, 9))) - 4
    shrink, turn = -0.3 * here, here @ np.array([[-1.0, -1.0], [1.0, -1.0]]).T * 0.5
    got = ops.convert_to_numpy(compose(as_tensor(turn), as_tensor(shrink)))
    expected = (0.7 * here) + (0.7 * here) @ np.array([[-1.0, -1.0], [1.0, -1.0]]).T * 0.5 - here
    np.testing.assert_allclose(got, expected, atol=1e-5)  # float32


@pytest.mark.parametrize("shape", [(6, 7), (5, 6, 4)])
def test_gradients_equal_finite_differences(shape):
    """In the image and in the displacement; places stay off the kinks at voxel centres and the border."""
    rng = np.random.default_rng(3)
    image = rng.normal(size=(2, *shape, 2))
    displacement = rng.uniform(0.2, 0.8, (2, *shape, len(shape)))
    for axis, n in enumerate(shape):
        last = [slice(None)] * (len(shape) + 1) + [axis]
        last[axis + 1] = slice(n - 1, n)
        displacement[tuple(last)] -= 1
    weight = as_tensor(rng.normal(size=image.shape))

    def value(i, u):
        return ops.sum(weight * warp(i, u))

    u, i = as_tensor(displacement), as_tensor(image)
    by_image = ops.convert_to_numpy(backend.gradient(lambda x: value(x, u), i))
    by_field = ops.convert_to_numpy(backend.gradient(lambda x: value(i, x), u))
    w64 = ops.convert_to_numpy(weight).astype("float64")
    for which, gradient in ((0, by_image), (1, by_field)):
        arrays = [image, displacement]
        direction = rng.normal(size=arrays[which].shape)
        ends = []
        for sign in (1, -1):
            moved = list(arrays)
            moved[which] = arrays[which] + sign * 1e-5 * direction
            ends.append(sum((w64[n] * reference.warp(moved[0][n], moved[1][n])).sum() for n in range(2)))
        expected = (ends[0] - ends[1]) / 2e-5
        assert np.sum(gradient * direction) == pytest.approx(expected, rel=1e-3, abs=1e-3)  # float32 sums
