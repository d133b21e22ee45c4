"""Small volumes laid out as the owners of the data sets lay out theirs."""

import csv
import json
import shutil

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from click.testing import CliRunner

from r2reg.cli.data import SETS, data
from r2reg.datasets import prepare as module
from r2reg.datasets.check import check_table
from r2reg.datasets.layouts import LAYOUTS
from r2reg.datasets.prepare import box_grid, describe, ordered_pairs, prepare, shuffled, split_people
from r2reg.errors import OutputError, TableError
from r2reg.geometry.grid import Grid
from r2reg.io.images import read_image
from r2reg.io.tables import read_cohort, read_pairs


def volume(shape, seed, levels=4):
    """A block of several grey values in black."""
    array = np.zeros(shape, np.int16)
    inner = tuple(slice(n // 4, -(n // 4)) for n in shape)
    array[inner] = np.random.default_rng(seed).integers(1, levels, array[inner].shape)
    return array


def save(path, array, spacing):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([*spacing, 1])), path)


def table(path):
    return list(csv.DictReader(path.open(newline="", encoding="utf-8")))


@pytest.fixture
def heart(tmp_path):
    """Five patients in ACDC's folders, with a 4-D file that is not asked for."""
    root = tmp_path / "ACDC" / "database"
    for number in (1, 2, 3, 101, 102):
        part = "training" if number < 100 else "testing"
        folder = root / part / f"patient{number:03}"
        for frame in (1, 12):
            name = f"patient{number:03}_frame{frame:02}"
            save(folder / f"{name}.nii.gz", 100 * volume((40, 44, 6), number + frame), (1.5, 1.5, 10))
            save(folder / f"{name}_gt.nii.gz", volume((40, 44, 6), number + frame), (1.5, 1.5, 10))
        save(folder / f"patient{number:03}_4d.nii.gz", np.zeros((4, 4, 2, 3), np.int16), (1.5, 1.5, 10))
        (folder / "Info.cfg").write_text(
            "ED: 1\nES: 12\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n", encoding="utf-8"
        )
    return root


def test_acdc(heart, tmp_path):
    out = tmp_path / "out"
    assert prepare("acdc", heart, out) == out / "pairs.csv"
    pairs = read_pairs(out / "pairs.csv")
    assert [pair.id for pair in pairs] == [f"patient{n:03}" for n in (1, 2, 3, 101, 102)]
    assert {pair.split for pair in pairs} == {"train", "val", "test"}
    moving, fixed = (read_image(path) for path in (pairs[0].moving, pairs[0].fixed))
    assert "ED" in pairs[0].moving.name
    assert moving.array.shape == fixed.array.shape == (176, 176, 16)
    np.testing.assert_allclose(moving.grid.spacing, (1.25, 1.25, 10))
    assert (fixed.array.min(), fixed.array.max()) == (0, 1)
    # The middle stays where it was.
    source = read_image(heart / "training" / "patient001" / "patient001_frame01.nii.gz")
    assert np.abs(moving.grid.center_ras - source.grid.center_ras).max() < 5.1
    labels = nibabel.load(pairs[0].fixed_labels).get_fdata()
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["labels"]["2"] == "Myocardium"
    assert len(manifest["sha256"]) == 5 * 4 + 1
    assert manifest["people"] == {"train": 3, "val": 1, "test": 1}
    assert check_table(out / "pairs.csv").problems == []


def test_acdc_with_a_part_missing(heart, tmp_path):
    (heart / "training" / "patient002" / "patient002_frame12.nii.gz").unlink()
    with pytest.raises(TableError, match=r"has no patient002_frame12\.nii\.gz, which Info.cfg names as ES"):
        prepare("acdc", heart, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_empire10(tmp_path):
    root = tmp_path / "EMPIRE10"
    for number in (1, 2, 3):
        for role in ("Fixed", "Moving"):
            for folder in ("scans", "lungMasks"):
                (root / folder).mkdir(parents=True, exist_ok=True)
                array = np.zeros((20, 24, 30), np.int16) - 900
                array[5:15, 4:20, 8:24] = np.random.default_rng(number).integers(-800, -100, (10, 16, 16))
                image = sitk.GetImageFromArray((array > -900).astype(np.uint8) if folder == "lungMasks" else array)
                image.SetSpacing((0.7, 0.7, 1.0))
                image.SetOrigin((-10, 30, 5))
                sitk.WriteImage(image, str(root / folder / f"{number:02}_{role}.mhd"))
    (root / "scans" / "02_Moving.mhd").rename(tmp_path / "away.mhd")
    with pytest.raises(TableError, match="02 has no moving scan"):
        prepare("empire10", root, tmp_path / "out")
    (tmp_path / "away.mhd").rename(root / "scans" / "02_Moving.mhd")
    prepare("empire10", root, tmp_path / "out")
    pairs = read_pairs(tmp_path / "out" / "pairs.csv")
    assert len(pairs) == 3
    image = read_image(pairs[0].fixed)
    assert image.array.shape == (192, 192, 192)
    # The lungs' box, in mm: 16 x .7, 16 x .7 and 10 x 1.
    np.testing.assert_allclose(image.grid.spacing * 192, (11.2, 11.2, 10), rtol=1e-5)
    assert read_image(pairs[0].fixed_mask, allow_constant=True).array.mean() > 0.9
    assert check_table(tmp_path / "out" / "pairs.csv").problems == []


@pytest.mark.parametrize("release", ["neurite", "learn2reg"])
def test_oasis(release, tmp_path):
    root = tmp_path / "oasis"
    for number in range(1, 11):
        if release == "neurite":
            folder = root / f"OASIS_OAS1_{number:04}_MR1"
            files = folder / "aligned_norm.nii.gz", folder / "aligned_seg35.nii.gz"
            save(folder / "orig.nii.gz", volume((10, 10, 10), 0), (1, 1, 1))
        else:
            files = (root / part / f"OASIS_{number:04}_0000.nii.gz" for part in ("imagesTr", "labelsTr"))
        for file in files:
            save(file, volume((12, 14, 10), number), (1, 1, 1))
    assert prepare("oasis", root, tmp_path / "out") == tmp_path / "out" / "cohort.csv"
    rows = read_cohort(tmp_path / "out" / "cohort.csv")
    splits = [row.split for row in rows]
    assert (splits.count("train"), splits.count("val"), splits.count("test")) == (7, 1, 2)
    test_people = {row.subject for row in rows if row.split == "test"}
    pairs = read_pairs(tmp_path / "out" / "pairs_test.csv")
    assert len(pairs) == 2
    assert {name for pair in pairs for name in pair.id.split("_to_")} == test_people
    assert not (tmp_path / "out" / "pairs_val.csv").exists()  # one person makes no pair
    again = prepare("oasis", root, tmp_path / "again")
    assert again.read_bytes() == (tmp_path / "out" / "cohort.csv").read_bytes()
    other = prepare("oasis", root, tmp_path / "other", seed=1)
    assert other.read_bytes() != again.read_bytes()


def test_ibsr18(tmp_path, monkeypatch):
    root = tmp_path / "IBSR_nifti_stripped"
    for number in range(1, 7):
        folder = root / f"IBSR_{number:02}"
        for stem, array in (
            ("ana_strip", 10 * volume((32, 16, 32), number)),
            ("seg_ana", volume((32, 16, 32), number)),
        ):
            save(folder / f"IBSR_{number:02}_{stem}.nii.gz", array[..., None], (0.94, 1.5, 0.94))
    full = module.training_grid
    small = lambda *a, **k: full(*a[:3], (40, 40, 40), *a[4:], **k)  # noqa: E731
    monkeypatch.setattr(module, "training_grid", small)  # 224^3 takes long
    prepare("ibsr18", root, tmp_path / "out")
    image = read_image(tmp_path / "out" / "images" / "IBSR_01.nii.gz")
    np.testing.assert_allclose(image.grid.spacing, (1, 1, 1), rtol=1e-6)
    rows = table(tmp_path / "out" / "cohort.csv")
    counts = {split: sum(row["split"] == split for row in rows) for split in ("train", "val", "test")}
    assert counts == {"train": 3, "val": 1, "test": 2}
    assert len(table(tmp_path / "out" / "pairs_test.csv")) == 2  # all ordered pairs of two
    assert describe("ibsr18")["split"] == [10, 3, 5]


def test_bids(tmp_path):
    root = tmp_path / "study"
    for subject in ("01", "02", "03"):
        for session in ("1", "2"):
            name = f"sub-{subject}_ses-{session}_T1w.nii.gz"
            save(root / f"sub-{subject}" / f"ses-{session}" / "anat" / name, volume((9, 8, 7), 1), (2, 2, 2))
            save(root / f"sub-{subject}" / f"ses-{session}" / "func" / "x_bold.nii.gz", volume((3, 3, 3), 1), (2, 2, 2))
    prepare("bids", root, tmp_path / "out")
    rows = table(tmp_path / "out" / "cohort.csv")
    assert len(rows) == 6
    by_person = {row["subject"]: {r["split"] for r in rows if r["subject"] == row["subject"]} for row in rows}
    assert all(len(splits) == 1 for splits in by_person.values())
    assert "labels" not in rows[0]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_folder_of_something_else(name, tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(TableError, match=f"x: holds nothing of {name}; looked for .*"):
        prepare(name, tmp_path / "x", tmp_path / "out")
    with pytest.raises(TableError, match="is no folder"):
        prepare(name, tmp_path / "y", tmp_path / "out")


def test_nothing_is_lost_unasked(heart, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="is not empty; give --overwrite"):
        prepare("acdc", heart, tmp_path / "out")
    with pytest.raises(OutputError, match="holds the data set itself"):
        prepare("acdc", heart, heart, overwrite=True)
    with pytest.raises(OutputError, match="holds the data set itself"):
        prepare("acdc", heart, heart.parent, overwrite=True)
    assert (tmp_path / "out" / "mine.txt").read_text(encoding="utf-8") == "mine"
    (tmp_path / "out" / "images").mkdir()
    with pytest.raises(OutputError, match=r"out: holds images and no manifest\.json, so it is not ours"):
        prepare("acdc", heart, tmp_path / "out", overwrite=True)


def test_a_second_run_replaces_the_first_and_nothing_else(heart, tmp_path, monkeypatch):
    out = tmp_path / "a" / "out"

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module, "write_table", fail)
        with pytest.raises(OutputError, match=r"out: cannot be written \(No space left on device\)"):
            prepare("acdc", heart, out)
    assert not out.parent.exists()
    prepare("acdc", heart, out)
    (out / "cohort.csv").write_text("of a run of another kind\n", encoding="utf-8")
    (out / "mine.txt").write_text("mine", encoding="utf-8")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    shutil.rmtree(heart / "training" / "patient002")
    with monkeypatch.context() as patched:
        patched.setattr(module, "write_table", fail)
        with pytest.raises(OutputError, match="cannot be written"):
            prepare("acdc", heart, out, overwrite=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    prepare("acdc", heart, out, overwrite=True)
    assert not (out / "cohort.csv").exists()
    assert not list(out.rglob("*patient002*"))
    assert (out / "mine.txt").read_text(encoding="utf-8") == "mine"
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert len(manifest["sha256"]) == 4 * 4 + 1
    assert check_table(out / "pairs.csv").problems == []
    assert {path.name for path in out.iterdir()} == {"images", "labels", "pairs.csv", "manifest.json", "mine.txt"}


def test_what_ships_of_each_set():
    assert tuple(LAYOUTS) == SETS
    for name in LAYOUTS:
        about = describe(name)
        assert {"title", "source", "licence", "citation", "labels", "preparation", "split", "pairs", "rule"} <= set(
            about
        )
    assert [sum(describe(name)["split"]) for name in ("acdc", "empire10", "oasis", "ibsr18")] == [150, 30, 414, 18]
    assert len(describe("oasis")["labels"]) == 35


def test_the_rule_of_the_splits():
    people = [f"{n:03}" for n in range(414)]
    splits = split_people(people, [264, 50, 100], "oasis:0")
    counts = [list(splits.values()).count(split) for split in ("train", "val", "test")]
    assert counts == [264, 50, 100]
    # Without one person, nobody who was tested on is trained on.
    fewer = split_people(people[1:], [264, 50, 100], "oasis:0")
    moved = [name for name in fewer if splits[name] == "test" and fewer[name] == "train"]
    assert moved == []
    # More people than the counts name, and a part that the set does not have.
    many = list(split_people([str(n) for n in range(100)], [8, 1, 1], "bids:0").values())
    assert [many.count(split) for split in ("train", "val", "test")] == [80, 10, 10]
    three = list(split_people("abc", [20, 0, 10], "empire10:0").values())
    assert [three.count(split) for split in ("train", "val", "test")] == [2, 0, 1]
    assert shuffled(["b", "a", "b"], "x") == shuffled(["a", "b"], "x")
    assert len(ordered_pairs("abc", None, "x")) == 6
    assert ordered_pairs("abcdef", 4, "x") == ordered_pairs("fedcba", 4, "x")
    assert len(set(ordered_pairs("abcdef", 4, "x"))) == 4


def test_the_box_around_a_mask_that_is_turned():
    affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -3], [0, 0, -1, 9], [0, 0, 0, 1]])
    mask = np.zeros((10, 12, 8), bool)
    mask[2:6, 3:9, 1:7] = True
    grid = Grid(mask.shape, affine)
    box = box_grid(grid, mask, 12)
    np.testing.assert_allclose(np.sort(box.spacing * 12), np.sort([6 * 2.0, 4 * 1.5, 6 * 1.0]))
    np.testing.assert_allclose(box.center_ras, grid.index_to_ras([3.5, 5.5, 3.5]))


def test_check_names_every_problem(heart, tmp_path):
    out = tmp_path / "out"
    prepare("acdc", heart, out)
    pairs = read_pairs(out / "pairs.csv")
    train = next(pair for pair in pairs if pair.split == "train")
    test = next(pair for pair in pairs if pair.split == "test")
    shutil.copy(train.moving, test.moving)  # trained and tested on
    other = nibabel.load(train.fixed_labels)
    nibabel.save(nibabel.Nifti1Image(other.get_fdata().astype(np.uint8), np.diag([2, 2, 2, 1])), train.fixed_labels)
    result = CliRunner().invoke(data, ["check", str(out / "pairs.csv")])
    assert result.exit_code == 1
    assert f"{train.fixed_labels} lies on another grid than {train.fixed}" in result.output
    assert "is in train and" in result.output or "is in test and" in result.output
    assert f"{test.moving.name}: is not what the manifest lists" in result.output
    train.fixed_labels.unlink()
    gone = CliRunner().invoke(data, ["check", str(out / "pairs.csv")])
    assert gone.exit_code == 1
    assert f"{train.fixed_labels} does not exist" in gone.output


def test_the_command(heart, tmp_path):
    done = CliRunner().invoke(data, ["prepare", "acdc", str(heart), "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "train on it with r2reg train" in done.output
    fine = CliRunner().invoke(data, ["check", str(tmp_path / "out" / "pairs.csv")])
    assert fine.exit_code == 0, fine.output
    assert "no problem found" in fine.output
    wrong = CliRunner().invoke(data, ["prepare", "brainz", str(heart), "-o", str(tmp_path / "x")])
    assert wrong.exit_code == 2
