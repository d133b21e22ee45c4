"""Figures of a benchmark as SVG text, and pictures as PNG: for a page that needs no network."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas

# Okabe and Ito's palette, which colour-blind readers can tell apart; markers tell the methods apart as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
MARKERS = "osD^vP*X"
DIVERGING = "PuOr"
JPEG_QUALITY = 75
LABELS_SHOWN = 60  # of a label plot; more would be unreadable


def style(k: int) -> dict[str, str]:
    """Colour and marker of the k-th method."""
    return {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[(k + k // len(COLOURS)) % len(MARKERS)]}


def _figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure in inches that no screen is needed for."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any, title: str) -> str:
    """SVG text that scales with the page and says what it shows."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "r2reg"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Title": title})
    text = buffer.getvalue()
    start = text.index("<svg")
    return f'<svg role="img" aria-label="{title}"{text[start + len("<svg") :]}'


def box_plot(values: Mapping[str, Sequence[float]], title: str) -> str:
    """Each method's distribution over pairs: quartiles, whiskers to 1.5 times their range, a point per pair."""
    figure, axes = _figure(7, 0.45 * len(values) + 0.9)
    names = list(values)
    rng = np.random.default_rng(0)
    for k, name in enumerate(names):
        row = len(names) - k
        axes.boxplot(
            list(values[name]),
            positions=[row],
            orientation="horizontal",
            widths=0.6,
            showfliers=False,
            medianprops={"color": "black", "linewidth": 1.6},
            boxprops={"color": style(k)["color"]},
            whiskerprops={"color": style(k)["color"]},
            capprops={"color": style(k)["color"]},
        )
        shift = rng.uniform(-0.15, 0.15, len(values[name]))
        axes.scatter(values[name], row + shift, s=14, alpha=0.7, linewidths=0, **style(k))
    axes.set_yticks(range(len(names), 0, -1), names)
    axes.set_xlabel(title)
    axes.grid(axis="x", alpha=0.3)
    return _svg(figure, f"Box plot of {title} by method")


def time_against(frame: pandas.DataFrame, score: str, title: str) -> str:
    """Seconds, logarithmic, against a score: every pair small, each method's mean large."""
    figure, axes = _figure(7, 4)
    for k, (method, runs) in enumerate(frame.groupby("method", sort=False)):
        known = runs[["seconds", score]].dropna()
        if known.empty:
            continue
        axes.scatter(known["seconds"], known[score], s=20, alpha=0.5, linewidths=0, **style(k))
        mean = known.mean()
        axes.scatter(mean["seconds"], mean[score], s=90, edgecolors="black", linewidths=0.8, label=method, **style(k))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:g}"[0] in "25" else "")
    axes.set_xlabel("seconds per pair, whole process")
    axes.set_ylabel(title)
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return _svg(figure, f"Seconds against {title} by method")


def label_plot(labels: pandas.DataFrame) -> str:
    """Mean Dice of every label by method, the labels in the order of their mean; the lowest where there are many."""
    table = labels.pivot_table(index="label", columns="method", values="dice", sort=False)
    table = table.loc[table.mean(axis=1).sort_values().index[:LABELS_SHOWN]]
    figure, axes = _figure(7, 0.17 * len(table) + 1.2)
    rows = np.arange(len(table))
    for k, method in enumerate(dict.fromkeys(labels["method"])):
        axes.scatter(table[method], rows, s=22, label=method, alpha=0.9, linewidths=0, **style(k))
    axes.set_yticks(rows, [str(label) for label in table.index], fontsize=7)
    axes.set_xlabel("mean Dice")
    axes.set_ylabel("label")
    axes.set_ylim(-0.7, len(table) - 0.3)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return _svg(figure, "Mean Dice of each label by method")


def png(picture: np.ndarray) -> str:
    """A grey (H, W) or coloured (H, W, 3) uint8 picture as a data URL."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, picture, format="png", cmap="gray", vmin=0, vmax=255)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def mosaic(pictures: np.ndarray, kind: Literal["JPEG", "PNG"]) -> str:
    """(n, H, W) uint8 below each other as one picture, a data URL; JPEG for greys, PNG where each value counts."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pictures.reshape(-1, pictures.shape[-1]))).save(
        buffer, kind, **({"quality": JPEG_QUALITY} if kind == "JPEG" else {})
    )
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()


def diverging_colours() -> list[list[int]]:
    """256 colours for -1 to 1, which colour-blind readers can tell apart: orange, white, purple."""
    from matplotlib import colormaps

    table: list[list[int]] = colormaps[DIVERGING].resampled(256)(np.arange(256), bytes=True)[:, :3].tolist()
    return table


def jacobian_bar(doublings: float, unit: str) -> str:
    """The colours of a Jacobian from 2^-doublings to 2^doublings."""
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import Normalize

    figure, axes = _figure(5, 0.7)
    bar = Colorbar(axes, cmap=DIVERGING, norm=Normalize(-doublings, doublings), orientation="horizontal")
    ticks = np.arange(-doublings, doublings + 1)
    bar.set_ticks(list(ticks), labels=[f"{2.0**t:g}" for t in ticks])
    bar.set_label(f"size in moving over size in fixed ({unit})")
    return _svg(figure, "Colours of the Jacobian")


def jacobian_histogram(determinants: np.ndarray) -> str:
    """How often each change of volume occurs; what is not positive is counted in words."""
    figure, axes = _figure(5, 2.4)
    positive = determinants[determinants > 0]
    if positive.size:
        axes.hist(np.log2(positive), bins=80, color=COLOURS[0])
    axes.axvline(0, color="black", linewidth=0.8)
    folded = determinants.size - positive.size
    axes.set_xlabel(
        "log2 of the Jacobian: -1 is half the volume, 1 twice" + (f"; {folded} not positive" if folded else "")
    )
    axes.set_ylabel("voxels")
    return _svg(figure, "Histogram of the logarithm of the Jacobian")


def row_of_planes(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """(H, W) pictures side by side, padded with black to one height."""
    height = max(picture.shape[0] for picture in pictures)
    padded = []
    for picture in pictures:
        above = math.ceil((height - picture.shape[0]) / 2)
        padded.append(np.pad(picture, [(above, height - picture.shape[0] - above), (2, 2)]))
    return np.concatenate(padded, axis=1)


def overlay(fixed: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Fixed in orange, moved in blue, (H, W, 3): grey where they agree; tells apart under colour blindness."""
    warm, cold = fixed.astype(np.float32), moved.astype(np.float32)
    colours = np.stack([warm, (warm + cold) / 2, cold], axis=-1)
    return np.clip(colours, 0, 255).astype(np.uint8)
