"""The loop: what a run leaves, resuming to the same weights, and stopping well."""

import csv
import json
import os
import shutil
import signal
import threading

import numpy as np
import pytest

from r2reg.config import LOSS_PARTS, NetworkConfig
from r2reg.errors import ConfigError, OutputError, R2RegError, TrainingError
from r2reg.training import checkpoint, loop
from r2reg.training.checkpoint import State, identity
from r2reg.training.loop import train
from r2reg.training.progress import Stop


def assert_same_weights(first, second, atol):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=0, atol=atol, err_msg=name)


@pytest.fixture(scope="module")
def finished(cohort, small_config, tmp_path_factory):
    """A run of six steps, validated every three."""
    run = tmp_path_factory.mktemp("finished") / "run"
    config = small_config(steps=6, validate_every=3)
    return run, config, train(cohort, run, config)


@pytest.mark.backends
def test_a_run_leaves_a_model_and_its_story(finished, cohort):
    from r2reg.networks.saving import load_model

    run, config, result = finished
    assert (result.run, result.steps) == (run, 6)
    assert {p.name for p in run.iterdir()} == {
        *("config.json", "model.weights.h5", "last.ckpt", "history.csv", "README.md", "tensorboard", "cache")
    }
    saved = load_model(run)
    assert saved.network == config.model
    network = saved.build((16, 16, 16))
    zeros = np.zeros((1, 16, 16, 16, 1), np.float32)
    outputs = network.predict_on_batch([zeros, zeros])
    assert outputs["displacement"].shape == (1, 16, 16, 16, 3)
    content = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert content["best"]["step"] == result.best_step
    assert content["training"]["similarity"] == "mse"
    assert saved.sha256 in (run / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def multiscale(cohort, small_config, tmp_path_factory):
    """A multi-scale run of two steps in each part, and its settings."""
    run = tmp_path_factory.mktemp("multiscale") / "run"
    small = {"encoder": (4, 8), "decoder": (8, 8, 8, 4, 3), "up_filters": 4, "blocks": 2}
    config = small_config(model=NetworkConfig(network="ms-svf-r2net", **small), steps=2)
    train(cohort, run, config)
    return run, config


@pytest.mark.backends
def test_multiscale_trains_its_branches_then_merges_them(multiscale):
    from r2reg.networks.branches import Branches, network_inputs
    from r2reg.networks.saving import load_model

    run, config = multiscale
    saved = load_model(run)
    assert saved.network == config.model
    assert saved.branches["coarse"].network.spacing == (4.0, 4.0, 4.0)
    pair = np.random.default_rng(0).random((2, 1, 16, 20, 18, 1), np.float32)
    fine, coarse = network_inputs(saved, *pair)
    assert (fine.shape, coarse.shape) == ((1, 16, 20, 18, 3), (1, 8, 10, 9, 3))
    out = saved.build((16, 20, 18)).predict_on_batch([fine, coarse])
    assert out["displacement"].shape == (1, 16, 20, 18, 3)

    # Before the next chunk begins, the merged velocity is the chunk branch's own.
    branches = Branches(saved, (16, 20, 18))
    tile, own = branches.tiles[0], (0, *(slice(part.start) for part in branches.tiles[-1]))
    assert fine[own].size > 0
    chunk = saved.branches["chunk"].build([part.stop - part.start for part in tile])
    alone = chunk.predict_on_batch([image[(slice(None), *tile)] for image in pair])["velocity"]
    np.testing.assert_allclose(fine[own], alone[own], atol=1e-6)


def test_multiscale_goes_on_where_it_stopped(multiscale, cohort, tmp_path, monkeypatch, weights):
    """Stopped in each part, once in its very last step, and continued: the run that was never stopped."""
    whole, config = multiscale
    run = tmp_path / "run"
    step = loop.Run.step
    stops = {("chunk", 2), ("coarse", 1), ("run", 1)}

    def stopping(self, batch):
        loss = step(self, batch)
        if (self.folder.name, self.state.step) in stops:
            stops.remove((self.folder.name, self.state.step))
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    monkeypatch.setattr(loop.Run, "step", stopping)
    for has in ("chunk/last.ckpt", "coarse/last.ckpt", "last.ckpt"):
        with pytest.raises(KeyboardInterrupt):
            train(cohort, run, config, resume=run.exists())
        assert (run / has).is_file()
        assert (run / "coarse").exists() == (has != "chunk/last.ckpt")
        left = "config.json" if has == "last.ckpt" else "chunk/last.ckpt"
        with pytest.raises(OutputError, match=f"{left}.*--resume"):
            train(cohort, run, config)
    train(cohort, run, config, resume=True)
    for part in ("chunk", "coarse", "."):
        found, expected = (weights(folder / part / "model.weights.h5") for folder in (run, whole))
        assert_same_weights(found, expected, atol=1e-6)


def test_multiscale_without_a_branch(multiscale, tmp_path):
    from r2reg.errors import ModelError
    from r2reg.networks.saving import load_model

    copy = tmp_path / "copy"
    shutil.copytree(multiscale[0], copy)
    shutil.rmtree(copy / "coarse")
    with pytest.raises(ModelError, match=r"coarse.*holds no config"):
        load_model(copy)
    shutil.copytree(copy / "chunk", copy / "coarse")
    with pytest.raises(ModelError, match="is not the coarse branch"):
        load_model(copy)


def test_inspection_of_a_run(finished, tmp_path):
    """An untrained SVF all but stands still: its blocks add what they were told to, and the test says how much."""
    from r2reg.evaluation.inspection import inspect_model

    found = inspect_model(finished[0], converges=True)
    assert [row["layer"] for row in found["norms"]] == ["block/c1", "block/c2"]
    assert all(0.9 < row["operator"] <= 1.08 for row in found["norms"])
    test = found["convergence"]
    assert test["pairs"] == len(
        json.loads((finished[0] / "config.json").read_text(encoding="utf-8"))["data"]["validation"]
    )
    # Where next to nothing moves, seven squarings are exact to rounding, and so both tests say the same.
    assert test["scaling_squaring"]["max"]["mean"] < 1e-3
    assert test["paper"]["rms"]["mean"] == pytest.approx(test["converged"]["rms"]["mean"], rel=0.05)

    copy = tmp_path / "copy"
    shutil.copytree(finished[0], copy, ignore=shutil.ignore_patterns("cache"))
    with pytest.raises(TrainingError, match="prepared image is gone"):
        inspect_model(copy, converges=True)


ESTIMATORS = [
    pytest.param({"network": "svf-r2net", "velocity": "prob"}, marks=pytest.mark.backends),
    {"network": "nsvf-r2net", "velocity": "nokl"},
    {"network": "nsvf-r2net", "velocity": "gauss"},
    {"network": "svf-r2net", "velocity": "multi"},
    {"network": "nsvf-r2net", "velocity": "nonprob-gauss"},
    {"network": "vm-diff"},
    {"network": "ms-vm-diff"},
]


@pytest.mark.parametrize("settings", ESTIMATORS, ids=lambda s: "-".join(s.values()))
def test_every_estimator_trains_and_loads(settings, cohort, small_config, tmp_path):
    from r2reg.networks.saving import load_model

    small = {"encoder": (4, 8), "decoder": (8, 8, 8, 4, 3), "up_filters": 4, "blocks": 2}
    config = small_config(model=NetworkConfig(**small, **settings), steps=2, validate_every=2)
    train(cohort, tmp_path / "run", config)
    row = next(csv.DictReader((tmp_path / "run" / "history.csv").open(encoding="utf-8")))
    assert ("kl" in row) == (config.model.velocity == "prob")
    zeros = np.zeros((1, 16, 16, 16, 1), np.float32)
    outputs = load_model(tmp_path / "run").build((16, 16, 16)).predict_on_batch([zeros, zeros])
    assert np.isfinite(outputs["displacement"]).all()


BACKENDS = pytest.mark.backends


@pytest.mark.parametrize("similarity", [pytest.param("lncc", marks=BACKENDS), "ngf", "mi", "mind", "dice"])
def test_every_similarity_trains(similarity, cohort, small_config, tmp_path):
    run = tmp_path / "run"
    train(cohort, run, small_config(similarity=similarity, steps=2, validate_every=1, batch_size=2))
    first, second = csv.DictReader((run / "history.csv").open(encoding="utf-8"))
    assert np.isfinite(float(first["loss"]))
    assert first["val_loss"] != second["val_loss"]


@pytest.mark.backends
def test_every_part_of_the_loss(cohort, small_config, tmp_path):
    """All weights at once, and their sum is the loss."""
    small = {"encoder": (4, 8), "decoder": (8, 8, 8, 4, 3), "up_filters": 4, "blocks": 2}
    model = NetworkConfig(**small, velocity="prob", integrator="flow")
    weights = dict.fromkeys(LOSS_PARTS, 0.5)
    config = small_config(model=model, weights=weights, steps=1, weight_decay=1e-3)
    train(cohort, tmp_path / "run", config)
    row = next(csv.DictReader((tmp_path / "run" / "history.csv").open(encoding="utf-8")))
    assert float(row["loss"]) == pytest.approx(0.5 * sum(float(row[name]) for name in LOSS_PARTS), rel=1e-4)


@pytest.mark.backends
def test_history_has_a_row_per_validation(finished):
    run, _, result = finished
    rows = list(csv.DictReader((run / "history.csv").open(encoding="utf-8")))
    assert [int(row["step"]) for row in rows] == [3, 6]
    for row in rows:
        # MSE has weight 1, folding 1, diffusion 0.001; the values are written with six digits.
        parts = float(row["similarity"]) + float(row["folding"]) + 0.001 * float(row["diffusion"])
        assert float(row["loss"]) == pytest.approx(parts, rel=1e-5)
        assert float(row["wait_seconds"]) <= float(row["seconds"])
        assert 0 < float(row["val_dice_labels"]) <= 1
    assert float(rows[1]["seconds"]) >= float(rows[0]["seconds"])
    lowest = min(rows, key=lambda row: float(row["val_loss"]))
    assert (result.best_step, result.best["val_loss"]) == (
        int(lowest["step"]),
        pytest.approx(float(lowest["val_loss"]), rel=1e-5),
    )


def test_training_lowers_the_loss(cohort, small_config, tmp_path):
    result = train(cohort, tmp_path / "run", small_config(steps=40, validate_every=20, learning_rate=5e-3))
    rows = list(csv.DictReader((tmp_path / "run" / "history.csv").open(encoding="utf-8")))
    assert float(rows[1]["val_loss"]) < float(rows[0]["val_loss"])
    assert result.best_step == 40


def test_resumed_equals_uninterrupted(finished, cohort, small_config, tmp_path, weights):
    run, config, _ = finished
    half = tmp_path / "run"
    train(cohort, half, small_config(steps=3, validate_every=3))
    train(cohort, half, config, resume=True)
    # Not exactly: with several threads TensorFlow sums in no fixed order.
    assert_same_weights(weights(half / "model.weights.h5"), weights(run / "model.weights.h5"), atol=1e-6)
    with np.load(half / "last.ckpt") as resumed, np.load(run / "last.ckpt") as whole:
        assert resumed.files == whole.files
        for name in set(whole.files) - {"meta"}:
            np.testing.assert_allclose(resumed[name], whole[name], rtol=0, atol=1e-6)
    assert len((half / "history.csv").read_text(encoding="utf-8").splitlines()) == 3
    assert len(list((half / "tensorboard").iterdir())) == 2


def test_resuming_a_finished_run_changes_nothing(finished, cohort):
    run, config, result = finished
    before = (run / "last.ckpt").read_bytes()
    assert train(cohort, run, config, resume=True) == result
    assert (run / "last.ckpt").read_bytes() == before


def test_resumed_sampling_goes_on_with_the_same_noise(cohort, small_config, tmp_path):
    small = {"encoder": (4, 8), "decoder": (8, 8, 8, 4, 3), "up_filters": 4, "blocks": 2}
    configs = [small_config(model=NetworkConfig(**small, velocity="prob"), steps=n, validate_every=1) for n in (1, 2)]
    train(cohort, tmp_path / "whole", configs[1])
    train(cohort, tmp_path / "half", configs[0])
    train(cohort, tmp_path / "half", configs[1], resume=True)
    whole, half = (
        list(csv.DictReader((tmp_path / name / "history.csv").open(encoding="utf-8")))[1] for name in ("whole", "half")
    )
    assert float(half["kl"]) == pytest.approx(float(whole["kl"]), rel=1e-6)
    with np.load(tmp_path / "half" / "last.ckpt") as resumed, np.load(tmp_path / "whole" / "last.ckpt") as once:
        for name in set(once.files) - {"meta"}:
            np.testing.assert_allclose(resumed[name], once[name], rtol=0, atol=1e-6)


def test_resume_refuses_other_settings_and_names_them(finished, cohort, small_config):
    run, _, _ = finished
    with pytest.raises(TrainingError, match="trained with other learning_rate, seed;"):
        train(cohort, run, small_config(steps=6, learning_rate=0.5, seed=4), resume=True)


def test_a_run_of_before_a_setting_existed_goes_on(finished, cohort, tmp_path):
    run, config, result = finished
    old = shutil.copytree(run, tmp_path / "run")
    with np.load(old / "last.ckpt", allow_pickle=False) as file:
        arrays = dict(file)
    meta = json.loads(arrays["meta"].tobytes())
    del meta["identity"]["one_contrast"]
    with (old / "last.ckpt").open("wb") as file:
        np.savez(file, **arrays | {"meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)})
    assert train(cohort, old, config, resume=True).steps == result.steps


def test_a_run_knows_by_which_augmentation(small_config, monkeypatch):
    """The same words meant other images before."""
    config = small_config(augment=("warp",))
    before = identity(config, "data")
    monkeypatch.setattr(checkpoint, "VERSION", checkpoint.VERSION + 1)
    assert identity(config, "data") != before
    assert identity(small_config(), "data") == identity(small_config(), "data")


def test_a_corrupt_checkpoint_is_named(finished, cohort, tmp_path):
    run, config, _ = finished
    broken = tmp_path / "run"
    broken.mkdir()
    (broken / "last.ckpt").write_bytes((run / "last.ckpt").read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"last\.ckpt: is not a whole checkpoint"):
        train(cohort, broken, config, resume=True)


def test_an_existing_run_is_not_replaced_unasked(finished, cohort):
    run, config, _ = finished
    with pytest.raises(OutputError, match="holds a run already"):
        train(cohort, run, config)
    with pytest.raises(ConfigError, match="exclude each other"):
        train(cohort, run, config, resume=True, overwrite=True)


def test_overwrite_begins_again(cohort, small_config, tmp_path):
    run = tmp_path / "run"
    train(cohort, run, small_config(steps=2))
    cached = sorted(p.name for p in (run / "cache").iterdir())
    train(cohort, run, small_config(steps=1, seed=0), overwrite=True)
    assert [row["step"] for row in csv.DictReader((run / "history.csv").open(encoding="utf-8"))] == ["1"]
    assert sorted(p.name for p in (run / "cache").iterdir()) == cached
    assert len(list((run / "tensorboard").iterdir())) == 1


def test_tensorboard_holds_scalars_and_a_picture(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, _, _ = finished
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert {"loss", "val_loss", "val_folds_percent", "wait_seconds"} <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("val_loss")] == [3, 6]
    picture = events.Images("fixed_moved_moving")[0]
    assert (picture.height, picture.width) == (16, 48)
    assert picture.encoded_image_string.startswith(b"\x89PNG")


def test_a_loss_that_is_not_finite_keeps_the_last_good_state(cohort, small_config, tmp_path, monkeypatch, weights):
    run, config = tmp_path / "run", small_config(steps=4, validate_every=1)
    original = loop.Batches.training

    def poisoned(self, step):
        batch = original(self, step)
        return {k: v * np.float32(np.nan) for k, v in batch.items()} if step == 2 else batch

    monkeypatch.setattr(loop.Batches, "training", poisoned)
    with pytest.raises(TrainingError, match="the loss became nan at step 3; the last good state is kept"):
        train(cohort, run, config)
    monkeypatch.setattr(loop.Batches, "training", original)
    assert all(np.isfinite(a).all() for a in weights(run / "model.weights.h5").values())
    assert train(cohort, run, config, resume=True).steps == 4


def test_a_read_only_or_unusable_folder(cohort, small_config, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot be used as a run folder"):
        train(cohort, tmp_path / "file", small_config(steps=1))


def test_a_run_that_cannot_begin_leaves_no_folder(small_config, tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"not an image")
    (tmp_path / "b.nii.gz").write_bytes(b"nor this")
    (tmp_path / "c.csv").write_text("image\na.nii.gz\nb.nii.gz\n", encoding="utf-8")
    with pytest.raises(R2RegError, match=r"a\.nii\.gz"):
        train(tmp_path / "c.csv", tmp_path / "run", small_config(steps=1))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"similarity": "lncc", "weights": {"dice": 0.5}, "clipnorm": 1.0, "batch_size": 2},
        {
            **{"similarity": "dice", "synthesis": "labels", "contrast": "random"},
            **{"mixed_precision": True, "accumulate": 2, "augment": ("affine", "flip", "intensity")},
        },
    ],
)
def test_other_objectives_train(cohort, small_config, tmp_path, settings):
    result = train(cohort, tmp_path / "run", small_config(steps=2, **settings))
    assert np.isfinite(result.best["val_loss"])
    assert ("dice" in result.best) == ("weights" in settings)


def test_a_signal_is_a_request_and_a_second_one_an_interrupt():
    before = signal.getsignal(signal.SIGTERM)
    with Stop() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_the_main_thread_signals_are_left_alone():
    handlers = []

    def run():
        with Stop():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]


def test_means_begin_again_after_each_row():
    state = State()
    state.count({"loss": 1.0})
    state.count({"loss": 3.0})
    assert state.take_means() == {"loss": 2.0}
    state.count({"loss": 5.0})
    assert (state.take_means(), state.step) == ({"loss": 5.0}, 3)


def test_overwrite_with_unusable_images_keeps_the_old_run(finished, small_config, tmp_path):
    run, _, _ = finished
    before = (run / "model.weights.h5").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(b"not an image")
    (tmp_path / "b.nii.gz").write_bytes(b"nor this")
    (tmp_path / "c.csv").write_text("image\na.nii.gz\nb.nii.gz\n", encoding="utf-8")
    with pytest.raises(R2RegError):
        train(tmp_path / "c.csv", run, small_config(steps=1), overwrite=True)
    assert (run / "model.weights.h5").read_bytes() == before


def test_parts_that_a_network_cannot_have(small_config):
    with pytest.raises(ConfigError, match="--velocity prob"):
        small_config(weights={"kl": 1.0})
    with pytest.raises(ConfigError, match="--integrator flow"):
        small_config(weights={"flow_consistency_data": 1.0})
    with pytest.raises(ConfigError, match="no residual blocks"):
        NetworkConfig(network="vm-diff", integrator="residual")
