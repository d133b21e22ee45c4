"""`r2reg register`: a pair of images -> a run folder."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import click

from r2reg.cli.common import command_options, json_option, overwrite_option

INPUT = click.Path(path_type=Path)
FORMATS = "itk,h5"
REFINE = ("fast", "default", "best", "none")


class RefineType(click.ParamType):
    """A preset's name or a number of steps."""

    name = "PRESET|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | int:
        if value in REFINE:
            return str(value)
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number of steps nor one of {', '.join(REFINE)}", param, ctx)


@click.command(epilog="Example: r2reg register moving.nii.gz fixed.nii.gz -o out/ --refine fast")
@click.argument("moving", type=INPUT)
@click.argument("fixed", type=INPUT)
@click.option("-o", "--output", required=True, type=INPUT, metavar="OUT", help="Folder for the result.")
@click.option(
    "--model",
    default="auto",
    show_default=True,
    metavar="auto|NAME|FOLDER|none",
    help="auto: one that ships, by what the images show; its NAME (r2reg models list); what r2reg train wrote.",
)
@click.option(
    "--init",
    default="affine",
    show_default=True,
    metavar="none|com|moments|rigid|affine|FILE",
    help="How to find the affine; FILE is used as it is; none trusts the headers.",
)
@click.option(
    "--refine",
    type=RefineType(),
    default="default",
    show_default=True,
    help="Steps on the pair itself; N: those of default, but N at full size (0: none there).",
)
@click.option(
    "--similarity",
    type=click.Choice(["lncc", "mse", "ngf", "mi", "mind"]),
    default="lncc",
    show_default=True,
    help="What the refinement improves. lncc also suits images of different contrast.",
)
@click.option(
    "--radius",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Voxels, of lncc's windows and mind's patches.",
)
@click.option("--guide", metavar="labels", default="", help="Steer by the given labels too; else they are only scored.")
@click.option(
    "--transform",
    type=click.Choice(["flow", "affine", "affine-diff", "cpab", "affine-cpab"]),
    default="flow",
    show_default=True,
    help="affine-diff, cpab and affine-cpab: of few parameters, fitted to the pair, without model and refinement.",
)
@click.option(
    "--boxes", type=click.IntRange(1), default=4, show_default=True, help="Of cpab, along each axis: more bend more."
)
@click.option("--moving-labels", type=INPUT, help="Carried along and scored; steer only with --guide labels.")
@click.option("--fixed-labels", type=INPUT)
@click.option("--moving-mask", type=INPUT, help="Where the similarity looks in moving.")
@click.option("--fixed-mask", type=INPUT, help="Where similarity and scores look in fixed.")
@click.option("--moving-points", type=INPUT, help="CSV with x,y[,z] in LPS mm, row by row with the fixed ones.")
@click.option("--fixed-points", type=INPUT, help="CSV with x,y[,z] in LPS mm; carried into moving space.")
@click.option(
    "--interpolation",
    type=click.Choice(["linear", "nearest", "bspline"]),
    default="linear",
    show_default=True,
    help="Of the moved image.",
)
@click.option("--fill", type=float, help="Value outside moving's view.  [default: moving's minimum]")
@click.option("--clip", type=float, nargs=2, metavar="LO HI", help="Intensities to use, e.g. -1000 400 for CT.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|gpu[:K]")
@click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads.  [default: all; 1 for the affine]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--deterministic", is_flag=True, help="Ask for run-to-run identical results.")
@click.option(
    "--report/--no-report", default=True, show_default=True, help="Write report.html, to look at in a browser."
)
@click.option("--bids", is_flag=True, help="OUT is a data set of BIDS derivatives; inputs have BIDS names.")
@click.option("--formats", default=FORMATS, show_default=True, help="Of the transforms: any of itk,h5,x5,fsl.")
@click.option("--dry-run", is_flag=True, help="Print the plan and the memory it needs, and stop.")
@overwrite_option
@json_option
@command_options
def register(
    moving: Path,
    fixed: Path,
    output: Path,
    dry_run: bool,
    overwrite: bool,
    as_json: bool,
    report: bool,
    bids: bool,
    **options: Any,
) -> None:
    """Find the smooth, invertible map that carries MOVING onto FIXED.

    Writes moved image, transforms that ANTs and ITK read (warp.nii.gz, affine.mat, inverse_warp.nii.gz), the
    Jacobian, metrics.json and report.html, a page to look at, into the folder OUT.
    """
    from r2reg.config import RegisterConfig
    from r2reg.io.bids import derivative
    from r2reg.registration.pair import OPTIONAL
    from r2reg.registration.run import plan, register_files

    if bids and options["formats"] != FORMATS:
        raise click.UsageError("--bids names ITK's composites alone; leave --formats out, and convert them afterwards")
    optional = {name: options.pop(name) for name in OPTIONAL}
    options["formats"] = tuple(part.strip() for part in options["formats"].split(",") if part.strip())
    options["guide"] = tuple(part for part in options["guide"].split(",") if part)
    config = RegisterConfig(**options)
    if dry_run:
        planned = plan(moving, fixed, output, config, optional=optional, overwrite=overwrite, bids=bids)
        click.echo(json.dumps(planned, indent=2))
        return
    log = logging.getLogger("r2reg")
    found = derivative(moving, fixed) if bids else None
    page = found.folder / found.names["report.html"] if found else Path("report.html")
    metrics = register_files(
        *(moving, fixed, output, config), optional=optional, overwrite=overwrite, report=report, bids=bids
    )
    if as_json:
        click.echo(json.dumps(metrics, indent=2))
    elif log.isEnabledFor(logging.INFO):
        click.echo(summary(metrics, output))
        if report:
            click.echo(f"look at {output / page}")


def summary(metrics: dict[str, Any], output: Path) -> str:
    """The scores before and after, a line each."""
    from r2reg.report.verdict import model_told

    rows = [
        (name, metrics["similarity"]["before"][name], metrics["similarity"]["after"][name])
        for name in ("mse", "ncc", "lncc")
    ]
    for name, title in (("dice", "Dice"), ("hd95_mm", "HD95 mm"), ("tre_mm", "TRE mm")):
        if name in metrics:
            rows.append((title, metrics[name]["before"]["mean"], metrics[name]["after"]["mean"]))
    lines = [f"{'':8} {'before':>9} {'after':>9}"]
    lines += [f"{name:8} {_number(before):>9} {_number(after):>9}" for name, before, after in rows]
    if metrics["model"]:
        lines.append(f"model {metrics['model']['name']}: {model_told(metrics['model'])}")
    deformation = metrics["deformation"]
    residual = _number(deformation["inverse_residual_mm"]["p99"])
    lines.append(
        f"folds {deformation['folds']}, NDV {deformation['ndv_percent']:.4g} %, SDlogJ {deformation['sdlogj']:.3f}, "
        f"inverse residual p99 {residual} mm, {metrics['seconds']['total']:.1f} s"
    )
    return "\n".join([*lines, f"written to {output}"])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
