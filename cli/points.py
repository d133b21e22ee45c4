"""`r2reg points`: carry points through transforms."""

from __future__ import annotations

import logging

import click

from r2reg.cli.common import command_options, overwrite_option
from r2reg.cli.transforms import (
    FILE,
    moving_option,
    read_with_grids,
    reference_option,
    transforms_option,
    warn_of_residual,
)

log = logging.getLogger("r2reg")


@click.command()
@transforms_option
@click.option(
    "-i",
    "--input",
    "table",
    type=FILE,
    required=True,
    metavar="IN",
    help="CSV with x,y[,z] in LPS mm, or Slicer's .mrk.json, .fcsv.",
)
@click.option("-o", "--output", type=FILE, required=True, metavar="OUT", help="The points carried; any of the formats.")
@reference_option(text="Fixed image, whose grid FSL's files, .npz and .lta need.")
@moving_option
@click.option("--invert", is_flag=True, help="Invert the whole list of transforms.")
@overwrite_option
@command_options
def points(
    specs: tuple[str, ...],
    table: str,
    output: str,
    reference: str | None,
    moving: str | None,
    invert: bool,
    overwrite: bool,
) -> None:
    """Carry points through transforms: out = T2(T1(point)), LPS mm as in ANTs; other columns are kept.

    \b
    Examples (fixed points to moving points, and back):
      r2reg points -t run/warp.nii.gz -t run/affine.mat -i fixed_points.csv -o in_moving.csv
      r2reg points -t run/warp.nii.gz -t run/affine.mat --invert -i moving_points.csv -o in_fixed.csv
    """
    from r2reg.geometry.transforms import inverse_points, map_points
    from r2reg.io.files import check_output
    from r2reg.io.points import read_points, warn_of_outside, write_points

    check_output(output, overwrite)
    transforms, _, _ = read_with_grids(specs, reference, moving)
    given = read_points(table, transforms[0].ndim)
    if invert:
        carried, residual = inverse_points(transforms, given.ras)
        warn_of_residual(residual, "points", rows=True)
        warn_of_outside(transforms, carried)
    else:
        carried = map_points(transforms, given.ras)
        warn_of_outside(transforms, given.ras)
    write_points(output, given.moved_to(carried))
    log.info("wrote %s", output)
