"""What every command shares: logging options, errors as one line, exit codes."""

from __future__ import annotations

import functools
import logging
import re
import select
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, TextIO, TypeVar

import click

from r2reg import __version__
from r2reg.errors import R2RegError

Command = TypeVar("Command", bound=Callable[..., Any])
INTERRUPTED = 130  # 128 + SIGINT, the shells' convention


def _flush_and_exit(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what sys.stderr is at the time: it moves while native libraries are muted."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def _set_up_logging(verbose: int, quiet: bool) -> None:
    level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_StderrHandler()], force=True)
    logging.getLogger("r2reg").setLevel(level)


def _nobody_reads() -> bool:
    """Whether standard output leads to a process that has ended, such as head."""
    output = select.poll()
    output.register(sys.__stdout__ or 1, 0)
    return bool(output.poll(0))


def _on_sigterm(_signum: int, _frame: object) -> None:
    raise KeyboardInterrupt


def command_options(function: Command) -> Command:
    """Add -v/-q/--debug/--version and turn every failure into one line on stderr and an exit code.

    Exit codes: 0 done, 1 failed, 2 wrong usage (click's own), 130 interrupted.
    """

    @click.option("-v", "--verbose", count=True, help="Say more of what is being done.")
    @click.option("-q", "--quiet", is_flag=True, help="Only say what failed.")
    @click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
    @click.version_option(__version__, "--version", prog_name="r2reg")
    @functools.wraps(function)
    def wrapper(*args: Any, verbose: int, quiet: bool, debug: bool, **kwargs: Any) -> None:
        _set_up_logging(verbose, quiet)
        signal.signal(signal.SIGTERM, _on_sigterm)
        try:
            function(*args, **kwargs)
        except KeyboardInterrupt:
            click.echo("r2reg: interrupted", err=True)
            _flush_and_exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:  # the command line's last line of defence: one line, never a traceback
            if isinstance(error, BrokenPipeError) and _nobody_reads():
                raise  # click ends without a word
            if debug:
                traceback.print_exc()
            known = isinstance(error, R2RegError)
            name = type(error).__name__
            message = " ".join(str(error).split()) or name
            hint = "" if known or debug else " (unexpected; run again with --debug and report it)"
            click.echo(f"{name}: {message}{hint}", err=True)
            _flush_and_exit(1)

    return wrapper  # type: ignore[return-value]


class Numbers(click.ParamType):
    """Numbers with commas, spaces or x between them, such as 80x96x112."""

    name = "numbers"

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple:
        """Text -> tuple of numbers."""
        try:
            return tuple(self.kind(part) for part in re.split(r"[,x\s]+", value.strip()))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 80,96,112", param, ctx)


class Labels(click.ParamType):
    """Ids of labels, or the name of a list of them."""

    name = "labels"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Text -> ids."""
        from r2reg.evaluation.scoring import FREESURFER_STRUCTURES

        if value == "freesurfer":
            return FREESURFER_STRUCTURES
        try:
            return tuple(int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is neither freesurfer nor ids such as 2,3,4", param, ctx)


labels_option = click.option(
    "--labels", type=Labels(), metavar="freesurfer|IDS", help="Labels to score, such as 2,3,4.  [default: all but 0]"
)


def many_jobs_options(function: Command) -> Command:
    """How a table of registrations is worked off: --jobs, --scheduler, --threads, --resume, --overwrite."""
    for option in (
        overwrite_option,
        click.option("--resume", is_flag=True, help="Do what is missing, failed or out of date."),
        click.option("--threads", type=click.IntRange(0), default=0, help="Of each job.  [default: its share]"),
        click.option("--scheduler", default="", metavar="ADDRESS|slurm", help="Dask cluster to run on."),
        click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Registrations at a time."),
    ):
        function = option(function)
    return function


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an existing result.")
