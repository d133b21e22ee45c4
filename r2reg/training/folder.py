"""The run folder: what it holds, and whether a training may begin in it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from r2reg.errors import ConfigError, OutputError
from r2reg.training.checkpoint import CHECKPOINT

CONFIG, WEIGHTS, HISTORY, CARD = "config.json", "model.weights.h5", "history.csv", "README.md"
BOARD, CACHE = "tensorboard", "cache"


def open_run(run: Path, *, resume: bool, overwrite: bool) -> None:
    """Make the folder; refuse what an earlier run left in it, unless asked to go on or to replace it.

    Raises:
        OutputError: an earlier run is there and neither resume nor overwrite is set, or the folder is
            read-only.
    """
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other")
    left = [name for name in (CONFIG, WEIGHTS, CHECKPOINT) if (run / name).exists()]
    if left and not (resume or overwrite):
        raise OutputError(f"{run}: holds a run already ({left[0]}); give --resume, --overwrite or another folder")
    if resume and left and CHECKPOINT not in left:
        raise OutputError(f"{run}: has no {CHECKPOINT} to go on from; give --overwrite to start again")
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{run}: cannot be used as a run folder ({error.strerror}); choose another") from None
    if not os.access(run, os.W_OK):
        raise OutputError(f"{run}: is read-only; choose another folder")


def clear_run(run: Path) -> None:
    """Remove what an earlier run left, except its prepared images."""
    for name in (CONFIG, WEIGHTS, CHECKPOINT, HISTORY, CARD):
        (run / name).unlink(missing_ok=True)
    shutil.rmtree(run / BOARD, ignore_errors=True)


def remove_if_empty(*folders: Path) -> None:
    """Remove folders that hold nothing, the innermost first: a run that could not begin leaves no trace."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
