"""A result on disk: every file of a run folder, whole or not at all."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from r2reg.config import Format
from r2reg.errors import OutputError
from r2reg.geometry.transforms import Transform
from r2reg.io import bids
from r2reg.io.bids import Derivative
from r2reg.io.fields import Tool, write_displacement
from r2reg.io.files import staging
from r2reg.io.images import write_image
from r2reg.io.points import write_points
from r2reg.io.transforms import write_affine, write_transforms
from r2reg.registration.result import RegistrationResult
from r2reg.report.registration import PAGE, Registered, draw, tells_of_failure, write_report
from r2reg.report.verdict import judge
from r2reg.threads import in_threads

log = logging.getLogger("r2reg")
METRICS_FILE = "metrics.json"
FILES = (
    "moved.nii.gz",
    "moved_labels.nii.gz",
    "affine.mat",
    "warp.nii.gz",
    "inverse_warp.nii.gz",
    "jacobian.nii.gz",
    *(f"{way}.{suffix}" for way in ("forward", "inverse") for suffix in ("h5", "x5")),
    *(f"{way}_fsl.nii.gz" for way in ("forward", "inverse")),
    "moved_points.csv",
    PAGE,
    METRICS_FILE,
)
SCHEMA_VERSION = 1


def check_folder(folder: Path, overwrite: bool, found: Derivative | None = None) -> None:
    """Make sure, before hours are spent, that a result can be written.

    Args:
        found: how the files are named, for a BIDS data set.
    Raises:
        OutputError: a finished result is there already, or the folder cannot be made or written.
    """
    names = found.names if found else {name: name for name in FILES}
    there = [own for own in names.values() if (folder / own).exists()]
    if there == [names[PAGE]] and tells_of_failure(folder / names[PAGE]):
        there = []
    if there and not overwrite:
        raise OutputError(f"{folder}: holds {there[-1]}; give --overwrite to replace what is there, or another folder")
    with output_staging(folder, found):
        pass


def output_staging(folder: Path, found: Derivative | None = None) -> AbstractContextManager[Path]:
    """A temporary folder whose files become the result in `folder`; see `io.files.staging`."""
    if found is not None:
        return staging(folder, found.files, last=found.names[METRICS_FILE])
    return staging(folder, FILES, last=METRICS_FILE)


def name_as_bids(folder: Path, found: Derivative, moving: Path | str, sources: bids.Sources) -> None:
    """Give the files of a run folder their BIDS names and sidecars; those without a name are removed."""
    written = {path.name for path in folder.iterdir()}
    for name, content in bids.sidecars(found, moving, sources, written).items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for name in written:
        if name in found.names:
            (folder / name).replace(folder / found.names[name])
        else:
            (folder / name).unlink()


def write_result(
    result: RegistrationResult, folder: Path, formats: Sequence[Format] | None = None, report: bool = True
) -> dict[str, Any]:
    """Write every file of a run folder but metrics.json and the report, see FILES.

    Args:
        formats: of the transforms; default: those of the result's configuration.
    Returns:
        The report's pictures, drawn meanwhile; none without a report.
    """
    pictures: dict[str, Any] = {}

    def paint() -> None:
        with _only_warned():
            pictures.update(draw(_registered(result)))

    tasks = [paint] if report else []
    in_threads(lambda task: task(), [*tasks, *_writers(result, folder, formats or result.config.formats)])
    return pictures


def write_metrics(metrics: dict[str, Any], folder: Path, pictures: dict[str, Any]) -> dict[str, Any]:
    """Write metrics.json with a verdict, which is said aloud unless good, and the report where there are pictures.

    Returns:
        The content of metrics.json.
    """
    written: dict[str, Any] = _plain({"schema_version": SCHEMA_VERSION, **metrics})
    verdict = judge(written)
    written["verdict"] = {"level": verdict.level, "reasons": list(verdict.reasons)}
    for level, reason in verdict.findings:
        if level != "good":
            log.log(logging.ERROR if level == "failed" else logging.WARNING, "%s: %s", level, reason)
    (folder / METRICS_FILE).write_text(json.dumps(written, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    if pictures:
        with _only_warned():
            write_report(folder, pictures, written, verdict)
    return written


@contextmanager
def _only_warned() -> Iterator[None]:
    """A page that cannot be made costs no result; a full disk still does."""
    try:
        yield
    except OutputError:
        raise
    except Exception as error:
        log.warning("%s: could not be made (%s: %s); the result is whole", PAGE, type(error).__name__, error)


def _registered(result: RegistrationResult) -> Registered:
    pair = result.pair
    return Registered(
        fixed=pair.fixed,
        moving=pair.moving,
        affine=result.affine,
        warp=result.warp,
        moved=result.moved,
        jacobian=result.jacobian,
        fixed_labels=pair.fixed_labels.array if pair.fixed_labels else None,
        moved_labels=result.moved_labels,
        clip=result.config.clip,
    )


def _writers(result: RegistrationResult, folder: Path, formats: Sequence[Format]) -> list[Callable[[], None]]:
    """What writes images and transforms, each to be run once, in any order."""
    fixed = result.pair.fixed
    images = {"moved": result.moved, "moved_labels": result.moved_labels, "jacobian": result.jacobian}
    fields = {"warp": result.warp, "inverse_warp": result.inverse_warp}
    tasks: list[Callable[[], None]] = [
        partial(write_displacement, folder / f"{name}.nii.gz", field) for name, field in fields.items()
    ]
    tasks += [
        partial(write_image, folder / f"{name}.nii.gz", image, fixed)
        for name, image in images.items()
        if image is not None
    ]
    still, moves = fixed.grid, result.pair.moving.grid
    forward: list[Transform] = [result.warp, result.affine]
    inverse: list[Transform] = [result.affine.inverse(), result.inverse_warp]
    for way, transforms, of, to in (("forward", forward, still, moves), ("inverse", inverse, moves, still)):
        for name in formats:
            if name != "itk":
                tool: Tool = "fsl" if name == "fsl" else "itk"
                path = folder / (f"{way}_fsl.nii.gz" if name == "fsl" else f"{way}.{name}")
                tasks.append(partial(write_transforms, path, transforms, tool=tool, fixed=of, moving=to))
    tasks.append(partial(write_affine, folder / "affine.mat", result.affine))
    if result.moved_points is not None and result.pair.fixed_points is not None:
        moved = result.pair.fixed_points.moved_to(result.moved_points)
        tasks.append(partial(write_points, folder / "moved_points.csv", moved))
    return tasks


def _plain(value: Any) -> Any:
    """As JSON holds it; a number that does not exist (NaN) becomes null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
