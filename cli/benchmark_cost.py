"""`r2reg benchmark-cost`: seconds and memory of networks over the image's size."""

from __future__ import annotations

import json
from pathlib import Path

import click

from r2reg.cli.common import command_options, json_option


@click.command("benchmark-cost", epilog="Example: r2reg benchmark-cost -o cost --sizes 64 --sizes 96 --threads 2")
@click.option("-o", "--output", default="r2reg-cost", show_default=True, type=click.Path(path_type=Path), metavar="DIR")
@click.option("--sizes", type=click.IntRange(16), multiple=True, help="n of n^3.  [default: 64, 96, ... as the paper]")
@click.option("--method", "methods", multiple=True, metavar="NAME", help="A network; default: all.")
@click.option("--runs", type=click.IntRange(1), default=10, show_default=True, help="Of each cell, after a first.")
@click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads; 0: the backend's choice.")
@json_option
@command_options
def benchmark_cost(
    output: Path, sizes: tuple[int, ...], methods: tuple[str, ...], runs: int, threads: int, as_json: bool
) -> None:
    """Time a training step and an inference of each network at n^3, and their peak memory, each in its own process.

    DIR gets cost.csv, which a rerun completes, and cost.md, the table with the paper's figures beside ours.
    """
    from r2reg.evaluation.cost import METHODS, measure_all, report
    from r2reg.settings import check_choice

    for method in methods:
        check_choice("method", method, tuple(METHODS))
    sizes = sizes or (64, 96, 112, 128, 144, 192, 224)
    rows = measure_all(output, sizes, methods or tuple(METHODS), runs, threads, lambda line: click.echo(line, err=True))
    click.echo(json.dumps(rows, indent=2) if as_json else report(rows), nl=as_json)
