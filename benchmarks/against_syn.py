"""r2reg against ANTsPy's SyN on given pairs: overlap, likeness, regularity, time and memory.

    python benchmarks/against_syn.py DIR/pairs.csv -o OUT --method syn syn-full r2reg-fast r2reg-default r2reg-best
    python benchmarks/against_syn.py --images a.nii.gz b.nii.gz c.nii.gz -o OUT --method syn r2reg-default
    python benchmarks/against_syn.py DIR/pairs.csv -o OUT --method syn "r2reg:--refine 40 --similarity mse"

Methods
  affine         ants.registration, type_of_transform "Affine"
  syn            ants.registration, type_of_transform "SyN", all defaults (its metric is Mattes mutual information)
  syn-full       the same with reg_iterations (100, 70, 20): with iterations at full size
  r2reg-LEVEL    `r2reg register --model none --refine LEVEL`, LEVEL fast, default or best
  r2reg:OPTIONS  `r2reg register --model none OPTIONS`

Each (pair, method) is a process of its own, one at a time: read, affine, warp, write. No method sees labels. What is
written is scored afterwards by `transform_scores.py`, the same way for all. OUT gets results.csv (a row as soon as it
is known; a rerun does what is missing or failed), summary.md, environment.json, and with --keep the runs themselves.
`wall_seconds` is the whole process; `registration_seconds` is the call of ants.registration alone, and for r2reg the
stages between reading on the one hand and scoring and writing on the other.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shlex
import shutil
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from comparison import summary
from processes import HERE, R2REG, environment, last_line, run, stop_children_when_stopped
from results import append_row, read_rows

from r2reg.errors import R2RegError
from r2reg.io.tables import Pair, read_pairs

ANTS = ("affine", "syn", "syn-full")
LEVELS = ("fast", "default", "best")
COLUMNS = (
    "id", "method", "status", "reason", "dice_mean", "lncc", "mse", "folds", "ndv_percent", "digital_folds",
    "jacobian_min", "jacobian_max", "sdlogj", "inverse_residual_p99_voxels", "inverse_residual_max_voxels", "certified",
    "wall_seconds", "registration_seconds", "cpu_seconds", "peak_gigabytes", "threads", "device", "dice_per_label",
)  # fmt: skip
# Of r2reg's `seconds`: neither reading, scoring nor writing.
WORK_STAGES = ("affine", "compile", "network", "refine", "transform")


def known_method(text: str) -> str:
    """The method's name, checked before hours are spent on the others."""
    if text in ANTS or text.startswith("r2reg:") or text in [f"r2reg-{level}" for level in LEVELS]:
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(ANTS)}, r2reg-LEVEL and r2reg:OPTIONS")


def command(pair: Pair, method: str, folder: Path, threads: int) -> list[str]:
    """The command line of one registration."""
    files = [str(pair.moving), str(pair.fixed), "-o", str(folder)]
    if method in ANTS:
        return [sys.executable, str(HERE / "ants_register.py"), *files, "--method", method]
    level = method.removeprefix("r2reg-")
    options = shlex.split(method.removeprefix("r2reg:")) if method.startswith("r2reg:") else ["--refine", level]
    return [*R2REG, "register", *files, "--overwrite", "--model", "none", "--threads", str(threads), *options]


def own_report(folder: Path) -> dict[str, Any]:
    """What the method itself says about its run."""
    if (folder / "seconds.json").exists():
        seconds = json.loads((folder / "seconds.json").read_text())
        return {"registration_seconds": seconds["registration"], "device": "cpu"}
    metrics = json.loads((folder / "metrics.json").read_text())
    return {
        "registration_seconds": sum(metrics["seconds"].get(stage, 0.0) for stage in WORK_STAGES),
        "certified": metrics["deformation"]["certified"],
        "device": metrics["device"],
    }


def score(pair: Pair, folder: Path, threads: int) -> dict[str, Any]:
    """Scores of a run, made in a process of their own.

    Raises:
        RuntimeError: the run cannot be scored.
    """
    program = [sys.executable, str(HERE / "transform_scores.py"), str(pair.moving), str(pair.fixed), str(folder)]
    if pair.moving_labels and pair.fixed_labels:
        program += ["--labels", str(pair.moving_labels), str(pair.fixed_labels)]
    log = folder / "scores.log"
    if run(program, log, threads).status:
        raise RuntimeError(f"scoring: {last_line(log)}")
    found: dict[str, Any] = json.loads(last_line(log))
    if "dice_per_label" in found:
        rounded = {label: round(value, 4) for label, value in found["dice_per_label"].items()}
        found["dice_per_label"] = json.dumps(rounded, separators=(",", ":"))
    return found


def folder_name(method: str) -> str:
    """A method as a name that every file system takes; a long one ends in its checksum."""
    name = re.sub(r"[^\w.+-]+", "_", method)
    return name if len(name) < 100 else f"{name[:90]}_{zlib.crc32(method.encode()):08x}"


def one(pair: Pair, method: str, folder: Path, threads: int) -> dict[str, Any]:
    """Register and score one pair by one method: its row, which says why where it failed."""
    folder.mkdir(parents=True)
    log = folder / "run.log"
    cost = run(command(pair, method, folder, threads), log, threads)
    row: dict[str, Any] = {"id": pair.id, "method": method, "threads": threads, **vars(cost)}
    if cost.status:
        return row | {"status": "failed", "reason": last_line(log)}
    try:
        return row | own_report(folder) | score(pair, folder, threads) | {"status": "done"}
    except RuntimeError as error:
        return row | {"status": "failed", "reason": str(error)}


def all_pairs(images: Sequence[Path]) -> Iterator[Pair]:
    """Every image onto every other."""
    for moving, fixed in itertools.permutations(images, 2):
        yield Pair(id=f"{moving.name.split('.')[0]}_to_{fixed.name.split('.')[0]}", moving=moving, fixed=fixed)


def run_all(pairs: Sequence[Pair], methods: Sequence[str], output: Path, threads: int, keep: bool) -> None:
    """Fill results.csv with what it lacks."""
    results = output / "results.csv"
    done = {(row["id"], row["method"]) for row in read_rows(results) if row["status"] == "done"}
    for pair, method in itertools.product(pairs, methods):
        if (pair.id, method) in done:
            continue
        folder = output / "runs" / pair.id / folder_name(method)
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was cut off
        row = one(pair, method, folder, threads)
        append_row(results, COLUMNS, {key: row[key] for key in COLUMNS if key in row})
        said = row.get("reason") or f"Dice {row.get('dice_mean', '-')}, SDlogJ {row.get('sdlogj', '-')}"
        print(f"{pair.id} {method}: {row['status']}, {row['wall_seconds']:.1f} s, {said}", flush=True)
        if not keep and row["status"] == "done":
            shutil.rmtree(folder)


def chosen_pairs(options: argparse.Namespace, parser: argparse.ArgumentParser) -> list[Pair]:
    """The pairs of the table, or all of the images given."""
    if bool(options.pairs) == bool(options.images):
        parser.error("give either a table of pairs or --images")
    if options.images:
        if len({image.name.split(".")[0] for image in options.images}) < max(len(options.images), 2):
            parser.error("--images needs two or more images of different names")
        return list(all_pairs(options.images))
    try:
        return read_pairs(options.pairs)
    except R2RegError as error:
        parser.error(str(error))


def main() -> None:
    """Run what is missing, then sum up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, nargs="?", help="CSV with moving,fixed[,moving_labels,fixed_labels,id]")
    parser.add_argument("--images", type=Path, nargs="+", help="all ordered pairs of these")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--method", type=known_method, nargs="+", default=["syn", "r2reg-default"])
    parser.add_argument("--baseline", type=known_method, default="syn", help="of the differences [%(default)s]")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of every method [all cores]")
    parser.add_argument("--keep", action="store_true", help="keep the registrations' files")
    options = parser.parse_args()
    stop_children_when_stopped()
    pairs = chosen_pairs(options, parser)
    options.output.mkdir(parents=True, exist_ok=True)
    others = {row["threads"] for row in read_rows(options.output / "results.csv")} - {str(options.threads)}
    if others:
        parser.error(f"{options.output}: holds results with {', '.join(others)} threads; choose another folder")
    (options.output / "environment.json").write_text(json.dumps(environment(options.threads), indent=2))
    run_all(pairs, options.method, options.output, options.threads, options.keep)
    text = summary(read_rows(options.output / "results.csv"), options.baseline)
    (options.output / "summary.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
