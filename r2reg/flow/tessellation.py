"""A box cut into simplices, on which velocities are continuous and piecewise affine (Freifeld et al. 2017, CPAB).

Coordinates are shares of the box: [0, 1] along each axis.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any, Literal

import numpy as np

from r2reg.errors import ConfigError

Boundary = Literal["fixed", "free"]
MOST_PARAMETERS = 10_000


@cache
def tessellate(counts: tuple[int, ...], boundary: Boundary) -> Tessellation:
    """The `Tessellation`, one and the same each time: what is compiled for it serves all who use it."""
    return Tessellation(counts, boundary)


class Tessellation:
    """The box cut into `counts` boxes, each into four triangles around its centre or into six tetrahedra (Kuhn's).

    Attributes:
        corners: (V, d) places of the vertices.
        cells: (C, d + 1) their numbers; the simplices of one box follow one another.
        neighbours: (C, d + 1) the cell beyond the facet opposite to each vertex, -1 where there is none.
        to_weights: (C, d + 1, d + 1) from (x, 1) to the barycentric weights in the cell.
        basis: (V, P / d) from parameters to the vertices' velocities. With a fixed boundary the vertices on it rest;
            around a free one lies a ring of boxes, whose outer vertices move like the nearest on the boundary.
        low, size: of the lattice of boxes, (d,): its corner and a box.

    Raises:
        ConfigError: not two or three axes, an axis with no box, or no parameter or too many.
    """

    def __init__(self, counts: Sequence[int], boundary: Boundary = "fixed") -> None:
        if len(counts) not in (2, 3) or min(counts) < 1:
            raise ConfigError(
                f"a tessellation needs two or three numbers of boxes, at least 1 along each axis. Received: {counts}"
            )
        if boundary not in ("fixed", "free"):
            raise ConfigError(f"the boundary must be fixed or free. Received: {boundary!r}")
        self.counts, self.boundary = tuple(counts), boundary
        inner = math.prod(n - 1 if boundary == "fixed" else n + 1 for n in counts)
        count = (inner + (math.prod(counts) if len(counts) == 2 else 0)) * len(counts)
        if not 0 < count <= MOST_PARAMETERS:
            raise ConfigError(
                f"{'x'.join(map(str, counts))} boxes with a {boundary} boundary have {count} parameters; "
                f"give {'more' if count == 0 else 'fewer'} boxes (at most {MOST_PARAMETERS} parameters)"
            )
        ring = int(boundary == "free")
        shares = 1 / np.array(counts)
        self.low, self.size = -ring * shares, shares
        self.boxes = tuple(n + 2 * ring for n in counts)
        corners, cells = _simplices(self.boxes)
        self.corners, self.cells = self.low + corners * self.size, cells
        self.neighbours = _neighbours(cells)
        self.to_weights = _to_weights(self.corners[cells])
        self.basis = self._basis()

    @property
    def ndim(self) -> int:
        """d."""
        return len(self.counts)

    @property
    def per_box(self) -> int:
        """Simplices of one box."""
        return len(self.cells) // math.prod(self.boxes)

    @property
    def parameters(self) -> int:
        """P, how many numbers theta has."""
        return self.basis.shape[1] * self.ndim

    @cached_property
    def unit_weights(self) -> np.ndarray:
        """(per_box, d + 1, d + 1) from (x, 1), x a share of a box, to the weights in its simplices."""
        corners = (self.corners[self.cells[: self.per_box]] - self.low) / self.size
        return _to_weights(corners)

    def _basis(self) -> np.ndarray:
        slack = 1e-9
        nearest = np.clip(self.corners, 0, 1)
        if self.boundary == "fixed":
            inner: np.ndarray = np.all((self.corners > slack) & (self.corners < 1 - slack), axis=1)
            return np.eye(len(inner))[:, inner]
        own = np.abs(self.corners - nearest).max(axis=1) < slack
        places = self.corners[own]
        # Of a ring's centre no vertex lies exactly below: the mean of the nearest ones.
        distance = np.linalg.norm(nearest[:, None] - places[None], axis=-1)
        close = distance < distance.min(axis=1, keepdims=True) + slack
        return close / close.sum(axis=1, keepdims=True)


def _to_weights(corners: np.ndarray) -> np.ndarray:
    """(C, d + 1, d) corners of simplices -> (C, d + 1, d + 1) from (x, 1) to barycentric weights."""
    homogeneous = np.concatenate([corners, np.ones((*corners.shape[:2], 1))], axis=-1)
    return np.linalg.inv(np.swapaxes(homogeneous, 1, 2))


def _simplices(boxes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Vertices in units of boxes, and the simplices' vertex numbers, box by box."""
    ndim = len(boxes)
    lattice = np.stack(np.meshgrid(*[np.arange(n + 1.0) for n in boxes], indexing="ij"), axis=-1).reshape(-1, ndim)
    number = np.arange(len(lattice)).reshape([n + 1 for n in boxes])
    cells: list[Sequence[Any]] = []
    if ndim == 2:
        around = [(0, 0), (1, 0), (1, 1), (0, 1)]
        centres = np.stack(np.meshgrid(*[np.arange(n) + 0.5 for n in boxes], indexing="ij"), axis=-1).reshape(-1, 2)
        for box, corner in enumerate(np.ndindex(*boxes)):
            ids = [number[tuple(np.add(corner, step))] for step in around]
            cells += [(ids[k], ids[(k + 1) % 4], len(lattice) + box) for k in range(4)]
        return np.concatenate([lattice, centres]), np.array(cells)
    for corner in np.ndindex(*boxes):
        for order in itertools.permutations(range(ndim)):
            steps = np.cumsum(np.eye(ndim, dtype=int)[list(order)], axis=0)
            cells.append([number[corner], *(number[tuple(np.add(corner, step))] for step in steps)])
    return lattice, np.array(cells)


def _neighbours(cells: np.ndarray) -> np.ndarray:
    of_facet: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for cell, ids in enumerate(cells):
        for k in range(len(ids)):
            of_facet.setdefault(tuple(sorted(np.delete(ids, k).tolist())), []).append((cell, k))
    found = np.full(cells.shape, -1)
    for sides in of_facet.values():
        if len(sides) == 2:
            (a, ka), (b, kb) = sides
            found[a, ka], found[b, kb] = b, a
    return found
