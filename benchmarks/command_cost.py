"""Whole commands as a user runs them: wall seconds, CPU seconds and peak memory of a process of their own.

    python benchmarks/command_cost.py --repeats 5
    python benchmarks/command_cost.py --repeats 3 --phantom 160 192 224 [-- --model RUN --refine fast]
    python benchmarks/command_cost.py --repeats 3 moving.nii.gz fixed.nii.gz

Without images or a phantom's size only the start-up of each command's help is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from r2reg.geometry.grid import Grid
from r2reg.io.images import Volume, write_image
from r2reg.phantom import labels_on, painted, random_deformation

HELP = ([], ["register"], ["train"], ["apply"], ["points"], ["demo"])


def measure(arguments: list[str]) -> dict[str, float]:
    """Run `r2reg ARGUMENTS` once.

    Raises:
        RuntimeError: it failed.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "r2reg.cli", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"r2reg {' '.join(arguments)} ended with status {status}")
    return {
        "wall_seconds": time.perf_counter() - start,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_gigabytes": usage.ru_maxrss * 1024 / 1e9,  # Linux counts KiB
    }


def medians(arguments: list[str], repeats: int) -> dict[str, Any]:
    """Medians over several runs after one that warms the file cache."""
    measure(arguments)
    runs = [measure(arguments) for _ in range(repeats)]
    return {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}


def phantom_pair(folder: Path, shape: tuple[int, ...]) -> list[str]:
    """Write a moving and a fixed phantom head of a shape, 1 mm."""
    rng = np.random.default_rng(0)
    affine = np.eye(4)
    affine[:3, 3] = -(np.array(shape) - 1) / 2
    grid = Grid(shape, affine)
    paths = []
    for name, deformation in (("moving", None), ("fixed", random_deformation(rng))):
        image = painted(labels_on(grid, deformation), rng)
        paths.append(str(folder / f"{name}.nii.gz"))
        write_image(paths[-1], image, Volume(image, grid))
    return paths


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
