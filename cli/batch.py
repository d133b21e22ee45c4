"""`r2reg batch`: register every pair of a table."""

from __future__ import annotations

import json
from pathlib import Path

import click

from r2reg.cli.common import command_options, json_option, many_jobs_options

EXAMPLE = "Example: r2reg batch pairs.csv -o study --model runs/brain --refine fast --jobs 2"


@click.command(epilog=EXAMPLE, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True})
@click.argument("pairs", type=click.Path(path_type=Path))
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF REGISTER]...")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder.")
@many_jobs_options
@json_option
@command_options
def batch(
    pairs: Path,
    options: tuple[str, ...],
    output: Path,
    jobs: int,
    scheduler: str,
    threads: int,
    resume: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Register every pair of the table PAIRS into a folder of its own, DIR/ID.

    PAIRS is a CSV with columns moving and fixed, and labels, masks and points of each where there are any; they are
    used as `r2reg register` uses them, and any of its options may be given here. DIR/results.csv has a row per pair; a
    pair that fails is a row with its reason, and the exit code is 1 at the end.
    """
    from r2reg.cli.register import register
    from r2reg.evaluation.batch import batch as run_batch
    from r2reg.evaluation.results import RESULTS_FILE

    # A wrong option is found now, not by every job.
    asked = register.make_context("r2reg register", ["moving", "fixed", "-o", "out", *options])
    if asked.params["bids"]:
        raise click.UsageError("--bids is for single pairs: batch names its folders by the table's ids")
    rows = run_batch(
        *(pairs, output, options),
        jobs=jobs,
        scheduler=scheduler,
        threads=threads,
        resume=resume,
        overwrite=overwrite,
        say=lambda line: click.echo(line, err=True),
    )
    failed = [row for row in rows if row["status"] != "done"]
    click.echo(
        json.dumps(rows, indent=2)
        if as_json
        else f"{len(rows) - len(failed)} of {len(rows)} pairs done: {output / RESULTS_FILE}"
    )
    if failed:
        raise click.exceptions.Exit(1)
