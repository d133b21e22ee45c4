"""Tiles cover the grid, share what they should, and join without a seam."""

import itertools

import numpy as np
import pytest

from r2reg.errors import ModelError
from r2reg.networks.tiles import cut, join, tile_shape


@pytest.mark.parametrize("shape", [(40, 48), (41, 50, 37)])
@pytest.mark.parametrize(("chunks", "overlap"), [(1, 2), (2, 2), (2, 8), (3, 2)])
def test_tiles_cover_and_overlap(shape, chunks, overlap):
    tiles = cut(shape, chunks, overlap)
    assert len(tiles) == chunks ** len(shape)
    covered = np.zeros(shape, int)
    for tile in tiles:
        assert covered[tile].shape == tile_shape(shape, chunks, overlap)
        covered[tile] += 1
    assert covered.min() == 1
    for axis in range(len(shape)):
        along = sorted({(tile[axis].start, tile[axis].stop) for tile in tiles})
        assert (along[0][0], along[-1][1]) == (0, shape[axis])
        for (_, stop), (start, _) in itertools.pairwise(along):
            assert overlap <= stop - start <= overlap + chunks


@pytest.mark.parametrize("shape", [(176, 176, 16), (40, 20, 16), (41, 50, 37), (176, 176, 7)])
@pytest.mark.parametrize("chunks", [2, 3])
def test_rounded_up_tiles_cover_without_a_double(shape, chunks):
    tiles = cut(shape, chunks, 2, 16)
    assert len({tuple((part.start, part.stop) for part in tile) for tile in tiles}) == len(tiles)
    covered = np.zeros(shape, int)
    for tile in tiles:
        covered[tile] += 1
    assert covered.min() == 1
    assert {covered[tile].shape for tile in tiles} == {tile_shape(shape, chunks, 2, 16)}
    for axis in range(len(shape)):
        for (_, stop), (start, _) in itertools.pairwise(sorted({(t[axis].start, t[axis].stop) for t in tiles})):
            assert stop - start >= 2


@pytest.mark.parametrize("overlap", [2, 6])
def test_join_gives_back_what_was_cut(overlap):
    field = np.random.default_rng(0).normal(size=(30, 26, 3)).astype("float32")
    tiles = cut(field.shape[:-1], 2, overlap)
    joined = join((field[tile] for tile in tiles), tiles, field.shape[:-1])
    np.testing.assert_allclose(joined, field, atol=1e-5)


def test_a_disagreement_is_spread_over_the_overlap():
    """Two tiles that differ by 1: the joined field climbs in even steps, none larger than 1 / overlap."""
    tiles = cut((40,), 2, 10)
    joined = join([np.zeros((25, 1)), np.ones((25, 1))], tiles, (40,))
    steps = np.diff(joined[:, 0])
    assert joined[0, 0] == 0
    assert joined[-1, 0] == 1
    assert steps.min() >= 0
    assert steps.max() == pytest.approx(0.1, abs=1e-5)


def test_tiles_that_are_too_small():
    with pytest.raises(ModelError, match="fewer chunks"):
        cut((20, 20), 4, 2)


def test_tiles_take_what_the_network_would_pad():
    assert tile_shape((160, 192, 224), 2, 2) == (81, 97, 113)
    assert tile_shape((160, 192, 224), 2, 2, 16) == (96, 112, 128)
    assert tile_shape((40, 20, 16), 2, 2, 16) == (32, 16, 16)
    assert tile_shape((20, 30, 14), 1, 2, 16) == (20, 30, 14)
