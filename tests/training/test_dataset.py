"""From files to the training grid: grids, preparation, the cache, and the pairs."""

import dataclasses

import nibabel
import numpy as np
import pytest

from r2reg.config import NetworkConfig
from r2reg.errors import ConfigError, TableError, TrainingError
from r2reg.geometry.grid import Grid
from r2reg.io.images import Volume
from r2reg.training import prepare as preparation
from r2reg.training.dataset import make_dataset, read_table
from r2reg.training.grids import to_grid, training_grid


def test_default_grid_covers_the_reference_and_suits_the_network():
    reference = Grid((30, 41, 20), np.diag([-1.0, 1.0, 2.0, 1.0]))
    grid = training_grid(reference, np.ones(reference.shape, bool), (2, 2, 2), None, 16)
    assert grid.shape == (16, 32, 32)
    np.testing.assert_allclose(grid.spacing, 2)
    np.testing.assert_allclose(np.diag(grid.affine), [2, 2, 2, 1])  # canonical: x to the right
    inside = grid.ras_to_index(reference.index_to_ras(reference.corners()))
    # Voxel centres of the reference lie within the grid's outer borders, half a voxel around its centres.
    assert inside.min() >= -0.5
    assert (inside <= np.array(grid.shape) - 0.5).all()


def test_a_smaller_grid_is_centred_on_the_foreground():
    reference = Grid((64, 64, 64), np.eye(4))
    foreground = np.zeros(reference.shape, bool)
    foreground[10:30, 20:40, 60:64] = True
    grid = training_grid(reference, foreground, (1, 1, 1), (32, 32, 32), 16)
    # In z the window would leave the image, so it ends with it.
    np.testing.assert_allclose(grid.index_to_ras([0, 0, 0]), [4, 14, 32], atol=1)
    assert grid.shape == (32, 32, 32)


def test_cropping_keeps_the_foreground_and_a_margin():
    reference = Grid((128, 128, 128), np.eye(4))
    foreground = np.zeros(reference.shape, bool)
    foreground[50:80, 40:100, 30:60] = True
    grid = training_grid(reference, foreground, (2, 2, 2), None, 8, crop=True)
    assert grid.shape == (32, 48, 32)
    low = grid.ras_to_index(np.array([50.0, 40.0, 30.0]))
    high = grid.ras_to_index(np.array([79.0, 99.0, 59.0]))
    assert (low >= 7).all()  # 15 mm at 2 mm
    assert (high <= np.array(grid.shape) - 8).all()


def test_shape_of_another_dimension_is_refused():
    with pytest.raises(ConfigError, match="shape needs 3 numbers"):
        training_grid(Grid((8, 8, 8), np.eye(4)), np.ones((8, 8, 8), bool), (1, 1, 1), (8, 8), 8)


def test_an_image_that_misses_the_grid_is_named():
    far = np.eye(4)
    far[0, 3] = 500
    volume = Volume(np.ones((8, 8, 8), np.float32), Grid((8, 8, 8), far), "far.nii", None)
    with pytest.raises(TrainingError, match=r"far\.nii: nothing of it lies on the training grid"):
        to_grid(volume, Grid((8, 8, 8), np.eye(4)), [])


def make(cohort, config, folder):
    return make_dataset(read_table(cohort, config), config, folder)


def test_cohort_dataset(cohort, small_config, tmp_path):
    dataset, _ = make(cohort, small_config(), tmp_path / "cache")
    assert (dataset.shape, dataset.spacing, dataset.label_ids) == ((16, 16, 16), (2.0, 2.0, 2.0), (1, 2))
    assert sorted(dataset.training) == [(m, f) for m in range(3) for f in range(3) if m != f]
    # The single held-out person is paired with the training people, both ways.
    assert sorted(dataset.validation) == sorted([(3, i) for i in range(3)] + [(i, 3) for i in range(3)])
    assert dataset.held_out
    image, labels = dataset.items[0].load("image"), dataset.items[0].load("labels")
    assert (image.dtype, labels.dtype) == (np.float32, np.int16)
    assert (image.min(), image.max()) == (0, 1)


def test_prepared_images_are_used_again(cohort, small_config, tmp_path, monkeypatch):
    first, _ = make(cohort, small_config(), tmp_path / "cache")
    loads = []
    original = preparation.load
    monkeypatch.setattr(preparation, "load", lambda *args: loads.append(args) or original(*args))
    again, _ = make(cohort, small_config(learning_rate=1.0), tmp_path / "cache")
    assert again.items == first.items
    assert loads == []
    other, _ = make(cohort, small_config(shape=(8, 16, 16)), tmp_path / "cache")
    assert {i.image for i in other.items}.isdisjoint(i.image for i in first.items)


def test_alignment_brings_a_shifted_person_back(cohort, small_config, tmp_path):
    image = nibabel.load(cohort.parent / "image0.nii.gz")
    shifted = image.affine.copy()
    shifted[:3, 3] += [30, -20, 10]
    nibabel.save(nibabel.Nifti1Image(image.get_fdata(dtype=np.float32), shifted), tmp_path / "shifted.nii.gz")
    nibabel.save(image, tmp_path / "image.nii.gz")
    (tmp_path / "c.csv").write_text("image\nimage.nii.gz\nshifted.nii.gz\n", encoding="utf-8")
    dataset, _ = make(tmp_path / "c.csv", small_config(align="affine"), tmp_path / "cache")
    fixed, moved = (item.load("image") for item in dataset.items)
    # The same image: what is left is the optimiser's tolerance, far below the spread of the image.
    assert np.abs(fixed - moved).mean() < 0.02
    assert fixed.std() > 0.2


def test_given_pairs_lie_on_the_grid_of_their_own_fixed_image(cohort, small_config, tmp_path):
    for name, shift in (("a", 0), ("b", 0), ("c", 300), ("d", 300)):
        image = nibabel.load(cohort.parent / f"image{'abcd'.index(name)}.nii.gz")
        affine = image.affine.copy()
        affine[0, 3] += shift
        nibabel.save(nibabel.Nifti1Image(image.get_fdata(dtype=np.float32), affine), tmp_path / f"{name}.nii.gz")
    table = tmp_path / "pairs.csv"
    table.write_text("moving,fixed,split\na.nii.gz,b.nii.gz,train\nc.nii.gz,d.nii.gz,val\n", encoding="utf-8")
    dataset, _ = make(table, small_config(), tmp_path / "cache")
    assert (dataset.training, dataset.validation) == (((0, 1),), ((2, 3),))
    assert (dataset.given, dataset.epoch_steps(1)) == (True, 1)
    assert all(item.load("image").max() > 0.9 for item in dataset.items)


def test_groups_and_their_absence(cohort, small_config, tmp_path):
    folder = cohort.parent
    rows = [f"{folder}/image{i}.nii.gz,{'xy'[i % 2]},train" for i in range(4)]
    (tmp_path / "c.csv").write_text("image,group,split\n" + "\n".join(rows), encoding="utf-8")
    dataset, _ = make(tmp_path / "c.csv", small_config(), tmp_path / "cache")
    assert sorted(dataset.training) == [(0, 2), (1, 3), (2, 0), (3, 1)]
    assert not dataset.held_out
    rows = [f"{folder}/image{i}.nii.gz,{'xy'[i]},train" for i in range(2)]
    (tmp_path / "c.csv").write_text("image,group,split\n" + "\n".join(rows), encoding="utf-8")
    with pytest.raises(TrainingError, match="share a group"):
        make(tmp_path / "c.csv", small_config(), tmp_path / "cache")


def test_labels_that_the_settings_need(cohort, small_config, tmp_path):
    folder = cohort.parent
    (tmp_path / "c.csv").write_text(f"image\n{folder}/image0.nii.gz\n{folder}/image1.nii.gz\n", encoding="utf-8")
    with pytest.raises(TableError, match="no column labels"):
        read_table(tmp_path / "c.csv", small_config(similarity="dice"))
    (tmp_path / "p.csv").write_text(f"moving,fixed\n{folder}/image0.nii.gz,{folder}/image1.nii.gz\n", encoding="utf-8")
    with pytest.raises(TableError, match="line 2 needs moving_labels and fixed_labels"):
        read_table(tmp_path / "p.csv", small_config(synthesis="labels"))


def test_ids_without_a_grey_are_told(small_config, tmp_path, caplog):
    for name, ids in (("a", (2, 3, 41, 42)), ("b", (2, 3, 41, 9999)), ("c", (2, 7777, 41, 42)), ("d", (2, 3, 41, 42))):
        labels = np.zeros((16, 16, 16), np.int16)
        for k, label in enumerate(ids):
            labels[2:14, 2:14, 2 + 3 * k : 5 + 3 * k] = label
        nibabel.save(nibabel.Nifti1Image(labels, np.diag([2.0, 2.0, 2.0, 1.0])), tmp_path / f"{name}.nii.gz")
    config = small_config(synthesis="labels", similarity="dice")
    tables = []
    for names in ("ab", "abc", "ad"):
        tables.append(tmp_path / f"{names}.csv")
        tables[-1].write_text("labels\n" + "".join(f"{name}.nii.gz\n" for name in names), encoding="utf-8")
    told = []
    for table in tables:
        caplog.clear()
        make(table, config, tmp_path / "cache")
        told.append([record.message for record in caplog.records if "no grey of their own" in record.message])
    (one,), (two,), none = told
    assert "b.nii.gz: labels 9999 have no grey of their own here" in one
    assert "b.nii.gz and 1 more map: labels 9999 have no grey" in two
    assert none == []


def test_two_dimensional_images_set_the_networks_dimension(small_config, tmp_path):
    for name in "ab":
        array = np.random.default_rng(ord(name)).random((24, 20)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(array, np.diag([2.0, 2.0, 1.0, 1.0])), tmp_path / f"{name}.nii.gz")
    (tmp_path / "c.csv").write_text("image\na.nii.gz\nb.nii.gz\n", encoding="utf-8")
    dataset, config = make(tmp_path / "c.csv", small_config(), tmp_path / "cache")
    assert (config.model.ndim, config.model.spacing, dataset.shape) == (2, (2.0, 2.0), (24, 20))
    uneven = dataclasses.replace(small_config(), model=NetworkConfig(spacing=(1.0, 1.0, 3.0)))
    with pytest.raises(ConfigError, match="spacing needs 2 numbers"):
        make(tmp_path / "c.csv", uneven, tmp_path / "cache")
