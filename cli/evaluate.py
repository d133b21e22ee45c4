"""`r2reg evaluate`: scores of transforms, labels, points and images."""

from __future__ import annotations

import json
from typing import Any

import click

from r2reg.cli.common import command_options, json_option, labels_option
from r2reg.cli.transforms import FILE, TRANSFORM_HELP

PAIRED = ("labels", "points")
TITLES = {
    "mse": "MSE", "ncc": "NCC", "lncc": "LNCC", "folds": "folds", "ndv_percent": "NDV, %",
    "digital_folds": "digital folds", "jacobian_min": "smallest Jacobian", "jacobian_max": "largest Jacobian",
    "sdlogj": "SDlogJ",
}  # fmt: skip


@click.command()
@click.option("-t", "--transform", "specs", type=FILE, multiple=True, metavar="T", help=TRANSFORM_HELP)
@click.option("--fixed", type=FILE, metavar="IMAGE", help="Fixed image.")
@click.option("--moving", type=FILE, metavar="IMAGE", help="Moving image, or one moved already.")
@click.option("--fixed-labels", type=FILE, metavar="MAP", help="Labels of the fixed image.")
@click.option("--moving-labels", type=FILE, metavar="MAP", help="Labels of the moving image, or moved already.")
@click.option("--fixed-points", type=FILE, metavar="FILE", help="Points in the fixed image, row by row with moving's.")
@click.option("--moving-points", type=FILE, metavar="FILE", help="Points in the moving image.")
@click.option("--fixed-mask", type=FILE, metavar="MAP", help="Where images and fields are judged.")
@labels_option
@json_option
@command_options
def evaluate(specs: tuple[str, ...], labels: tuple[int, ...] | None, as_json: bool, **given: str | None) -> None:
    """Score what is given, after T2(T1(x)) or as it lies: Dice and 95th percentile Hausdorff distance of labels,
    distances of points, likeness of images, folds of the first field.

    \b
    Examples:
      r2reg evaluate -t run/warp.nii.gz -t run/affine.mat \\
          --fixed-labels fixed_labels.nii.gz --moving-labels moving_labels.nii.gz
      r2reg evaluate --fixed-points fixed.csv --moving-points moved.csv --json
    """
    from r2reg.errors import GridsNeededError, TransformError
    from r2reg.evaluation.scoring import evaluate as scores_of

    files = {name: path for name, path in given.items() if path}
    for kind in ("", *(f"_{name}" for name in PAIRED)):
        if (f"fixed{kind}" in files) != (f"moving{kind}" in files) and not (kind == "" and "fixed" in files):
            option = f"--fixed{kind}".replace("_", "-")
            raise click.UsageError(f"{option} and {option.replace('fixed', 'moving')} go together")
    if not specs and not any({f"fixed{kind}", f"moving{kind}"} <= files.keys() for kind in ("", "_labels", "_points")):
        raise click.UsageError("nothing to score: give transforms with -t, or two images, label maps or point lists")
    try:
        found = scores_of(files, specs, labels)
    except GridsNeededError as error:
        raise TransformError(f"{error}, by --fixed and --moving") from None
    if not found:
        raise click.UsageError("nothing to score: an affine needs images, labels or points to be judged by")
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(lines(found)))


def lines(found: dict[str, Any]) -> list[str]:
    """The same as text."""
    from tabulate import tabulate

    rows = [(title, f"{found[name]:.6g}") for name, title in TITLES.items() if name in found]
    for name, title in (("dice", "mean Dice"), ("hd95_mm", "mean HD95, mm")):
        if name in found and found[name]["mean"] is not None:
            rows.append((title, f"{found[name]['mean']:.4f}"))
    rows += [(f"{name} distance of points, mm", f"{value:.4f}") for name, value in found.get("tre_mm", {}).items()]
    if "dice" in found and not found["dice"]["per_label"]:
        rows.append(("labels", "none of those asked for is there"))
    told = [tabulate(rows, tablefmt="plain", disable_numparse=True)]
    if found.get("dice", {}).get("per_label"):
        distances = found["hd95_mm"]["per_label"]
        per_label = [
            (label, f"{value:.4f}", "" if distances[label] is None else f"{distances[label]:.3f}")
            for label, value in found["dice"]["per_label"].items()
        ]
        told += ["", tabulate(per_label, ("label", "Dice", "HD95, mm"), tablefmt="simple", disable_numparse=True)]
    return told
