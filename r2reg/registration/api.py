"""Registration from Python: images as a program holds them, two lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from r2reg.config import RegisterConfig
from r2reg.errors import ConfigError
from r2reg.io.itk import lps_signs
from r2reg.io.objects import Image, as_volume
from r2reg.io.points import AXES, Points, read_points
from r2reg.registration.pair import OPTIONAL, Pair, on_grid
from r2reg.registration.pipeline import register as run
from r2reg.registration.result import RegistrationResult
from r2reg.startup import start_backend
from r2reg.threads import set_threads


def register(moving: Image, fixed: Image, **options: Any) -> RegistrationResult:
    """Find the map that carries a moving image onto a fixed one.

        result = r2reg.register("moving.nii.gz", "fixed.nii.gz", refine="fast")
        result.save("out")

    Args:
        moving, fixed: paths; images of nibabel, SimpleITK or ANTsPy; or (array, affine) with (X, Y[, Z]) voxels and the
            affine from voxel indices to RAS mm.
        options: moving_labels, fixed_labels, moving_mask, fixed_mask, the same kinds, each on its image's grid;
            moving_points, fixed_points: a path, or (n, d) LPS mm; and the settings of `RegisterConfig` (model, refine,
            similarity, init, transform, ...), which are the options of `r2reg register`.
    Returns:
        moved image, transforms, Jacobian and scores; see `RegistrationResult`.
    Raises:
        R2RegError: one line.
    """
    known = (*OPTIONAL, *RegisterConfig.__dataclass_fields__)
    wrong = [name for name in options if name not in known]
    if wrong:
        raise ConfigError(f"register has no option {', '.join(wrong)}; options are {', '.join(known)}")
    given = {name: options.pop(name) for name in OPTIONAL if name in options}
    config = RegisterConfig(**options)
    set_threads(config.threads)
    images: dict[str, Any] = {"moving": as_volume(moving, name="moving"), "fixed": as_volume(fixed, name="fixed")}
    extra: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        kind = name.split("_")[1]
        if kind == "points":
            extra[name] = _points(value, images[name.split("_")[0]].grid.ndim)
        else:
            extra[name] = on_grid(as_volume(value, kind, name), images[name.split("_")[0]].grid, name)
    pair = Pair(**images, **extra)

    def start() -> None:
        if config.transform != "affine":
            start_backend(config.device, config.threads, config.deterministic, config.seed)

    return run(pair, config, start=start)


def _points(value: Any, ndim: int) -> Points:
    if isinstance(value, (str, Path)):
        return read_points(value, ndim)
    lps = np.asarray(value, dtype=np.float64)
    if lps.ndim != 2 or lps.shape[1] != ndim or not np.isfinite(lps).all():
        raise ConfigError(f"points are (n, {ndim}) finite numbers, LPS mm. Received: shape={lps.shape}")
    rows = tuple(tuple(map(repr, row)) for row in lps.tolist())
    return Points(lps * lps_signs(ndim), AXES[:ndim], rows)
