"""`r2reg jacobian`: how a map changes volume and shape."""

from __future__ import annotations

import logging

import click
import numpy as np

from r2reg.cli.common import command_options, overwrite_option
from r2reg.cli.transforms import FILE, lps, moving_option, read_with_grids, reference_option, transforms_option

log = logging.getLogger("r2reg")


@click.command()
@transforms_option
@click.option("-o", "--output", type=FILE, required=True, metavar="OUT", help="Image to write.")
@click.option(
    "--measure",
    type=click.Choice(["determinant", "log", "rotation", "stretch"]),
    default="determinant",
    show_default=True,
    help="log: of the determinant (NaN at folds); rotation: degrees; stretch: as volumes, largest first.",
)
@reference_option()
@moving_option
@overwrite_option
@command_options
def jacobian(
    specs: tuple[str, ...], output: str, measure: str, reference: str | None, moving: str | None, overwrite: bool
) -> None:
    """Write a measure of the Jacobian of T2(T1(x)) at the voxels of FIXED, in the world's units.

    A determinant of 2 says that a place in the fixed image is carried onto twice its volume in the moving one.
    Without --reference the grid is that of the field that the list begins with.

    \b
    Examples:
      r2reg jacobian -t run/warp.nii.gz -t run/affine.mat --measure log -o log_jacobian.nii.gz
      r2reg jacobian -t run/warp.nii.gz --measure stretch -o stretch.nii.gz
    """
    from r2reg.io.files import check_output
    from r2reg.io.images import write_map
    from r2reg.io.transforms import sampled
    from r2reg.metrics.jacobian import jacobian_map

    check_output(output, overwrite)
    transforms, fixed, _ = read_with_grids(specs, reference, moving)
    field = sampled(output, transforms, fixed)
    found = jacobian_map(field, measure)
    if (missing := np.isnan(found)).any():
        first = lps(field.grid, np.argwhere(missing)[0])
        log.warning("the map folds at %d voxels, the first at %s: the log is NaN there", missing.sum(), first)
    write_map(output, found, field.grid)
    log.info("wrote %s", output)
