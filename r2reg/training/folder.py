"""The run folder: what it holds, and whether a training may begin in it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from r2reg.errors import ConfigError, OutputError
from r2reg.training.checkpoint import CHECKPOINT

CONFIG, WEIGHTS, HISTORY, CARD = "config.json", "model.weights.h5", "history.csv", "README.md"
BOARD, CACHE = "tensorboard", "cache"


def open_run(run: Path, *branches: str, resume: bool, overwrite: bool) -> None:
    """Make the folder; refuse what an earlier run left in it, unless asked to go on or to replace it.

    Args:
        branches: folders of branches inside.
    Raises:
        OutputError: an earlier run is there and neither resume nor overwrite is set, or the folder is
            read-only.
    """
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other")
    left = [name for name in (CONFIG, WEIGHTS, CHECKPOINT) if (run / name).exists()]
    left += [f"{branch}/{CHECKPOINT}" for branch in branches if (run / branch / CHECKPOINT).exists()]
    if left and not (resume or overwrite):
        raise OutputError(f"{run}: holds a run already ({left[0]}); give --resume, --overwrite or another folder")
    if resume and left and not any(name.endswith(CHECKPOINT) for name in left):
        raise OutputError(f"{run}: has no {CHECKPOINT} to go on from; give --overwrite to start again")
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{run}: cannot be used as a run folder ({error.strerror}); choose another") from None
    if not os.access(run, os.W_OK):
        raise OutputError(f"{run}: is read-only; choose another folder")


def clear_run(run: Path, *branches: str) -> None:
    """Remove what an earlier run left, its branches' folders included, except its prepared images."""
    for folder in (run, *(run / branch for branch in branches)):
        for name in (CONFIG, WEIGHTS, CHECKPOINT, HISTORY, CARD):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / BOARD, ignore_errors=True)


def remove_if_empty(*folders: Path) -> None:
    """Remove folders that hold nothing, the innermost first: a run that could not begin leaves no trace."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
