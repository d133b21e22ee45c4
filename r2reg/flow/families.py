"""Families of maps with few parameters theta: affine, projective, splines, CPAB (Detlefsen et al. 2018, sec. 3).

Places are shares of a box, [0, 1] along each axis; theta = 0 is the identity. Each family is a frozen value that says
how many parameters it has, where it carries points, and back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from keras import ops

from r2reg.errors import ConfigError
from r2reg.flow import backend
from r2reg.flow.cpab import cpab
from r2reg.flow.tessellation import Boundary, Tessellation, tessellate

Tensor = Any
FamilyName = Literal["affine", "affine-diff", "homography", "tps", "cpab", "affine-cpab"]
MIDDLE = 0.5  # linear maps turn about the box's middle
TAYLOR, SQUARINGS = 10, 10  # terms where the norm is below 1/2: exact to 1e-11; norms up to 2^9


@backend.accelerate()
def matrix_exponential(matrix: Tensor) -> Tensor:
    """exp(A) of (B, n, n), by scaling, a Taylor series and squaring.

    It is exp(A) - 1 that is squared, (1 + E)^2 - 1 = 2 E + E E, so that small A lose no digits.
    """
    norm = ops.max(ops.sum(ops.abs(matrix), axis=-1), axis=-1)
    halvings = ops.clip(ops.ceil(ops.log2(ops.maximum(norm, 0.25))) + 1, 0, SQUARINGS)
    scaled = matrix * ops.exp2(-halvings)[:, None, None]
    term, found = scaled, scaled
    for k in range(2, TAYLOR + 1):
        term = ops.matmul(term, scaled) / k
        found = found + term
    for k in range(SQUARINGS):
        found = ops.where((k < halvings)[:, None, None], 2 * found + ops.matmul(found, found), found)
    return found + ops.eye(matrix.shape[-1], dtype=matrix.dtype)


class Family(ABC):
    """What families share.

    Attributes:
        ndim: d. parameters: P.
    """

    ndim: int

    @property
    @abstractmethod
    def parameters(self) -> int:
        """P, how many numbers theta has."""

    def map(self, theta: Tensor, points: Tensor) -> Tensor:
        """(B, P), (B, N, d) -> (B, N, d), differentiable in both.

        Raises:
            ConfigError: as `check`; of tensors only their shape is looked at, NaN go through them as in any layer.
        """
        return self._map(*self._given(theta, points))

    def inverse(self, theta: Tensor, points: Tensor) -> Tensor:
        """Undo `map`.

        Raises:
            ConfigError: as `map`; the family has no inverse in closed form.
        """
        return self._inverse(*self._given(theta, points))

    @abstractmethod
    def _map(self, theta: Tensor, points: Tensor) -> Tensor: ...

    def _inverse(self, theta: Tensor, points: Tensor) -> Tensor:
        raise ConfigError(f"a {type(self).__name__} has no inverse; take one of the affines or CPAB")

    def _given(self, theta: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(theta, np.ndarray):
            theta = self.check(theta)
        self.check_shape(theta.shape)
        theta = ops.convert_to_tensor(theta)
        return theta, ops.convert_to_tensor(points, theta.dtype)

    def check_shape(self, shape: Sequence[int | None]) -> None:
        """Raise ConfigError unless it is (B, P)."""
        if len(shape) != 2 or shape[1] != self.parameters:
            raise ConfigError(f"theta needs {self.parameters} numbers an image. Received: shape {tuple(shape)}")

    def check(self, theta: np.ndarray) -> np.ndarray:
        """theta as (B, P) float32.

        Raises:
            ConfigError: another number of parameters, or some that are not finite.
        """
        theta = np.atleast_2d(np.asarray(theta, dtype=np.float32))
        self.check_shape(theta.shape)
        if not np.isfinite(theta).all():
            raise ConfigError(f"theta holds {(~np.isfinite(theta)).sum()} numbers that are not finite; give others")
        return theta


def _linear(matrix: Tensor, points: Tensor) -> Tensor:
    """(B, d, d + 1) about the middle."""
    ndim = points.shape[-1]
    turned = ops.matmul(points - MIDDLE, ops.transpose(matrix[:, :, :ndim], (0, 2, 1)))
    return turned + matrix[:, None, :, ndim] + MIDDLE


def _homogeneous(rows: Tensor) -> Tensor:
    """(B, d, d + 1) -> (B, d + 1, d + 1) with a last row of 0."""
    return ops.pad(rows, ((0, 0), (0, 1), (0, 0)))


@dataclass(frozen=True)
class Affine(Family):
    """x -> (1 + A) x + b; theta holds A and b."""

    ndim: int

    @property
    def parameters(self) -> int:
        return self.ndim * (self.ndim + 1)

    def _matrix(self, theta: Tensor) -> Tensor:
        rows = ops.reshape(theta, (-1, self.ndim, self.ndim + 1))
        return rows + ops.eye(self.ndim, self.ndim + 1, dtype=theta.dtype)

    def _map(self, theta: Tensor, points: Tensor) -> Tensor:
        return _linear(self._matrix(theta), points)

    def _inverse(self, theta: Tensor, points: Tensor) -> Tensor:
        matrix = self._matrix(theta)
        back = ops.inv(matrix[:, :, :-1])
        return _linear(ops.concatenate([back, -ops.matmul(back, matrix[:, :, -1:])], axis=-1), points)


@dataclass(frozen=True)
class AffineDiff(Affine):
    """x -> exp(A) x in homogeneous coordinates (Detlefsen et al. 2018, eq. 4): one-to-one for every theta."""

    def _matrix(self, theta: Tensor) -> Tensor:
        rows = ops.reshape(theta, (-1, self.ndim, self.ndim + 1))
        return matrix_exponential(_homogeneous(rows))[:, : self.ndim]

    def _inverse(self, theta: Tensor, points: Tensor) -> Tensor:
        return self._map(-theta, points)


@dataclass(frozen=True)
class Homography(Family):
    """x -> the projective map of 1 + H, whose last entry is 1."""

    ndim: int

    @property
    def parameters(self) -> int:
        return (self.ndim + 1) ** 2 - 1

    def _matrix(self, theta: Tensor) -> Tensor:
        n = self.ndim + 1
        return ops.reshape(ops.pad(theta, ((0, 0), (0, 1))), (-1, n, n)) + ops.eye(n, dtype=theta.dtype)

    @staticmethod
    def _project(matrix: Tensor, points: Tensor) -> Tensor:
        ndim = points.shape[-1]
        there = ops.matmul(points - MIDDLE, ops.transpose(matrix[:, :, :ndim], (0, 2, 1))) + matrix[:, None, :, ndim]
        return there[..., :ndim] / there[..., ndim:] + MIDDLE

    def _map(self, theta: Tensor, points: Tensor) -> Tensor:
        return self._project(self._matrix(theta), points)

    def _inverse(self, theta: Tensor, points: Tensor) -> Tensor:
        return self._project(ops.inv(self._matrix(theta)), points)


@dataclass(frozen=True)
class ThinPlate(Family):
    """Thin-plate splines; theta holds the displacements of control points on a regular grid over the box.

    The kernel is r^2 log r in 2-D and r in 3-D (Bookstein 1989).
    """

    ndim: int
    per_axis: int = 4

    @property
    def parameters(self) -> int:
        return self.ndim * self.per_axis**self.ndim

    @cached_property
    def controls(self) -> np.ndarray:
        """(n, d)."""
        axis = (np.arange(self.per_axis) + 0.5) / self.per_axis
        return np.stack(np.meshgrid(*[axis] * self.ndim, indexing="ij"), axis=-1).reshape(-1, self.ndim)

    @cached_property
    def _coefficients(self) -> np.ndarray:
        """(n + d + 1, n) from displacements to the coefficients of kernels and of 1, x, ..."""
        controls = self.controls
        square = ((controls[:, None] - controls[None]) ** 2).sum(-1)
        kernel = 0.5 * square * np.log(np.where(square > 0, square, 1)) if self.ndim == 2 else np.sqrt(square)
        flat = np.concatenate([np.ones((len(controls), 1)), controls], axis=1)
        zero = np.zeros((self.ndim + 1, self.ndim + 1))
        return np.linalg.inv(np.block([[kernel, flat], [flat.T, zero]]))[:, : len(controls)]

    def _map(self, theta: Tensor, points: Tensor) -> Tensor:
        displacements = ops.reshape(theta, (-1, len(self.controls), self.ndim))
        found = ops.matmul(ops.convert_to_tensor(self._coefficients, theta.dtype), displacements)
        away = points[:, :, None] - ops.convert_to_tensor(self.controls, theta.dtype)
        square = ops.maximum(ops.sum(away * away, axis=-1), 1e-12)
        kernel = 0.5 * square * ops.log(square) if self.ndim == 2 else ops.sqrt(square)
        terms = ops.concatenate([kernel, ops.ones_like(points[..., :1]), points], axis=-1)
        return points + ops.matmul(terms, found)


@dataclass(frozen=True)
class Cpab(Family):
    """The flow of a continuous piecewise affine velocity: see `r2reg.flow.cpab`.

    Args:
        boxes: along each axis. boundary: whether the box's surface rests.
    """

    boxes: tuple[int, ...]
    boundary: Boundary = "fixed"

    @property
    def ndim(self) -> int:  # type: ignore[override]
        return len(self.boxes)

    @property
    def tessellation(self) -> Tessellation:
        """The cells."""
        return tessellate(self.boxes, self.boundary)

    @property
    def parameters(self) -> int:
        return self.tessellation.parameters

    def _map(self, theta: Tensor, points: Tensor) -> Tensor:
        return cpab(theta, points, self.tessellation)

    def _inverse(self, theta: Tensor, points: Tensor) -> Tensor:
        return self._map(-theta, points)


@dataclass(frozen=True)
class AffineCpab(Cpab):
    """CPAB, then a diffeomorphic affine map: one composed map, so one interpolation; theta holds the affine's first."""

    @property
    def affine(self) -> AffineDiff:
        """What comes second."""
        return AffineDiff(self.ndim)

    @property
    def parameters(self) -> int:
        return self.affine.parameters + self.tessellation.parameters

    def split(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """The affine's parameters and CPAB's."""
        return theta[:, : self.affine.parameters], theta[:, self.affine.parameters :]

    def _map(self, theta: Tensor, points: Tensor) -> Tensor:
        linear, rest = self.split(theta)
        return self.affine.map(linear, cpab(rest, points, self.tessellation))

    def _inverse(self, theta: Tensor, points: Tensor) -> Tensor:
        linear, rest = self.split(theta)
        return cpab(-rest, self.affine.inverse(linear, points), self.tessellation)


def make_family(name: FamilyName, ndim: int, boxes: int | tuple[int, ...] = 3, boundary: Boundary = "fixed") -> Family:
    """A family by its name; `boxes`, of each axis or of all, and `boundary` are CPAB's.

    Raises:
        ConfigError: no such family, or a tessellation that cannot be.
    """
    plain: dict[str, type[Affine] | type[Homography] | type[ThinPlate]] = {
        "affine": Affine,
        "affine-diff": AffineDiff,
        "homography": Homography,
        "tps": ThinPlate,
    }
    if name in plain:
        return plain[name](ndim)
    if name not in get_args(FamilyName):
        raise ConfigError(f"{name}: is no family of maps; known are {', '.join(get_args(FamilyName))}")
    counts = tuple(np.atleast_1d(boxes).tolist()) * (ndim if np.ndim(boxes) == 0 else 1)
    if len(counts) != ndim or not all(isinstance(count, int) for count in counts):
        raise ConfigError(f"boxes {boxes}: must be one whole number, or {ndim} of a {ndim}-D map")
    tessellated = {"cpab": Cpab, "affine-cpab": AffineCpab}[name](counts, boundary)
    tessellated.tessellation  # noqa: B018 - what cannot be cut is told now
    return tessellated


def family_field(family: Family, theta: Tensor, shape: tuple[int, ...], inverse: bool = False) -> Tensor:
    """(B, P) -> (B, *shape, d), voxels: the displacement of a grid's voxels by the map, or by its inverse."""
    shares = ops.convert_to_tensor(voxel_shares(shape), theta.dtype)
    points = ops.broadcast_to(shares[None], (ops.shape(theta)[0], *shares.shape))
    carry = family.inverse if inverse else family.map
    moved = (carry(theta, points) - points) * ops.convert_to_tensor(shape, theta.dtype)
    return ops.reshape(moved, (-1, *shape, len(shape)))


def voxel_shares(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    """(voxels, d): the centres of a grid's voxels as shares of the box that the grid fills."""
    axes = [(np.arange(n) + 0.5) / n for n in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(shape)).astype(dtype)
