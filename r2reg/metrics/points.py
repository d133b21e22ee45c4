"""Target registration error of corresponding points."""

from __future__ import annotations

import numpy as np

from r2reg.errors import TableError


def tre_mm(fixed_mapped_ras: np.ndarray, moving_ras: np.ndarray) -> dict[str, float]:
    """Distance of the fixed points, carried to the moving image, from the moving points.

    Args:
        fixed_mapped_ras: (n, d) RAS mm, fixed points after the transform.
        moving_ras: (n, d) RAS mm, row by row the same anatomical points.
    Returns:
        mean, median and max in mm.
    Raises:
        TableError: no points, or different numbers of points.
    """
    mapped, target = np.asarray(fixed_mapped_ras, np.float64), np.asarray(moving_ras, np.float64)
    if mapped.shape != target.shape or not len(mapped):
        raise TableError(
            f"fixed and moving points must be the same points, row by row. Received: {len(mapped)} and {len(target)}"
        )
    error = np.linalg.norm(mapped - target, axis=-1)
    return {"mean": float(error.mean()), "median": float(np.median(error)), "max": float(error.max())}
