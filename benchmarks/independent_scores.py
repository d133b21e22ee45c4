"""Scores of a benchmark by other packages, beside ours.

    r2reg benchmark PAIRS -o REPORT --keep --method ...
    python benchmarks/independent_scores.py PAIRS REPORT

Nothing of r2reg computes here: SimpleITK reads and composes the transforms and carries the labels; Dice is SimpleITK's,
the 95th percentile Hausdorff distance MONAI's, the non-diffeomorphic volume that of digital-diffeomorphism, whose
authors proposed it. Prints for each score the largest difference over all runs, and over all labels where it has any.

Beside r2reg: torch; pip install --no-deps monai digital-diffeomorphism (which asks for an older numpy than it needs).
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk

Differences = dict[str, list[tuple[float, float]]]  # score -> (theirs, ours)


def rows_of(table: Path) -> list[dict[str, str]]:
    """A CSV as dictionaries."""
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def carried(folder: Path, fixed: sitk.Image, moving: sitk.Image) -> sitk.Image:
    """The moving labels on fixed's grid, as a user of ITK would have them."""
    dimension = fixed.GetDimension()
    # ITK applies the transform that was added last first: the warp.
    both = sitk.CompositeTransform(dimension)
    if (folder / "affine.mat").exists():
        both.AddTransform(sitk.ReadTransform(str(folder / "affine.mat")))
    if (folder / "warp.nii.gz").exists():
        field = sitk.ReadImage(str(folder / "warp.nii.gz"), sitk.sitkVectorFloat64)
        both.AddTransform(sitk.DisplacementFieldTransform(field))
    if not both.GetNumberOfTransforms():
        both.AddTransform(sitk.Transform(dimension, sitk.sitkIdentity))
    return sitk.Resample(moving, fixed, both, sitk.sitkNearestNeighbor, 0)


def label_scores(fixed: sitk.Image, moved: sitk.Image, ours: list[dict[str, str]]) -> Iterator[tuple[str, float, str]]:
    """Per label: name of the score, theirs, ours."""
    import torch
    from monai.metrics import compute_hausdorff_distance

    spacing = fixed.GetSpacing()[::-1]
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(fixed, moved)
    arrays = [sitk.GetArrayFromImage(image) for image in (fixed, moved)]
    for row in ours:
        label = int(row["label"])
        yield "Dice", overlap.GetDiceCoefficient(label), row["dice"]
        if row["hd95_mm"]:
            masks = [np.pad(array == label, 1) for array in arrays]
            held = [np.flatnonzero(np.any(masks, axis=(0, *other))) for other in ((2, 3), (1, 3), (1, 2))]
            box = tuple(slice(max(h[0] - 1, 0), h[-1] + 2) for h in held)
            y, y_pred = (torch.from_numpy(mask[box][None, None].astype(np.float32)) for mask in masks)
            distance = compute_hausdorff_distance(y_pred, y, include_background=True, percentile=95, spacing=spacing)
            yield "HD95, mm", float(distance), row["hd95_mm"]


def volume_percent(warp: Path) -> float:
    """Non-diffeomorphic volume of an ITK displacement field, percent of the voxels."""
    from digital_diffeomorphism.core import ndv

    image = nibabel.load(warp)
    lps_mm = np.asarray(image.dataobj)[..., 0, :].astype(np.float64)
    voxels = (lps_mm * [-1, -1, 1]) @ np.linalg.inv(image.affine[:3, :3]).T
    return float(ndv(voxels.astype(np.float32), is_disp=True)[1])


def main() -> None:
    """Compare all runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("report", type=Path)
    options = parser.parse_args()
    pairs = {row["id"]: row for row in rows_of(options.pairs)}
    labels = defaultdict(list)
    for row in rows_of(options.report / "labels.csv"):
        labels[row["id"], row["method"]].append(row)
    found: Differences = defaultdict(list)
    runs = [row for row in rows_of(options.report / "results.csv") if row["status"] == "done"]
    for row in runs:
        pair, key = pairs[row["id"]], (row["id"], row["method"])
        folder = next(path.parent for path in options.report.glob("runs/*/*/result.json") if _is(path, key))
        fixed, moving = (
            sitk.ReadImage(str(options.pairs.parent / pair[f"{side}_labels"])) for side in ("fixed", "moving")
        )
        for name, theirs, ours in label_scores(fixed, carried(folder, fixed, moving), labels[key]):
            found[name].append((theirs, float(ours)))
        if (folder / "warp.nii.gz").exists():
            found["NDV, %"].append((volume_percent(folder / "warp.nii.gz"), float(row["ndv_percent"])))
        print(*key, flush=True)
    for name, values in found.items():
        theirs, ours = np.array(values).T
        print(f"{name}: {len(values)} compared, {theirs.min():.4g} to {theirs.max():.4g}, ", end="")
        print(f"largest difference {np.abs(theirs - ours).max():.2g}, median {np.median(np.abs(theirs - ours)):.2g}")


def _is(result: Path, key: tuple[str, str]) -> bool:
    import json

    content = json.loads(result.read_text(encoding="utf-8"))
    return (content["id"], content["method"]) == key


if __name__ == "__main__":
    main()
