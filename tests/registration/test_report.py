"""report.html beside a result: when it is written, and that it never costs one."""

import numpy as np
import pytest

import r2reg
from r2reg.config import RegisterConfig
from r2reg.errors import OutputError, RegistrationError
from r2reg.registration.run import register_files
from r2reg.report import figures

CONFIG = RegisterConfig(transform="affine", init="com")


def far_away(path, write_nifti):
    affine = np.eye(4)
    affine[:3, 3] = 5000
    write_nifti(path, np.random.default_rng(0).uniform(size=(8, 8, 8)).astype("float32"), affine)
    return path


def test_without_it(phantom_pair, tmp_path, write_nifti):
    register_files(phantom_pair.moving, phantom_pair.fixed, tmp_path / "out", CONFIG, report=False)
    assert not (tmp_path / "out" / "report.html").exists()
    far, none = far_away(tmp_path / "far.nii.gz", write_nifti), RegisterConfig(init="none", refine="none")
    with pytest.raises(RegistrationError):
        register_files(far, phantom_pair.fixed, tmp_path / "other", none, report=False)
    assert not (tmp_path / "other").exists()


def test_that_of_a_failure_gives_way_and_an_earlier_result_stays(phantom_pair, tmp_path, write_nifti):
    far, none = far_away(tmp_path / "far.nii.gz", write_nifti), RegisterConfig(init="none", refine="none")
    out = tmp_path / "out"
    with pytest.raises(RegistrationError):
        register_files(far, phantom_pair.fixed, out, none)
    register_files(phantom_pair.moving, phantom_pair.fixed, out, CONFIG)
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert b"<title>Registration: failed" not in before[out / "report.html"]
    with pytest.raises(RegistrationError):
        register_files(far, phantom_pair.fixed, out, none, overwrite=True)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_another_page_is_not_replaced(phantom_pair, tmp_path):
    page = tmp_path / "report.html"
    page.write_text("<title>Registration benchmark</title>", encoding="utf-8")
    with pytest.raises(OutputError, match=r"holds report.html; give --overwrite"):
        register_files(phantom_pair.moving, phantom_pair.fixed, tmp_path, CONFIG)
    assert page.read_text(encoding="utf-8") == "<title>Registration benchmark</title>"


def test_a_page_that_cannot_be_made_costs_no_result(phantom_pair, tmp_path, monkeypatch, caplog):
    def breaks(*_):
        raise ValueError("no ink")

    monkeypatch.setattr(figures, "jacobian_bar", breaks)
    register_files(phantom_pair.moving, phantom_pair.fixed, tmp_path / "out", CONFIG)
    assert (tmp_path / "out" / "metrics.json").exists()
    assert not (tmp_path / "out" / "report.html").exists()
    assert "report.html: could not be made (ValueError: no ink); the result is whole" in caplog.text


def test_from_python_with_labels_on_another_grid(phantom_pair, tmp_path):
    import nibabel

    labels = nibabel.load(phantom_pair.moving_labels)
    cut = labels.slicer[2:, 1:, 3:-2]  # nothing but background is lost
    assert np.count_nonzero(cut.dataobj) == np.count_nonzero(labels.dataobj)
    result = r2reg.register(
        phantom_pair.moving, phantom_pair.fixed, transform="affine", init="com",
        moving_labels=cut, fixed_labels=phantom_pair.fixed_labels,
    )  # fmt: skip
    whole = r2reg.register(
        phantom_pair.moving, phantom_pair.fixed, transform="affine", init="com",
        moving_labels=labels, fixed_labels=phantom_pair.fixed_labels,
    )  # fmt: skip
    assert result.metrics["dice"]["after"] == whole.metrics["dice"]["after"]
    result.save(tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "label contours" in text
    assert "How it was made" not in text
