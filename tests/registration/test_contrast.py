"""Moving in fixed's contrast, for networks that know pairs of one contrast."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from keras import ops
from scipy.ndimage import gaussian_filter

from r2reg.flow.certificate import Certificate
from r2reg.flow.diffeomorphism import Diffeomorphism
from r2reg.flow.inverse import invert
from r2reg.geometry.grid import Grid
from r2reg.registration import deformation, network
from r2reg.registration.contrast import match_contrast, share_contrast
from r2reg.registration.refinement import LevelImages, MapOnGrid
from r2reg.report.verdict import model_told

SHAPE = (40, 48)


def tissues(seed=0):
    """Three of them in smooth patches of some ten voxels within a disc, 0 around it."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=SHAPE), 3)
    index = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    return np.where((index**2).sum(axis=0) < 0.8, 1 + np.digitize(smooth, np.quantile(smooth, [0.4, 0.7])), 0)


def scan(greys, seed=0, shift=0):
    """An image of them, with noise within."""
    labels = np.roll(tissues(), shift, axis=0)
    noise = np.random.default_rng(seed).normal(0, 0.02, SHAPE) * (labels > 0)
    return (np.array([0, *greys])[labels] + noise).astype(np.float32)


T1, T2 = (0.2, 0.6, 0.9), (0.95, 0.5, 0.3)


@pytest.mark.parametrize(("shift", "closest"), [(0, 0.98), (2, 0.7)])
def test_greys_become_those_that_the_other_shows_there(shift, closest):
    moving, fixed = scan(T2, seed=1), scan(T1, seed=2, shift=shift)
    matched = match_contrast(moving, moving, fixed)
    inside = moving > 0.1
    wanted = np.array([0, *T1])[tissues()]
    assert np.corrcoef(moving[inside], wanted[inside])[0, 1] < -0.9
    assert np.corrcoef(matched[inside], wanted[inside])[0, 1] > closest
    np.testing.assert_array_equal(matched[tissues() == 0], 0)


def test_one_contrast_or_two():
    for greys, shared in ((T1, True), (T2, False), ((0.2, 0.9, 0.6), False), ((0.3, 0.5, 0.8), True)):
        moving, fixed = scan(greys, seed=1), scan(T1, seed=2, shift=2)
        assert share_contrast(moving, match_contrast(moving, moving, fixed), 0.9) is shared


def test_images_that_say_nothing():
    moving, black = scan(T1), np.zeros(SHAPE, np.float32)
    np.testing.assert_array_equal(match_contrast(moving, moving, black), moving)
    for one, other in ((black, moving), (moving, black), (black + 0.5, moving)):
        assert share_contrast(one, match_contrast(one, one, other), 0.9)


@dataclass
class Shifting:
    """In place of an Estimator: keeps what it is shown, and answers with a shift of so many voxels."""

    grid: Grid
    shift: float
    shown: list[np.ndarray] = field(default_factory=list)
    model: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(
            folder=SimpleNamespace(resolve=lambda: SimpleNamespace(name="m")), sha256="0"
        )
    )

    def __call__(self, images):
        self.shown.append(ops.convert_to_numpy(images.moving)[0, ..., 0])
        displacement = np.zeros((1, *self.grid.shape, 2), np.float32)
        displacement[..., 0] = self.shift
        tensor = ops.convert_to_tensor(displacement)
        return MapOnGrid(Diffeomorphism(tensor, invert(tensor)[0], Certificate()), self.grid)


def images_of(moving, fixed):
    grid = Grid(SHAPE, np.eye(3))
    return LevelImages(grid, *(ops.convert_to_tensor(image[None, ..., None]) for image in (fixed, moving)))


@pytest.mark.backends
def test_the_network_is_shown_one_contrast_twice_the_second_time_as_its_map_aligns_them():
    moving, fixed = scan(T2, seed=1), scan(T1, seed=2, shift=2)
    wanted = np.array([0, *T1])[tissues()]
    inside = moving > 0.1
    shifting = Shifting(Grid(SHAPE, np.eye(3)), -2.0)
    assert deformation._in_one_contrast(shifting, images_of(moving, fixed)) is not None
    first, second = (np.abs(shown - wanted)[inside].mean() for shown in shifting.shown)
    assert second < 0.3 * first < 0.3 * np.abs(moving - wanted)[inside].mean()
    alike = Shifting(Grid(SHAPE, np.eye(3)), -2.0)
    assert deformation._in_one_contrast(alike, images_of(scan(T1, seed=1), fixed)) is None
    assert not alike.shown


@pytest.mark.parametrize(("own", "matched", "used"), [(0.3, 0.5, True), (0.5, 0.3, False)])
def test_the_map_that_makes_the_images_more_alike_is_kept(monkeypatch, own, matched, used):
    images = images_of(scan(T2, seed=1), scan(T1, seed=2, shift=2))
    values = iter([0.2, own, matched])
    monkeypatch.setattr(network, "likeness", lambda *_: next(values))
    _, told = deformation._from_network(
        Shifting(images.grid, -2.0), SimpleNamespace(images_on=lambda _: images), chosen=True
    )
    assert told["matched"] is used
    assert told["lncc"] == {"affine": 0.2, "network": max(own, matched)}
    assert ("shown moving in fixed's contrast" in model_told(told)) is used
