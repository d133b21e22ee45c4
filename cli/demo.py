"""`r2reg demo`: from nothing to a registered pair, with numbers."""

from __future__ import annotations

import json
from pathlib import Path

import click

from r2reg.cli.common import command_options, json_option, overwrite_option


@click.command(epilog="Example: r2reg demo -o demo")
@click.option(
    "-o",
    "--output",
    default="r2reg-demo",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder to fill.",
)
@click.option("--steps", type=click.IntRange(1), default=300, show_default=True, help="Of the training.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@overwrite_option
@json_option
@command_options
def demo(output: Path, steps: int, seed: int, overwrite: bool, as_json: bool) -> None:
    """Make phantom people, train a small network on them, and register a pair whose true map is known.

    Prints Dice and landmark error before registration, after the affine and after all.
    """
    from r2reg.registration.demo import run_demo

    metrics = run_demo(output, steps, seed, overwrite)
    click.echo(json.dumps(metrics, indent=2) if as_json else table(metrics, output))


def table(metrics: dict, output: Path) -> str:
    """What the registration gained, stage by stage."""
    lines = [f"{'':22} {'before':>8} {'affine':>8} {'after':>8}"]
    for title, kind, key in (
        ("Dice, mean of 8 labels", "dice", "mean"),
        ("HD95, mm", "hd95_mm", "mean"),
        ("landmark error, mm", "tre_mm", "mean"),
        ("LNCC", "similarity", "lncc"),
    ):
        values = [metrics[kind][stage][key] for stage in ("before", "affine", "after")]
        lines.append(f"{title:22} " + " ".join(f"{value:8.3f}" for value in values))
    deformation, seconds = metrics["deformation"], metrics["seconds"]
    lines += [
        f"folded voxels {deformation['folds']}, digital folds {deformation['digital_folds']}; "
        f"registered in {seconds['total']:.0f} s",
        f"look at {output}/out/report.html",
        f"data, model and result are in {output}; apply the result to another image with",
        f"  r2reg apply -t {output}/out/warp.nii.gz -t {output}/out/affine.mat --reference "
        f"{output}/data/fixed.nii.gz -i {output}/data/moving.nii.gz -o moved_again.nii.gz",
    ]
    return "\n".join(lines)
