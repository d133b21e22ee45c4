"""BIDS names: what they say, where a result goes, and what is refused."""

import json

import pytest

from r2reg.errors import ConfigError
from r2reg.io import bids


@pytest.mark.parametrize(
    ("moving", "fixed", "folder", "forward", "moved"),
    [
        (
            "sub-01_T1w.nii.gz",
            "tpl-MNI152NLin2009cAsym_res-01_T1w.nii.gz",
            "sub-01/anat",
            "sub-01_from-T1w_to-MNI152NLin2009cAsym_mode-image_xfm",
            "sub-01_space-MNI152NLin2009cAsym_desc-moved_T1w.nii.gz",
        ),
        (
            "a/sub-01_ses-pre_run-2_desc-brain_T2w.nii",
            "sub-01_ses-pre_T1w.nii.gz",
            "sub-01/ses-pre/anat",
            "sub-01_ses-pre_run-2_from-T2w_to-T1w_mode-image_xfm",
            "sub-01_ses-pre_run-2_space-T1w_desc-moved_T2w.nii.gz",
        ),
        (
            "sub-01_ses-1_T1w.nii.gz",
            "sub-01_ses-2_T1w.nii.gz",
            "sub-01/ses-1/anat",
            "sub-01_ses-1_from-T1w_to-ses2T1w_mode-image_xfm",
            "sub-01_ses-1_space-ses2T1w_desc-moved_T1w.nii.gz",
        ),
        (
            "sub-01_T1w.nii.gz",
            "sub-02_T1w.nii.gz",
            "sub-01/anat",
            "sub-01_from-T1w_to-sub02T1w_mode-image_xfm",
            "sub-01_space-sub02T1w_desc-moved_T1w.nii.gz",
        ),
        (
            "sub-03_task-rest_boldref.nii.gz",
            "sub-03_T1w.nii.gz",
            "sub-03/func",
            "sub-03_task-rest_from-boldref_to-T1w_mode-image_xfm",
            "sub-03_task-rest_space-T1w_desc-moved_boldref.nii.gz",
        ),
        (
            "tpl-MNI_T1w.nii.gz",
            "sub-04_T1w.nii.gz",
            "sub-04/anat",
            "sub-04_from-MNI_to-T1w_mode-image_xfm",
            "sub-04_space-T1w_desc-movedMNI_T1w.nii.gz",
        ),
    ],
)
def test_names(moving, fixed, folder, forward, moved):
    found = bids.derivative(moving, fixed)
    assert found.folder.as_posix() == folder
    assert found.names["forward.h5"] == f"{forward}.h5"
    assert found.names["metrics.json"] == f"{forward}.json"
    assert found.names["moved.nii.gz"] == moved
    a, b = found.spaces
    assert found.names["inverse.h5"] == forward.replace(f"from-{a}_to-{b}", f"from-{b}_to-{a}") + ".h5"
    assert len(set(found.names.values())) == len(found.names)


@pytest.mark.parametrize(
    "name", ["brain.nii.gz", "T1w.nii.gz", "sub-0_1_T1w.nii.gz", "sub-01_T 1.nii.gz", "ses-1_T1w.nii"]
)
def test_other_names_are_refused(name):
    with pytest.raises(ConfigError, match="no BIDS name"):
        bids.derivative(name, "sub-01_T2w.nii.gz")


def test_what_cannot_be_told_apart_is_refused():
    with pytest.raises(ConfigError, match="both are templates"):
        bids.derivative("tpl-A_T1w.nii.gz", "tpl-B_T1w.nii.gz")
    with pytest.raises(ConfigError, match="tells their spaces apart"):
        bids.derivative("a/sub-01_T1w.nii.gz", "b/sub-01_T1w.nii.gz")


def test_what_moving_says_of_the_skull_is_kept(tmp_path):
    moving = tmp_path / "sub-01_T1w.nii.gz"
    found = bids.derivative(moving, "sub-01_T2w.nii.gz")
    image = found.names["moved.nii.gz"].replace(".nii.gz", ".json")
    sources = bids.Sources(tmp_path / "out", moving, "sub-01_T2w.nii.gz")
    raw = bids.sidecars(found, moving, sources, {"moved.nii.gz"})
    assert raw[image]["SkullStripped"] is False
    brain = bids.derivative(tmp_path / "sub-01_desc-brain_T1w.nii.gz", "sub-01_T2w.nii.gz")
    named = bids.sidecars(brain, tmp_path / "sub-01_desc-brain_T1w.nii.gz", sources, {"moved.nii.gz"})
    assert named[image]["SkullStripped"] is True
    (tmp_path / "sub-01_T1w.json").write_text(json.dumps({"SkullStripped": True}), encoding="utf-8")
    written = bids.sidecars(found, moving, sources, {"moved.nii.gz"})
    assert list(written) == [image]
    assert written[image]["SkullStripped"] is True
    assert written[image]["SpatialReference"] == "sub-01_T2w.nii.gz"


def test_an_existing_data_set_keeps_its_description(tmp_path):
    (tmp_path / bids.DATASET).write_text("{}", encoding="utf-8")
    bids.describe_dataset(tmp_path, {})
    assert (tmp_path / bids.DATASET).read_text(encoding="utf-8") == "{}"
    assert {path.name for path in tmp_path.iterdir()} == {bids.DATASET, "README", ".bidsignore"}


def test_inputs_are_named_by_the_data_sets_they_lie_in(tmp_path):
    """Two raw data sets of one name, and an earlier derivative."""
    places = [tmp_path / place / "raw data" for place in ("a", "b")]
    out = tmp_path / "out"
    for place in (*places, out):
        (place / "sub-01" / "anat").mkdir(parents=True)
        (place / bids.DATASET).write_text('{"Name": "mine"}', encoding="utf-8")
    images = [place / "sub-01" / "anat" / "sub-01_T1w.nii.gz" for place in places]
    sources = bids.Sources(out, *images)
    place = "sub-01/anat/sub-01_T1w.nii.gz"
    assert sources.names == [f"bids:rawdata:{place}", f"bids:rawdata2:{place}"]
    assert sources.links == {"rawdata": places[0].as_uri(), "rawdata2": places[1].as_uri()}
    bids.describe_dataset(out, sources.links)
    assert json.loads((out / bids.DATASET).read_text(encoding="utf-8")) == {
        "Name": "mine",
        "DatasetLinks": sources.links,
    }
    again = bids.Sources(out, images[1], out / "sub-01" / "anat" / "sub-01_T2w.nii.gz")
    assert again.names == ["bids:rawdata2:sub-01/anat/sub-01_T1w.nii.gz", "bids::sub-01/anat/sub-01_T2w.nii.gz"]
    assert again.links == sources.links
