"""Whole commands as a user runs them: wall seconds, CPU seconds and peak memory of a process of their own.

    python benchmarks/command_cost.py --repeats 5
    python benchmarks/command_cost.py --repeats 3 --phantom 160 192 224 [-- --model RUN --refine fast]
    python benchmarks/command_cost.py --repeats 3 moving.nii.gz fixed.nii.gz

Without images or a phantom's size only the start-up of each command's help is measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from phantoms import phantom_pair

from r2reg.evaluation.processes import R2REG, run_or_fail

HELP: tuple[list[str], ...] = ([], ["register"], ["train"], ["apply"], ["points"], ["demo"])


def measure(arguments: list[str]) -> dict[str, float]:
    """Run `r2reg ARGUMENTS` once.

    Raises:
        RuntimeError: it failed.
    """
    cost = vars(run_or_fail([*R2REG, *arguments]))
    return {key: cost[key] for key in ("wall_seconds", "cpu_seconds", "peak_gigabytes")}


def medians(arguments: list[str], repeats: int) -> dict[str, Any]:
    """Medians over several runs after one that warms the file cache."""
    measure(arguments)
    runs = [measure(arguments) for _ in range(repeats)]
    return {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}


def main() -> None:
    """Measure the helps, then a registration where images are given; print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", help="moving and fixed")
    parser.add_argument("--repeats", type=int, default=5)
    own, options = sys.argv[1:], []
    if "--" in own:
        at = own.index("--")
        own, options = own[:at], own[at + 1 :]
    parser.add_argument("--phantom", type=int, nargs=3, metavar=("X", "Y", "Z"), help="register phantoms of 1 mm")
    given = parser.parse_args(own)
    result = {" ".join(["r2reg", *c, "--help"]): medians([*c, "--help"], given.repeats) for c in HELP}
    if given.images or given.phantom:
        with tempfile.TemporaryDirectory() as folder:
            images = given.images or phantom_pair(Path(folder), tuple(given.phantom))
            command = ["register", *images, "-o", str(Path(folder) / "out"), "--overwrite", *options]
            result[f"r2reg register {' '.join(options)}"] = medians(command, given.repeats)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
