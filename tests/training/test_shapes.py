"""Random shapes: what a map looks like, and a training set that needs no cohort."""

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import label as connected

from r2reg.config import TrainConfig
from r2reg.errors import ConfigError
from r2reg.training import batches as batches_module
from r2reg.training import shapes
from r2reg.training.batches import Batches
from r2reg.training.dataset import make_dataset, read_table, reopened
from r2reg.training.loop import train


@pytest.fixture
def config(small_config):
    return small_config(synthesis="shapes", shape=(16, 16, 16), similarity="dice", augment=("warp", "flip"))


def test_a_map_is_a_function_of_the_generator():
    first, again, other = (shapes.draw_shapes(np.random.default_rng(s), (24, 20, 28), (4, 4, 4)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert first.dtype == np.uint8


@pytest.mark.parametrize("shape", [(48, 48, 48), (96, 80)])
def test_shapes_are_few_and_large_whatever_the_grid(shape):
    labels = shapes.draw_shapes(np.random.default_rng(3), shape, [192 / n for n in shape])
    assert set(np.unique(labels)) <= set(range(shapes.CLASSES + 1))
    pieces = sum(connected(labels == k)[1] for k in range(1, shapes.CLASSES + 1))
    # Noise of single voxels would have about as many pieces as voxels.
    assert 8 < pieces < labels.size / 60


def test_some_views_are_half_empty_and_some_are_full():
    rng = np.random.default_rng(0)
    shares = [(shapes.draw_shapes(rng, (24, 24, 24), (8, 8, 8)) > 0).mean() for _ in range(40)]
    assert min(shares) < 0.4
    assert max(shares) > 0.97


def test_a_dataset_of_shapes_needs_no_cohort(config, tmp_path):
    dataset, found = make_dataset([], config, tmp_path)
    assert (dataset.shape, dataset.spacing, found) == ((16, 16, 16), (2.0, 2.0, 2.0), config)
    assert (len(dataset.training), len(dataset.validation)) == (shapes.MAPS, shapes.HELD_OUT)
    assert all(moving == fixed for moving, fixed in dataset.training + dataset.validation)
    assert not set(dataset.training) & set(dataset.validation)
    again, _ = make_dataset([], config, tmp_path)
    assert [i.labels for i in again.items] == [i.labels for i in dataset.items]
    other, _ = make_dataset([], dataclasses.replace(config, seed=1), tmp_path)
    assert not {i.labels for i in other.items} & {i.labels for i in dataset.items}


def test_both_images_of_a_pair_are_warped_and_painted_apart(config, tmp_path):
    batches = Batches(make_dataset([], config, tmp_path)[0], config)
    for batch in (batches.training(0), batches.validation(0)):
        assert (batch["moving_labels"] != batch["fixed_labels"]).any()
        common = (batch["moving_labels"] * batch["fixed_labels"].astype(float)).sum()
        assert common > 0.2 * (batch["fixed_labels"].astype(float) ** 2).sum()  # and still look alike
        assert (batch["moving"] != batch["fixed"]).any()


def test_each_image_of_one_map_is_warped_for_itself_and_two_people_alike(
    config, cohort, small_config, tmp_path, monkeypatch
):
    drawn = []
    real = batches_module.draw_augmentation
    monkeypatch.setattr(batches_module, "draw_augmentation", lambda *a, **k: drawn.append(real(*a, **k)) or drawn[-1])
    Batches(make_dataset([], config, tmp_path)[0], config).training(0)
    people = small_config(augment=("warp",))
    Batches(make_dataset(read_table(cohort, people), people, tmp_path)[0], people).training(0)
    shapes_pair, two_people = (change.motions for change in drawn)
    assert shapes_pair["moving"].seed != shapes_pair["fixed"].seed
    assert shapes_pair["moving"].own_push == 0
    assert two_people["moving"].seed == two_people["fixed"].seed
    assert two_people["moving"].own_push > 0


def test_a_run_on_shapes_opens_again_as_it_was_validated(config, tmp_path):
    dataset, config = make_dataset([], config, tmp_path)
    again = reopened(dataset.validation_items(), tmp_path, dataset.shape, dataset.spacing, dataset.label_ids)
    for number in (0, 5):
        first, second = (Batches(pairs, config).validation(number) for pairs in (dataset, again))
        for name in ("moving", "fixed", "moving_labels"):
            np.testing.assert_array_equal(first[name], second[name])


def test_two_dimensions(config, tmp_path):
    model = dataclasses.replace(config.model, ndim=3)
    dataset, found = make_dataset([], dataclasses.replace(config, shape=(16, 24), model=model), tmp_path)
    assert (found.model.ndim, dataset.shape) == (2, (16, 24))
    assert Batches(dataset, found).training(0)["moving"].shape == (1, 16, 24, 1)


def test_training_on_shapes(config, tmp_path):
    result = train(None, tmp_path / "run", dataclasses.replace(config, steps=2))
    assert result.steps == 2
    assert "painted maps of random shapes" in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")


def test_what_shapes_need_is_said(config, tmp_path):
    with pytest.raises(ConfigError, match="add warp to --augment"):
        TrainConfig(synthesis="shapes", augment=("flip",))
    with pytest.raises(ConfigError, match="--shape"):
        train(None, tmp_path / "run", dataclasses.replace(config, shape=None))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="leave the cohort out"):
        train(tmp_path / "cohort.csv", tmp_path / "run", config)
    with pytest.raises(ConfigError, match="give a cohort"):
        train(None, tmp_path / "run", dataclasses.replace(config, synthesis="none"))
