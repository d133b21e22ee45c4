"""Maps of few parameters against the flow on thick slices and on noisy scans: Dice, likeness, folds, seconds.

    python benchmarks/poor_scans.py PAIRS.csv -o poor_scans.csv --thick 4 [--pairs 4] [--threads 1]
    python benchmarks/poor_scans.py PAIRS.csv -o poor_scans.csv --noise 0.3

PAIRS is a table for `r2reg benchmark` with labels, as painted_pairs.py makes. --thick K: both images are averaged over
K slices along their last axis. --noise S: both get Gaussian noise of S times their 99th percentile, and lose its sign.
Labels stay as they are and are scored on their own grid, nearest neighbour. All methods of a pair run in one process,
so seconds hold a first registration's compiling.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
from results import append_row, read_rows

COLUMNS = ("scans", "id", "method", "dice", "lncc", "ndv_percent", "sdlogj", "seconds")
METHODS = {
    "affine": {"transform": "affine"},
    "affine-cpab": {"transform": "affine-cpab"},
    "flow, no network": {"model": "none"},
    "flow, by itself": {},
}


def spoil(source: Path, target: Path, thick: int, noise: float, rng: np.random.Generator) -> None:
    """Write an image as a poorer scan would show it."""
    image = nibabel.load(source)
    values, affine = image.get_fdata(dtype=np.float32), image.affine.copy()
    if thick > 1:
        whole = values.shape[2] // thick * thick
        values = values[:, :, :whole].reshape(*values.shape[:2], -1, thick).mean(axis=-1)
        affine[:3, 3] += affine[:3, 2] * (thick - 1) / 2
        affine[:3, 2] *= thick
    if noise:
        strength = noise * np.percentile(values[values > 0], 99)
        values = np.abs(values + rng.normal(0, strength, values.shape)).astype(np.float32)
    nibabel.Nifti1Image(values, affine).to_filename(target)


def main() -> None:
    """A row per pair and method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs_table", type=Path, metavar="PAIRS")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--thick", type=int, default=1, metavar="K", help="slices that become one [%(default)s]")
    parser.add_argument("--noise", type=float, default=0.0, metavar="S", help="share of the greys [%(default)s]")
    parser.add_argument("--pairs", type=int, default=4, help="the first of the table [%(default)s]")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()

    import r2reg
    from r2reg.evaluation.scoring import AFFINE, FREESURFER_STRUCTURES, WARP, evaluate

    rng = np.random.default_rng(0)
    scans = f"thick {options.thick}" if options.thick > 1 else f"noise {options.noise:g}"
    for row in read_rows(options.pairs_table)[: options.pairs]:
        files = {name: str(options.pairs_table.parent / file) for name, file in row.items() if name != "id"}
        labels = {name: file for name, file in files.items() if name.endswith("labels")}
        with tempfile.TemporaryDirectory() as work:
            poor = {name: Path(work) / f"{name}.nii.gz" for name in ("moving", "fixed")}
            for name, path in poor.items():
                spoil(Path(files[name]), path, options.thick, options.noise, rng)
            for method, asked in METHODS.items():
                began, out = time.perf_counter(), Path(work) / method
                found = r2reg.register(poor["moving"], poor["fixed"], threads=options.threads, **asked)
                seconds = time.perf_counter() - began
                found.save(out, report=False)
                transforms = [str(out / name) for name in (WARP, AFFINE) if (out / name).exists()]
                scores = evaluate(labels, transforms, FREESURFER_STRUCTURES)
                said = {**found.metrics["similarity"]["after"], **found.metrics["deformation"]}
                line = {name: said.get(name, "") for name in COLUMNS} | {"seconds": f"{seconds:.1f}"}
                line |= {"scans": scans, "id": row["id"], "method": method, "dice": scores["dice"]["mean"]}
                append_row(options.output, COLUMNS, line)
                print(scans, row["id"], method, f"{line['dice']:.3f}", line["seconds"], flush=True)


if __name__ == "__main__":
    main()
