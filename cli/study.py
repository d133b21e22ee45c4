"""`r2reg study`: what other papers claim of flows, repeated."""

from __future__ import annotations

from pathlib import Path

import click

from r2reg.cli.common import command_options

STUDIES = {"spiral": "unrolling"}


@click.command(epilog="Example: r2reg study spiral --quick -o spiral")
@click.argument("name", type=click.Choice(list(STUDIES)))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="DIR")
@click.option("--quick", is_flag=True, help="A minute's worth, to see that it runs; its figures mean nothing.")
@command_options
def study(name: str, output: Path, quick: bool) -> None:
    """Repeat a study of a paper and say which of its claims hold.

    spiral: residual networks as flows that unroll a spiral (Rousseau & Fablet 2018).

    DIR gets table.csv, table.md with the paper's figures beside ours, claims.json, environment.json and figures/. What
    is there already is not computed again.
    """
    import importlib

    from r2reg.startup import start_backend

    start_backend("cpu", 0, False, 0)
    importlib.import_module(f"r2reg.studies.{STUDIES[name]}").run(output, quick)
    click.echo((output / "table.md").read_text(encoding="utf-8"), nl=False)
