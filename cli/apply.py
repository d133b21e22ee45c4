"""`r2reg apply`: resample an image or label map through transforms."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import click

from r2reg.cli.common import command_options, overwrite_option
from r2reg.cli.transforms import FILE, reference_option, transforms_option, warn_of_apart, warn_of_residual

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from r2reg.io.series import Series

log = logging.getLogger("r2reg")


@click.command()
@transforms_option
@reference_option(required=True)
@click.option("-i", "--input", "image", type=FILE, required=True, metavar="IN", help="Image or label map to resample.")
@click.option(
    "-o", "--output", type=FILE, required=True, metavar="OUT", help="File to write; the format by its ending."
)
@click.option(
    "--interpolation",
    type=click.Choice(["linear", "nearest", "label", "bspline"]),
    default="linear",
    show_default=True,
    help="nearest and label keep the input's integer type; label gives smoother borders.",
)
@click.option(
    "--fill",
    type=float,
    help="Value outside IN's view (default: IN's minimum, of a series its first volume's; 0 for labels).",
)
@click.option("--volume", type=int, metavar="K", help="Which volume of a 4-D IN, from 0.  [default: all]")
@click.option("--invert", is_flag=True, help="Invert the whole list of transforms.")
@overwrite_option
@command_options
def apply(
    specs: tuple[str, ...],
    reference: str,
    image: str,
    output: str,
    interpolation: str,
    fill: float | None,
    volume: int | None,
    invert: bool,
    overwrite: bool,
) -> None:
    """Resample IN onto FIXED's grid: out(x) = IN(T2(T1(x))), as antsApplyTransforms does.

    A 4-D series (3-D and time) is resampled volume by volume.

    \b
    Examples:
      r2reg apply -t run/warp.nii.gz -t run/affine.mat --reference fixed.nii.gz \\
          -i moving.nii.gz -o moved.nii.gz
      r2reg apply -t run/warp.nii.gz -t run/affine.mat --invert --interpolation label \\
          --reference moving.nii.gz -i fixed_labels.nii.gz -o labels_on_moving.nii.gz
    """
    from r2reg.io import images
    from r2reg.io.files import check_output
    from r2reg.io.series import open_series
    from r2reg.io.transforms import read_transform_list
    from r2reg.resampling import invert_onto, resample

    check_output(output, overwrite)
    if volume is None and (series := open_series(image)):
        apply_to_series(specs, reference, series, output, interpolation, fill, invert)
        return
    like, moving = images.read_reference(reference), images.read_for(interpolation, image, volume=volume, ndim=None)
    fixed_grid, moving_grid = (moving.grid, like.grid) if invert else (like.grid, moving.grid)
    transforms = read_transform_list(specs, fixed=fixed_grid, moving=moving_grid)
    ndim = transforms[0].ndim
    if {like.grid.ndim, moving.grid.ndim} != {ndim}:  # a slice, which may be 2-D or 3-D
        like = images.read_reference(reference, ndim=ndim)
        moving = images.read_for(interpolation, image, volume=volume, ndim=ndim)
    if invert:
        transforms, residual = invert_onto(transforms, like.grid)
        warn_of_residual(residual, "voxels", like.grid)
    warn_of_apart(transforms, like.grid)
    moved = resample(moving, like.grid, transforms, interpolation, fill)
    images.write_image(output, moved, like)
    log.info("wrote %s", output)


def apply_to_series(
    specs: tuple[str, ...],
    reference: str,
    series: Series,
    output: str,
    interpolation: str,
    fill: float | None,
    invert: bool,
) -> None:
    """As `apply`, one volume in memory at a time."""
    from r2reg.errors import TransformError
    from r2reg.io import images
    from r2reg.io.series import write_series
    from r2reg.io.transforms import read_transform_list
    from r2reg.resampling import Resampler, invert_onto

    like = images.read_reference(reference, ndim=3)
    fixed, moving = (series.grid, like.grid) if invert else (like.grid, series.grid)
    transforms = read_transform_list(specs, fixed=fixed, moving=moving)
    if transforms[0].ndim == 2:
        raise TransformError(f"{series.path}: a series is 3-D and time, the transforms are 2-D; give --volume K")
    if invert:
        transforms, residual = invert_onto(transforms, like.grid)
        warn_of_residual(residual, "voxels", like.grid)
    warn_of_apart(transforms, like.grid)
    onto = Resampler(like.grid, transforms)

    def moved() -> Iterator[np.ndarray]:
        value = fill
        for stored in series:
            volume = images.made_for(interpolation, stored)
            if value is None:  # one background for all, the first volume's
                value = float(volume.array.min()) if volume.array.dtype.kind == "f" else 0.0
            yield onto(volume, interpolation, value)

    write_series(output, moved(), like, series)
    log.info("wrote %s, %d volumes", output, series.count)
