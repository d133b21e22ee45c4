"""`r2reg compose`: several transforms as one."""

from __future__ import annotations

import click

from r2reg.cli.common import command_options, overwrite_option
from r2reg.cli.transforms import (
    moving_option,
    output_options,
    read_with_grids,
    reference_option,
    transforms_option,
    write_output,
)


@click.command()
@transforms_option
@output_options
@reference_option()
@moving_option
@overwrite_option
@command_options
def compose(
    specs: tuple[str, ...], output: str, tool: str, reference: str | None, moving: str | None, overwrite: bool
) -> None:
    """Write several transforms as one: affines as their product, else a field sampled on FIXED's
    grid, or on that of the field that the list begins with.

    The order is that of ANTs' lists: T2(T1(x)). OUT as of `r2reg convert`; .h5 and .x5 get the one field, too.

    \b
    Examples:
      r2reg compose -t run/warp.nii.gz -t run/affine.mat --reference fixed.nii.gz -o whole.nii.gz
      r2reg compose -t "[a.mat,1]" -t b.mat -o both.mat
    """
    from r2reg.io.files import check_output
    from r2reg.io.transforms import composed

    check_output(output, overwrite)
    transforms, fixed, other = read_with_grids(specs, reference, moving)
    one = composed(output, transforms, fixed)
    write_output(output, [one], tool, fixed, other)
