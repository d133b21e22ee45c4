"""`r2reg invert`: the inverse of transforms."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import click
import numpy as np

from r2reg.cli.common import command_options, json_option, overwrite_option
from r2reg.cli.transforms import (
    FILE,
    lps,
    output_options,
    read_with_grids,
    reference_option,
    transforms_option,
    warn_of_apart,
    warn_of_residual,
    write_output,
)

if TYPE_CHECKING:
    from r2reg.geometry.transforms import Transform

log = logging.getLogger("r2reg")


@click.command()
@transforms_option
@output_options
@reference_option(text="Fixed image, whose grid FSL's files, .npz and .lta need.")
@click.option("--moving", type=FILE, metavar="MOVING", help="Moving image, whose grid the inverse lies on.")
@overwrite_option
@json_option
@command_options
def invert(
    specs: tuple[str, ...],
    output: str,
    tool: str,
    reference: str | None,
    moving: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write the inverse of a list of transforms, and say how well it inverts.

    Of affines it is exact. Of anything else it is a field on MOVING's grid, or without it on that of the first field.
    The residual is how far T(inverse(x)) is from x at the voxels.

    \b
    Examples:
      r2reg invert -t run/warp.nii.gz -t run/affine.mat --moving moving.nii.gz -o moving_to_fixed.nii.gz
      r2reg invert -t affine.mat -o inverse.mat
    """
    from r2reg.errors import TransformError
    from r2reg.geometry.transforms import Displacement
    from r2reg.io.composite import COMPOSITE_SUFFIXES
    from r2reg.io.files import check_output
    from r2reg.io.transforms import AFFINE_SUFFIXES
    from r2reg.resampling import invert_onto

    check_output(output, overwrite)
    transforms, fixed, grid = read_with_grids(specs, reference, moving)
    _warn_of_folds(transforms)
    onto = grid or next((part.grid for part in transforms if isinstance(part, Displacement)), None)
    if onto is None:
        inverse, residual = [part.inverse() for part in reversed(transforms)], np.zeros(1)
    else:
        inverse, residual = invert_onto(transforms, onto)
        warn_of_residual(residual, "voxels", onto)
        warn_of_apart(transforms, onto)
    if onto is None and not output.endswith((*AFFINE_SUFFIXES, *COMPOSITE_SUFFIXES, ".lta", ".x5")):
        raise TransformError(f"{output}: is sampled on a grid; give --moving MOVING")
    write_output(output, inverse, tool, grid, fixed)
    found = {name: float(value) for name, value in zip(("mean", "p99", "max"), _summary(residual), strict=True)}
    told = f"{output}: residual, mm: " + ", ".join(f"{name} {value:.3g}" for name, value in found.items())
    click.echo(json.dumps({"residual_mm": found}) if as_json else told)


def _warn_of_folds(transforms: list[Transform]) -> None:
    """Say where a field folds: there it has several inverses, of which one is found."""
    from r2reg.flow.reference import folded_voxels
    from r2reg.geometry.transforms import Displacement

    for part in transforms:
        if isinstance(part, Displacement) and (folds := folded_voxels(part.to_voxels())).any():
            log.warning(
                "the field folds at %d voxels, the first at %s: there are several inverses there",
                folds.sum(),
                lps(part.grid, np.argwhere(folds)[0]),
            )


def _summary(residual: np.ndarray) -> tuple[float, float, float]:
    return residual.mean(), np.percentile(residual, 99), residual.max()
