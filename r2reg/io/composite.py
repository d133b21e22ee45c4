"""ITK's composite transforms in HDF5, written by h5py: ITK's own writer brings the process down on a full disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from r2reg.errors import OutputError
from r2reg.geometry.transforms import Affine, Displacement, Transform
from r2reg.io.files import atomic_path, full_suffix
from r2reg.io.itk import lps_signs

COMPOSITE_SUFFIXES = (".h5", ".hdf5")


def write_composite(path: Path | str, transforms: Sequence[Transform]) -> None:
    """Write a list of transforms, the first acts first, as ITK and ANTs read it; fields as float32.

    Raises:
        OutputError: another ending, or a file that cannot be written.
    """
    import h5py

    path = Path(path)
    if full_suffix(path) not in COMPOSITE_SUFFIXES:
        raise OutputError(f"{path}: a composite is written as {' or '.join(COMPOSITE_SUFFIXES)}; change the ending")
    d = transforms[0].ndim
    # Made in memory: HDF5 on a full disk says so again and again, past the log.
    with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
        group = file.create_group("TransformGroup")
        _add(group, 0, f"CompositeTransform_double_{d}_{d}")
        for number, transform in enumerate(reversed(transforms), start=1):  # ITK applies the last one first
            kind = "AffineTransform" if isinstance(transform, Affine) else "DisplacementFieldTransform"
            parts = _affine(transform) if isinstance(transform, Affine) else _field(transform)
            _add(group, number, f"{kind}_double_{d}_{d}", *parts)
        file.flush()
        content = file.id.get_file_image()
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _add(group: Any, number: int, kind: str, fixed: np.ndarray | None = None, values: np.ndarray | None = None) -> None:
    import h5py

    part = group.create_group(str(number))
    part.create_dataset("TransformType", data=np.array([kind], dtype=h5py.string_dtype("ascii")))
    if fixed is not None and values is not None:
        part.create_dataset("TransformFixedParameters", data=fixed)
        part.create_dataset("TransformParameters", data=values)


def _affine(affine: Affine) -> tuple[np.ndarray, np.ndarray]:
    """Centre, which is 0; matrix row by row and translation."""
    signs = lps_signs(affine.ndim)
    linear = signs[:, None] * affine.matrix[:-1, :-1] * signs
    return np.zeros(affine.ndim), np.concatenate([linear.ravel(), signs * affine.matrix[:-1, -1]])


def _field(field: Displacement) -> tuple[np.ndarray, np.ndarray]:
    """Size, origin, spacing, directions; the vectors, the first axis fastest, components together."""
    grid, signs = field.grid, lps_signs(field.ndim)
    directions = (signs[:, None] * grid.directions).ravel()
    fixed = np.concatenate([grid.shape, signs * grid.affine[:-1, -1], grid.spacing, directions])
    axes = (*reversed(range(field.ndim)), field.ndim)
    vectors = (field.vectors * signs.astype(np.float32)).astype(np.float32, copy=False).transpose(axes)
    return fixed, np.ascontiguousarray(vectors).ravel()
