"""The learning rate over the steps of a training."""

import csv
import math
import os
import signal

import pytest

from r2reg.errors import TrainingError
from r2reg.training import loop
from r2reg.training.loop import train


def rates(run):
    """The learning rate of every row of a run's history."""
    return [float(row["learning_rate"]) for row in csv.DictReader((run / "history.csv").open(encoding="utf-8"))]


@pytest.mark.backends
@pytest.mark.parametrize("settings", [{}, {"accumulate": 2, "mixed_precision": True}], ids=["plain", "accumulated"])
def test_cosine_falls_to_nothing_over_all_steps(settings, cohort, small_config, tmp_path):
    train(cohort, tmp_path / "run", small_config(schedule="cosine", steps=8, validate_every=2, **settings))
    expected = [1e-3 * (1 + math.cos(math.pi * step / 8)) / 2 for step in (2, 4, 6, 8)]
    assert rates(tmp_path / "run") == pytest.approx(expected, abs=1e-9)


def test_the_constant_rate_stays(cohort, small_config, tmp_path):
    train(cohort, tmp_path / "run", small_config(steps=2, validate_every=1))
    assert rates(tmp_path / "run") == pytest.approx([1e-3, 1e-3])


def test_cosine_goes_on_where_it_stopped_and_keeps_its_end(cohort, small_config, tmp_path, monkeypatch):
    step = loop.Run.step

    def stopping(self, batch):
        if self.state.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch)

    run, config = tmp_path / "run", small_config(schedule="cosine", steps=4, validate_every=4)
    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(cohort, run, config)
    with pytest.raises(TrainingError, match="trained with other total steps"):
        train(cohort, run, small_config(schedule="cosine", steps=6, validate_every=4), resume=True)
    train(cohort, run, config, resume=True)
    train(cohort, tmp_path / "whole", config)
    assert rates(run) == rates(tmp_path / "whole") == pytest.approx([0.0], abs=1e-9)
    losses = [
        float(next(csv.DictReader((p / "history.csv").open(encoding="utf-8")))["val_loss"])
        for p in (run, tmp_path / "whole")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
