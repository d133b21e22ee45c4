"""Values and derivatives that steer refinement, against float64 references and their finite differences."""

from functools import partial

import numpy as np
import pytest
from keras import ops
from scipy import ndimage

from r2reg.errors import ConfigError
from r2reg.flow import backend
from r2reg.losses import reference, slabs
from r2reg.losses.similarity import SIMILARITIES
from r2reg.losses.steering import steering

pytestmark = pytest.mark.backends

NAMES = ("mse", "lncc", "ngf", "mi", "mind", "dice")
SHAPES = ((9, 10), (7, 8, 6))


def tensor(array):
    return ops.convert_to_tensor(np.asarray(array, dtype="float32"))


def smooth(rng, shape):
    """An image (1, *shape, 1) in [0, 1] with structure of about 2 voxels."""
    image = ndimage.gaussian_filter(rng.normal(size=shape), 1.5, mode="nearest")
    return ((image - image.min()) / np.ptp(image))[None, ..., None]


def pair(name, shape, rng):
    """What `name` compares, (1, *shape, C) float64: rough, so that no voxel's derivative is nearly 0."""
    if name == "dice":
        fixed = np.eye(4)[rng.integers(0, 3, size=(1, *shape))]  # the fourth class does not occur
        return fixed, rng.dirichlet(np.ones(4), size=(1, *shape))
    images = rng.uniform(size=(2, 1, *shape, 1))
    return [reference.mind_ssc(image) for image in images] if name == "mind" else list(images)


def slope(name, fixed, moved, weight=None, **options):
    """Steering's answer in numpy; fixed and moved are features already."""
    steer = steering(name, **options)
    weight = None if weight is None else tensor(weight)
    value, derivative = steer.slope(steer.prepare(tensor(fixed), tensor(moved)), tensor(moved), weight)
    return float(value), ops.convert_to_numpy(derivative)


def oracle(name, fixed, moved):
    """The reference's value as a function of moved and weight; the edge parameters are those of the start."""
    if name == "ngf":
        epsilon = (reference.mean_gradient(fixed), reference.mean_gradient(moved))
        return lambda m, weight: reference.ngf(fixed, m, weight, epsilon)
    known = {"mind": reference.mse, "dice": reference.soft_dice}
    return partial(known.get(name) or getattr(reference, name), fixed)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_value_and_derivative(name, shape, weighted):
    rng = np.random.default_rng(0)
    fixed, moved = pair(name, shape, rng)
    weight = np.maximum(rng.uniform(-1, 1, size=(1, *shape, 1)), 0) if weighted else None
    total = weight.sum() if weighted else np.prod(shape)
    expected = oracle(name, fixed, moved)
    value, derivative = slope(name, fixed, moved, weight)
    assert value == pytest.approx(expected(moved, weight), rel=1e-5, abs=1e-5)  # float32 sums
    corner, edge = np.zeros((2, *moved.shape))  # where a border's values count several times
    corner[(0,) * len(corner.shape)] = 1
    edge[0, ..., -1, 0] = 1
    for direction in (rng.normal(size=moved.shape), corner, edge):
        step = 1e-5 * direction  # crosses no knot of MI's splines here, and is large enough for float64
        difference = (expected(moved + step, weight) - expected(moved - step, weight)) / 2e-5
        # float32: sums of terms of either sign
        assert np.sum(derivative * direction) == pytest.approx(total * difference, rel=2e-3, abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_compiled_is_as_eager(name, monkeypatch):
    """Small tensors are not compiled on TensorFlow; large ones are."""
    fixed, moved = pair(name, (7, 8, 6), np.random.default_rng(1))
    value, derivative = slope(name, fixed, moved)
    monkeypatch.setattr(backend, "SMALL_SIZE", 0, raising=False)
    compiled, of_compiled = slope(name, fixed, moved)
    assert compiled == pytest.approx(value, rel=1e-5)
    # float32 sums in another order, of terms about as large as the largest derivative
    np.testing.assert_allclose(of_compiled, derivative, atol=1e-5 * np.abs(derivative).max())


@pytest.mark.parametrize(("name", "options"), [("lncc", {"radius": 1}), ("lncc", {"radius": 3}), ("ngf", {})])
@pytest.mark.parametrize("weighted", [False, True])
def test_slabs_are_the_whole(name, options, weighted, monkeypatch):
    rng = np.random.default_rng(2)
    shape = (31, 6, 5)  # slabs of 8 planes, the last of 7
    fixed, moved = pair(name, shape, rng)
    weight = rng.uniform(size=(1, *shape, 1)) if weighted else None
    whole, of_whole = slope(name, fixed, moved, weight, **options)
    monkeypatch.setattr(slabs, "SLAB_VOXELS", 240)
    value, derivative = slope(name, fixed, moved, weight, **options)
    assert value == pytest.approx(whole, rel=1e-6)  # planes summed in another order
    # The same sums; float32 rounds them elsewhere where they are compiled.
    np.testing.assert_allclose(derivative, of_whole, atol=1e-5 * np.abs(of_whole).max())


def test_slabs_are_equally_thick(monkeypatch):
    monkeypatch.setattr(slabs, "SLAB_VOXELS", 100)
    parts = list(slabs._slabs(planes=23, voxels=230, margin=2))
    assert {high - low for low, high, _, _ in parts} == {12}
    assert [k for _, _, first, last in parts for k in range(first, last)] == list(range(23))


@pytest.mark.parametrize("shape", SHAPES)
def test_mind_features(shape):
    image = np.random.default_rng(3).uniform(size=(1, *shape, 1))
    features = ops.convert_to_numpy(steering("mind").features(tensor(image)))
    assert features.shape == (1, *shape, {2: 4, 3: 12}[len(shape)])
    np.testing.assert_allclose(features, reference.mind_ssc(image), atol=1e-5)  # float32


@pytest.mark.parametrize("shape", [(20, 22), (14, 16, 12)])
@pytest.mark.parametrize("name", SIMILARITIES)
def test_identical_images_are_best(name, shape):
    image = smooth(np.random.default_rng(4), shape)
    features = steering(name).features
    fixed, away = (ops.convert_to_numpy(features(tensor(i))) for i in (image, np.roll(image, 2, axis=1)))
    value, derivative = slope(name, fixed, fixed)
    worse, of_worse = slope(name, fixed, away)
    assert value < worse
    if name != "mi":  # which a change of contrast can still raise
        assert np.abs(derivative).max() < 0.02 * np.abs(of_worse).max()  # LNCC: its epsilon; others: 0 but for rounding


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("lncc", lambda m: 0.9 - 0.7 * m),
        ("mi", lambda m: 1 - m),
        ("mind", lambda m: 1 - m),
    ],
)
def test_contrast_that_does_not_matter(name, change):
    rng = np.random.default_rng(5)
    fixed, moved = smooth(rng, (14, 16, 12)), smooth(rng, (14, 16, 12))
    features = steering(name).features
    values = [
        slope(name, *(ops.convert_to_numpy(features(tensor(i))) for i in (fixed, m)))[0] for m in (moved, change(moved))
    ]
    # LNCC's epsilon counts twice as much against 0.7 of the contrast; the others differ by rounding.
    assert values[1] == pytest.approx(values[0], rel=5e-3 if name == "lncc" else 1e-4)


def test_ngf_of_strong_edges_does_not_see_an_inversion():
    rng = np.random.default_rng(5)
    fixed, moved = smooth(rng, (14, 16, 12)), smooth(rng, (14, 16, 12))
    values = [slope("ngf", fixed, m, epsilon=1e-3)[0] for m in (moved, 1 - moved)]
    assert values[1] == pytest.approx(values[0], rel=0.01)  # epsilon is 2 % of the mean gradient


def test_mind_sees_through_a_change_of_contrast():
    image = smooth(np.random.default_rng(6), (14, 16, 12))
    fixed, painted, away = (
        ops.convert_to_numpy(steering("mind").features(tensor(i))) for i in (image, image**2, np.roll(image, 2, axis=1))
    )
    assert slope("mind", fixed, painted)[0] < 0.2 * slope("mind", fixed, away)[0]  # alike, not the same


@pytest.mark.parametrize("name", SIMILARITIES)
def test_flat_images_do_not_steer(name):
    flat = np.full((1, 8, 9, 7, 1), 0.3)
    features = ops.convert_to_numpy(steering(name).features(tensor(flat)))
    value, derivative = slope(name, features, features)
    assert np.isfinite(value)
    # MI gives all voxels one derivative, which a flat image's gradient of 0 makes no force of.
    assert np.ptp(derivative) < 1e-4  # rounding of variances: 1e-7 times the window's 125 voxels, over LNCC's epsilon


@pytest.mark.parametrize("name", ["lncc", "ngf"])
def test_faint_noise_does_not_steer(name):
    """A background with noise of .001 beside a structured half: what moves voxels is derivative times gradient."""
    rng = np.random.default_rng(7)
    fixed, moved = (smooth(rng, (24, 16, 16)) for _ in range(2))
    for image in (fixed, moved):
        image[:, 12:] = np.abs(rng.normal(scale=1e-3, size=(1, 12, 16, 16, 1)))
    _, derivative = slope(name, fixed, moved)
    force = np.abs(derivative[..., None] * reference.gradient(moved)).max(axis=(2, 3, 4, 5))[0]
    assert force[17:].max() < 0.01 * force[:8].max()  # 5 planes away from the step between the halves


def test_empty_weights_do_not_steer():
    rng = np.random.default_rng(8)
    for name in NAMES:
        fixed, moved = pair(name, (9, 10), rng)
        value, derivative = slope(name, fixed, moved, np.zeros((1, 9, 10, 1)))
        assert np.isfinite(value)
        assert not derivative.any()


def test_dice_counts_only_what_fixed_has():
    one_hot = np.eye(3)[np.zeros((1, 4, 4), int)]
    value, derivative = slope("dice", one_hot, one_hot)
    assert value == pytest.approx(0, abs=1e-6)
    assert not derivative[..., 1:].any()


def test_unknown_similarity():
    with pytest.raises(ConfigError, match="similarity='ssd'"):
        steering("ssd")
