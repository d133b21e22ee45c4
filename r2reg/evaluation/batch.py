"""A whole table of pairs registered, each into a folder of its own."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from r2reg.errors import R2RegError
from r2reg.evaluation.benchmark import check_grids, files_of, flat
from r2reg.evaluation.campaign import Campaign
from r2reg.evaluation.engine import LOG_FILE, RESULT_FILE, timed
from r2reg.evaluation.methods import R2Reg
from r2reg.evaluation.processes import R2REG, last_line
from r2reg.evaluation.results import folder_name
from r2reg.io.files import content_sha256
from r2reg.io.tables import Pair, read_pairs
from r2reg.report.registration import PAGE
from r2reg.threads import processors

log = logging.getLogger("r2reg")

BEFORE = ("dice_mean", "hd95_mm", "tre_mean_mm", "mse", "ncc", "lncc")
COLUMNS = (
    "id", "status", "reason", "folder", *BEFORE, *(f"{name}_before" for name in BEFORE), "folds", "ndv_percent",
    "digital_folds", "jacobian_min", "jacobian_max", "sdlogj", "inverse_residual_mean_mm", "inverse_residual_p99_mm",
    "inverse_residual_max_mm", "certified", "seconds", "cpu_seconds", "peak_memory_bytes", "threads", "device", "host",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A job of the engine: `r2reg register` with all that a pair comes with."""

    pair: Pair
    folder: Path
    key: str
    options: tuple[str, ...]
    threads: int
    uses_gpu: bool

    def row(self) -> dict[str, Any]:
        """The pair, and where its result lies."""
        return {"id": self.pair.id, "folder": self.folder.name, "threads": self.threads}

    def work(self, scratch: Path, variables: dict[str, str]) -> dict[str, Any]:
        """Register, and move what was written into the folder."""
        files = files_of(self.pair)
        command = [*R2REG, "register", files.pop("moving"), files.pop("fixed"), "-o", str(scratch / "out")]
        for name, given in files.items():
            command += [f"--{name.replace('_', '-')}", given]
        command += ["--threads", str(self.threads), *self.options]
        try:
            timing = timed(command, scratch, self.threads, 1, variables)
        except R2RegError:
            if (scratch / "out" / PAGE).exists():  # what is known of the failure
                (scratch / "out" / PAGE).replace(self.folder / PAGE)
            raise
        try:
            metrics = json.loads((scratch / "out" / "metrics.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise R2RegError(f"left no metrics.json: {last_line(scratch / LOG_FILE)}") from None
        for old in self.folder.iterdir():
            if old.is_file() and old.name != RESULT_FILE:
                old.unlink()
        for path in [*(scratch / "out").iterdir(), scratch / LOG_FILE]:
            path.replace(self.folder / path.name)
        return vars(timing) | row_of(metrics)


def row_of(metrics: dict[str, Any]) -> dict[str, Any]:
    """metrics.json by the names of the columns."""
    stages = {}
    for stage in ("before", "after"):
        scores = {name: metrics[name][stage] for name in ("dice", "hd95_mm", "tre_mm") if name in metrics}
        stages[stage] = flat(metrics["similarity"][stage] | scores)
    row = stages["after"] | {f"{name}_before": value for name, value in stages["before"].items() if name in BEFORE}
    deformation = {name: value for name, value in metrics["deformation"].items() if name != "certificate"}
    return row | flat(deformation) | {"device": metrics["device"]}


def batch(
    table: Path | str,
    output: Path | str,
    options: Sequence[str] = (),
    *,
    jobs: int = 1,
    scheduler: str = "",
    threads: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = log.info,
) -> list[dict[str, Any]]:
    """Register every pair of a table with all that it comes with, into OUTPUT/ID, and tell of it in OUTPUT/results.csv.

    Args:
        options: of `r2reg register`, for every pair. The others: as of `benchmark`.
    Returns:
        A row for every pair, in the order of the table.
    Raises:
        R2RegError: input that cannot be used, named before anything runs; a folder that cannot be written.
    """
    table, output = Path(table).absolute(), Path(output).absolute()
    pairs = read_pairs(table)
    check_grids(pairs)
    threads = threads or max(processors() // jobs, 1)
    method = R2Reg.of_options("register", list(options))
    method.check()
    identity, digest = method.identity(), cache(content_sha256)
    todo = []
    for pair in pairs:
        inputs = {name: digest(path) for name, path in files_of(pair).items()}
        decides = json.dumps({"inputs": inputs, "method": identity}, sort_keys=True)
        todo.append(
            Whole(
                pair=pair,
                folder=output / folder_name(pair.id),
                key=hashlib.sha256(decides.encode()).hexdigest(),
                options=tuple(options),
                threads=threads,
                uses_gpu=method.uses_gpu,
            )
        )
    campaign = Campaign(output=output, columns=COLUMNS, jobs=jobs, scheduler=scheduler, threads=threads)
    return campaign.go(todo, told, say, resume=resume, overwrite=overwrite)


def told(row: dict[str, Any]) -> str:
    """A result in a few words."""
    if row["status"] != "done":
        return f"failed: {row['reason']}"
    name, title = ("dice_mean", "Dice") if row.get("dice_mean") is not None else ("lncc", "LNCC")
    return f"{title} {row[f'{name}_before']:.3f} to {row[name]:.3f}, {row['seconds']:.1f} s"
