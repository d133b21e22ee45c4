"""The benchmark: scores against other programs' own, resuming, failures, and input that cannot be used."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import SimpleITK as sitk

from r2reg.errors import ConfigError, ImageError, OutputError, TableError
from r2reg.evaluation import campaign
from r2reg.evaluation.benchmark import COLUMNS, _own_report, benchmark
from r2reg.evaluation.results import folder_name

TIMES = {"seconds", "seconds_sd", "registration_seconds", "cpu_seconds", "peak_memory_bytes", "scoring_seconds"}
METHODS = ["identity", "demons"]


def rows_of(folder, name="results.csv"):
    return list(csv.DictReader((folder / name).open(newline="", encoding="utf-8")))


def without_times(rows):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


@pytest.fixture(scope="module")
def report(pairs, tmp_path_factory):
    """Three pairs by two methods, with their files."""
    folder = tmp_path_factory.mktemp("benchmark") / "report"
    benchmark(pairs, folder, METHODS, keep=True, threads=1)
    return folder


@pytest.mark.slow
def test_a_row_for_every_pair_and_method(report):
    rows = rows_of(report)
    assert [(row["id"], row["method"]) for row in rows] == [(f"p{k}", method) for k in range(3) for method in METHODS]
    assert {row["status"] for row in rows} == {"done"}
    assert list(rows[0]) == list(COLUMNS)
    for identity, demons in zip(rows[::2], rows[1::2], strict=True):
        assert float(demons["dice_mean"]) > float(identity["dice_mean"]) + 0.05
        assert float(demons["mse"]) < 0.5 * float(identity["mse"])
        assert float(demons["seconds"]) > 0
        assert int(demons["peak_memory_bytes"]) > 5e7
    assert json.loads((report / "environment.json").read_text(encoding="utf-8"))["threads"] == 1


@pytest.mark.slow
def test_overlap_agrees_with_simpleitk(report, pairs):
    """Labels carried by SimpleITK from the files, and its own Dice and Hausdorff distance."""
    run = report / "runs" / "p1" / "demons"
    fixed, moving = (sitk.ReadImage(str(pairs.parent / f"labels{k}.nii.gz")) for k in (2, 1))
    field = sitk.Cast(sitk.ReadImage(str(run / "warp.nii.gz")), sitk.sitkVectorFloat64)
    whole = sitk.CompositeTransform(
        [sitk.ReadTransform(str(run / "affine.mat")), sitk.DisplacementFieldTransform(field)]
    )
    carried = sitk.Resample(moving, fixed, whole, sitk.sitkNearestNeighbor, 0)
    measure = sitk.LabelOverlapMeasuresImageFilter()
    measure.Execute(carried, fixed)
    found = {r["label"]: r for r in rows_of(report, "labels.csv") if (r["id"], r["method"]) == ("p1", "demons")}
    ids = set(np.unique(sitk.GetArrayFromImage(fixed))) | set(np.unique(sitk.GetArrayFromImage(carried)))
    assert {int(label) for label in found} == ids - {0}
    for label, row in found.items():
        assert float(row["dice"]) == pytest.approx(measure.GetDiceCoefficient(int(label)), abs=1e-5)
    mean = float(next(r["dice_mean"] for r in rows_of(report) if (r["id"], r["method"]) == ("p1", "demons")))
    assert mean == pytest.approx(np.mean([float(row["dice"]) for row in found.values()]), abs=1e-5)


@pytest.mark.slow
def test_landmarks_by_hand(report):
    """Distances 5, 0 and 12 mm where nothing moves; no points, no error."""
    by_pair = {row["id"]: row for row in rows_of(report) if row["method"] == "identity"}
    assert float(by_pair["p0"]["tre_mean_mm"]) == pytest.approx(17 / 3, rel=1e-4)
    assert by_pair["p1"]["tre_mean_mm"] == ""


@pytest.mark.slow
def test_resume_does_nothing_twice_and_what_changed_again(report, pairs, tmp_path):
    copy = tmp_path / "report"
    shutil.copytree(report, copy)
    said = []
    rows = benchmark(pairs, copy, METHODS, keep=True, threads=1, resume=True, say=said.append)
    assert said == []
    assert len(rows) == 6
    assert rows_of(copy) == rows_of(report)
    (copy / "runs" / "p2" / "demons" / "result.json").write_text("{", encoding="utf-8")  # cut off
    benchmark(pairs, copy, METHODS, keep=True, threads=1, resume=True, say=said.append)
    assert [line.split(":")[0] for line in said] == ["1/1 p2 demons"]
    assert without_times(rows_of(copy)) == without_times(rows_of(report))
    benchmark(pairs, copy, ["identity"], threads=1, keep=True, labels=(1,), resume=True, say=said.append)
    assert len(said) == 4  # other labels: every score anew
    with pytest.raises(OutputError, match="holds results already; give --resume"):
        benchmark(pairs, copy, METHODS)
    with pytest.raises(ConfigError, match="exclude each other"):
        benchmark(pairs, copy, METHODS, resume=True, overwrite=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="children die with their parent on Linux")
def test_killed_and_resumed_equals_uninterrupted(report, pairs, tmp_path):
    command = [sys.executable, "-m", "r2reg.cli", "benchmark", str(pairs), "-o", str(tmp_path / "run"), "--keep"]
    command += ["--threads", "1", *(part for method in METHODS for part in ("--method", method))]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    scratch = lambda: list((tmp_path / "run" / "runs").glob("p1/demons/.work-*/affine.mat"))  # noqa: E731
    working = lambda: list((tmp_path / "run" / "runs").glob("p1/demons/.work-*"))  # noqa: E731
    deadline = time.monotonic() + 120
    while not working():
        assert process.poll() is None and time.monotonic() < deadline  # noqa: PT018
        time.sleep(0.05)
    time.sleep(0.5)  # into the registration
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(rows_of(tmp_path / "run")) == 3
    time.sleep(3)
    assert not scratch()  # the registration died with it, and wrote nothing more
    done = subprocess.run([*command, "--resume"], capture_output=True, encoding="utf-8", check=True)
    assert "1/3 p1 demons" in done.stderr
    assert without_times(rows_of(tmp_path / "run")) == without_times(rows_of(report))
    assert not list((tmp_path / "run" / "runs").glob("*/*/.work-*"))


def test_a_pair_that_fails_is_a_row_and_the_rest_goes_on(pairs, tmp_path):
    flat = tmp_path / "flat.nii.gz"
    image = sitk.ReadImage(str(pairs.parent / "image0.nii.gz"))
    sitk.WriteImage(image * 0 + 1, str(flat))
    table = tmp_path / "pairs.csv"
    good = f"{pairs.parent}/image0.nii.gz,{pairs.parent}/image1.nii.gz"
    table.write_text(f"id,moving,fixed\nbad,{flat},{pairs.parent}/image1.nii.gz\ngood,{good}\n", encoding="utf-8")
    rows = benchmark(table, tmp_path / "report", ["identity"], threads=1)
    assert [row["status"] for row in rows] == ["failed", "done"]
    assert "flat.nii.gz" in rows[0]["reason"]
    assert "\n" not in rows[0]["reason"]


def test_what_can_be_known_is_known_before_anything_runs(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(campaign, "run_all", lambda *_: pytest.fail("began"))

    def refused(error, match, methods=("identity",), table=pairs, **options):
        with pytest.raises(error, match=match):
            benchmark(table, tmp_path / "report", methods, **options)
        assert not (tmp_path / "report").exists()

    refused(
        ConfigError,
        r"--method nothing: is neither a folder nor a model that ships; .*; methods are identity, affine, .*syn-full",
        ["nothing"],
    )
    refused(ConfigError, "--method identity: stands twice", ["identity", "identity"])
    refused(ConfigError, "--baseline syn: is none of the methods, identity", baseline="syn")
    refused(TableError, "no such file", table=tmp_path / "no.csv")
    missing = tmp_path / "missing.csv"
    missing.write_text(f"moving,fixed\n{pairs.parent}/image0.nii.gz,{pairs.parent}/image9.nii.gz\n", encoding="utf-8")
    refused(TableError, r"line 2: fixed .*image9.nii.gz does not exist", table=missing)
    other = tmp_path / "other.nii.gz"
    labels = sitk.ReadImage(str(pairs.parent / "labels0.nii.gz"))
    labels.SetOrigin([1, 2, 3])
    sitk.WriteImage(labels, str(other))
    grids = tmp_path / "grids.csv"
    grids.write_text(
        "moving,fixed,moving_labels,fixed_labels\n"
        f"{pairs.parent}/image0.nii.gz,{pairs.parent}/image1.nii.gz,{other},{pairs.parent}/labels1.nii.gz\n",
        encoding="utf-8",
    )
    refused(TableError, r"other.nii.gz: lies on another grid than .*image0.nii.gz", table=grids)
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes((pairs.parent / "image0.nii.gz").read_bytes()[:500])
    cut = tmp_path / "cut.csv"
    cut.write_text(f"moving,fixed,moving_mask\n{broken},{pairs.parent}/image1.nii.gz,{broken}\n", encoding="utf-8")
    refused(ImageError, r"broken.nii.gz", table=cut)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(ConfigError, "--method syn: antspyx is not installed; pip install antspyx", ["syn"])


def test_a_full_disk_ends_the_run_and_keeps_what_is_there(pairs, tmp_path, monkeypatch):
    benchmark(pairs, tmp_path / "report", ["identity"], threads=1)
    before = rows_of(tmp_path / "report")
    shutil.rmtree(tmp_path / "report" / "runs" / "p1")

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("r2reg.evaluation.engine.atomic_path", full)
    with pytest.raises(OutputError, match=r"No space left on device.*--resume"):
        benchmark(pairs, tmp_path / "report", ["identity"], threads=1, resume=True)
    assert rows_of(tmp_path / "report") == [before[0], before[2]]


def test_names_that_every_file_system_takes():
    assert folder_name("syn-full") == "syn-full"
    assert folder_name("runs/brain+none") != folder_name("runs_brain+none")
    assert "/" not in folder_name("../../etc/passwd")
    assert not folder_name("../..").startswith(".")
    assert folder_name("a" * 300) != folder_name("a" * 301)


def test_the_time_of_a_registration_leaves_out_start_reading_judging_and_writing(tmp_path):
    stages = ("load", "backend", "evaluate", "write", "affine", "compile", "network", "fit", "refine", "transform")
    seconds = {stage: 2.0**k for k, stage in enumerate(stages)}
    (tmp_path / "metrics.json").write_text(json.dumps({"seconds": seconds, "device": "cpu"}), encoding="utf-8")
    assert _own_report(tmp_path)["registration_seconds"] == sum(2**k for k in range(4, 10))
