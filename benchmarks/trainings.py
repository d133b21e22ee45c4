"""Trainings that are compared: `r2reg train` with options in common, and what the test people say of each network."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from r2reg.evaluation.processes import R2REG, Cost, environment, last_line, run, stop_children_when_stopped


def parser_of(description: str | None, data: str = "cohort") -> argparse.ArgumentParser:
    """The options that all have; what stands behind -- is for `r2reg train`, see `parsed`.

    Args:
        data: name of the argument to train on.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(data, type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500, help="of every network and branch [%(default)s]")
    parser.add_argument("--spacing", type=float, default=4.0, help="mm [%(default)s]")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="[%(default)s; the paper's is 1e-4]")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options given, and the output folder with a cache and environment.json."""
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:end], argparse.Namespace(more=sys.argv[end + 1 :]))
    stop_children_when_stopped()
    (options.output / "cache").mkdir(parents=True, exist_ok=True)
    (options.output / "environment.json").write_text(json.dumps(environment(0), indent=2), encoding="utf-8")
    return options


def settings_of(options: argparse.Namespace) -> list[str]:
    """Options of `r2reg train` that all networks have in common, but for those behind --."""
    settings = ["--spacing", str(options.spacing), "--steps", str(options.steps)]
    return [
        *settings,
        *("--learning-rate", str(options.learning_rate), "--validate-every", str(max(options.steps // 15, 1))),
    ]


def train(name: str, own: list[str], options: argparse.Namespace) -> Cost:
    """Train a network in its folder to its last step, from where it stands; all share the prepared images."""
    folder = options.output / name
    folder.mkdir(exist_ok=True)
    cache = folder / "cache"
    if not cache.exists():
        cache.symlink_to(os.path.relpath(options.output / "cache", folder), target_is_directory=True)
    log = folder / "train.log"
    command = [*R2REG, "train", str(options.cohort), "-o", str(folder), *settings_of(options), *own, *options.more]
    cost = run([*command, "--resume"], log)
    if cost.status:
        raise RuntimeError(f"{name}: {last_line(log)}")
    return cost


def score(name: str, options: argparse.Namespace) -> tuple[dict[str, Any], Cost]:
    """What network_scores.py says of a network, and what that took."""
    program, log = str(Path(__file__).with_name("network_scores.py")), options.output / name / "scores.log"
    given = [str(options.output / name), str(options.cohort), "--cache", str(options.output / "cache")]
    cost = run([*R2REG[:1], program, *given], log)
    if cost.status:
        raise RuntimeError(f"{name}: {last_line(log)}")
    found: dict[str, Any] = json.loads(last_line(log))
    return found, cost
