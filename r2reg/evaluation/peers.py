"""Classical registration, as a program that writes its transforms under the names of `r2reg register`.

    python -m r2reg.evaluation.peers METHOD MOVING FIXED -o OUT [--threads N]

OUT gets affine.mat, and where the method deforms warp.nii.gz, and inverse_warp.nii.gz where it gives one; and
metrics.json with the seconds of its stages, as far as `r2reg register` tells them too.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from r2reg.errors import R2RegError

# Options of ants.registration; its own defaults otherwise: SyN after an affine, Mattes mutual information for both,
# (40, 20, 0) iterations at a quarter, half and full size. syn-cc: VoxelMorph's published setting of the baseline.
ANTS: dict[str, dict[str, Any]] = {
    "ants-affine": {"type_of_transform": "Affine"},
    "syn": {"type_of_transform": "SyN"},
    "syn-full": {"type_of_transform": "SyN", "reg_iterations": (100, 70, 20)},
    "syn-cc": {
        **{"type_of_transform": "SyN", "syn_metric": "CC", "syn_sampling": 4, "reg_iterations": (201, 201, 201)},
        **{"flow_sigma": 9, "total_sigma": 0.2, "grad_step": 0.25},
    },
}
ANTS_NAMES = {
    "0GenericAffine.mat": "affine.mat",
    "1Warp.nii.gz": "warp.nii.gz",
    "1InverseWarp.nii.gz": "inverse_warp.nii.gz",
}
# Demons: shrinking of both images and iterations, level by level; standard deviation of the field's smoothing, voxels.
DEMONS_LEVELS = ((4, 100), (2, 60), (1, 30))
DEMONS_SIGMA = 1.5


def with_ants(method: str) -> Callable[[Path, Path, Path, int], dict[str, float]]:
    """What registers by `ants.registration`, which moves both images and writes its transforms within its time."""

    def register(moving: Path, fixed: Path, folder: Path, _threads: int) -> dict[str, float]:
        import ants

        began = time.perf_counter()
        images = {"moving": ants.image_read(str(moving)), "fixed": ants.image_read(str(fixed))}
        loaded = time.perf_counter()
        ants.registration(**images, outprefix=f"{folder}/", **ANTS[method])
        done = time.perf_counter()
        for theirs, ours in ANTS_NAMES.items():
            if (folder / theirs).exists():
                (folder / theirs).rename(folder / ours)
        return {"load": loaded - began, "refine": done - loaded}

    return register


def demons(moving: Path, fixed: Path, folder: Path, threads: int) -> dict[str, float]:
    """SimpleITK's diffeomorphic demons at three sizes, on histogram-matched images, after r2reg's own affine."""
    from r2reg.geometry.transforms import Displacement
    from r2reg.io import itk
    from r2reg.io.fields import write_displacement
    from r2reg.io.images import read_image
    from r2reg.io.transforms import write_affine
    from r2reg.preprocessing.affine.initial import initial_affine
    from r2reg.resampling import resample
    from r2reg.threads import set_threads

    set_threads(threads)
    began = time.perf_counter()
    source, target = read_image(moving), read_image(fixed)
    loaded = time.perf_counter()
    affine = initial_affine(target, source, "affine", threads=threads or None)
    found = time.perf_counter()
    sitk = itk.simpleitk()
    # On a grid along the axes: the filter knows no directions. Its vectors are then along fixed's own axes.
    grids = [itk.to_sitk_image(a, target.grid) for a in (target.array, resample(source, target.grid, [affine]))]
    fixed_image, moving_image = (sitk.Cast(_along_axes(image, sitk), sitk.sitkFloat32) for image in grids)
    moving_image = sitk.HistogramMatching(
        moving_image, fixed_image, numberOfHistogramLevels=256, numberOfMatchPoints=15, thresholdAtMeanIntensity=True
    )
    found_field = itk.displacement_from_sitk(_demons_field(fixed_image, moving_image, sitk))
    # From RAS of the grid along the axes to mm along the array's axes, and on to RAS of fixed's own grid.
    vectors = found_field.vectors * itk.lps_signs(target.grid.ndim) @ target.grid.directions.T
    field = Displacement(target.grid, vectors.astype(np.float32))
    done = time.perf_counter()
    write_affine(folder / "affine.mat", affine)
    write_displacement(folder / "warp.nii.gz", field)
    return {"load": loaded - began, "affine": found - loaded, "refine": done - found}


def _along_axes(image: Any, sitk: Any) -> Any:
    placed = sitk.Image(image)
    ndim = image.GetDimension()
    placed.SetDirection(np.eye(ndim).ravel().tolist())
    placed.SetOrigin([0.0] * ndim)
    return placed


def _demons_field(fixed: Any, moving: Any, sitk: Any) -> Any:
    """From coarse to fine: each level begins with the field of the one before."""
    field = None
    for factor, iterations in DEMONS_LEVELS:
        images = [_shrunk(image, factor, sitk) for image in (fixed, moving)]
        demons_filter = sitk.DiffeomorphicDemonsRegistrationFilter()
        demons_filter.SetNumberOfIterations(iterations)
        demons_filter.SetSmoothDisplacementField(True)
        demons_filter.SetStandardDeviations(DEMONS_SIGMA)
        start: list[Any] = [] if field is None else [sitk.Resample(field, images[0])]
        field = demons_filter.Execute(*images, *start)
    return field


def _shrunk(image: Any, factor: int, sitk: Any) -> Any:
    if factor == 1:
        return image
    smooth = sitk.SmoothingRecursiveGaussian(image, [factor / 2 * s for s in image.GetSpacing()])
    return sitk.Shrink(smooth, [min(factor, n) for n in image.GetSize()])


PEERS: dict[str, Callable[[Path, Path, Path, int], dict[str, float]]] = {
    **{name: with_ants(name) for name in ANTS},
    "demons": demons,
}
# Peer -> the package that it needs.
PACKAGE_OF = {name: "antspyx" if name in ANTS else "SimpleITK" for name in PEERS}


def main() -> None:
    """Register one pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=PEERS)
    parser.add_argument("moving", type=Path)
    parser.add_argument("fixed", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    try:
        seconds = PEERS[options.method](options.moving, options.fixed, options.output, options.threads)
    except (R2RegError, RuntimeError, ValueError) as error:
        sys.exit(" ".join(str(error).split()))
    seconds["total"] = time.perf_counter() - began
    (options.output / "metrics.json").write_text(
        json.dumps({"seconds": seconds, "device": "cpu"}) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
