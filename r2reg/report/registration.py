"""report.html of a registration: one page that needs nothing else, with slices to compare and a verdict in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from r2reg import __version__
from r2reg.errors import ImageError
from r2reg.geometry.grid import Array, Grid, identity_points
from r2reg.geometry.transforms import Affine, Displacement
from r2reg.io.images import Volume
from r2reg.preprocessing.intensity import intensity_bounds, normalise, scale
from r2reg.report import figures
from r2reg.report.page import write_page
from r2reg.report.verdict import Verdict, model_told
from r2reg.report.views import as_pictures, grey, places_ras, slices, views
from r2reg.threads import in_threads

PAGE = "report.html"
SLICES = 11  # of each plane; with 256 pixels a side the page of a scan takes 1 to 2 MB, of pure noise 3.5
GRID_LINES, CELL = 24, 10  # along a picture's longer side, at most; pixels between two, at least
DOUBLINGS = 2.0  # the Jacobian's colours end at 2^-2 and 2^2
FIXED_EDGE, MOVED_EDGE, GRID_LINE, FOLD = 1, 2, 4, 8  # bits of the layer of marks
SCORES = (
    ("LNCC", "similarity", "lncc", 3), ("NCC", "similarity", "ncc", 3), ("MSE", "similarity", "mse", 5),
    ("mean Dice", "dice", "mean", 3), ("mean HD95, mm", "hd95_mm", "mean", 2),
    ("mean landmark error, mm", "tre_mm", "mean", 2),
)  # fmt: skip
STAGES = {"before": "before (headers)", "affine": "affine", "after": "result"}
Rows = list[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A pair and what was found for it.

    Args:
        fixed, moving: the images, each on its own grid.
        affine, warp: from fixed to moving points, the warp acts first and lies on fixed's grid.
        moved: (X, Y[, Z]) on fixed's grid, moving's own intensities. jacobian: determinant of affine and warp, there.
        fixed_labels, moved_labels: on fixed's grid, where known.
        clip: intensities that were used.
    """

    fixed: Volume
    moving: Volume
    affine: Affine
    warp: Displacement
    moved: np.ndarray
    jacobian: np.ndarray
    fixed_labels: np.ndarray | None = None
    moved_labels: np.ndarray | None = None
    clip: tuple[float, float] | None = None

    @cached_property
    def own_jacobian(self) -> np.ndarray:
        """With the sign of the warp's own: an affine may mirror."""
        return self.jacobian * np.float32(np.sign(np.linalg.det(self.affine.matrix[:-1, :-1])))

    @cached_property
    def folded(self) -> Volume:
        """1 where the warp folds."""
        return self.fixed.with_array((self.own_jacobian <= 0).astype(np.uint8))


def tells_of_failure(page: Path) -> bool:
    """Whether a file is the page of a registration that failed, which a later one may replace."""
    return b"<title>Registration: failed</title>" in page.read_bytes()


def draw(found: Registered) -> dict[str, Any]:
    """The pictures of a page: all that takes time and needs the images."""
    fixed, moving = found.fixed, found.moving
    still = normalise(fixed.array, found.clip, name=str(fixed.path))
    bounds = intensity_bounds(moving.array, found.clip, name=str(moving.path))
    as_it_lies = moving.with_array(scale(moving.array, bounds))
    stages = {
        "fixed": (fixed.with_array(still), []),
        "before": (as_it_lies, []),
        "affine": (as_it_lies, [found.affine]),
        "after": (fixed.with_array(scale(found.moved, bounds)), []),
    }

    def plane(named: tuple[str, Grid]) -> dict[str, Any]:
        name, view = named
        layers = {key: grey(slices(volume, view, maps)) for key, (volume, maps) in stages.items()}
        layers["jacobian"] = _jacobian(found, view)
        encoded = {key: figures.mosaic(pictures, "JPEG") for key, pictures in layers.items()}
        return {
            "name": name,
            "width": view.shape[0],
            "height": view.shape[1],
            "places": _places(view, name),
            "layers": encoded | {"marks": figures.mosaic(_marks(found, view), "PNG")},
        }

    shown, unit = found.own_jacobian[still > 0], f"mm{'²³'[fixed.grid.ndim - 2]}"
    return {
        "viewer": {
            "planes": in_threads(plane, views(still, fixed.grid, SLICES).items()),
            "colours": figures.diverging_colours(),
            "labels": found.fixed_labels is not None or found.moved_labels is not None,
        },
        "histogram": figures.jacobian_histogram(shown),
        "colour_bar": figures.jacobian_bar(DOUBLINGS, f"{unit}/{unit}"),
    }


def _jacobian(found: Registered, view: Grid) -> np.ndarray:
    """(n, H, W) uint8: the logarithm of the determinant, 128 where volume is kept."""
    sampled = slices(found.fixed.with_array(found.own_jacobian), view)
    with np.errstate(divide="ignore", invalid="ignore"):
        doublings = np.log2(np.maximum(sampled, 2.0**-DOUBLINGS))
    return grey((doublings / DOUBLINGS + 1) / 2)


def _marks(found: Registered, view: Grid) -> np.ndarray:
    """(n, H, W) uint8, the bits of what is drawn over the pictures."""
    marks = np.zeros(as_pictures(np.empty(view.shape, bool)).shape, np.uint8)
    for bit, labels in ((FIXED_EDGE, found.fixed_labels), (MOVED_EDGE, found.moved_labels)):
        if labels is not None:
            marks |= bit * _edges(slices(found.fixed.with_array(labels), view, interpolation="nearest"))
    marks |= FOLD * slices(found.folded, view, interpolation="nearest")
    cell = max(max(view.shape[:2]) / GRID_LINES, CELL)
    for place in _carried_places(found.warp, view):
        marks |= GRID_LINE * _edges(np.floor(place / cell))
    return marks


def _edges(pictures: np.ndarray) -> np.ndarray:
    """(n, H, W) uint8: 1 where a pixel differs from the one to its right or below."""
    edges = np.zeros(pictures.shape, np.uint8)
    edges[:, :, :-1] |= pictures[:, :, :-1] != pictures[:, :, 1:]
    edges[:, :-1] |= pictures[:, :-1] != pictures[:, 1:]
    return edges


def _carried_places(warp: Displacement, view: Grid) -> list[np.ndarray]:
    """Where the warp takes each pixel, along the picture's columns and its rows: (n, H, W) each, in pixels."""
    shift: Array = (
        np.stack([slices(Volume(warp.vectors[..., c], warp.grid), view) for c in range(warp.ndim)], axis=-1)
        @ np.linalg.inv(view.affine[:-1, :-1]).T
    )
    index = identity_points(view.shape)
    return [as_pictures(index[..., axis]) + shift[..., axis] for axis in (0, 1)]


def _places(view: Grid, plane: str) -> list[str]:
    """What is said of each slice: where its middle lies."""
    if view.ndim == 2:
        return [""]
    axis = {"sagittal": 0, "coronal": 1, "axial": 2}[plane]
    ends = (("L", "R"), ("P", "A"), ("I", "S"))[axis]
    return [f"{ends[int(mm > 0)]} {abs(mm):.0f} mm" for mm in places_ras(view)[:, axis]]


def write_report(folder: Path, pictures: Mapping[str, Any], metrics: Mapping[str, Any], verdict: Verdict) -> Path:
    """Write the page of a registration that went through.

    Args:
        pictures: of `draw`. metrics: the content of metrics.json, as far as it is known. verdict: on them.
    """
    deformation = metrics.get("deformation", {})
    labels = metrics.get("dice", {}).get("after", {}).get("per_label", {})
    return _write(
        folder,
        verdict,
        {
            **pictures,
            "scores": _scores(metrics),
            "deformation": _deformation(deformation),
            "labels": _label_rows(metrics) if labels else [],
            "seconds": _seconds(metrics.get("seconds", {})),
            "provenance": _provenance(metrics),
        },
    )


def write_failure(folder: Path, reason: str, known: Mapping[str, Any], images: Mapping[str, Volume]) -> Path:
    """Write the page of a registration that failed, with what is known.

    Args:
        reason: one line. known: as metrics.json, as far as it got. images: what was read, by name.
    """
    return _write(
        folder,
        Verdict((("failed", reason),)),
        {
            "inputs": {name: found for name, volume in images.items() if (found := _input_picture(volume))},
            "seconds": _seconds(known.get("seconds", {})),
            "provenance": _provenance(known),
        },
    )


def _write(folder: Path, verdict: Verdict, content: dict[str, Any]) -> Path:
    empty: dict[str, Any] = dict.fromkeys(
        ("viewer", "histogram", "colour_bar", "scores", "deformation", "labels", "inputs")
    )
    return write_page(
        folder / PAGE, "registration.html.j2", **empty | content, verdict=verdict, stages=STAGES, version=__version__
    )


def _input_picture(volume: Volume) -> dict[str, str] | None:
    """An image as it lies in its file's own frame, and its size in words; None for one without contrast."""
    try:
        image = normalise(volume.array, name=str(volume.path))
    except ImageError:
        return None
    found = volume.with_array(image)
    planes = [grey(slices(found, view))[0] for view in views(image, volume.grid).values()]
    size = " x ".join(map(str, volume.grid.shape))
    spacing = " x ".join(f"{mm:.3g}" for mm in volume.grid.spacing)
    return {"picture": figures.png(figures.row_of_planes(planes)), "size": f"{size} voxels of {spacing} mm"}


def _scores(metrics: Mapping[str, Any]) -> Rows:
    """Title and a number per stage."""
    rows: Rows = []
    for title, kind, key, digits in SCORES:
        if kind in metrics:
            rows.append((title, *(_number(metrics[kind][stage][key], digits) for stage in STAGES)))
    return rows


def _number(value: float | None, digits: int) -> str:
    return "unknown" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _deformation(found: Mapping[str, Any]) -> Rows:
    """Title, value, and what it means."""
    if not found:
        return []
    residual, smallest, largest = found["inverse_residual_mm"], found["jacobian_min"], found["jacobian_max"]
    certified = "yes" if found.get("certified") else f"no: {found.get('certificate', {}).get('failure', 'unknown')}"
    return [
        ("folded voxels", f"{found['folds']}", "determinant of the warp not positive (central differences)"),
        ("digital folds", f"{found['digital_folds']}", "stricter: between the voxels as well"),
        ("NDV", f"{found['ndv_percent']:.3g} %", "non-diffeomorphic volume"),
        ("Jacobian of the warp", f"{smallest:.3g} to {largest:.3g}", "smallest and largest change of volume"),
        ("SDlogJ", _number(found["sdlogj"], 3), "how uneven the change of volume is"),
        (
            "inverse residual, p99",
            f"{_number(residual['p99'], 3)} mm",
            "there and back again; 1 voxel in 100 misses by more",
        ),
        ("inverse residual, largest", f"{_number(residual['max'], 2)} mm", "at the worst voxel"),
        ("certified one-to-one", certified, "by the bounds of every step"),
    ]


def _label_rows(metrics: Mapping[str, Any]) -> Rows:
    dice = {stage: metrics["dice"][stage]["per_label"] for stage in STAGES}
    return [(label, *(_number(dice[stage].get(label), 3) for stage in STAGES)) for label in dice["after"]]


def _seconds(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in seconds.items() if value >= 0.05)


def _model(model: Mapping[str, Any] | None) -> str:
    """Which network took part, and what it changed."""
    return f"{model['name']} {model['sha256']}, {model_told(model)}" if model else ""


def _provenance(known: Mapping[str, Any]) -> Rows:
    """How it was made. Nothing of the files' headers, which may hold names of people and dates."""
    versions = known.get("versions") or {}
    rows: Sequence[tuple[str, Any]] = [
        *((f"input {Path(path).name}", f"SHA-256 {digest}") for path, digest in known.get("inputs", {}).items()),
        ("command", known.get("command")),
        ("model", _model(known.get("model"))),
        ("backend and device", " on ".join(str(known[key]) for key in ("backend", "device") if known.get(key))),
        ("threads", known.get("threads")),
        ("seed", known.get("seed")),
        ("peak memory", f"{known['peak_memory_bytes'] / 1e9:.2f} GB" if "peak_memory_bytes" in known else None),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items() if version)),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "")]
