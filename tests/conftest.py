"""Fixtures shared by the tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

LONGEST = "test_docs.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first: of two processes neither waits for the other in the end."""
    items.sort(key=lambda item: item.path.name != LONGEST)


@pytest.fixture
def write_nifti() -> Callable[..., None]:
    """write(path, array, affine, sform=1, qform=1, **header fields) through nibabel, codes as given."""
    import nibabel

    def write(path, array, affine=None, sform=1, qform=1, **fields):
        image = nibabel.Nifti1Image(array, None)
        affine = np.eye(4) if affine is None else np.asarray(affine)
        image.set_sform(affine, sform)
        image.set_qform(affine, qform)
        image.header["sform_code"], image.header["qform_code"] = sform, qform
        for key, value in fields.items():
            image.header[key] = value
        image.to_filename(path)

    return write


@pytest.fixture
def left_only_a_report():
    """left_only_a_report(folder): what a registration that failed leaves, and nothing half-written."""

    def check(folder):
        assert [path.name for path in folder.iterdir()] == ["report.html"]
        assert "Failed" in (folder / "report.html").read_text(encoding="utf-8")

    return check
