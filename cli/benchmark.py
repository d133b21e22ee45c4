"""`r2reg benchmark`: methods on pairs, scored alike."""

from __future__ import annotations

import json
from pathlib import Path

import click

from r2reg.cli.common import command_options, json_option, labels_option, many_jobs_options

EXAMPLE = """\b
Example:
    r2reg benchmark pairs.csv -o report --method affine --method syn --method r2reg --method runs/brain+none
"""
METHODS_HELP = (
    "identity, affine, ants-affine, syn, syn-full, syn-cc, demons, r2reg (refinement alone), a model's name or folder; "
    "+none, +fast, +default or +best after the last two sets the refinement; NAME='OPTIONS' of register. Repeatable."
)


@click.command(epilog=EXAMPLE)
@click.argument("pairs", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="REPORT", help="Folder.")
@click.option("--method", "methods", multiple=True, required=True, metavar="NAME", help=METHODS_HELP)
@labels_option
@click.option("--baseline", metavar="NAME", help="Method that tables compare with.  [default: the first]")
@click.option(
    "--margin", type=click.FloatRange(0, min_open=True), default=0.01, show_default=True, help="TOST's, Dice."
)
@click.option("--repeats", type=click.IntRange(1), default=1, show_default=True, help="Of each registration, for time.")
@click.option("--keep", is_flag=True, help="Keep what the methods write (transforms, images).")
@many_jobs_options
@json_option
@command_options
def benchmark(
    pairs: Path,
    output: Path,
    methods: tuple[str, ...],
    labels: tuple[int, ...] | None,
    baseline: str | None,
    margin: float,
    repeats: int,
    jobs: int,
    scheduler: str,
    threads: int,
    keep: bool,
    resume: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Register the pairs of a table by several methods and compare them.

    PAIRS is a CSV with columns moving and fixed, and labels, masks and points of each where there are any. REPORT gets
    results.csv (a row per pair and method), labels.csv, table1 (Markdown, CSV, LaTeX), statistics.json, report.html and
    its figures as SVG.
    """
    from r2reg.evaluation.benchmark import benchmark as run_benchmark
    from r2reg.evaluation.comparison import summarise

    run_benchmark(
        *(pairs, output, methods),
        jobs=jobs,
        scheduler=scheduler,
        threads=threads,
        repeats=repeats,
        labels=labels,
        keep=keep,
        resume=resume,
        overwrite=overwrite,
        baseline=baseline,
        say=lambda line: click.echo(line, err=True),
    )
    table, statistics = summarise(output, baseline or methods[0], margin)
    click.echo(json.dumps(statistics, indent=2) if as_json else table)
