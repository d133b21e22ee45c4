"""What is wrong with a pair's masks and labels is said in one line before any work."""

import logging

import numpy as np
import pytest

from r2reg.errors import ImageError, RegistrationError
from r2reg.io.images import Volume
from r2reg.registration.pair import Pair, label_ids, read_pair


@pytest.fixture
def files(tmp_path, write_nifti):
    """Writes arrays as files: files(name=array, ...) -> keyword arguments of `read_pair`."""
    image = np.random.default_rng(0).uniform(size=(8, 8, 8)).astype("float32")

    def write(affine=None, **arrays):
        for name, array in {"moving": image, "fixed": image, **arrays}.items():
            write_nifti(tmp_path / f"{name}.nii.gz", array, affine if name in arrays else None)
        return {name: tmp_path / f"{name}.nii.gz" for name in ("moving", "fixed", *arrays)}

    return write


def one_line(error):
    message = str(error.value)
    assert "\n" not in message
    return message


def labels(*ids):
    """(8, 8, 8) with each id in a slab."""
    array = np.zeros((8, 8, 8), np.int16)
    for n, label in enumerate(ids):
        array[n] = label
    return array


@pytest.mark.parametrize("image", ["moving", "fixed"])
def test_an_empty_mask_is_named(files, image):
    given = files(**{f"{image}_mask": np.zeros((8, 8, 8), np.uint8)})
    with pytest.raises(ImageError, match=rf"{image}_mask\.nii\.gz: the mask is empty.*leave it out") as error:
        read_pair(**given)
    one_line(error)


@pytest.mark.parametrize("name", ["moving_mask", "fixed_mask", "fixed_labels"])
def test_what_lies_beside_its_image_is_named(files, name):
    far = np.eye(4)
    far[:3, 3] = 500
    given = files(far, **{name: np.ones((8, 8, 8), np.uint8)})
    image = name.split("_")[0]
    with pytest.raises(ImageError, match=rf"{name}\.nii\.gz: does not overlap the {image} image; give") as error:
        read_pair(**given)
    one_line(error)


def test_a_mask_of_another_grid_is_carried_over(files):
    fine = np.diag([0.5, 0.5, 0.5, 1.0])
    given = files(fine, fixed_mask=np.ones((8, 8, 8), np.uint8))
    mask = read_pair(**given).fixed_mask.array
    assert mask.dtype == bool
    assert mask[:4, :4, :4].all()
    assert not mask[5:].any()


def test_labels_without_a_common_id_cannot_be_compared(files):
    given = files(moving_labels=labels(1, 2), fixed_labels=labels(10, 11, 12))
    with pytest.raises(RegistrationError, match=r"share no label, 1, 2 against 10, 11, 12; give maps") as error:
        read_pair(**given)
    assert "moving_labels.nii.gz (moving)" in one_line(error)
    del given["fixed_labels"]
    assert read_pair(**given).moving_labels is not None  # to be carried along, not compared


def test_labels_that_differ_in_part_are_listed_once(files, caplog):
    given = files(moving_labels=labels(1, 2, 7), fixed_labels=labels(1, 2, 4, 5))
    with caplog.at_level(logging.WARNING, logger="r2reg"):
        read_pair(**given)
    (record,) = caplog.records
    assert "7 only in moving and 4, 5 only in fixed" in record.getMessage()
    caplog.clear()
    read_pair(**files(moving_labels=labels(1, 2), fixed_labels=labels(2, 1)))
    assert not caplog.records


def test_long_lists_are_cut(files):
    volume = read_pair(**files()).fixed
    many = np.zeros((8, 8, 8), np.int32)
    many.flat[:100] = np.arange(100) + 1
    with pytest.raises(RegistrationError, match=r"1, 2, 3, 4, 5, 6, 7, 8, 9, 10, \.\.\. against 1000;"):
        Pair(
            moving=volume,
            fixed=volume,
            moving_labels=Volume(many, volume.grid),
            fixed_labels=Volume(np.full((8, 8, 8), 1000, np.int32), volume.grid),
        )


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_ids_of_any_type_and_range(dtype):
    limits = np.iinfo(dtype)
    array = np.array([[0, 3, 3], [limits.max, limits.min, 7]], dtype)
    assert label_ids(array) == {3, 7, int(limits.max), int(limits.min)} - {0}
    assert label_ids(np.tile(np.array([0, 5, 120], dtype), 100)) == {5, 120}
    assert label_ids(np.zeros(4, dtype)) == set()
