"""report.html of a benchmark: one page that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from r2reg import __version__
from r2reg.io.files import atomic_path
from r2reg.report import figures, page

if TYPE_CHECKING:
    import pandas

PAGE, TEMPLATE = "report.html", "benchmark.html.j2"
FIGURES = "figures"  # a folder of the page's figures as files, for a paper
TextTable = tuple[Sequence[str], Sequence[Sequence[str]]]  # names of the columns, rows
PLANES = ("axial", "coronal", "sagittal", "image")


def write_page(
    folder: Path,
    frame: pandas.DataFrame,
    labels: pandas.DataFrame,
    pictures: Mapping[tuple[str, str], Path],
    tables: Mapping[str, TextTable],
    every: TextTable,
    scores: Mapping[str, tuple[str, int, bool | None]],
    summary: Sequence[str],
    notes: str,
) -> Path:
    """Write the page, and its figures as SVG files beside it.

    Args:
        frame: a row per pair and method; labels: a row per pair, method and label.
        pictures: (pair, method) -> file of slices, as the scoring leaves them.
        tables: heading -> column names and rows of text. every: the same of every pair.
        scores: column -> title, digits and whether more is better, of what is plotted; the first decides which cases
            are the worst.
        summary: sentences. notes: what is behind the figures.
    """
    done = frame[frame["status"] == "done"]
    plots = {}
    for column, (title, _, _) in scores.items():
        values = {str(m): runs[column].dropna().tolist() for m, runs in done.groupby("method", sort=False)}
        if any(values.values()):
            plots[column] = figures.box_plot({m: v for m, v in values.items() if v}, title)
    first = next(iter(scores))
    title, _, more = scores[first]
    time_plot = figures.time_against(done, first, title) if done["seconds"].notna().any() else ""
    label_plot = figures.label_plot(labels) if len(labels) else ""
    write_figures(folder / FIGURES, plots | {"time": time_plot, "labels": label_plot})
    return page.write_page(
        folder / PAGE,
        TEMPLATE,
        version=__version__,
        summary=summary,
        tables=tables,
        every=every,
        score=title,
        plots={scores[column][0]: plot for column, plot in plots.items()},
        time_plot=time_plot,
        label_plot=label_plot,
        cases=cases(done, first, pictures, lower_is_better=more is False),
        environment=json.loads((folder / "environment.json").read_text(encoding="utf-8")),
        failed=frame[frame["status"] != "done"][["id", "method", "reason"]].to_dict("records"),
        notes=notes,
    )


def write_figures(folder: Path, drawn: Mapping[str, str]) -> None:
    """Each figure that there is as NAME.svg, instead of those of an earlier page."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    for name, svg in drawn.items():
        if svg:
            with atomic_path(folder / f"{name}.svg") as path:
                path.write_text(svg + "\n", encoding="utf-8")


def cases(
    done: pandas.DataFrame, score: str, pictures: Mapping[tuple[str, str], Path], lower_is_better: bool = False
) -> list[dict[str, Any]]:
    """Each method's worst and median pair by a score, with what is shown of it."""
    found = []
    for method, runs in done.groupby("method", sort=False):
        ranked = runs.dropna(subset=[score]).sort_values(score, ascending=not lower_is_better)
        if ranked.empty:
            continue
        chosen = {"worst": ranked.iloc[0], "median": ranked.iloc[(len(ranked) - 1) // 2]}
        if len(ranked) == 1:
            del chosen["median"]
        for kind, row in chosen.items():
            path = pictures.get((row["id"], method))
            if path is not None and path.exists():
                found.append({"method": method, "kind": kind, "id": row["id"], "score": row[score], **_shown(path)})
    return found


def _shown(path: Path) -> dict[str, Any]:
    """Fixed, moved and both over each other, all planes side by side, as data URLs."""
    with np.load(path, allow_pickle=False) as file:
        planes = [plane for plane in PLANES if f"fixed_{plane}" in file.files]
        fixed, moved = (
            figures.row_of_planes([file[f"{name}_{plane}"] for plane in planes]) for name in ("fixed", "moved")
        )
    shown = {"fixed": fixed, "moved": moved, "overlay": figures.overlay(fixed, moved)}
    return {name: figures.png(picture) for name, picture in shown.items()}
