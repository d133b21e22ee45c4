"""A result on disk: every file of a run folder, whole or not at all."""

from __future__ import annotations

import json
import math
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from r2reg.errors import OutputError
from r2reg.io.fields import write_displacement
from r2reg.io.files import staging
from r2reg.io.images import write_image
from r2reg.io.points import write_points
from r2reg.io.transforms import write_affine
from r2reg.registration.result import RegistrationResult
from r2reg.threads import in_threads

METRICS_FILE = "metrics.json"
FILES = (
    "moved.nii.gz",
    "moved_labels.nii.gz",
    "affine.mat",
    "warp.nii.gz",
    "inverse_warp.nii.gz",
    "jacobian.nii.gz",
    "moved_points.csv",
    METRICS_FILE,
)
SCHEMA_VERSION = 1


def check_folder(folder: Path, overwrite: bool) -> None:
    """Make sure, before hours are spent, that a result can be written.

    Raises:
        OutputError: a finished result is there already, or the folder cannot be made or written.
    """
    there = [name for name in FILES if (folder / name).exists()]
    if there and not overwrite:
        raise OutputError(f"{folder}: holds {there[-1]}; give --overwrite to replace what is there, or another folder")
    with output_staging(folder):
        pass


def output_staging(folder: Path) -> AbstractContextManager[Path]:
    """A temporary folder whose files become the result in `folder`; see `io.files.staging`."""
    return staging(folder, FILES, last=METRICS_FILE)


def write_result(result: RegistrationResult, folder: Path) -> None:
    """Write everything but metrics.json; see FILES."""
    fixed = result.pair.fixed
    images = {"moved": result.moved, "moved_labels": result.moved_labels, "jacobian": result.jacobian}
    fields = {"warp": result.warp, "inverse_warp": result.inverse_warp}
    tasks = [partial(write_displacement, folder / f"{name}.nii.gz", field) for name, field in fields.items()]
    tasks += [
        partial(write_image, folder / f"{name}.nii.gz", image, fixed)
        for name, image in images.items()
        if image is not None
    ]
    in_threads(lambda task: task(), tasks)
    write_affine(folder / "affine.mat", result.affine)
    if result.moved_points is not None and result.pair.fixed_points is not None:
        write_points(folder / "moved_points.csv", result.pair.fixed_points.moved_to(result.moved_points))


def write_metrics(metrics: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write metrics.json and return its content; a number that does not exist (NaN) becomes null."""
    content = {"schema_version": SCHEMA_VERSION, **_plain(metrics)}
    (folder / METRICS_FILE).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return content


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
