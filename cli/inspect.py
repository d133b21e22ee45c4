"""`r2reg inspect`: a trained network looked into."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from r2reg.cli.common import command_options, json_option, overwrite_option
from r2reg.cli.register import RefineType

INPUT = click.Path(path_type=Path)


@click.command(epilog="Example: r2reg inspect runs/brain --convergence")
@click.argument("model")
@click.option("--convergence", is_flag=True, help="Compare what the network integrates with exact integration.")
@click.option("--tracks", is_flag=True, help="Measure how straight voxels travel through blocks and refinement.")
@click.option("--moving", type=INPUT, help="Of --tracks: a pair to measure, registered with its refinement.")
@click.option("--fixed", type=INPUT, help="Of --tracks.  [default: the pairs that MODEL was validated on]")
@click.option("--refine", type=RefineType(), default="default", show_default=True, help="Of that pair; see register.")
@click.option("--init", default="affine", show_default=True, help="Of that pair; see register.")
@click.option(
    "-o", "--output", type=INPUT, metavar="DIR", help="Of --tracks: gets tracks.csv, lss.nii.gz, figures/lss.png."
)
@overwrite_option
@json_option
@command_options
def inspect(
    model: str,
    convergence: bool,
    tracks: bool,
    moving: Path | None,
    fixed: Path | None,
    refine: str | int,
    init: str,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Say how the residual blocks of MODEL, a folder that `r2reg train` wrote or a model that ships, are
    bounded.

    With --convergence also how far its displacements are from those that exact integration makes of its velocities,
    over the pairs that it was validated on.

    With --tracks also how straight voxels travel, step by step (Gai & Zhang 2021): LSR is the length of a track over
    the distance of its ends, LSS the same with all steps scaled to one length; both are 1 on a straight line. OTS is
    the share of voxels that the cheapest assignment of ends to beginnings leaves with their own. Over voxels of the
    foreground that move by more than 0.1 voxel.
    """
    if (moving is None) != (fixed is None):
        raise click.UsageError("give both --moving and --fixed, or neither")
    if not tracks and (moving or output):
        raise click.UsageError("--moving, --fixed and --output belong to --tracks; add it")
    if moving is None and (refine, init) != ("default", "affine"):
        raise click.UsageError("--refine and --init register a pair: give --moving and --fixed")
    from r2reg.config import RegisterConfig
    from r2reg.evaluation.inspection import inspect_model
    from r2reg.released import find_model
    from r2reg.startup import start_backend

    folder = find_model(model)
    start_backend("auto", 0, False, 0)
    found = inspect_model(folder, converges=convergence)
    if tracks:
        from r2reg.evaluation.tracks import inspect_tracks

        pair = (moving, fixed) if moving and fixed else None
        config = RegisterConfig(init=init, refine=refine)  # type: ignore[arg-type]
        found["tracks"] = inspect_tracks(folder, pair, config, output, overwrite=overwrite)
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(lines(found)))


def lines(found: dict[str, Any]) -> list[str]:
    """The same as text."""
    network = found["network"]
    told = [f"{network['network']}, {network['integrator']}, spectral norm {network['spectral_norm']}"]
    if found["norms"]:
        told.append(f"{'convolution':16} {'operator':>9} {'kernel':>9}   (norms; an operator's above 1 is no bound)")
    told += [f"{row['layer']:16} {row['operator']:9.4f} {row['kernel']:9.4f}" for row in found["norms"]]
    if "convergence" in found:
        test = dict(found["convergence"])
        told.append(
            f"convergence, {test.pop('pairs')} pairs: root mean square and largest distance, voxels; mean square"
        )
        for name, error in test.items():
            rms, largest, square = (error[key] for key in ("rms", "max", "mean_square"))
            told.append(
                f"  {NAMES[name]:52} {rms['mean']:.4f} +- {rms['sd']:.4f}  {largest['mean']:.3f}  {square['mean']:.3g}"
            )
    return told + (track_lines(found["tracks"]) if "tracks" in found else [])


def track_lines(tracks: dict[str, Any]) -> list[str]:
    """A line per stage."""
    names = ("steps", "voxels", "lss_mean", "lss_p95", "lsr_mean", "lsr_p95", "ots")
    headings = ("steps", "voxels", "LSS", "95 %", "LSR", "95 %", "OTS")
    told = [f"tracks, {tracks['pairs']} pairs", f"{'':12}" + "".join(f"{heading:>9}" for heading in headings)]
    for stage, row in tracks["stages"].items():
        cells = [row[name] for name in names]
        shown = ["-" if cell is None else f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in cells]
        told.append(f"{stage:12}" + "".join(f"{cell:>9}" for cell in shown))
    return told


NAMES = {
    "paper": "network against scaling and squaring of v0 (paper)",
    "converged": "network against the converged flow",
    "scaling_squaring": "scaling and squaring against the converged flow",
}
