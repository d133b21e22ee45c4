"""A training that begins with what another has learnt."""

import dataclasses
import json

import numpy as np
import pytest

from r2reg.config import NetworkConfig
from r2reg.errors import ModelError, TrainingError
from r2reg.training.loop import train

SMALL = {"encoder": (4, 8), "decoder": (8, 8, 8, 4, 3), "up_filters": 4, "blocks": 2}


@pytest.fixture(scope="module")
def first(cohort, small_config, tmp_path_factory):
    """A run of two steps with a large rate, whose weights are far from those drawn."""
    run = tmp_path_factory.mktemp("first") / "run"
    train(cohort, run, small_config(steps=2, learning_rate=0.1))
    return run


# So small a rate moves no weight.
STILL = {"steps": 1, "learning_rate": 1e-12}


@pytest.mark.backends
def test_it_begins_where_the_other_ended_at_another_spacing(first, cohort, small_config, tmp_path, weights):
    run, config = tmp_path / "run", small_config(**STILL)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, spacing=(1.0, 1.0, 1.0)))
    train(cohort, run, config, initial=first)
    found, expected = weights(run / "model.weights.h5"), weights(first / "model.weights.h5")
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-9)
    told = json.loads((run / "config.json").read_text(encoding="utf-8"))["initial"]
    assert told["model"] == "run"
    assert told["sha256"] in (first / "README.md").read_text(encoding="utf-8")
    assert told["sha256"] in (run / "README.md").read_text(encoding="utf-8")


def test_without_it_the_weights_are_others(first, cohort, small_config, tmp_path, weights):
    train(cohort, tmp_path / "run", small_config(**STILL))
    found, other = weights(tmp_path / "run" / "model.weights.h5"), weights(first / "model.weights.h5")
    assert max(np.abs(found[name] - other[name]).max() for name in found) > 0.01


def test_a_multiscale_network_begins_in_each_part(cohort, small_config, tmp_path, weights):
    config = small_config(model=NetworkConfig(network="ms-svf-r2net", **SMALL), steps=1, learning_rate=0.1)
    train(cohort, tmp_path / "first", config)
    train(cohort, tmp_path / "run", dataclasses.replace(config, learning_rate=1e-12), initial=tmp_path / "first")
    for part in ("chunk", "coarse", "."):
        found, expected = (weights(tmp_path / run / part / "model.weights.h5") for run in ("run", "first"))
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-9, err_msg=f"{part} {name}")


def test_it_is_part_of_what_resume_asks_for(first, cohort, small_config, tmp_path):
    run = tmp_path / "run"
    train(cohort, run, small_config(**STILL), initial=first)
    longer = small_config(**STILL | {"steps": 2})
    with pytest.raises(TrainingError, match="other initial weights"):
        train(cohort, run, longer, resume=True)
    assert train(cohort, run, longer, resume=True, initial=first).steps == 2


def test_weights_that_do_not_fit(first, cohort, small_config, tmp_path):
    other = small_config(model=NetworkConfig(network="nsvf-r2net", **SMALL), steps=1)
    with pytest.raises(ModelError, match=r"cannot begin with its weights, it has network svf-r2net in place of nsvf"):
        train(cohort, tmp_path / "run", other, initial=first)
    with pytest.raises(ModelError, match="nothing: is neither a folder nor a model that ships"):
        train(cohort, tmp_path / "run", other, initial=tmp_path / "nothing")
    assert not (tmp_path / "run").exists()
