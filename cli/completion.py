"""`r2reg completion`: what a shell needs to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from r2reg.cli.common import command_options

SHELLS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command(epilog="Example: r2reg completion bash >> ~/.bashrc")
@click.argument("shell", type=click.Choice(list(SHELLS)))
@command_options
def completion(shell: str) -> None:
    """Print the script that makes SHELL complete r2reg's commands and options; add it to the shell's start-up file.

    \b
      bash    r2reg completion bash >> ~/.bashrc
      zsh     r2reg completion zsh >> ~/.zshrc    (below its compinit)
      fish    r2reg completion fish > ~/.config/fish/completions/r2reg.fish
    """
    from r2reg.cli.main import main

    click.echo(SHELLS[shell](main, {}, "r2reg", "_R2REG_COMPLETE").source())
