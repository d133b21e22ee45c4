"""Rigid and affine optimisation of mutual information, one resolution at a time (SimpleITK)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from r2reg.errors import RegistrationError
from r2reg.geometry.grid import Array
from r2reg.geometry.transforms import Affine
from r2reg.io.itk import from_sitk_transform, lps_signs, reason, simpleitk, to_sitk_image, to_sitk_transform
from r2reg.preprocessing.affine_pyramid import Level, Working

Kind = Literal["rigid", "affine"]
HISTOGRAM_BINS = 32
# Of the metric. From 20 000 on, searches of one pair from different starts end within a millimetre or so of
# each other at the corners of a head's view; twice as many change that little and double the time.
METRIC_SAMPLES = 25_000
ITERATIONS = 50  # line searches; most end after 10 to 20
LINE_SEARCH_STEPS = 20  # SimpleITK's default
CONVERGED = 1e-5  # slope of the last 10 values of the metric; ten times less doubles the time and changes little
FIRST_STEP = 0.5  # of the working spacing, the scale of the first line search


@dataclass(frozen=True, kw_only=True)
class Search:
    """What makes a search repeatable.

    Args:
        seed: of the samples' draw.
        threads: of the metric. With one the result repeats bit for bit; with more, ITK adds up in the order
            in which they finish, and results differ by about 1e-4 mm.
    """

    seed: int = 0
    threads: int = 1


def improve(level: Level, matrix: Array, kind: Kind, search: Search) -> Array:
    """Optimise an increment before `matrix`: x -> matrix(increment(x)).

    Args:
        level: the pair.
        matrix: (d+1, d+1) RAS mm, fixed -> moving points, the start.
        kind: of the increment.
    Returns:
        The improved matrix.
    Raises:
        RegistrationError: the optimiser failed, with its reason.
    """
    method = _method(level, search)
    ndim = len(matrix) - 1
    increment = _increment(kind, ndim, level.fixed)
    method.SetMovingInitialTransform(to_sitk_transform([Affine(matrix)], ndim))
    method.SetInitialTransform(increment, inPlace=True)
    try:
        method.Execute(_to_image(level.fixed), _to_image(level.moving))
    except RuntimeError as error:
        raise RegistrationError(
            f"the {kind} alignment failed ({reason(error).split('. ')[0]}); use --init com or --init FILE"
        ) from error
    return matrix @ _matrix(increment)


def _method(level: Level, search: Search) -> Any:
    sitk = simpleitk()

    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(search.threads)
    method.SetNumberOfWorkUnits(search.threads)
    method.SetMetricAsMattesMutualInformation(HISTOGRAM_BINS)
    if level.fixed.mask is not None:
        method.SetMetricFixedMask(_to_mask(level.fixed))
    if level.moving.mask is not None:
        method.SetMetricMovingMask(_to_mask(level.moving))
    method.SetMetricSamplingStrategy(method.RANDOM)
    inside = level.fixed.array.size if level.fixed.mask is None else int(level.fixed.mask.sum())
    # ITK reads seed 0 as the clock.
    method.SetMetricSamplingPercentage(min(1.0, METRIC_SAMPLES / inside), search.seed % (2**31) + 1)
    # Central differences at the samples: the gradient filters need whole gradient images and 4 voxels per
    # axis.
    method.MetricUseFixedImageGradientFilterOff()
    method.MetricUseMovingImageGradientFilterOff()
    method.SetInterpolator(sitk.sitkLinear)
    # Line searches: fixed or halving steps stopped early, millimetres apart from different starts of one
    # pair.
    method.SetOptimizerAsConjugateGradientLineSearch(
        learningRate=1.0,
        numberOfIterations=ITERATIONS,
        convergenceMinimumValue=CONVERGED,
        lineSearchMaximumIterations=LINE_SEARCH_STEPS,
        estimateLearningRate=method.Once,
        maximumStepSizeInPhysicalUnits=FIRST_STEP * level.spacing,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    return method


def _increment(kind: Kind, ndim: int, fixed: Working) -> Any:
    """An identity of the wanted kind, turning around the middle of fixed's grid."""
    sitk = simpleitk()

    if kind == "affine":
        transform = sitk.AffineTransform(ndim)
    else:
        transform = sitk.Euler2DTransform() if ndim == 2 else sitk.Euler3DTransform()
    transform.SetCenter((lps_signs(ndim) * fixed.grid.center_ras).tolist())
    return transform


def _matrix(transform: Any) -> Array:
    (affine,) = from_sitk_transform(transform)
    assert isinstance(affine, Affine)
    return affine.matrix


def _to_image(image: Working) -> Any:
    return to_sitk_image(image.array, image.grid)


def _to_mask(image: Working) -> Any:
    assert image.mask is not None
    return to_sitk_image(image.mask, image.grid)
