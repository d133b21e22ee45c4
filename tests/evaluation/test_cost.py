"""Cells of the cost table: measured in processes of their own, kept, and reported beside the paper's."""

import csv

import pytest

from r2reg.errors import ConfigError
from r2reg.evaluation import cost


def test_a_cell_is_measured_in_its_own_process(tmp_path):
    said = []
    measure = lambda: cost.measure_all(tmp_path, [16], ["ms-nsvf-r2net-chunk"], 1, 1, said.append)  # noqa: E731
    (row,) = measure()
    assert row["status"] == "done", row
    assert float(row["seconds_mean"]) > 0
    assert 0.2 < float(row["peak_gigabytes"]) < 4
    assert len(measure()) == len(said) == 1  # not done twice
    assert "| 16 | ms-nsvf-r2net-chunk |" in (tmp_path / "cost.md").read_text(encoding="utf-8")


def test_a_cell_that_fails_becomes_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(cost.sys, "executable", "/bin/false")
    (row, _) = cost.measure_all(tmp_path, [16], ["vm-diff-full"], 1, 1, lambda _: None)
    assert (row["status"], row["reason"]) == ("failed", "status 1")
    with (tmp_path / "cost.csv").open(encoding="utf-8") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["failed"] * 2


def test_the_papers_figures_stand_beside():
    row = {"method": "vm-diff-full", "size": "96", "mode": "train", "status": "done", "peak_gigabytes": "1.5"}
    table = cost.report([row | {"seconds_mean": "0.5", "seconds_sd": "0.01"}])
    assert "| 96 | vm-diff-full | 0.500 ± 0.010 | 1.5 |  |  | 0.298 | 2.4 |" in table
    with pytest.raises(ConfigError, match="method must be one of"):
        cost.cell("vxm", 16, "train", 1, 1)
