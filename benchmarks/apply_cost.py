"""`r2reg apply` against ANTs on the same files: seconds of whole processes, in turn, and of ANTs without its start.

    python benchmarks/apply_cost.py MOVING FIXED RESULT [--repeats 5] [--threads 2]

RESULT is what `r2reg register MOVING FIXED -o RESULT` wrote. ANTs' own program is not on PyPI: it is ANTsPy, which is
the same code, in a process that reads both images and the transforms, applies them and writes. Its interpreter and
import would not be there with `antsApplyTransforms`, so the time between import and end is given as well.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from r2reg.evaluation.processes import R2REG, last_line, run

ANTS = """\
import sys
import ants
import time
start = time.perf_counter()
moving, fixed, out, *transforms = sys.argv[1:]
moved = ants.apply_transforms(ants.image_read(fixed), ants.image_read(moving), transforms, interpolator="linear")
ants.image_write(moved, out)
print(time.perf_counter() - start)
"""


def main() -> None:
    """Run both in turn; print JSON with medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("moving")
    parser.add_argument("fixed")
    parser.add_argument("result", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    transforms = [str(given.result / name) for name in ("warp.nii.gz", "affine.mat")]
    found: dict[str, list[float]] = {"r2reg": [], "ants": [], "ants_without_start": []}
    with tempfile.TemporaryDirectory() as folder:
        out, log = str(Path(folder) / "out.nii.gz"), Path(folder) / "log"
        listed = [part for path in transforms for part in ("-t", path)]
        ours = [*R2REG, "apply", *listed, "--reference", given.fixed, "-i", given.moving, "-o", out, "--overwrite"]
        theirs = [sys.executable, "-c", ANTS, given.moving, given.fixed, out, *transforms]
        for repeat in range(given.repeats + 1):
            for name, command in (("r2reg", ours), ("ants", theirs)):
                cost = run(command, log, threads=given.threads)
                if cost.status:
                    sys.exit(last_line(log))
                if repeat:  # the first one warms the file cache
                    found[name].append(cost.wall_seconds)
                    if name == "ants":
                        found["ants_without_start"].append(float(last_line(log)))
    medians = {name: statistics.median(values) for name, values in found.items()}
    ratios = {f"r2reg / {name}": medians["r2reg"] / medians[name] for name in ("ants", "ants_without_start")}
    print(json.dumps({name: round(value, 3) for name, value in (medians | ratios).items()}, indent=2))


if __name__ == "__main__":
    main()
