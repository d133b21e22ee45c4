"""Batches are functions of (seed, step), made ahead in order."""

import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from keras import ops

from r2reg.training.batches import Batches, Prefetch
from r2reg.training.dataset import make_dataset, read_table
from r2reg.training.synthesis import main_class
from r2reg.training.trainer import dice_loss


@pytest.fixture
def make_batches(cohort, small_config, tmp_path):
    def make(table=cohort, **settings):
        config = small_config(**settings)
        dataset, config = make_dataset(read_table(table, config), config, tmp_path / "cache")
        return Batches(dataset, config)

    return make


def test_a_batch_depends_on_seed_and_step_only(make_batches):
    first, again = make_batches(seed=5, batch_size=2), make_batches(seed=5, batch_size=2)
    again.training(0)  # the order of calls does not matter
    for name, array in first.training(7).items():
        np.testing.assert_array_equal(array, again.training(7)[name])
    draws = [tuple(first.pairs(step)) for step in range(20)]
    assert len(set(draws)) > 10
    assert draws != [tuple(make_batches(seed=6, batch_size=2).pairs(step)) for step in range(20)]


def test_shapes_and_types(make_batches):
    batch = make_batches(batch_size=3, similarity="dice").training(0)
    assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
        "moving": ((3, 16, 16, 16, 1), "float32"),
        "fixed": ((3, 16, 16, 16, 1), "float32"),
        "moving_labels": ((3, 16, 16, 16, 2), "uint8"),
        "fixed_labels": ((3, 16, 16, 16, 2), "uint8"),
    }
    assert set(make_batches().training(0)) == {"moving", "fixed"}
    assert np.unique(main_class(make_batches().validation(0)["fixed_labels"])).tolist() == [0, 1, 2]


def test_classes_are_compared_where_a_velocity_of_half_size_is(make_batches, small_config):
    half = replace(small_config().model, velocity_size="half", integrator="flow")
    batches = make_batches(similarity="dice", model=half)
    shares = batches.training(0)["fixed_labels"]
    assert shares.shape == (1, 8, 8, 8, 2)
    assert len(np.unique(shares)) > 3  # voxels of several classes
    assert batches.validation(0)["fixed_labels"].shape == (1, 16, 16, 16, 2)

    whole, still = make_batches(similarity="dice").training(0), np.zeros((1, 16, 16, 16, 3), np.float32)
    coarse = {name: ops.convert_to_tensor(value) for name, value in batches.training(0).items()}
    moved = np.broadcast_to(np.float32([2, 0, 0]), still.shape)  # voxels of the images
    rolled = whole | {"moving_labels": np.roll(whole["moving_labels"], -2, axis=1)}
    found, expected = (
        float(dice_loss(batch, ops.convert_to_tensor(field)))
        for batch, field in ((coarse, moved), ({k: ops.convert_to_tensor(v) for k, v in rolled.items()}, still))
    )
    assert found == pytest.approx(expected, abs=0.08)  # mixed voxels are less sure of themselves
    assert abs(float(dice_loss(coarse, ops.convert_to_tensor(still))) - expected) > 0.08


def test_masks_are_the_fixed_images_and_ones_where_there_is_none(cohort, make_batches, tmp_path):
    folder = cohort.parent
    rows = [f"{folder}/image0.nii.gz,{folder}/labels0.nii.gz", f"{folder}/image1.nii.gz,"]
    (tmp_path / "c.csv").write_text("image,mask\n" + "\n".join(rows), encoding="utf-8")
    # A mask is any label map whose voxels are 0 or not; the cohort's holds 0, 1 and 2.
    batches = make_batches(table=tmp_path / "c.csv")
    means = {batches.pairs(s)[0][1]: batches.training(s)["mask"].mean() for s in range(20)}
    assert means[1] == 1
    assert 0.1 < means[0] < 0.5


def test_given_pairs_are_all_passed_once_an_epoch(cohort, make_batches, tmp_path):
    folder = cohort.parent
    names = [(0, 1), (1, 2), (2, 0), (0, 2), (1, 0)]
    rows = [f"{folder}/image{m}.nii.gz,{folder}/image{f}.nii.gz,train" for m, f in names]
    (tmp_path / "p.csv").write_text("moving,fixed,split\n" + "\n".join(rows), encoding="utf-8")
    batches = make_batches(table=tmp_path / "p.csv", batch_size=2)
    assert batches.dataset.epoch_steps(2) == 3
    epochs = [[p for step in range(3 * e, 3 * e + 3) for p in batches.pairs(step)] for e in range(4)]
    for epoch in epochs:
        assert len(epoch) == 6
        assert set(epoch) == set(batches.dataset.training)
    assert len({tuple(e) for e in epochs}) > 1


def test_painted_pairs(make_batches):
    batches = make_batches(synthesis="labels")
    first, second = batches.training(3), batches.training(3)
    np.testing.assert_array_equal(first["moving"], second["moving"])
    assert first["moving"].max() == 1
    assert batches.dataset.items[0].image is None


@pytest.mark.parametrize(
    ("contrast", "similarity", "shared"),
    [
        ("random", "mse", True),
        ("mixed", "lncc", True),
        ("t1", "mse", True),
        ("random", "dice", False),
        ("t1", "mi", False),
    ],
)
def test_images_whose_greys_are_compared_share_a_contrast(make_batches, contrast, similarity, shared):
    batches = make_batches(synthesis="labels", contrast=contrast, similarity=similarity)
    recipes = recipes_of(batches)
    assert (recipes[0].means == recipes[1].means) == shared
    assert recipes[0].seed != recipes[1].seed


def recipes_of(batches):
    """Of moving and fixed of a pair."""
    return [paint.keywords["recipe"] for paint in batches._paints(np.random.default_rng(1)).values()]


def test_one_contrast_for_both_images_of_a_pair(make_batches):
    batches = make_batches(synthesis="labels", contrast="random", similarity="dice", one_contrast=True)
    first, second = recipes_of(batches)
    assert first.means == second.means
    assert first.seed != second.seed


def test_coarser_images_of_finer_labels(cohort, make_batches):
    """At 4 mm labels of 2 mm stay as they are; images are their mixtures, and the loss sees shares."""
    model = replace(make_batches().config.model, spacing=(4.0,) * 3)
    batches = make_batches(synthesis="labels", similarity="dice", model=model, shape=(8, 8, 8))
    assert batches.dataset.items[0].load("labels").shape == (16, 16, 16)
    batch = batches.training(0)
    assert batch["moving"].shape == (1, 8, 8, 8, 1)
    assert batch["moving_labels"].shape == (1, 8, 8, 8, 2)
    assert 0 < ((batch["moving_labels"] > 0) & (batch["moving_labels"] < 255)).mean() < 0.5
    everything = ("affine", "warp", "flip", "resolution", "bias", "intensity", "crop")
    augmented = make_batches(
        synthesis="labels", similarity="dice", augment=everything, model=model, shape=(8, 8, 8)
    ).training(0)
    assert {name: (a.shape, a.dtype) for name, a in augmented.items()} == {
        name: (a.shape, a.dtype) for name, a in batch.items()
    }


def test_what_lies_around_a_brain_is_painted_and_not_aligned(tmp_path, small_config):
    labels = np.zeros((16, 16, 16), np.int16)
    labels[2:14, 2:14, 2:14] = 502
    for k, label in enumerate((2, 3, 41, 42)):
        labels[4 + 2 * k : 6 + 2 * k, 5:11, 5:11] = label
    for k in range(3):
        nibabel.save(nibabel.Nifti1Image(np.roll(labels, k, axis=1), np.diag([2.0, 2, 2, 1])), tmp_path / f"{k}.nii.gz")
    rows = [f"{k}.nii.gz,{'val' if k == 2 else 'train'}" for k in range(3)]
    (tmp_path / "c.csv").write_text("labels,split\n" + "\n".join(rows), encoding="utf-8")
    seen = {}
    for skull in ("strip", "keep", "mixed"):
        config = small_config(synthesis="labels", similarity="dice", contrast="random", skull=skull, shape=(16, 16, 16))
        dataset, config = make_dataset(read_table(tmp_path / "c.csv", config), config, tmp_path / "cache")
        assert dataset.trained_ids == (2, 3, 41, 42)
        batches = [Batches(dataset, config).training(step) for step in range(8)]
        assert all(batch["fixed_labels"].shape[-1] == 4 for batch in batches)
        seen[skull] = np.mean([(batch["fixed"] > 0.05).mean() > 0.2 for batch in batches])
    assert seen["strip"] == 0
    assert seen["keep"] == 1
    assert 0 < seen["mixed"] < 1


@pytest.mark.parametrize(("maps", "trained"), [(3, (1, 2, 9)), (2, (1, 2))])
def test_rare_labels_are_painted_and_not_in_the_loss(cohort, make_batches, tmp_path, caplog, maps, trained):
    """Label 9 has 6 voxels in some of the four maps: on average 4.5, or 3."""
    table = Path(shutil.copytree(cohort.parent, tmp_path / "copy")) / cohort.name
    for k in range(maps):
        image = nibabel.load(table.with_name(f"labels{k}.nii.gz"))
        labels = np.asarray(image.dataobj).copy()
        labels[0, 0, :6] = 9
        nibabel.save(nibabel.Nifti1Image(labels, image.affine), table.with_name(f"labels{k}.nii.gz"))
    with caplog.at_level("INFO"):
        found = make_batches(table, synthesis="labels", similarity="dice").dataset
    assert (found.label_ids, found.trained_ids) == ((1, 2, 9), trained)
    assert found.classes.tolist() == [0, 1, 2, 3 if 9 in trained else 0]
    assert ("too small or too rare for the loss: labels 9" in caplog.text) == (9 not in trained)


def test_prefetch_yields_all_steps_in_order_and_stops_its_threads(make_batches):
    batches = make_batches()
    with Prefetch(batches, 2, 9, workers=3) as data:
        made = list(data)
    assert len(made) == 7
    for step, batch in enumerate(made, start=2):
        np.testing.assert_array_equal(batch["moving"], batches.training(step)["moving"])
    assert not [t for t in threading.enumerate() if t.name.startswith("r2reg-batches")]


def test_prefetch_works_while_the_consumer_does(make_batches, monkeypatch):
    batches = make_batches()
    made = []

    def slow(step):
        time.sleep(0.02)
        made.append(step)
        return {}

    monkeypatch.setattr(batches, "training", slow)
    with Prefetch(batches, 0, 100, workers=1) as data:
        for number, _ in enumerate(data):
            if number == 4:
                break
            time.sleep(0.05)
        waited = data.take_waited()
    # 0.02 s for the first batch; the others are made during the consumer's 0.05 s. Bounded: 2 ahead.
    assert waited < 0.08
    assert len(made) <= 5 + 2 + 1


def test_an_error_while_making_a_batch_reaches_the_consumer(make_batches, monkeypatch):
    batches = make_batches()
    monkeypatch.setattr(batches, "training", lambda step: 1 / 0)
    with Prefetch(batches, 0, 5, workers=1) as data, pytest.raises(ZeroDivisionError):
        next(iter(data))
