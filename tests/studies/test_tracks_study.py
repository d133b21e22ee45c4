"""The tracks study: the networks' states and weight decay, what is measured, what it leaves in its folder."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner

from r2reg.cli.study import study
from r2reg.metrics.tracks import line_shape_ratio, line_shape_score
from r2reg.studies import robustness, straightness, track_claims, tracks
from r2reg.studies.images import read_labelled_images
from r2reg.studies.straightness import Layout, layout_for, make_network

SMALL, SHAPE = Layout((6,), 3), (4, 4, 1)
CONV = {1: Layout((3,), 4, stride=2), 4: Layout((2, 3, 4, 5), 3, stride=1)}


def to_numpy(tensor):
    from keras import ops

    return ops.convert_to_numpy(tensor)


@pytest.fixture
def images():
    return np.random.default_rng(0).random((7, *SHAPE), np.float32)


def test_layouts_are_the_papers():
    assert layout_for((8, 8, 1)) == Layout((1000,), 5)
    assert layout_for((32, 32, 3)) == Layout((32,), 10, stride=2)
    assert layout_for((32, 32, 3), 4) == Layout((64, 128, 256, 512), 5, stride=1)


def test_without_a_velocity_no_point_of_the_resnet_moves(images):
    network = make_network(SMALL, "resnet", 0.0, SHAPE, 3)
    for block in network.stages[0]:
        block.set_weights([np.zeros_like(w) for w in block.get_weights()])
    (states,) = network.states(images)
    assert states.shape == (4, 7, 6)
    assert (states == states[0]).all()
    assert (line_shape_ratio(states) == 1).all()
    assert (line_shape_score(states) == 1).all()


@pytest.mark.parametrize("kind", straightness.NETWORKS)
def test_states_against_numpy(images, kind):
    network = make_network(SMALL, kind, 0.0, SHAPE, 3, seed=1)
    kernel, bias = network.entries[0].get_weights()
    expected = [images.reshape(7, -1) @ kernel + bias]
    for block in network.stages[0]:
        inner, outer = block.get_weights()
        velocity = np.maximum(np.maximum(expected[-1], 0) @ inner, 0) @ outer
        expected.append(velocity + (expected[-1] if kind == "resnet" else 0))
    np.testing.assert_allclose(network.states(images)[0], expected, atol=1e-5)  # float32
    kernel, bias = network.head.get_weights()
    logits = expected[-1] @ kernel + bias
    np.testing.assert_allclose(to_numpy(network.logits(images)), logits, atol=1e-5)
    np.testing.assert_allclose(to_numpy(network.whole(images)), logits, atol=1e-5)


@pytest.mark.parametrize("kind", straightness.NETWORKS)
@pytest.mark.parametrize(("layout", "shape"), [(SMALL, SHAPE), (CONV[4], (32, 32, 3))])
def test_decay_is_of_the_blocks_and_what_joins_stages(layout, shape, kind):
    network = make_network(layout, kind, 0.25, shape, 3)
    parts = [*(block for stage in network.stages for block in stage), *network.entries[1:]]
    squares = sum(float(np.sum(w**2)) for part in parts for w in part.get_weights())
    assert float(sum(network.whole.losses)) == pytest.approx(0.25 * squares, rel=1e-5)
    joined = {1: 0, 4: 3 * (3 if kind == "resnet" else 2)}[len(layout.widths)]
    assert len(network.whole.losses) == 2 * len(layout.widths) * layout.blocks + joined


def test_stages_of_a_convolutional_network():
    network = make_network(CONV[4], "resnet", 0.0, (32, 32, 3), 3)
    states = network.states(np.zeros((2, 32, 32, 3), np.float32))
    assert [stage.shape for stage in states] == [
        (4, 2, channels * side**2) for channels, side in zip(CONV[4].widths, (32, 16, 8, 4), strict=True)
    ]


def test_blocks_are_left_out_and_swapped(images):
    network = make_network(SMALL, "plain", 0.0, SHAPE, 3)
    a, b, c = network.stages[0]
    assert [found.stages[0] for found in network.without()] == [(b, c), (a, c), (a, b)]
    assert [found.stages[0] for found in network.swapped()] == [(b, a, c), (a, c, b)]
    start = network.entries[0](images)
    shorter = next(network.without())
    np.testing.assert_allclose(
        to_numpy(shorter.logits(images)), to_numpy(network.head(c(b(start)))), atol=1e-6
    )  # float32


def test_reset_units_are_those_that_matter_to_the_class(images):
    network = make_network(SMALL, "resnet", 0.0, SHAPE, 3)
    labels = np.array([0, 0, 0, 1, 1, 2, 2])
    order = robustness.order_of_units(network, images, labels, 3)
    after = network.states(images)[0][robustness.LAYER]
    for k in range(3):
        size = np.abs(after[labels == k].mean(axis=0))
        assert (np.diff(size[np.argsort(order[k])]) <= 0).all()
    # With every unit reset, the block might as well not be there.
    *_, gone = network.without()
    found = robustness.with_reset_units(network, images, labels, order, 1.0)
    assert found == robustness.accuracy(gone, images, labels)


def test_the_attack_makes_the_loss_larger(images):
    import keras

    network = make_network(SMALL, "resnet", 0.0, SHAPE, 3)
    labels = np.arange(7) % 3
    attacked = images + 0.01 * robustness.signs(network, images, labels)
    losses = [
        to_numpy(keras.losses.sparse_categorical_crossentropy(labels, network.logits(x), from_logits=True))
        for x in (images, attacked)
    ]
    assert (losses[1] > losses[0]).all()


def test_variation_is_relative():
    clean = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 2.0]])
    assert robustness.variation(clean, clean + np.array([1, 0])) == pytest.approx((1 / 5 + 1 / 2) / 2)
    assert np.isnan(robustness.variation(clean[1:2], clean[1:2]))


def test_bound_is_violated_where_tracks_meet():
    labels = np.arange(40) % 2
    start = np.where(labels, 1.0, -1.0)[:, None] * np.array([1, 0])
    straight, meeting = np.stack([start, start, start]), np.stack([start, 0 * start, start])
    assert tracks.bound_violated(straight, labels) == 0
    assert tracks.bound_violated(meeting, labels) == 1


def test_rounding_is_no_step():
    rng = np.random.default_rng(0)
    start = rng.normal(size=(5, 100)).astype(np.float32)
    jitter = [start + np.float32(1e-7) * rng.normal(size=start.shape).astype(np.float32) for _ in range(3)]
    rest = tracks.settled(np.stack([start, *jitter]))
    assert (tracks.still(rest) == 1).all()
    assert (line_shape_score(rest) == 1).all()
    shrinking = start * np.float32(1e-3) ** np.arange(4, dtype=np.float32)[:, None, None]
    np.testing.assert_allclose(tracks.settled(shrinking), shrinking, atol=1e-6)  # float32


def test_transport_to_a_single_point_is_no_match():
    start = np.random.default_rng(1).normal(size=(200, 3)).astype(np.float32)
    assert tracks.transport_score(np.stack([start, start + 1])) == 1
    assert tracks.transport_score(np.stack([start, 0 * start])) < 0.05  # 1 in 200 by chance


def test_quick_study_leaves_its_files_and_trains_once(tmp_path, monkeypatch):
    call = ["tracks", "--quick", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(study, call)
    assert done.exit_code == 0, done.output
    with (tmp_path / "out" / "table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:9] == [
        "data", "network", "gamma", "seed", "train_accuracy", "test_accuracy", "lsr", "lss", "ots"
    ]  # fmt: skip
    assert [(row["network"], float(row["gamma"])) for row in rows] == [
        (network, gamma) for network in straightness.NETWORKS for gamma in tracks.QUICK_GAMMAS
    ]
    assert all(float(row["lss"]) >= 1 for row in rows)
    claims = json.loads((tmp_path / "out" / "claims.json").read_text(encoding="utf-8"))
    assert {claim["holds"] for claim in claims} == {None}
    for name in ("training", "gamma", "tracks", "robustness"):
        assert (tmp_path / "out" / "figures" / f"{name}.png").stat().st_size > 5000
    assert (tmp_path / "out" / "environment.json").is_file()
    monkeypatch.setattr(tracks, "measured", None)  # which would fail
    assert CliRunner().invoke(study, call).exit_code == 0


def test_as_many_trainings_as_asked_for(tmp_path, monkeypatch):
    told = []

    def stop(task, shared, asked):
        told.append((shared[-1], asked))
        raise RuntimeError

    monkeypatch.setattr(tracks, "in_processes", stop)
    call = ["tracks", "--gamma", "0.5", "--gamma", "0", "--gamma", "0.5", "--seeds", "2", "--epochs", "4", "-o"]
    CliRunner().invoke(study, [*call, str(tmp_path / "out")])
    networks = straightness.NETWORKS
    assert told == [(4, [(network, gamma, seed) for network in networks for gamma in (0, 0.5) for seed in (0, 1)])]
    wrongs = {
        "--quick has --gamma of its own": ["tracks", "--quick", "--gamma", "0"],
        "give finite numbers": ["tracks", "--gamma", "nan"],
    }
    for why, wrong in wrongs.items():
        done = CliRunner().invoke(study, [*wrong, "-o", str(tmp_path / "other")])
        assert done.exit_code == 2
        assert why in done.output
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_data_laid_out_like_cifar_get_convolutional_networks(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"):
        pictures = rng.integers(0, 256, (4, 3073), np.uint8)
        pictures[:, 0] = np.arange(4) % 2
        pictures.tofile(tmp_path / name)
    monkeypatch.setattr(tracks, "QUICK_WIDTH", 2)
    monkeypatch.setattr(tracks, "QUICK_GAMMAS", (5e-4,))
    rows = tracks.run(tmp_path / "out", quick=True, data=tmp_path)
    assert [(row["data"], row["network"]) for row in rows] == [("cifar10", kind) for kind in straightness.NETWORKS]
    result = json.loads(next((tmp_path / "out" / "trainings").iterdir()).read_text(encoding="utf-8"))
    assert np.shape(result["tracks"]) == (11, 4, 2)  # ten blocks, four test images, in the plane
    table = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert "paper's lss" in table
    assert "18.9" in table  # of the plain network at this gamma
    call = ["tracks", "--quick", "--data", str(tmp_path), "--stages", "4", "-o"]
    assert "is of another study" in CliRunner().invoke(study, [*call, str(tmp_path / "out")]).output
    done = CliRunner().invoke(study, [*call, str(tmp_path / "four")])
    assert done.exit_code == 0, done.output
    table = (tmp_path / "four" / "table.md").read_text(encoding="utf-8")
    assert "3.87" in table  # with four stages
    with (tmp_path / "four" / "table.csv").open(encoding="utf-8") as file:
        assert {row["stages"] for row in csv.DictReader(file)} == {"4"}


def test_data_that_are_none_fail_in_one_line(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no images", encoding="utf-8")
    done = CliRunner().invoke(study, ["tracks", "--data", str(path), "-o", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert len(done.output.strip().splitlines()) == 1
    assert "notes.txt" in done.output
    assert read_labelled_images().classes == 10


def _row(network, gamma, seed, **values):
    score = {"plain": 0.3, "resnet": 0.1}[network] * (1 + 0.01 * seed + gamma)
    names = ("noise_0.2", "fgsm_0.05", "reset_0.5", "removed", "swapped")
    return {
        "data": "digits",
        "network": network,
        "gamma": gamma,
        "seed": seed,
        "stages": 1,
        "test_accuracy": 0.9 - gamma / 2 + (0.05 if gamma in track_claims.MODERATE else 0) - score / 10,
        "measured_accuracy": 0.9 if gamma < 0.1 else 0.1,
        "lss": 1.05 + score - (0.04 * seed + 0.2) * (gamma > 0),
        "ots": 1 - score,
        "bound_violated": score,
        **dict.fromkeys(names, 0.9 - score),
        **{f"{name}_variation": score for name in names[:2]},
        **values,
    }


def test_claims_tell_what_the_figures_say():
    rows = [_row(n, g, seed, data="mnist") for n in straightness.NETWORKS for g in tracks.GAMMAS for seed in range(3)]
    found = {claim.claim: claim.holds for claim in track_claims.claims(rows)}
    told = [holds for claim, holds in found.items() if "CIFAR" not in claim]
    assert told == [True] * len(told)
    assert [holds for claim, holds in found.items() if "CIFAR" in claim] == [None, None]
    worst = {"resnet": {"lss": 1.4, "ots": 0.4}, "plain": {"lss": 1.3, "ots": 0.5}}
    worse = [row | worst[row["network"]] for row in rows]
    denied = {claim.claim for claim in track_claims.claims(worse) if claim.holds is False}
    assert {"the ResNet's tracks are straighter", "the ResNet's map is closer to optimal transport"} <= denied
    assert sum("reaches MNIST's" in claim for claim in denied) == 2
    for others in ([row for row in rows if row["seed"] == 0], [row | {"data": "digits"} for row in rows]):
        of_mnist = [claim.holds for claim in track_claims.claims(others) if "MNIST" in claim.claim]
        assert of_mnist == [None] * 3


def test_robustness_is_drawn_of_the_nearest_gamma(tmp_path, monkeypatch):
    levels = [f"{kind}_{level:g}" for kind in ("noise", "fgsm", "reset") for level in getattr(tracks, kind.upper())]
    rows = [_row(n, g, 0) | dict.fromkeys(levels, g) for n in straightness.NETWORKS for g in (0.01, 0.5)]
    figures = []
    monkeypatch.setattr(tracks, "write_figure", lambda figure, path: figures.append(figure))
    tracks.draw_robustness(rows, tmp_path / "robustness.png")
    drawn = [line.get_ydata()[1:] for axis in figures[0].axes for line in axis.lines]
    assert len(drawn) == 6
    assert all((values == 0.01).all() for values in drawn)


def test_few_pairs_must_not_overlap():
    compared = lambda *sides: track_claims.compared("c", "p", "ours", sides).holds  # noqa: E731
    assert compared([2.0, 3.0, 2.5], [1.0, 1.9, 0.0]) is True
    assert compared([2.0, 3.0, 2.5], [1.0, 2.1, 0.0]) is None
    assert compared([1.0, 1.9, 0.0], [2.0, 3.0, 2.5]) is False
    assert compared([2.0], [1.0]) is None
    assert compared([], []) is None


def test_gammas_are_compared_by_seed():
    """Three seeds are three values a side, over however many gammas their means go."""
    rows = [_row("plain", g, seed) for g in tracks.GAMMAS for seed in range(3)]
    first, second = track_claims.by_gamma(rows, "ots", "plain", (0.0,), track_claims.MODERATE)
    assert (len(first), len(second)) == (3, 3)
    expected = np.mean([row["ots"] for row in rows if row["seed"] == 1 and row["gamma"] in track_claims.MODERATE])
    assert second[1] == pytest.approx(expected)


def test_papers_tables_are_taken_apart_by_network():
    paper = track_claims.paper_of("cifar10", 4)
    assert paper["plain", 1e-3] == pytest.approx({"test_accuracy": 0.94, "ots": 0.0, "lsr": 2.55, "lss": 3.62})
    assert paper["resnet", 1e-3] == pytest.approx({"test_accuracy": 0.954, "ots": 0.813, "lsr": 1.16, "lss": 1.18})
