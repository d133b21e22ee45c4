"""`r2reg convert`: a transform in another format."""

from __future__ import annotations

import click

from r2reg.cli.common import command_options, overwrite_option
from r2reg.cli.transforms import FILE, format_option, moving_option, read_with_grids, reference_option, write_output


@click.command()
@click.argument("source", type=FILE, metavar="IN")
@click.argument("target", type=FILE, metavar="OUT")
@reference_option(text="Fixed image: the grid of a field that is sampled; FSL's files, .npz and .lta need it.")
@moving_option
@format_option
@overwrite_option
@command_options
def convert(source: str, target: str, reference: str | None, moving: str | None, tool: str, overwrite: bool) -> None:
    """Write the transform IN as OUT, in the format of OUT's ending.

    \b
      .mat .tfm .txt    affine for ITK and ANTs; .mat for FLIRT with --format fsl
      .nii.gz .nii      displacement field for ITK and ANTs, or with --format for AFNI or FSL
      .h5               composite for ITK and ANTs
      .x5               X5 (BIDS' draft)
      .lta              affine for FreeSurfer
      .npz              displacement in voxels, Learn2Reg's layout

    FSL's files, .npz and .lta need both images, affines and lists written as a field need --reference.

    \b
    Examples:
      r2reg convert run/warp.nii.gz warp.x5
      r2reg convert run/forward.h5 fsl_warp.nii.gz --format fsl --reference fixed.nii.gz --moving moving.nii.gz
    """
    from r2reg.io.files import check_output

    check_output(target, overwrite)
    transforms, fixed, other = read_with_grids([source], reference, moving)
    write_output(target, transforms, tool, fixed, other)
