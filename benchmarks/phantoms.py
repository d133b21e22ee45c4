"""Two phantom heads with a known deformation between them, as files.

    python benchmarks/phantoms.py 160 192 224 -o DIR [--spacing 1]

A program of its own: making them takes memory that must not count as the measuring script's (`processes.run`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from r2reg.evaluation.processes import run_or_fail


def phantom_pair(folder: Path, shape: Sequence[int], spacing: float = 1.0) -> list[str]:
    """Write moving.nii.gz and fixed.nii.gz into a folder, from a process of their own; returns their paths."""
    sizes = [str(n) for n in shape]
    run_or_fail([sys.executable, __file__, *sizes, "-o", str(folder), "--spacing", str(spacing)])
    return [str(folder / f"{name}.nii.gz") for name in ("moving", "fixed")]


def write_pair(folder: Path, shape: Sequence[int], spacing: float) -> None:
    """The same anatomy and deformation for every shape and spacing (mm), centred on the world's origin."""
    import numpy as np

    from r2reg.geometry.grid import Grid
    from r2reg.io.images import Volume, write_image
    from r2reg.phantom import labels_on, painted, random_deformation

    rng = np.random.default_rng(0)
    affine = np.diag([spacing] * 3 + [1.0])
    affine[:3, 3] = -spacing * (np.array(shape) - 1) / 2
    grid = Grid(tuple(shape), affine)
    for name, deformation in (("moving", None), ("fixed", random_deformation(rng))):
        image = painted(labels_on(grid, deformation), rng)
        write_image(folder / f"{name}.nii.gz", image, Volume(image, grid))


def main() -> None:
    """Write one pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", type=int, nargs=3)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--spacing", type=float, default=1.0, help="mm [%(default)s]")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    write_pair(options.output, options.shape, options.spacing)


if __name__ == "__main__":
    main()
