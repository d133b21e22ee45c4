"""What the commands that read transforms share: their options, and the grids that some formats need."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
import numpy as np

if TYPE_CHECKING:
    from r2reg.geometry.grid import Grid
    from r2reg.geometry.transforms import Transform

log = logging.getLogger("r2reg")
Command = TypeVar("Command", bound=Callable[..., Any])

INVERSE_TOLERANCE_MM = 1e-3  # a residual above this is told
PROBES = 12  # along an axis, at which a field is asked whether it reaches an image
TRANSFORM_HELP = (
    "Transform file (.mat, .tfm, .txt, .lta, .h5, .x5, .npz, displacement .nii.gz), the first acts on a point first; "
    '"[affine.mat,1]" inverts an affine. Repeatable.'
)
FILE = click.Path()  # only names a path, so that shells complete it
transforms_option = click.option(
    "-t", "--transform", "specs", type=FILE, multiple=True, required=True, metavar="T", help=TRANSFORM_HELP
)
moving_option = click.option(
    "--moving", type=FILE, metavar="MOVING", help="Moving image, whose grid FSL's files, .npz and .lta need."
)
format_option = click.option(
    "--format",
    "tool",
    type=click.Choice(["itk", "fsl", "afni"]),
    default="itk",
    show_default=True,
    help="Whose .mat or .nii.gz OUT is.",
)


def reference_option(
    required: bool = False, text: str = "Fixed image, whose grid the output lies on."
) -> Callable[[Command], Command]:
    """--reference, the fixed image."""
    return click.option("--reference", type=FILE, required=required, metavar="FIXED", help=text)


def output_options(function: Command) -> Command:
    """-o and --format of a command that writes a transform."""
    for option in (
        format_option,
        click.option(
            "-o",
            "--output",
            type=FILE,
            required=True,
            metavar="OUT",
            help="File to write; the format by its ending.",
        ),
    ):
        function = option(function)
    return function


def read_with_grids(
    specs: Sequence[str], reference: str | None, moving: str | None
) -> tuple[list[Transform], Grid | None, Grid | None]:
    """The transforms of a list, and the grids of the images that are named: a slice is 2-D where the transforms are.

    Raises:
        R2RegError: a file that cannot be used; FSL's file without both images.
    """
    from r2reg.errors import GridsNeededError, TransformError
    from r2reg.io.images import read_reference
    from r2reg.io.transforms import read_transform_list

    def grid(image: str | None, ndim: int | None = None) -> Grid | None:
        return read_reference(image, ndim=ndim).grid if image else None

    fixed, other = grid(reference), grid(moving)
    try:
        transforms = read_transform_list(specs, fixed=fixed, moving=other)
    except GridsNeededError as error:
        raise TransformError(f"{error}, by --reference FIXED and --moving MOVING") from None
    ndim = transforms[0].ndim
    if any(known is not None and known.ndim != ndim for known in (fixed, other)):
        fixed, other = grid(reference, ndim), grid(moving, ndim)
    if fixed is not None:
        warn_of_apart(transforms, fixed)
    return transforms, fixed, other


def write_output(
    path: str, transforms: Sequence[Transform], tool: str, fixed: Grid | None, moving: Grid | None
) -> None:
    """Write a transform in the format of its ending, and say so.

    Raises:
        R2RegError: what the format cannot hold; FSL's file or .lta without both images.
    """
    from typing import cast

    from r2reg.errors import GridsNeededError, TransformError
    from r2reg.io.fields import Tool
    from r2reg.io.transforms import write_transforms

    try:
        write_transforms(path, transforms, tool=cast(Tool, tool), fixed=fixed, moving=moving)
    except GridsNeededError as error:
        raise TransformError(f"{error}, by --reference FIXED and --moving MOVING") from None
    log.info("wrote %s", path)


def warn_of_residual(residual: np.ndarray, what: str, grid: Grid | None = None, rows: bool = False) -> None:
    """Say how many inverted points miss, by how much (mm), and where: the worst voxel of a grid, or the rows."""
    from r2reg.io.points import listed_rows

    missed = int((residual > INVERSE_TOLERANCE_MM).sum())
    if missed:
        at = f", rows {listed_rows(residual > INVERSE_TOLERANCE_MM)}" if rows else ""
        if grid is not None:
            at = f", the worst at {lps(grid, np.unravel_index(residual.argmax(), residual.shape))}"
        log.warning(
            "%d of %d %s have no inverse within %g mm (up to %.3g mm off%s): the warp folds or ends there",
            missed, residual.size, what, INVERSE_TOLERANCE_MM, residual.max(), at,
        )  # fmt: skip


def lps(grid: Grid, voxel: Sequence[Any]) -> str:
    """The place of a voxel, LPS mm, as text."""
    from r2reg.io.itk import lps_signs

    place = grid.index_to_ras(np.array(voxel, dtype=float)) * lps_signs(grid.ndim)
    return f"{', '.join(f'{v:.1f}' for v in place)} (LPS mm)"


def warn_of_apart(transforms: Sequence[Transform], grid: Grid) -> None:
    """Say so where a field ends before any voxel of a grid: it moves none of them."""
    from r2reg.geometry.transforms import outside_of_fields

    along = [np.linspace(0, n - 1, min(n, PROBES)) for n in grid.shape]
    probes = np.stack(np.meshgrid(*along, indexing="ij"), axis=-1).reshape(-1, grid.ndim)
    if grid.ndim == transforms[0].ndim and outside_of_fields(transforms, grid.index_to_ras(probes)).all():
        log.warning("a displacement field lies wholly beside the image and moves nothing; is it of this pair?")
