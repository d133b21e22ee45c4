"""What a study leaves: tables, the paper's claims with a verdict, figures, the environment."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r2reg.errors import OutputError
from r2reg.evaluation.processes import environment
from r2reg.io.files import atomic_path
from r2reg.io.tables import write_table

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

SIGNIFICANT = 0.05
FEWEST = 3  # values of a side, or trainings, by which a claim is judged


@dataclass(frozen=True)
class Claim:
    """What a paper says, what it reports, what was found here; holds None: not tested."""

    claim: str
    paper: str
    ours: str
    holds: bool | None


def write_outcome(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    tables: dict[str, pandas.DataFrame],
    claims: Sequence[Claim],
    tested: bool = True,
) -> None:
    """Write table.csv (all rows), table.md (titles and tables, then the claims), claims.json and environment.json.

    Args:
        tested: whether the rows are of a whole study; of another no claim is judged.
    """
    if not tested:
        claims = [dataclasses.replace(claim, holds=None) for claim in claims]
    write_table(folder / "table.csv", rows)
    parts = [f"{title}\n\n{table.to_markdown(index=False, floatfmt='.3g')}" for title, table in tables.items()]
    told = {True: "holds", False: "does not hold", None: "not tested, or not told apart"}
    verdicts = [f"- {c.claim}: **{told[c.holds]}**. Paper: {c.paper}. Here: {c.ours}." for c in claims]
    write_text(folder / "table.md", "\n\n".join([*parts, "\n".join(verdicts)]) + "\n")
    write_text(folder / "claims.json", json.dumps([dataclasses.asdict(c) for c in claims], indent=2) + "\n")
    write_text(folder / "environment.json", json.dumps(environment(0), indent=2) + "\n")


def open_folder(folder: Path, study: str, quick: bool, **about: str | int) -> None:
    """Make a study's folder, or go on in the one that was made for the same.

    Args:
        about: what else decides what is in it.
    Raises:
        OutputError: it is of another study, of a quick one where this is none, or of something else; or it cannot be
            made.
    """
    asked = {"study": study, "quick": quick, **about}
    path = folder / "study.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except (OSError, ValueError) as error:
        raise OutputError(f"{folder}: cannot be a study's folder ({error}); give another (-o)") from None
    if held is None and any(folder.iterdir()):
        raise OutputError(f"{folder}: is neither empty nor of a study; give another folder (-o)")
    if held not in (None, asked):
        told = ", ".join(f"{name} {value}" for name, value in held.items()) if isinstance(held, dict) else "another"
        raise OutputError(f"{folder}: is of another study ({told}); give this one another folder (-o)")
    if held is None:
        write_text(path, json.dumps(asked) + "\n")


def write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_figure(figure: Figure, path: Path) -> None:
    """As .png."""
    import matplotlib.pyplot as plt

    path.parent.mkdir(exist_ok=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def told_apart(first: Sequence[float], second: Sequence[float]) -> bool | None:
    """Whether first is larger than second: by `larger` with five pairs or more, else where no value overlaps.

    None, not told apart, with fewer than FEWEST, with values that are not finite, or where few overlap.
    """
    import numpy as np

    if min(len(first), len(second)) < FEWEST or not np.isfinite([*first, *second]).all():
        return None
    if len(first) == len(second) >= 5:
        return larger(first, second)
    if min(first) > max(second):
        return True
    return False if max(first) < min(second) else None


def larger(first: Sequence[float], second: Sequence[float]) -> bool | None:
    """Whether first is larger than second, or smaller, seed by seed (Wilcoxon, one-sided); None: not told apart."""
    import numpy as np
    from scipy.stats import wilcoxon

    difference = np.subtract(first, second)
    if len(difference) < 5 or not difference.any():
        return None
    for alternative, told in (("greater", True), ("less", False)):
        if wilcoxon(difference, alternative=alternative).pvalue < SIGNIFICANT:
            return told
    return None
