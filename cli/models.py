"""`r2reg models`: the models that ship."""

from __future__ import annotations

import json

import click

from r2reg.cli.common import command_options, json_option


@click.group(epilog="Example: r2reg models list")
def models() -> None:
    """List, describe and check the models that ship with r2reg."""


@models.command(name="list", epilog="Example: r2reg models list --json")
@json_option
@command_options
def list_models(as_json: bool) -> None:
    """List the models, with their network, the voxels they were trained on and their size."""
    from tabulate import tabulate

    from r2reg.released import describe, names

    found = [describe(name) for name in names()]
    if as_json:
        click.echo(json.dumps([vars(release) | {"folder": str(release.folder)} for release in found], indent=2))
    elif found:
        rows = [
            (
                each.name,
                each.network,
                " x ".join(f"{mm:g}" for mm in each.spacing),
                f"{each.megabytes:.1f}",
                each.summary,
            )
            for each in found
        ]
        header = ("name", "network", "spacing, mm", "MB", "about")
        click.echo(tabulate(rows, header, tablefmt="simple", maxcolwidths=[None] * 4 + [60]))
    else:
        click.echo("no model ships with this version; train one with r2reg train")


@models.command(epilog="Example: r2reg models info NAME")
@click.argument("name")
@json_option
@command_options
def info(name: str, as_json: bool) -> None:
    """Print a model's card: what it was trained on and how, its scores, its limits; --json gives its settings."""
    from r2reg.released import CONFIG_FILE, card, describe

    release = describe(name)
    click.echo((release.folder / CONFIG_FILE).read_text(encoding="utf-8") if as_json else card(name), nl=False)


@models.command(epilog="Example: r2reg models verify")
@click.argument("name", required=False)
@command_options
def verify(name: str | None) -> None:
    """Compare the files of one model, or of all, with the checksums that ship with them."""
    from r2reg.released import describe, names
    from r2reg.released import verify as check

    chosen = [describe(name).name] if name else names()
    if not chosen:
        click.echo("no model ships with this version")
    for each in chosen:
        check(each)
        click.echo(f"{each}: as shipped")
