"""What a spatial transformer of each family costs, forward and gradient, against the affine one, in turn in one run.

    python benchmarks/layer_cost.py [--repeats 5] [--threads 1]

An image of 160x192 and one of 80x96x112 are moved by maps of a few per cent of their size, the gradient is that of the
sum of squares in theta. Prints a Markdown table: medians, and the median of the ratios to the affine call beside each.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from results import markdown

SHAPES = ((160, 192), (80, 96, 112))
FAMILIES = ("affine", "affine-diff", "homography", "tps", "cpab", "affine-cpab")
BOXES = {2: 4, 3: 3}
SIZE = 0.05  # standard deviation of theta


def calls(family: Any, shape: tuple[int, ...]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The layer's forward pass, and that with its gradient in theta."""
    from keras import ops

    from r2reg.flow import backend
    from r2reg.networks.transformer import SpatialTransformer

    layer = SpatialTransformer(family, len(shape), BOXES[len(shape)])
    rng = np.random.default_rng(0)
    theta = ops.convert_to_tensor(rng.normal(0, SIZE, (1, layer.family.parameters)).astype("float32"))
    image = ops.convert_to_tensor(rng.random((1, *shape, 1), dtype="float32"))
    loss = lambda theta: ops.sum(ops.square(layer([theta, image])[1]))  # noqa: E731
    return lambda: ops.convert_to_numpy(loss(theta)), lambda: ops.convert_to_numpy(backend.gradient(loss, theta))


def seconds(call: Callable[[], Any]) -> float:
    """Of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Measure all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="[%(default)s]")
    parser.add_argument("--threads", type=int, default=1, help="[%(default)s]")
    options = parser.parse_args()
    from r2reg.startup import start_backend

    start_backend("cpu", options.threads, False, 0)
    rows = []
    for shape in SHAPES:
        made = {family: calls(family, shape) for family in FAMILIES}
        for pair in made.values():
            for call in pair:
                call()  # compiled
        taken = {
            family: [[seconds(call) for call in made[family]] for _ in range(options.repeats)] for family in FAMILIES
        }
        for family in FAMILIES:
            ratios = []
            for own, base in zip(taken[family], taken["affine"], strict=True):
                ratios.append([mine / theirs for mine, theirs in zip(own, base, strict=True)])
            medians = [statistics.median(column) for column in zip(*taken[family], strict=True)]
            over = [statistics.median(column) for column in zip(*ratios, strict=True)]
            cells = [f"{medians[0]:.3f}", f"{over[0]:.1f}", f"{medians[1]:.3f}", f"{over[1]:.1f}"]
            rows.append(["x".join(map(str, shape)), family, *cells])
    print(markdown(["image", "family", "forward, s", "to affine", "with gradient, s", "to affine"], rows))


if __name__ == "__main__":
    main()
