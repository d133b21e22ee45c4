"""The `r2reg` command: a group whose commands are imported only when they are called."""

from __future__ import annotations

import importlib

import click

from r2reg import __version__

# command -> (module, one line of help), so that `r2reg --help` imports none of them
COMMANDS = {
    "register": ("register", "Register a moving image to a fixed image."),
    "batch": ("batch", "Register every pair of a table, here or on a cluster."),
    "data": ("data", "Prepare data sets and check tables."),
    "train": ("train", "Train a network on a cohort."),
    "models": ("models", "List, describe and check the models that ship."),
    "inspect": ("inspect", "Say how well a trained network's blocks are bounded and integrate, and how voxels travel."),
    "benchmark": ("benchmark", "Register pairs by several methods and compare them."),
    "benchmark-cost": ("benchmark_cost", "Time networks and measure their memory over the image's size."),
    "apply": ("apply", "Resample an image or label map through transforms."),
    "points": ("points", "Carry points through transforms."),
    "invert": ("invert", "Invert transforms, and say how well."),
    "compose": ("compose", "Write several transforms as one."),
    "convert": ("convert", "Write a transform in another format: ITK, X5, FSL, AFNI, FreeSurfer."),
    "evaluate": ("evaluate", "Score transforms, labels, points and images."),
    "jacobian": ("jacobian", "Map how transforms change volume and shape."),
    "study": ("study", "Repeat what papers claim of flows."),
    "completion": ("completion", "Print what makes bash, zsh or fish complete commands and options."),
    "demo": ("demo", "Make a phantom pair, register it and print the gain."),
}


class LazyGroup(click.Group):
    """A click group that knows its commands' names and help, and imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = COMMANDS[cmd_name][0]
        command: click.Command = getattr(importlib.import_module(f"r2reg.cli.{module}"), cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="r2reg")
def main() -> None:
    """Diffeomorphic registration of medical images with residual networks."""
