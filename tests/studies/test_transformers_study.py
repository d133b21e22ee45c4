"""The transformer study: its distortions, its networks, what it leaves in its folder."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner

from r2reg.cli.study import study
from r2reg.errors import ImageError, OutputError
from r2reg.studies import tracks, transformers, unrolling
from r2reg.studies.classifiers import (
    BATCH,
    LAYERS,
    LOCALISATIONS,
    PARAMETERS,
    Setting,
    distort,
    make_classifier,
    on_canvas,
)
from r2reg.studies.images import read_labelled_images
from r2reg.studies.outcome import open_folder, told_apart

PROMISED = ["data", "distortion", "layer", "localisation", "seed", "accuracy", "seconds"]


def blobs(count, side=24):
    x = np.stack(np.meshgrid(*[np.linspace(-1, 1, side)] * 2, indexing="ij"), axis=-1)
    one = np.exp(-20 * (x**2).sum(-1))[..., None].astype(np.float32)
    return np.repeat(one[None], count, axis=0)


def test_digits_get_room_around_them():
    images = read_labelled_images().train[:3]
    found = on_canvas(images)
    assert found.shape == (3, 24, 24, 1)
    assert not found[:, :4].any()
    assert not found[..., -4:, :].any()
    np.testing.assert_allclose(found.sum((1, 2, 3)) / 4, images.sum((1, 2, 3)), rtol=0.05)  # twice as large each way
    colours = np.zeros((2, 32, 32, 3), np.float32)
    assert on_canvas(colours) is colours


@pytest.mark.parametrize("distortion", ["rts", "none"])
def test_distortions_are_seeded_and_move(distortion):
    images = blobs(BATCH // 2)
    first, again, other = (distort(images, distortion, 2, seed) for seed in (0, 0, 1))
    assert first.shape == (BATCH, 24, 24, 1)
    np.testing.assert_array_equal(first, again)
    place = np.argwhere(np.ones((24, 24)))
    centres = np.array([np.average(place, axis=0, weights=image.ravel()) for image in first])
    moved = np.linalg.norm(centres - 11.5, axis=1)
    if distortion == "none":
        assert moved.max() < 1e-3
    else:
        assert 1 < np.median(moved) < 5
        assert np.abs(first - other).max() > 0.3


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("localisation", LOCALISATIONS)
def test_networks_are_alike_in_size_and_begin_at_the_identity(layer, localisation):
    model, inner = make_classifier(Setting("rts", layer, localisation), (24, 24, 1), 10)
    assert abs(model.count_params() - PARAMETERS) < 0.02 * PARAMETERS
    if inner is None:
        assert layer == "none"
        return
    if "cpab" in layer:
        return  # compiled for half a minute; theta = 0 is tested with the layer
    images = blobs(2)
    theta, field, moved = inner.predict_on_batch(images)
    assert not theta.any()
    np.testing.assert_allclose(field, 0, atol=1e-4)
    np.testing.assert_allclose(moved, images, atol=1e-4)


def test_quick_study_leaves_its_files_and_trains_once(tmp_path, monkeypatch):
    call = ["transformers", "--quick", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(study, call)
    assert done.exit_code == 0, done.output
    with (tmp_path / "out" / "table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[: len(PROMISED)] == PROMISED
    assert [(row["layer"], row["localisation"]) for row in rows] == [("affine", "cnn"), ("tps", "fcn")]
    claims = json.loads((tmp_path / "out" / "claims.json").read_text(encoding="utf-8"))
    assert {claim["holds"] for claim in claims} == {None}
    for name in ("accuracy.png", "moved.png"):
        assert (tmp_path / "out" / "figures" / name).stat().st_size > 1000
    monkeypatch.setattr(transformers, "train_classifier", lambda *_: pytest.fail("trained again"))
    assert CliRunner().invoke(study, call).exit_code == 0
    other = {name: np.zeros((200, 28, 28), np.uint8) for name in ("x_train", "x_test")}
    labels = {name: np.arange(200) % 10 for name in ("y_train", "y_test")}
    np.savez(tmp_path / "mnist.npz", **other, **labels)
    refused = CliRunner().invoke(study, [*call, "--data", str(tmp_path / "mnist.npz")])
    assert f"{tmp_path / 'out'}: is of another study (study transformers, quick True, data digits" in refused.output


def test_as_many_trainings_as_asked_for(tmp_path, monkeypatch):
    told = []

    def stop(task, shared, asked):
        told.append((shared[2], asked))
        raise RuntimeError

    monkeypatch.setattr(transformers, "in_processes", stop)
    CliRunner().invoke(study, ["transformers", "--seeds", "2", "--epochs", "1", "-o", str(tmp_path / "out")])
    assert told == [(1, [(setting, seed) for seed in (0, 1) for setting in transformers.SETTINGS])]


@pytest.mark.parametrize("module", [tracks, transformers])
@pytest.mark.parametrize(("options", "judged"), [({"seeds": 1}, False), ({"epochs": 1}, False), ({}, True)])
def test_claims_need_the_whole_study(tmp_path, monkeypatch, module, options, judged):
    told = []
    monkeypatch.setattr(module, "in_processes", lambda *_: [{"data": "digits", "row": {}}])
    monkeypatch.setattr(module, "claims", lambda *_: [])
    monkeypatch.setattr(module, "tables", lambda *_: {})
    monkeypatch.setattr(module, "write_outcome", lambda *_, tested: told.append(tested))
    for drawn in [name for name in vars(module) if name.startswith("draw_")]:
        monkeypatch.setattr(module, drawn, lambda *_: None)
    module.run(tmp_path, **options)
    assert told == [judged]


def rows_of(**accuracies):
    """Six rows of each layer, three of each localisation, around an accuracy."""
    return [
        {"data": "digits", "distortion": "rts", "layer": layer.replace("_", "-"), "localisation": kind, "seed": seed,
         "learning_rate": 1e-3, "accuracy": accuracy + 0.001 * seed, "near_singular": 0.0}
        for layer, accuracy in accuracies.items() for kind in LOCALISATIONS for seed in range(3)
    ]  # fmt: skip


def test_claims_are_judged_by_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(transformers, "outputs", lambda *_: {"theta": np.eye(6), "shift": np.zeros((6, 2))})
    found = {c.claim: c.holds for c in transformers.claims(rows_of(none=0.8, affine=0.9, cpab=0.85), tmp_path)}
    assert found["rts: an affine layer helps"] is True
    assert found["rts: affine is ahead of CPAB"] is True
    assert found["cpab: CPAB is ahead of affine"] is None
    assert found["rts: affine and CPAB together are best"] is None
    plain = [row | {"distortion": "none"} for row in rows_of(none=0.8, affine=0.9)]
    of_digits = "on digits that are not distorted the layers help a little"
    for data, holds in (("digits", True), ("fashion_mnist", None)):
        told = {c.claim: c.holds for c in transformers.claims([row | {"data": data} for row in plain], tmp_path)}
        assert told[of_digits] is holds
    worse = {c.claim: c.holds for c in transformers.claims(rows_of(none=0.9, affine=0.8, cpab=0.85), tmp_path)}
    assert worse["rts: an affine layer helps"] is False
    assert worse["rts: affine is ahead of CPAB"] is False


def test_few_values_are_told_apart_only_where_none_overlaps():
    assert told_apart([3, 4, 5], [0, 1, 2]) is True
    assert told_apart([1, 2, 5], [0, 1.5, 1]) is None
    assert told_apart([0, 1, 2], [3, 4, 5]) is False
    assert told_apart([0, 1.5, 1], [1, 2, 5]) is None
    assert told_apart([1], [0]) is None
    assert told_apart([3, 4, np.nan], [0, 1, 2]) is None
    base = np.arange(6.0)
    assert told_apart(base + 1 + base / 9, base) is True
    assert told_apart(base, base + 1 + base / 9) is False
    assert told_apart(base, base[::-1]) is None
    assert told_apart(base, base) is None
    low, high = transformers.interval([0.9, 0.91, 0.92])
    assert (round(low, 4), round(high, 4)) == (0.8852, 0.9348)  # mean +- 4.303 sd / sqrt(3)


def test_figures_of_the_paper_are_of_the_data_set():
    assert transformers.paper_of("digits") == transformers.paper_of("mnist")
    theirs, known = transformers.paper_of("Fashion-MNIST")
    assert (theirs, known["none", "affine-cpab", "cnn"]) == ("fashion_mnist", 0.913)
    assert ("rts", "none", "cnn") not in known
    assert transformers.paper_of("cifar100")[1]["none", "cpab", "cnn"] == 0.659
    assert transformers.interval([0.99, 1.0, 1.0])[1] == 1


def test_a_folder_is_of_one_study(tmp_path):
    open_folder(tmp_path / "out", "spiral", False)
    open_folder(tmp_path / "out", "spiral", False)
    with pytest.raises(OutputError, match=r"out: is of another study \(study spiral, quick False\); give"):
        open_folder(tmp_path / "out", "spiral", True)
    with pytest.raises(OutputError, match="is of another study"):
        open_folder(tmp_path / "out", "tracks", False, data="digits")
    (tmp_path / "out" / "study.json").write_text("{", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot be a study's folder"):
        open_folder(tmp_path / "out", "spiral", False)
    (tmp_path / "table.csv").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="is neither empty nor of a study"):
        open_folder(tmp_path, "spiral", False)
    with pytest.raises(OutputError, match="cannot be a study's folder"):
        open_folder(tmp_path / "table.csv", "spiral", False)


def test_as_json_and_wrong_options(tmp_path, monkeypatch):
    def run(folder, _quick, **_):
        folder.mkdir()
        (folder / "claims.json").write_text('[{"claim": "a"}]', encoding="utf-8")
        return [{"network": "own", "lost": float("nan")}]

    monkeypatch.setattr(unrolling, "run", run)
    done = CliRunner().invoke(study, ["spiral", "--json", "-o", str(tmp_path / "out")])
    assert "NaN" not in done.stdout
    assert json.loads(done.stdout) == {"rows": [{"network": "own", "lost": None}], "claims": [{"claim": "a"}]}
    wrongs = {
        "--data: is of transformers and tracks; leave it out": ["spiral", "--data", "x.npz"],
        "--seeds: is of transformers and tracks": ["spiral", "--seeds", "2"],
        "--stages: is of tracks": ["transformers", "--stages", "1"],
        "--gamma: is of tracks": ["transformers", "--gamma", "0"],
        "--quick has --seeds of its own": ["transformers", "--quick", "--seeds", "2"],
    }
    for why, options in wrongs.items():
        done = CliRunner().invoke(study, [*options, "-o", str(tmp_path / "none")])
        assert done.exit_code == 2
        assert why in done.output
    wrong = CliRunner().invoke(study, ["tracks", "--quick", "--stages", "4", "-o", str(tmp_path / "none")])
    assert wrong.output == "ConfigError: stages 4: networks of images of (8, 8, 1) have 1; CIFAR's (32, 32, 3) 1 or 4\n"
    assert not (tmp_path / "none").exists()


def test_too_few_images_to_test_on(tmp_path):
    """However many copies are made of them to train on."""
    images, labels = np.zeros((BATCH, 28, 28), np.uint8), np.arange(BATCH) % 10
    few = slice(BATCH // 2)
    np.savez(tmp_path / "few.npz", x_train=images, y_train=labels, x_test=images[few], y_test=labels[few])
    with pytest.raises(ImageError, match="needs 100 images to train on and 100 to test on; it has 100 and 50"):
        transformers.run(tmp_path / "out", data=tmp_path / "few.npz")
