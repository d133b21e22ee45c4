"""A table of pairs registered by one command."""

import csv
import json

import pytest
import SimpleITK as sitk
from click.testing import CliRunner

from r2reg.cli.batch import batch
from r2reg.evaluation.methods import Identity, Peer, R2Reg, parse_method


def call(*arguments):
    return CliRunner().invoke(batch, [str(argument) for argument in arguments])


@pytest.mark.slow
def test_every_pair_gets_its_folder_and_its_row(pairs, tmp_path):
    study = tmp_path / "study"
    done = call(pairs, "-o", study, "--transform", "affine", "--jobs", 2)
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader((study / "results.csv").open(newline="", encoding="utf-8")))
    assert [row["id"] for row in rows] == ["p0", "p1", "p2"]
    for row in rows:
        folder = study / row["folder"]
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        assert float(row["dice_mean"]) == pytest.approx(metrics["dice"]["after"]["mean"], rel=1e-5)
        assert float(row["dice_mean_before"]) == pytest.approx(metrics["dice"]["before"]["mean"], rel=1e-5)
        assert float(row["lncc"]) == pytest.approx(metrics["similarity"]["after"]["lncc"], rel=1e-5)
        assert (folder / "moved_labels.nii.gz").exists()
        assert metrics["config"]["transform"] == "affine"
    assert float(rows[0]["tre_mean_mm"]) > 0
    assert rows[1]["tre_mean_mm"] == ""
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*.nii.gz")}
    again = call(pairs, "-o", study, "--transform", "affine", "--jobs", 2, "--resume")
    assert again.exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in study.rglob("*.nii.gz")} == before
    refused = call(pairs, "-o", study, "--transform", "affine")
    assert refused.exit_code == 1
    assert "holds results already; give --resume" in refused.output


def test_options_of_register_are_checked_before_anything_runs(pairs, tmp_path):
    wrong = call(pairs, "-o", tmp_path / "study", "--refine", "fats")
    assert wrong.exit_code == 2
    assert "fats" in wrong.output
    unknown = call(pairs, "-o", tmp_path / "study", "--refien", "fast")
    assert unknown.exit_code == 2
    model = call(pairs, "-o", tmp_path / "study", "--model", tmp_path / "nothing")
    assert model.exit_code == 1
    assert "nothing" in model.output
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
def test_a_pair_that_fails_is_told_and_the_rest_is_done(pairs, tmp_path):
    image = sitk.ReadImage(str(pairs.parent / "image0.nii.gz"))
    sitk.WriteImage(image * 0 + 1, str(tmp_path / "flat.nii.gz"))
    good = [pairs.parent / f"image{k}.nii.gz" for k in (0, 1)]
    (tmp_path / "pairs.csv").write_text(f"moving,fixed\nflat.nii.gz,{good[0]}\n{good[0]},{good[1]}\n", encoding="utf-8")
    done = call(tmp_path / "pairs.csv", "-o", tmp_path / "study", "--transform", "affine")
    assert done.exit_code == 1
    assert "1 of 2 pairs done" in done.output
    rows = list(csv.DictReader((tmp_path / "study" / "results.csv").open(newline="", encoding="utf-8")))
    assert [row["status"] for row in rows] == ["failed", "done"]
    assert "flat.nii.gz" in rows[0]["reason"]
    pages = [(tmp_path / "study" / row["id"] / "report.html").read_text(encoding="utf-8") for row in rows]
    assert "flat.nii.gz" in pages[0]
    assert ["<title>Registration: failed" in page for page in pages] == [True, False]


def test_names_of_methods(tmp_path):
    (tmp_path / "run").mkdir()
    run = str(tmp_path / "run")
    assert parse_method("identity") == Identity()
    assert parse_method("syn") == Peer("syn")
    assert parse_method("r2reg+fast") == R2Reg("r2reg+fast", "none", ("--refine", "fast"))
    assert parse_method(f"{run}+none") == R2Reg(f"{run}+none", run, ("--refine", "none"))
    assert parse_method(run) == R2Reg(run, run, ())
    assert parse_method(f"x=--model {run} --seed 3") == R2Reg("x", run, ("--seed", "3"))
