"""What a benchmark's results say: a table of means, and paired tests between the methods."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r2reg.errors import ConfigError, TableError
from r2reg.evaluation.results import LABELS_FILE, RESULTS_FILE, run_folder
from r2reg.evaluation.scoring import PICTURES_FILE
from r2reg.io.files import atomic_path

if TYPE_CHECKING:
    import pandas

TABLE, STATISTICS_FILE = "table1", "statistics.json"
SCHEMA_VERSION = 1
# Column -> title, digits, and whether more is better (None: neither).
SCORES: dict[str, tuple[str, int, bool | None]] = {
    "mse": ("MSE", 4, False),
    "lncc": ("LNCC", 3, True),
    "dice_mean": ("Dice", 3, True),
    "hd95_mm": ("HD95, mm", 2, False),
    "tre_mean_mm": ("TRE, mm", 2, False),
    "folds": ("folds", 1, False),
    "ndv_percent": ("NDV, %", 4, False),
    "digital_folds": ("digital folds", 1, False),
    "sdlogj": ("SDlogJ", 3, None),
    "inverse_residual_p99_mm": ("inverse residual p99, mm", 3, False),
    "seconds": ("seconds", 1, False),
    "peak_memory_gigabytes": ("memory, GB", 2, False),
}
COMPARED = ("dice_mean", "hd95_mm", "tre_mean_mm", "lncc", "mse", "sdlogj", "seconds")
AGAINST = ("dice_mean", "tre_mean_mm")  # shown against the baseline
PLOTTED = ("dice_mean", "hd95_mm", "tre_mean_mm", "lncc", "sdlogj")
ALPHA = 0.05
P_VALUES = ("t_p", "wilcoxon_p", "tost_p")


def read_results(path: Path) -> pandas.DataFrame:
    """The rows of results.csv, numbers as numbers; memory in gigabytes as well.

    Raises:
        TableError: no such table, or none of ours.
    """
    try:
        frame = _read_csv(path)
        frame["peak_memory_gigabytes"] = frame["peak_memory_bytes"] / 1e9
    except (OSError, ValueError, KeyError) as error:
        raise TableError(f"{path}: is not a table of `r2reg benchmark` ({error})") from None
    return frame


def _read_csv(path: Path) -> pandas.DataFrame:
    """A table of ours; a pair may be called NA."""
    import pandas

    return pandas.read_csv(
        path, dtype={"id": str, "method": str, "reason": str, "host": str}, keep_default_na=False, na_values=[""]
    )


def summarise(folder: Path | str, baseline: str, margin: float) -> tuple[str, dict[str, Any]]:
    """Write table1.md, .csv and .tex, statistics.json, report.html and figures/ beside results.csv.

    Args:
        baseline: the method that the text compares the others with.
        margin: of equivalence in Dice.
    Returns:
        The Markdown, and the content of statistics.json.
    """
    folder = Path(folder)
    frame = read_results(folder / RESULTS_FILE)
    if baseline not in set(frame["method"]):
        raise ConfigError(f"--baseline {baseline}: is none of the methods, {', '.join(frame['method'].unique())}")
    table = means(frame)
    found = {
        **{"schema_version": SCHEMA_VERSION, "baseline": baseline, "margin_dice": margin, "alpha": ALPHA},
        "correction": "Holm, over all pairs of methods of a metric",
        "comparisons": compare(frame, margin),
    }
    text = markdown(frame, table, found)
    for ending, content in ((".md", text), (".csv", table.to_csv(index=False)), (".tex", latex(table))):
        with atomic_path(folder / f"{TABLE}{ending}") as path:
            path.write_text(content, encoding="utf-8")
    with atomic_path(folder / STATISTICS_FILE) as path:
        path.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    _write_page(folder, frame, table, found)
    return text, found


def _write_page(folder: Path, frame: pandas.DataFrame, table: pandas.DataFrame, found: dict[str, Any]) -> None:
    import pandas

    from r2reg.report.benchmark import write_page

    labels = _read_csv(folder / LABELS_FILE)
    tables = {"Mean ± standard deviation over pairs": _as_text(table)}
    for metric in AGAINST:
        lines = lines_against(found, metric)
        if len(lines):
            tables[f"{SCORES[metric][0]} against {found['baseline']}, pair by pair"] = _as_text(lines)
    columns = [name for name in SCORES if frame[name].notna().any()]
    every = frame[["id", "method", "status"]].copy()
    for name in columns:
        title, digits, _ = SCORES[name]
        every[title] = [f"{value:.{digits}f}" if pandas.notna(value) else "" for value in frame[name]]
    main = next((name for name in ("dice_mean", "tre_mean_mm", "lncc") if name in columns), "mse")
    write_page(
        folder,
        frame,
        labels,
        pictures={
            (row.id, row.method): run_folder(folder, row.id, row.method) / PICTURES_FILE for row in frame.itertuples()
        },
        tables=tables,
        every=_as_text(every.rename(columns={"id": "pair"})),
        scores={main: SCORES[main], **{name: SCORES[name] for name in PLOTTED if name in columns and name != main}},
        summary=sentences(frame, found, main),
        notes=notes(found),
    )


def _as_text(table: pandas.DataFrame) -> tuple[list[str], list[list[str]]]:
    return [str(name) for name in table], [[str(cell) for cell in row] for row in table.itertuples(index=False)]


def sentences(frame: pandas.DataFrame, found: dict[str, Any], metric: str) -> list[str]:
    """What a reader wants to know first."""
    done = frame[frame["status"] == "done"]
    told = [
        f"{frame['id'].nunique()} pairs, {frame['method'].nunique()} methods; "
        f"{len(done)} of {len(frame)} registrations done."
    ]
    title, digits, more = SCORES[metric]
    ranked = done.groupby("method", sort=False)[metric].mean().dropna().sort_values(ascending=not more)
    if ranked.empty:
        return told
    best, baseline = str(ranked.index[0]), found["baseline"]
    told.append(f"Best mean {title}: {best}, {ranked.iloc[0]:.{digits}f}.")
    others = [row for row in against(found["comparisons"], baseline, metric) if row["method"] == best]
    for row in others:
        p = "" if row["t_p_holm"] is None else f", p = {row['t_p_holm']:.2g} (paired t-test, Holm)"
        told.append(
            f"Against {baseline}: {row['mean_difference']:+.{digits}f}, 95 % interval {row['ci95_low']:+.{digits}f} to "
            f"{row['ci95_high']:+.{digits}f}{p}, {row['n']} pairs."
        )
    return told


def means(frame: pandas.DataFrame) -> pandas.DataFrame:
    """A row per method, in the order of the first: mean ± standard deviation over its pairs, as text."""
    import pandas

    rows = []
    for method, runs in frame.groupby("method", sort=False):
        done = runs[runs["status"] == "done"]
        row = {"method": method, "pairs": f"{len(done)}" if len(done) == len(runs) else f"{len(done)} of {len(runs)}"}
        rows.append(row | {title: mean_sd(done[name], digits) for name, (title, digits, _) in SCORES.items()})
    table = pandas.DataFrame(rows)
    return table[[name for name in table if (table[name] != "").any()]]


def mean_sd(values: Any, digits: int) -> str:
    """`mean ± sd` (of the sample), the mean alone for a single value, nothing for none."""
    known = values.dropna()
    if known.empty:
        return ""
    mean = f"{known.mean():.{digits}f}"
    return mean if len(known) == 1 else f"{mean} ± {known.std():.{digits}f}"


def latex(table: pandas.DataFrame) -> str:
    """The table for booktabs."""
    return str(table.to_latex(index=False, escape=True)).replace("±", r"$\pm$")


def compare(frame: pandas.DataFrame, margin: float) -> list[dict[str, Any]]:
    """Every two methods on the pairs that both have done, metric by metric; Holm's correction within a metric."""
    done = frame[frame["status"] == "done"]
    methods = list(frame["method"].unique())
    found = []
    for metric in COMPARED:
        wide = done.pivot(index="id", columns="method", values=metric)
        family = []
        for a, b in itertools.combinations([m for m in methods if m in wide], 2):
            both = wide[[a, b]].dropna()
            if len(both) >= 2:
                tests = paired_tests(both[a].tolist(), both[b].tolist(), margin if metric == "dice_mean" else None)
                family.append({"metric": metric, "method": a, "other": b, **tests})
        found += holm(family)
    return found


def paired_tests(a: Sequence[float], b: Sequence[float], margin: float | None) -> dict[str, Any]:
    """Is the mean of a - b other than 0, and is it within the margin?

    Returns:
        n; mean_difference, sd, ci95_low, ci95_high; t_p (paired t-test) and wilcoxon_p (signed ranks), two-sided;
        cohen_dz (mean over sd) and rank_biserial in [-1, 1]; tost_p of two one-sided paired t-tests against the
        margin. None where a test says nothing: all differences alike, or no margin.
    """
    import numpy as np
    from scipy import stats
    from statsmodels.stats.weightstats import ttost_paired

    gaps = np.asarray(a, float) - np.asarray(b, float)
    mean, sd = float(gaps.mean()), float(gaps.std(ddof=1))
    found: dict[str, Any] = {"n": len(gaps), "mean_difference": mean, "sd": sd}
    varies = sd > 1e-12 * max(abs(mean), 1e-300)
    test = stats.ttest_rel(a, b) if varies else None
    interval = test.confidence_interval(1 - ALPHA) if test else (mean, mean)
    found |= {"ci95_low": float(interval[0]), "ci95_high": float(interval[1])}
    found["t_p"] = float(test.pvalue) if test else None
    moved = gaps[gaps != 0]
    found["wilcoxon_p"] = float(stats.wilcoxon(moved).pvalue) if len(moved) else None
    found["cohen_dz"] = mean / sd if varies else None
    ranks = stats.rankdata(np.abs(moved))
    found["rank_biserial"] = float((ranks * np.sign(moved)).sum() / ranks.sum()) if len(moved) else 0.0
    found["tost_p"] = None
    if margin is not None:
        found["margin"] = margin
        found["tost_p"] = float(ttost_paired(np.asarray(a), np.asarray(b), -margin, margin)[0]) if varies else None
    return found


def holm(family: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With Holm's correction of each p-value over the family, as `t_p_holm` and so on, and what follows from them."""
    from statsmodels.stats.multitest import multipletests

    for name in P_VALUES:
        known = [row for row in family if row[name] is not None and math.isfinite(row[name])]
        corrected = multipletests([row[name] for row in known], method="holm")[1] if known else []
        for row in family:
            row[f"{name}_holm"] = None
        for row, value in zip(known, corrected, strict=True):
            row[f"{name}_holm"] = float(value)
    for row in family:
        row["different"] = row["t_p_holm"] is not None and row["t_p_holm"] < ALPHA
        row["equivalent"] = row["tost_p_holm"] is not None and row["tost_p_holm"] < ALPHA
    return family


def against(comparisons: Sequence[dict[str, Any]], baseline: str, metric: str) -> list[dict[str, Any]]:
    """The comparisons of a metric that involve the baseline, turned so that the other method comes first."""
    found = []
    for row in comparisons:
        if row["metric"] == metric and baseline in (row["method"], row["other"]):
            found.append(row if row["other"] == baseline else turned(row))
    return found


def turned(row: dict[str, Any]) -> dict[str, Any]:
    """The same comparison the other way round."""
    signed = ("mean_difference", "cohen_dz", "rank_biserial")
    return {
        **row,
        **{name: None if row[name] is None else -row[name] for name in signed},
        **{"method": row["other"], "other": row["method"]},
        **{"ci95_low": -row["ci95_high"], "ci95_high": -row["ci95_low"]},
    }


def markdown(frame: pandas.DataFrame, table: pandas.DataFrame, found: dict[str, Any]) -> str:
    """The tables, and what is behind them."""
    parts = ["Mean ± standard deviation over pairs.", table.to_markdown(index=False, disable_numparse=True)]
    for metric in AGAINST:
        lines = lines_against(found, metric)
        if len(lines):
            parts.append(f"{SCORES[metric][0]} against `{found['baseline']}`, pair by pair:")
            parts.append(lines.to_markdown(index=False, disable_numparse=True))
    parts.append(notes(found))
    failed = frame[frame["status"] != "done"]
    parts += [f"- {row.id}, `{row.method}` failed: {row.reason}" for row in failed.itertuples()]
    return "\n\n".join(parts) + "\n"


NOTES = """\
Dice and HD95: labels carried by nearest neighbour onto fixed's grid, the mean over labels; a label that only one
of the two images holds has Dice 0 and no distance, one that neither holds is left out. MSE and LNCC: images scaled
to [0, 1]. Folds, NDV, digital folds and SDlogJ are of the warp without the affine, on fixed's grid. Seconds and
memory are of the whole process, reading and writing included. p: paired t-test, Holm's correction over all pairs
of methods; equivalent: two one-sided paired t-tests with a margin of {margin:g} in Dice, so corrected, below
{alpha:g}."""


def notes(found: dict[str, Any]) -> str:
    """What is behind the figures."""
    return NOTES.format(margin=found["margin_dice"], alpha=ALPHA)


def lines_against(found: dict[str, Any], metric: str) -> pandas.DataFrame:
    """The comparisons of a metric with the baseline, as text."""
    import pandas

    digits = SCORES[metric][1] + 1
    return pandas.DataFrame([_line(row, digits) for row in against(found["comparisons"], found["baseline"], metric)])


def _line(row: dict[str, Any], digits: int) -> dict[str, str]:
    p = row["t_p_holm"]
    return {
        "method": row["method"],
        "difference": f"{row['mean_difference']:+.{digits}f}",
        "95 % interval": f"{row['ci95_low']:+.{digits}f} to {row['ci95_high']:+.{digits}f}",
        "p": "" if p is None else f"{p:.2g}",
        "Cohen's dz": "" if row["cohen_dz"] is None else f"{row['cohen_dz']:.2f}",
        **({"equivalent": "yes" if row["equivalent"] else "no"} if "margin" in row else {}),
        "pairs": str(row["n"]),
    }
