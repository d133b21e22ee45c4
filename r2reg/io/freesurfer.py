"""FreeSurfer's linear transforms, .lta, through nitransforms."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from r2reg.errors import GridsNeededError, TransformError
from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine
from r2reg.io.files import atomic_path


def read_lta(path: Path) -> Affine:
    """The map of fixed to moving points of a file in which src is the moving image and dst the fixed one.

    Raises:
        TransformError: not one linear transform of voxels or RAS.
    """
    from nitransforms.io.base import TransformFileError
    from nitransforms.io.lta import FSLinearTransform

    try:
        found = FSLinearTransform.from_string(path.read_text(encoding="utf-8", errors="replace"))
        return Affine(found.to_ras())
    except (AssertionError, IndexError, ValueError, NotImplementedError, TransformFileError) as error:
        told = " ".join(str(error).split()) or "its lines are not those of an .lta"
        raise TransformError(f"{path}: is not a linear transform of FreeSurfer that can be read ({told})") from None


def write_lta(path: Path, affine: Affine, fixed: Grid | None, moving: Grid | None) -> None:
    """Write RAS-to-RAS with the geometries of both images.

    Raises:
        GridsNeededError: without both. TransformError: 2-D. OutputError: it cannot be written.
    """
    from nitransforms.io.lta import FSLinearTransform, VolumeGeometry

    if affine.ndim != 3:
        raise TransformError(f"{path}: FreeSurfer's transforms are 3-D; write .mat for ITK")
    if fixed is None or moving is None:
        raise GridsNeededError(f"{path}: an .lta names the grids of both images; name both")
    written = FSLinearTransform.from_ras(affine.matrix)
    # nitransforms takes src for the fixed image; in FreeSurfer the matrix carries src, the moving image, to dst.
    for name, grid in (("src", moving), ("dst", fixed)):
        image = SimpleNamespace(affine=grid.affine, shape=grid.shape)
        written.structarr[name] = np.asanyarray(VolumeGeometry.from_image(image))
    with atomic_path(path) as temporary:
        temporary.write_text(written.to_string(), encoding="ascii")
