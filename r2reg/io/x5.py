"""X5, the HDF5 format that BIDS drafts for transforms, through nitransforms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from r2reg.errors import OutputError, TransformError
from r2reg.geometry.grid import Grid, identity_points
from r2reg.geometry.transforms import Affine, Displacement, Transform
from r2reg.io.files import atomic_path

CHAINS = "TransformChain"


def read_x5(path: Path) -> list[Transform]:
    """The transforms of the first chain, or of a file without one all of them; the first acts first.

    Raises:
        TransformError: not X5, truncated, or a transform that is neither one affine nor a dense field.
    """
    import h5py
    from nitransforms.io.x5 import from_filename

    try:
        nodes = from_filename(path)
        with h5py.File(path, "r") as file:
            chain = file[CHAINS]["0"][()].decode() if CHAINS in file else "/".join(map(str, range(len(nodes))))
        return [_transform(nodes[int(number)]) for number in chain.split("/")]
    except (OSError, TypeError, KeyError, ValueError, IndexError, AttributeError) as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise TransformError(f"{path}: is not X5, or is truncated ({told}); write it again") from None


def _transform(node: object) -> Transform:
    kind, values = node.type, np.asarray(node.transform)  # type: ignore[attr-defined]
    if kind == "linear" and values.shape == (4, 4):
        return Affine(values)
    representation, domain = node.representation, node.domain  # type: ignore[attr-defined]
    if kind != "nonlinear" or representation not in ("displacements", "deformations") or domain is None:
        raise TransformError(
            f"holds a transform of type {kind}, {representation}; only affines and dense fields are read"
        )
    grid = Grid(tuple(int(n) for n in domain.size), np.asarray(domain.mapping))
    values = values.reshape(*grid.shape, grid.ndim)
    if representation == "deformations":
        values = values - grid.index_to_ras(identity_points(grid.shape))
    return Displacement(grid, values.astype(np.float32))


def write_x5(path: Path, transforms: Sequence[Transform], fixed: Grid | None) -> None:
    """Write transforms and the chain in which they act.

    Raises:
        TransformError: 2-D. OutputError: it cannot be written.
    """
    import h5py
    from nitransforms.io.x5 import X5Domain, X5Transform, to_filename

    if any(transform.ndim != 3 for transform in transforms):
        raise TransformError(f"{path}: X5 is for 3-D transforms; write .nii.gz, .mat or .h5 for ITK")

    def domain(grid: Grid) -> X5Domain:
        return X5Domain(grid=True, size=grid.shape, mapping=grid.affine, coordinates="cartesian")

    kinds = ("space", "space", "space", "vector")
    nodes = []
    for transform in transforms:
        if isinstance(transform, Affine):
            where = domain(fixed) if fixed is not None else None
            about = {"type": "linear", "subtype": "affine", "representation": "matrix"}
            nodes.append(X5Transform(**about, transform=transform.matrix, dimension_kinds=kinds, domain=where))
        else:
            about = {"type": "nonlinear", "subtype": "densefield", "representation": "displacements"}
            where = domain(transform.grid)
            nodes.append(X5Transform(**about, transform=transform.vectors, dimension_kinds=kinds, domain=where))
    with atomic_path(path) as temporary:
        try:
            to_filename(temporary, nodes)
            with h5py.File(temporary, "r+") as file:
                file.create_group(CHAINS).create_dataset("0", data="/".join(map(str, range(len(nodes)))))
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error}); free space or choose another folder") from error
