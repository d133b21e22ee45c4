"""Methods on pairs: register, score alike, and write the tables."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from r2reg.errors import ConfigError, ImageError, R2RegError, TableError
from r2reg.evaluation.campaign import Campaign
from r2reg.evaluation.engine import LOG_FILE, timed
from r2reg.evaluation.methods import Method, parse_method
from r2reg.evaluation.processes import last_line, run
from r2reg.evaluation.results import run_folder
from r2reg.evaluation.scoring import PICTURES_FILE, SCORES_FILE
from r2reg.io.files import content_sha256
from r2reg.io.tables import PAIR_FILES, Pair, read_pairs
from r2reg.threads import processors

log = logging.getLogger("r2reg")

COLUMNS = (
    "id", "method", "status", "reason", "dice_mean", "hd95_mm", "tre_mean_mm", "mse", "ncc", "lncc", "folds",
    "ndv_percent", "digital_folds", "jacobian_min", "jacobian_max", "sdlogj", "inverse_residual_mean_mm",
    "inverse_residual_p99_mm", "inverse_residual_max_mm", "certified", "seconds", "seconds_sd", "registration_seconds",
    "cpu_seconds", "peak_memory_bytes", "scoring_seconds", "repeats", "threads", "device", "host",
)  # fmt: skip
# Of a method's own `seconds`: what is neither reading, scoring nor writing.
WORK_STAGES = ("affine", "compile", "network", "fit", "refine", "transform")


@dataclass(frozen=True, kw_only=True)
class Registration:
    """A job of the engine: one pair by one method, scored.

    Attributes:
        folder: its own. keep: leave the method's files in it. labels: ids to score; None: all.
    """

    pair: Pair
    method: Method
    folder: Path
    key: str
    threads: int
    repeats: int = 1
    labels: tuple[int, ...] | None = None
    keep: bool = False

    @property
    def uses_gpu(self) -> bool:
        """As its method."""
        return self.method.uses_gpu

    def row(self) -> dict[str, Any]:
        """Pair, method and settings."""
        return {"id": self.pair.id, "method": self.method.name, "threads": self.threads, "repeats": self.repeats}

    def work(self, scratch: Path, variables: dict[str, str]) -> dict[str, Any]:
        """Register in a process, score in another."""
        row: dict[str, Any] = {}
        command = self.method.command(self.pair, scratch, self.threads)
        if command:
            row |= vars(timed(command, scratch, self.threads, self.repeats, variables)) | _own_report(scratch)
        began = time.perf_counter()
        row |= _scores(self.pair, scratch, self.threads, self.labels)
        row["scoring_seconds"] = time.perf_counter() - began
        for path in list(scratch.iterdir()):
            if self.keep or path.name in (PICTURES_FILE, LOG_FILE):
                path.replace(self.folder / path.name)
        return row


def _own_report(folder: Path) -> dict[str, Any]:
    """What the method itself says about its run."""
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise R2RegError(f"left no metrics.json: {last_line(folder / LOG_FILE)}") from None
    work = sum(metrics["seconds"].get(stage, 0.0) for stage in WORK_STAGES)
    certified = metrics.get("deformation", {}).get("certified")
    return {"registration_seconds": work, "device": metrics["device"], "certified": certified}


def _scores(pair: Pair, folder: Path, threads: int, labels: Sequence[int] | None) -> dict[str, Any]:
    """Scores of what a method left, made in a process of their own: flat, and per label.

    Raises:
        R2RegError: it cannot be scored.
    """
    asked = folder / "pair.json"
    asked.write_text(json.dumps({"files": files_of(pair), "labels": labels, "threads": threads}), encoding="utf-8")
    output = folder / "scoring.txt"
    if run([sys.executable, "-m", "r2reg.evaluation.scoring", str(asked), str(folder)], output, threads).status:
        raise R2RegError(f"scoring: {last_line(output)}")
    return flat(json.loads((folder / SCORES_FILE).read_text(encoding="utf-8")))


def flat(found: dict[str, Any]) -> dict[str, Any]:
    """Scores by the names of the columns; those per label as `per_label`: id -> {"dice", "hd95_mm"}."""
    row = {name: value for name, value in found.items() if not isinstance(value, dict)}
    if "dice" in found:
        row |= {"dice_mean": found["dice"]["mean"], "hd95_mm": found["hd95_mm"]["mean"]}
        distances = found["hd95_mm"]["per_label"]
        row["per_label"] = {
            label: {"dice": value, "hd95_mm": distances.get(label)}
            for label, value in found["dice"]["per_label"].items()
        }
    if "tre_mm" in found:
        row["tre_mean_mm"] = found["tre_mm"]["mean"]
    for name, value in found.get("inverse_residual_mm", {}).items():
        row[f"inverse_residual_{name}_mm"] = value
    return row


def files_of(pair: Pair) -> dict[str, str]:
    """The paths that a pair has, by the names of the table."""
    return {name: str(getattr(pair, name)) for name in PAIR_FILES if getattr(pair, name)}


def check_grids(pairs: Sequence[Pair]) -> None:
    """Read every file once, before hours are spent: labels and masks must lie on their image's grid.

    Raises:
        TableError, ImageError: a file that cannot be read, or that lies on another grid.
    """
    from r2reg.io.images import read_reference

    grid = cache(lambda path: read_reference(path).grid)
    for pair in pairs:
        for role in ("moving", "fixed"):
            image = getattr(pair, role)
            for kind in ("labels", "mask"):
                path = getattr(pair, f"{role}_{kind}")
                if path and grid(path) != grid(image):
                    raise TableError(f"{path}: lies on another grid than {image}; give {kind} on its image's grid")
        if grid(pair.moving).ndim != grid(pair.fixed).ndim:
            raise ImageError(
                f"{pair.moving}, {pair.fixed}: one is 2-D, the other 3-D; register images of one dimension"
            )


def make_jobs(
    pairs: Sequence[Pair],
    methods: Sequence[Method],
    output: Path,
    *,
    threads: int,
    repeats: int = 1,
    labels: tuple[int, ...] | None = None,
    keep: bool = False,
) -> list[Registration]:
    """A job for every pair and method, pair by pair."""
    from r2reg import __version__

    digest = cache(content_sha256)
    identities = [method.identity() for method in methods]
    jobs = []
    for pair in pairs:
        inputs = {name: digest(path) for name, path in files_of(pair).items()}
        for method, identity in zip(methods, identities, strict=True):
            decides = {
                **{"inputs": inputs, "method": identity, "scores": __version__, "labels": labels},
                **{"threads": threads, "repeats": repeats, "keep": keep},
            }
            jobs.append(
                Registration(
                    pair=pair,
                    method=method,
                    folder=run_folder(output, pair.id, method.name),
                    key=hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest(),
                    threads=threads,
                    repeats=repeats,
                    labels=labels,
                    keep=keep,
                )
            )
    return jobs


def benchmark(
    table: Path | str,
    output: Path | str,
    methods: Sequence[str],
    *,
    jobs: int = 1,
    scheduler: str = "",
    threads: int = 0,
    repeats: int = 1,
    labels: tuple[int, ...] | None = None,
    keep: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    baseline: str | None = None,
    say: Callable[[str], None] = log.info,
) -> list[dict[str, Any]]:
    """Register every pair of a table by every method, score them alike, and keep the results as they come.

    OUTPUT gets results.csv, labels.csv, environment.json and runs/, which holds what a resumed benchmark goes on from.

    Args:
        methods: see `parse_method`.
        jobs, scheduler: see `engine.executor`. threads: of each job; 0: its share of the processors.
        repeats: of each registration, for its time. labels: ids to score. keep: the methods' files.
        baseline: checked to be one of the methods, before anything runs.
        resume: do what is missing, failed, or was made from other inputs or settings. overwrite: begin again.
    Returns:
        A row for every pair and method, in the order of the table.
    Raises:
        R2RegError: input that cannot be used, named before anything runs; a folder that cannot be written.
    """
    table, output = Path(table).absolute(), Path(output).absolute()
    chosen = [parse_method(text) for text in methods]
    names = [method.name for method in chosen]
    if len(set(names)) < len(names):
        raise ConfigError(f"--method {max(names, key=names.count)}: stands twice; name each once")
    if baseline is not None and baseline not in names:
        raise ConfigError(f"--baseline {baseline}: is none of the methods, {', '.join(names)}")
    for method in chosen:
        method.check()
    pairs = read_pairs(table)
    check_grids(pairs)
    threads = threads or max(processors() // jobs, 1)
    todo = make_jobs(pairs, chosen, output, threads=threads, repeats=repeats, labels=labels, keep=keep)
    campaign = Campaign(output=output, columns=COLUMNS, jobs=jobs, scheduler=scheduler, threads=threads)
    return campaign.go(todo, told, say, resume=resume, overwrite=overwrite)


def told(row: dict[str, Any]) -> str:
    """A result in a few words."""
    if row["status"] != "done":
        return f"failed: {row['reason']}"
    dice = f"Dice {row['dice_mean']:.3f}" if row.get("dice_mean") is not None else f"LNCC {row['lncc']:.3f}"
    return f"{dice}, {row['seconds']:.1f} s" if "seconds" in row else dice
