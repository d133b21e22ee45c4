"""`r2reg data`: data sets prepared for training and benchmarks, and tables checked."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from r2reg.cli.common import command_options, json_option, overwrite_option

SETS = ("acdc", "empire10", "oasis", "ibsr18", "bids")  # r2reg.datasets.layouts.LAYOUTS, which imports much


@click.group(epilog="Example: r2reg data prepare acdc ~/ACDC -o acdc")
def data() -> None:
    """Prepare data sets and check tables."""


@data.command(epilog="Example: r2reg data prepare oasis ~/neurite-oasis -o oasis")
@click.argument("name", type=click.Choice(SETS), metavar="|".join(SETS))
@click.argument("root", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder to fill.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the split and the pairs.")
@overwrite_option
@command_options
def prepare(name: str, root: Path, output: Path, seed: int, overwrite: bool) -> None:
    """Read a data set in ROOT as its owners distribute it, and prepare it as the R2Net paper does.

    DIR gets NIfTI files with intensities in [0, 1], cohort.csv or pairs.csv with the paper's split, pairs to validate
    and to test on, and manifest.json with checksums, source, licence and citation.
    """
    from r2reg.datasets.prepare import prepare as run

    table = run(name, root, output, seed=seed, overwrite=overwrite, say=lambda line: click.echo(line, err=True))
    click.echo(f"{table}: train on it with r2reg train {table} -o RUN")


@data.command(epilog="Example: r2reg data check oasis/cohort.csv")
@click.argument("table", type=click.Path(path_type=Path))
@json_option
@command_options
def check(table: Path, as_json: bool) -> None:
    """Check a table of images: files, grids, labels, people and images in two splits, and the manifest beside it.

    Ends with code 1 where it finds a problem.
    """
    from r2reg.datasets.check import check_table

    found = check_table(table)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        rows = ", ".join(f"{count} {split}" for split, count in found.rows.items())
        click.echo(f"{found.table}: {found.kind}, rows: {rows}; {found.files} files read, {len(found.labels)} labels")
        for problem in found.problems:
            click.echo(f"  {problem}")
        click.echo("no problem found" if not found.problems else f"{len(found.problems)} problems")
    if found.problems:
        raise click.exceptions.Exit(1)
