"""`r2reg study`: what other papers claim of flows, repeated."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click

from r2reg.cli.common import command_options, json_option

STUDIES = {"spiral": "unrolling", "transformers": "transformers", "tracks": "tracks"}
TAKES = {
    "spiral": (),
    "transformers": ("data", "seeds", "epochs"),
    "tracks": ("data", "stages", "gamma", "seeds", "epochs"),
}


def _finite(_context: click.Context, _option: click.Parameter, values: tuple[float, ...]) -> tuple[float, ...]:
    if not all(map(math.isfinite, values)):
        raise click.BadParameter("give finite numbers")
    return values


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
@click.option(
    "--stages",
    type=click.Choice(["1", "4"]),
    callback=lambda _context, _option, value: value and int(value),
    help="Of tracks on CIFAR's images: stages of the convolutional networks, the paper's K; 4 asks for many hours of "
    "a processor.  [default: 1]",
)
@click.option(
    "--gamma",
    multiple=True,
    type=click.FloatRange(min=0),
    callback=_finite,
    help="Of tracks, repeatable: weight decay to train with.  [default: 0, 1e-5 ... 1]",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    help="Of transformers and tracks: trainings of each network and setting; with fewer than the "
    "default no claim is judged.  [default: 3]",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="Of transformers and tracks: of each training; with fewer than the default no claim is judged.  "
    "[default: 6 and 15]",
)
@json_option
@command_options
def study(name: str, output: Path, quick: bool, as_json: bool, **options: Any) -> None:
    """Repeat a study of a paper and say which of its claims hold.

    spiral: residual networks as flows that unroll a spiral (Rousseau & Fablet 2018). transformers: layers that move
    an image before it is classified (Detlefsen et al. 2018). tracks: how straight points travel through networks (Gai
    & Zhang 2021).

    DIR gets table.csv, table.md with the paper's figures beside ours, claims.json, environment.json and figures/. What
    is there already of the same study, by study.json, is not computed again; a folder of anything else is refused.
    """
    import importlib

    from r2reg.startup import start_backend

    given = {option: value for option, value in options.items() if value not in (None, ())}
    for option in given:
        if option not in TAKES[name]:
            of = " and ".join(other for other, taken in TAKES.items() if option in taken)
            raise click.UsageError(f"--{option}: is of {of}; leave it out")
        if quick and option not in ("data", "stages"):
            raise click.UsageError(f"--quick has --{option} of its own; leave one of them out")
    start_backend("cpu", 0, False, 0)
    rows = importlib.import_module(f"r2reg.studies.{STUDIES[name]}").run(output, quick, **given)
    if as_json:
        claims = json.loads((output / "claims.json").read_text(encoding="utf-8"))
        known = [{key: None if value != value else value for key, value in row.items()} for row in rows]  # NaN is none
        click.echo(json.dumps({"rows": known, "claims": claims}, indent=2, allow_nan=False))
    else:
        click.echo((output / "table.md").read_text(encoding="utf-8"), nl=False)
