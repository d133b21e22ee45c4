"""`r2reg study`: what other papers claim of flows, repeated."""

from __future__ import annotations

from pathlib import Path

import click

from r2reg.cli.common import command_options

STUDIES = {"spiral": "unrolling", "transformers": "transformers", "tracks": "tracks"}


@click.command(epilog="Example: r2reg study spiral --quick -o spiral")
@click.argument("name", type=click.Choice(list(STUDIES)))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="DIR")
@click.option("--quick", is_flag=True, help="A minute's worth, to see that it runs; its figures mean nothing.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Of transformers and tracks: Keras' mnist.npz or its like, a folder of CIFAR's binary files, or one of "
    "images with a folder per class.  [default: scikit-learn's digits]",
)
@command_options
def study(name: str, output: Path, quick: bool, data: Path | None) -> None:
    """Repeat a study of a paper and say which of its claims hold.

    spiral: residual networks as flows that unroll a spiral (Rousseau & Fablet 2018). transformers: layers that move
    an image before it is classified (Detlefsen et al. 2018). tracks: how straight points travel through networks (Gai
    & Zhang 2021).

    DIR gets table.csv, table.md with the paper's figures beside ours, claims.json, environment.json and figures/. What
    is there already is not computed again.
    """
    import importlib

    from r2reg.startup import start_backend
    from r2reg.studies.outcome import check_no_full_study

    if data is not None and name == "spiral":
        raise click.UsageError("--data: the spiral study draws its own points; leave it out")
    if quick:
        check_no_full_study(output)
    start_backend("cpu", 0, False, 0)
    given = {} if data is None else {"data": data}
    importlib.import_module(f"r2reg.studies.{STUDIES[name]}").run(output, quick, **given)
    click.echo((output / "table.md").read_text(encoding="utf-8"), nl=False)
