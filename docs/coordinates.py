"""Draws coordinates.svg: python docs/coordinates.py"""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "r2reg"  # the same file from the same drawing
matplotlib.rcParams["svg.fonttype"] = "none"

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#888888"


def arrow(axes: Axes, begin: tuple[float, float], end: tuple[float, float], colour: str, **how: object) -> None:
    """From one place to the other."""
    style = {"arrowstyle": "-|>", "color": colour, "lw": 2, "mutation_scale": 16, "shrinkA": 0, "shrinkB": 0} | how
    axes.annotate("", end, begin, arrowprops=style)


def beside(axes: Axes, place: np.ndarray, shift: tuple[float, float], text: str, **how: object) -> None:
    """A word near a place."""
    axes.text(place[0] + shift[0], place[1] + shift[1], text, **how)  # type: ignore[arg-type]


def head(axes: Axes) -> None:
    """An axial slice seen from above, and both world frames in it."""
    turn = np.linspace(0, 2 * np.pi, 200)
    axes.fill(3 * np.cos(turn), 3.7 * np.sin(turn), color="#eeeeee", ec=GREY)
    axes.fill([-0.5, 0, 0.5], [3.62, 4.3, 3.62], color="#eeeeee", ec=GREY)
    for x in (-3.15, 3.15):
        axes.fill(x + 0.25 * np.cos(turn), 0.7 * np.sin(turn), color="#eeeeee", ec=GREY)
    for text, x, y in (("Right", 4.3, 0), ("Left", -4.3, 0), ("Anterior", 0, 4.8), ("Posterior", 0, -4.6)):
        axes.text(x, y, text, ha="center", va="center", color=GREY)
    for colour, sign, name, above in ((BLUE, 1, "RAS", 1), (ORANGE, -1, "LPS", -1)):
        arrow(axes, (0, 0), (2.4 * sign, 0), colour)
        arrow(axes, (0, 0), (0, 2.4 * sign), colour)
        axes.text(1.9 * sign, 0.4 * above, "x", color=colour, ha="center", va="center")
        axes.text(0.35 * sign, 2.2 * sign, "y", color=colour, ha="center", va="center")
        axes.text(1.35 * sign, 1.5 * sign, name, color=colour, ha="center", va="center", weight="bold")
    axes.plot(0, 0, "o", color="black", ms=9, mfc="white")
    axes.plot(0, 0, "o", color="black", ms=3)
    axes.text(0.3, -0.45, "z, to the viewer\n(Superior)", fontsize=8, va="top")
    axes.set(title="World frames, mm: a head seen from above", xlim=(-5.4, 5.4), ylim=(-5.4, 5.4))


def voxels(axes: Axes) -> None:
    """An oblique, anisotropic grid in RAS."""
    angle, origin = np.deg2rad(20), np.array([1.5, 1.0])
    columns = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * np.array([1.9, 1.1])
    for i in range(4):
        for j in range(5):
            corners = [columns @ (np.array([i, j]) + step) + origin for step in np.array(
                [[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]
            )]  # fmt: skip
            axes.fill(*np.array(corners).T, fc="none", ec=GREY, lw=0.8)
            axes.plot(*(columns @ [i, j] + origin), ".", color=GREY, ms=4)
    for step, name in (((1, 0), "A[:, 0], one voxel along i"), ((0, 1), "A[:, 1], along j")):
        end = columns @ step + origin
        arrow(axes, tuple(origin), tuple(end), GREEN)
        shift = (0.2, -0.95) if step[0] else (-0.75, 0.35)
        beside(axes, end, shift, name, color=GREEN, fontsize=9, ha="left" if step[0] else "right")
    arrow(axes, (-1.4, -0.6), tuple(origin), "black", lw=1, linestyle="--")
    axes.text(0.4, -0.15, "A[:, d]", ha="left")
    beside(axes, origin, (0.1, -0.55), "index (0, 0)", fontsize=9)
    arrow(axes, (-1.4, -0.6), (0.4, -0.6), BLUE)
    arrow(axes, (-1.4, -0.6), (-1.4, 1.2), BLUE)
    axes.text(0.6, -0.6, "x", color=BLUE, va="center")
    axes.text(-1.4, 1.45, "y", color=BLUE, ha="center")
    axes.set(title="Voxels: ras = A[:d, :d] @ index + A[:d, d]", xlim=(-3.6, 8.6), ylim=(-2.2, 8.0))


def maps(axes: Axes) -> None:
    """A fixed grid, where warp and affine carry it, and one point on its way."""
    lines = np.linspace(0, 4, 9)
    fine = np.linspace(0, 4, 60)

    def warp(x: np.ndarray) -> np.ndarray:
        bump = np.exp(-((x[..., 0] - 2.2) ** 2 + (x[..., 1] - 2.2) ** 2) / 1.6)
        return x + np.stack([0.75 * bump, 0.45 * bump], axis=-1)

    def affine(x: np.ndarray) -> np.ndarray:
        return x @ np.array([[0.92, 0.33], [-0.3, 0.98]]) + [6.2, -0.6]

    def grid(image: object, colour: str) -> None:
        for line in lines:
            for points in (
                np.stack([fine, np.full_like(fine, line)], -1),
                np.stack([np.full_like(fine, line), fine], -1),
            ):
                axes.plot(*image(points).T, color=colour, lw=0.6)  # type: ignore[operator]

    grid(lambda x: x, BLUE)
    grid(lambda x: affine(warp(x)), ORANGE)
    start = np.array([1.5, 1.5])
    middle, end = warp(start), affine(warp(start))
    arrow(axes, tuple(start), tuple(middle), GREEN, shrinkA=3)
    arrow(axes, tuple(middle), tuple(end), "black", shrinkB=4, connectionstyle="arc3,rad=-0.25")
    axes.plot(*start, "o", color=BLUE)
    axes.plot(*end, "o", color=ORANGE)
    beside(axes, start, (-0.12, -0.4), "x", color=BLUE, weight="bold", ha="right")
    beside(axes, middle, (-0.55, 0.28), "warp: x + w(x)", color=GREEN, ha="center")
    axes.text(5.0, 2.8, "affine: A(.)", ha="center")
    beside(axes, end, (0.25, -0.4), "A(x + w(x))", color=ORANGE, weight="bold")
    arrow(axes, (end[0] - 0.2, end[1] - 0.75), (start[0] + 0.1, start[1] - 0.75), GREY, lw=1.5, linestyle="--",
          connectionstyle="arc3,rad=-0.3")  # fmt: skip
    axes.text(4.9, -0.95, "intensity: moved(x) = moving(A(x + w(x)))", color=GREY, ha="center", va="top")
    axes.text(2, 4.3, "fixed image's grid", color=BLUE, ha="center")
    axes.text(8.6, 4.9, "the same grid in the moving image", color=ORANGE, ha="center")
    axes.set(
        title="Transforms carry points from fixed to moving; the image is pulled back",
        xlim=(-0.8, 11.2),
        ylim=(-1.7, 6),
    )


def main() -> None:
    """Writes the picture beside this file."""
    figure, axes = pyplot.subplot_mosaic(
        [["head", "voxels"], ["maps", "maps"]], figsize=(10, 10.5), layout="constrained"
    )
    for draw, name in ((head, "head"), (voxels, "voxels"), (maps, "maps")):
        draw(axes[name])
        axes[name].set_aspect("equal")
        axes[name].axis("off")
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
