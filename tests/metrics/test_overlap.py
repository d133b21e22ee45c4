"""Dice against SimpleITK and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from r2reg.errors import ImageError
from r2reg.metrics.overlap import dice, label_counts


def test_equals_simpleitk_per_label():
    rng = np.random.default_rng(0)
    fixed, moved = rng.integers(0, 5, size=(2, 8, 9, 7))
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.Execute(sitk.GetImageFromArray(fixed), sitk.GetImageFromArray(moved))
    found = dice(fixed, moved)
    expected = {str(label): measures.GetDiceCoefficient(label) for label in range(1, 5)}
    assert found["per_label"] == pytest.approx(expected)
    assert found["mean"] == pytest.approx(np.mean(list(expected.values())))


def test_mean_is_over_labels_that_either_image_holds():
    fixed = np.array([[0, 1, 1, 2], [0, 0, 0, 0]], dtype=np.int16)
    moved = np.array([[0, 1, 0, 0], [0, 0, 0, 7000]], dtype=np.int16)
    assert dice(fixed, moved) == {
        "mean": pytest.approx(2 / 9),
        "per_label": {"1": pytest.approx(2 / 3), "2": 0, "7000": 0},
    }


def test_chosen_labels_that_neither_holds_are_left_out():
    labels = np.array([[1, 2, 3]])
    assert dice(labels, labels, labels=[2, 3, 99])["per_label"] == {"2": 1, "3": 1}
    assert dice(labels, labels, labels=[99]) == {"mean": None, "per_label": {}}


def test_shapes_are_checked():
    with pytest.raises(ImageError, match=r"\(2, 2\) and \(2, 3\)"):
        dice(np.zeros((2, 2), int), np.zeros((2, 3), int))


@pytest.mark.parametrize("low", [0, -1, 70_000])
def test_labels_are_counted_whatever_their_values(low):
    labels = low + np.random.default_rng(0).integers(0, 4, size=(6, 7, 8))
    expected = {v: int((labels == v).sum()) for v in range(low, low + 4) if v}
    assert label_counts(labels) == label_counts(np.asfortranarray(labels)) == expected
