"""2-D registration pairs from 3-D scans: the middle axial slices of every ordered pair, once an affine aligns them.

    python benchmarks/slice_pairs.py SCAN SCAN [SCAN ...] -o DIR
    r2reg benchmark DIR/pairs.csv -o out --method affine --method affine-cpab="--transform affine-cpab" ...

The affine is `r2reg register --transform affine`'s, in 3-D; moving is resampled once onto fixed, whose axes are made
canonical. DIR gets `pairs.csv` and the slices, in mm.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import nibabel
import numpy as np
from results import append_row

COLUMNS = ("moving", "fixed", "id")


def middle(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """The middle axial slice."""
    canonical = nibabel.as_closest_canonical(image)
    values = np.asarray(canonical.dataobj, dtype=np.float32)
    spacing = [float(side) for side in canonical.header.get_zooms()[:2]]
    return nibabel.Nifti1Image(values[:, :, values.shape[2] // 2], np.diag([*spacing, 1, 1]))


def main() -> None:
    """Write the slices and their table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path, nargs="+", metavar="SCAN")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    names = {path: path.name.split(".")[0] for path in options.scans}
    if len(set(names.values())) < len(options.scans):
        parser.error("the scans' file names must differ, they name the pairs")
    if options.output.exists():
        parser.error(f"{options.output}: exists; give another folder (-o)")

    import r2reg

    options.output.mkdir(parents=True)
    for moving, fixed in itertools.permutations(options.scans, 2):
        name = f"{names[moving]}_to_{names[fixed]}"
        found = r2reg.register(moving, fixed, transform="affine")
        moved = nibabel.Nifti1Image(found.moved, found.pair.fixed.grid.affine)
        files = {part: f"{name}_{part}.nii.gz" for part in ("moving", "fixed")}
        middle(moved).to_filename(options.output / files["moving"])
        middle(nibabel.load(fixed)).to_filename(options.output / files["fixed"])
        append_row(options.output / "pairs.csv", COLUMNS, {**files, "id": name})


if __name__ == "__main__":
    main()
