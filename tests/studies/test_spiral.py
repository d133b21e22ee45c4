"""The spiral study: its data, its maps' derivatives, what it leaves in its folder."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner

from r2reg.cli.study import study
from r2reg.studies import spiral, unrolling
from r2reg.studies.spiral import UNITS, Flow, Setting, draw_spiral, make_network, train_flow


@pytest.fixture
def flow():
    rng = np.random.default_rng(0)
    shapes = ((UNITS, 3, 2, 10), (UNITS, 3, 10, 2), (3, 2, 1), (3, 1, 1))
    return Flow(*[rng.normal(0, 0.15, shape) for shape in shapes])


def test_the_arms_are_each_other_turned_by_half_a_turn():
    points, labels = draw_spiral(0, points=4000)
    assert np.bincount(labels.astype(int)).tolist() == [4000, 4000]
    assert np.abs(points).max() < unrolling.REACH
    radius, angle = np.linalg.norm(points, axis=1), np.arctan2(points[:, 1], points[:, 0])
    from_arm = (angle - 2 * np.pi * radius - np.pi * labels + np.pi) % (2 * np.pi) - np.pi
    assert np.quantile(np.abs(from_arm[radius > 0.3]), 0.99) < 0.4


@pytest.mark.parametrize("scheme", ["euler", "rk4", "midpoint"])
def test_jacobian_against_differences(flow, scheme):
    x = np.random.default_rng(1).uniform(-1, 1, (3, 40, 2))
    step = 1e-6 * np.eye(2)
    sides = [flow.forward(x + e, scheme)[-1] - flow.forward(x - e, scheme)[-1] for e in step]
    expected = np.linalg.det(np.stack(sides, axis=-1) / 2e-6)
    np.testing.assert_allclose(flow.jacobian(x, scheme), expected, rtol=1e-6)
    assert np.ptp(expected) > 0.1


def test_more_steps_come_closer_to_the_converged_flow(flow):
    rows = unrolling.against_converged(Setting("own"), flow)
    off = [[row["distance_to_converged"] for row in rows if row["seed"] == seed] for seed in range(3)]
    for seed in off:
        assert np.allclose(np.divide(seed[:-1], seed[1:]), 2, rtol=0.2)  # Euler's error halves with the step


@pytest.mark.backends
@pytest.mark.parametrize("scheme", ["euler", "midpoint"])
@pytest.mark.parametrize("network", ["own", "shared"])
def test_what_is_trained_is_what_is_looked_at(network, scheme):
    """The Keras model's logits and inverse against those of its weights as a `Flow`."""
    from keras import ops

    model = make_network(Setting(network, scheme), 3)
    weights = [ops.convert_to_numpy(getattr(model, name)) for name in ("inner", "outer", "read", "bias")]
    flow = Flow(*[array.astype(float) for array in weights])
    x = np.random.default_rng(1).uniform(-1, 1, (3, 40, 2))
    end = flow.forward(x, scheme)[-1]
    logits = ops.convert_to_numpy(model(ops.convert_to_tensor(x.transpose(1, 0, 2), "float32")))
    np.testing.assert_allclose(1 / (1 + np.exp(-logits.T)), flow.probability(end), atol=1e-5)
    back = ops.convert_to_numpy(model.moved(ops.convert_to_tensor(end.transpose(0, 2, 1), "float32"), -1.0))
    np.testing.assert_allclose(
        back.transpose(0, 2, 1), flow.backward(end, scheme), atol=0.01
    )  # float32, and ways back part
    assert np.abs(end - x).max() > 0.1


def test_seeds_are_trained_apart(monkeypatch):
    """Other data for the second seed leave the first one's weights as they are."""
    first = train_flow(Setting("symmetric-data"), 2, 1)
    monkeypatch.setattr(spiral, "draw_spiral", lambda seed: draw_spiral(7 * seed))
    other = train_flow(Setting("symmetric-data"), 2, 1)
    np.testing.assert_allclose(first.inner[:, 0], other.inner[:, 0], atol=1e-6)
    assert np.abs(first.inner[:, 1] - other.inner[:, 1]).max() > 1e-4


def test_quick_study_leaves_its_files_and_trains_once(tmp_path, monkeypatch):
    call = ["spiral", "--quick", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(study, call)
    assert done.exit_code == 0, done.output
    with (tmp_path / "out" / "table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(row["network"], row["scheme"], row["seed"]) for row in rows} == {
        (s.network, s.scheme, str(k)) for s in unrolling.QUICK_SETTINGS for k in range(unrolling.QUICK_SEEDS)
    }
    assert all(float(row["jacobian_min"]) <= float(row["jacobian_max"]) for row in rows)
    claims = json.loads((tmp_path / "out" / "claims.json").read_text(encoding="utf-8"))
    assert all(claim["holds"] is None for claim in claims)  # two networks of two seeds prove nothing
    for name in ("jacobian", "boundaries", "way"):
        assert (tmp_path / "out" / "figures" / f"{name}.png").stat().st_size > 5000
    assert (tmp_path / "out" / "environment.json").is_file()
    monkeypatch.setattr(unrolling, "train_flow", None)  # which would fail
    assert CliRunner().invoke(study, call).exit_code == 0


def test_the_whole_study_trains_in_processes_what_is_missing(tmp_path, monkeypatch):
    untrained = Flow(np.zeros((1, 2, 2, 10)), np.zeros((1, 2, 10, 2)), np.zeros((2, 2, 1)), np.zeros((2, 1, 1)))
    for name in ("tables", "claims", "draw_maps", "draw_boundaries", "draw_way", "write_outcome"):
        monkeypatch.setattr(unrolling, name, lambda *_: [])
    written = []
    monkeypatch.setattr(unrolling, "write_table", lambda _, steps: written.append(steps))
    monkeypatch.setattr(unrolling, "against_converged", lambda setting, _: [(setting, 1), (setting, 2)])
    monkeypatch.setattr(unrolling, "describe", lambda setting, flow: [(setting, flow.inner.shape)])
    monkeypatch.setattr(unrolling, "train_flow", lambda *given: asked.append(given) or untrained)
    asked = []

    def one_after_the_other(task, shared, arguments):
        return [task(*shared, *given) for given in arguments]

    monkeypatch.setattr(unrolling, "in_processes", one_after_the_other)
    rows = unrolling.run(tmp_path)
    assert rows == [(setting, (1, 2, 2, 10)) for setting in unrolling.SETTINGS]
    assert written == [[(setting, k) for setting in unrolling.SETTINGS for k in (1, 2)]]
    assert asked == [(setting, unrolling.SEEDS, unrolling.EPOCHS) for setting in unrolling.SETTINGS]
    unrolling.weights(tmp_path, Setting("own")).unlink()
    assert unrolling.run(tmp_path) == rows
    assert asked[len(rows) :] == [(Setting("own"), unrolling.SEEDS, unrolling.EPOCHS)]


def test_claims_tell_what_the_figures_say():
    def row(network, seed, least, most):
        return {"network": network, "scheme": "euler", "basis": 10, "seed": seed, "accuracy": 0.999} | {
            "jacobian_min": least + 0.01 * seed,
            "jacobian_max": most,
        }

    figures = {"own": (-5, 6), "shared": (-1, 2), "symmetric-data": (0.5, 6), "symmetric-domain": (-2, 1.4)}
    rows = [row(name, seed, *values) for name, values in figures.items() for seed in range(10)]
    rows += [dict(r, scheme="rk4", jacobian_min=0.1) for r in rows]
    found = [claim.holds for claim in unrolling.claims(rows)]
    assert found == [True, True, True, False, False, False, True]
