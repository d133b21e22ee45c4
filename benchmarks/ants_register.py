"""ANTsPy's registration of a pair as a program of its own, with the file names of `r2reg register`.

    python benchmarks/ants_register.py MOVING FIXED -o OUT --method syn

OUT gets affine.mat, warp.nii.gz and inverse_warp.nii.gz as ANTs writes them, moved.nii.gz, and seconds.json with the
time of the call of `ants.registration` alone. It resamples both images and writes the transforms within that call.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

# ANTsPy's own defaults otherwise: SyN after an affine, Mattes mutual information for both, (40, 20, 0) iterations.
METHODS: dict[str, dict[str, Any]] = {
    "affine": {"type_of_transform": "Affine"},
    "syn": {"type_of_transform": "SyN"},
    "syn-full": {"type_of_transform": "SyN", "reg_iterations": (100, 70, 20)},
}
NAMES = {
    "0GenericAffine.mat": "affine.mat",
    "1Warp.nii.gz": "warp.nii.gz",
    "1InverseWarp.nii.gz": "inverse_warp.nii.gz",
}


def register(moving: Path, fixed: Path, folder: Path, method: str) -> float:
    """Register and write; returns the seconds of the call alone."""
    import ants

    images = {"moving": ants.image_read(str(moving)), "fixed": ants.image_read(str(fixed))}
    start = time.perf_counter()
    result = ants.registration(**images, outprefix=f"{folder}/", **METHODS[method])
    seconds = time.perf_counter() - start
    ants.image_write(result["warpedmovout"], str(folder / "moved.nii.gz"))
    for theirs, ours in NAMES.items():
        if (folder / theirs).exists():
            (folder / theirs).rename(folder / ours)
    return seconds


def main() -> None:
    """Register one pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("moving", type=Path)
    parser.add_argument("fixed", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--method", choices=METHODS, default="syn")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    seconds = register(options.moving, options.fixed, options.output, options.method)
    (options.output / "seconds.json").write_text(json.dumps({"registration": seconds}))


if __name__ == "__main__":
    main()
