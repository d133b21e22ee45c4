"""What a network buys in each contrast and across contrasts, on every pair of people that it was not trained on.

    for S in t1 t2 flair ct t1-t2 ...; do
        python benchmarks/painted_pairs.py LABELS -o sets/$S --pairs 12 --contrast $S --subjects 13-16 --spacing 2
    done
    python benchmarks/every_contrast.py sets/* -o every_contrast.csv [--model brain] [--threads 1] [--part 1/2]

Each set is a folder that painted_pairs.py made; its name stands in the table. Methods: `affine` of r2reg; `syn`,
ANTsPy's with its defaults, its own affine and metric, so with iterations at a quarter and half of the images' size;
`none`, refinement without a network; `alone`, the network; `default`, what `register` does by itself. All methods of a
pair run in one process, which compiles the refinement once for pairs of one size, and those of r2reg begin with one
affine. So seconds would say nothing; `r2reg benchmark` measures those. Pairs of one seed are the same people and poses
in each set.

A row is written when it is known; started again, the script goes on. --part K/N does every N-th pair, for N processes
beside each other, each with a table of its own; --methods leaves some for later. Afterwards `--summary TABLE...`
prints means and medians as Markdown, with --with 13 or --without 13 of the pairs with and without person 13.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from results import append_row, markdown, read_rows

METHODS = ("affine", "syn", "none", "alone", "default")
COLUMNS = ("set", "id", "method", "dice", "lncc", "ndv_percent", "digital_folds", "sdlogj", "certified")
# Heading -> the better and the worse method of a column of differences.
GAINS = {
    "alone above syn": ("alone", "syn"),
    "default above syn": ("default", "syn"),
    "default above none": ("default", "none"),
}


def options_of(method: str, model: str) -> dict[str, str]:
    """What `r2reg.register` is asked for."""
    return {
        "none": {"model": "none"},
        "alone": {"model": model, "refine": "none"},
        "default": {},
    }[method]


def run(files: dict[str, str], folder: Path, model: str, threads: int, wanted: Iterable[str]) -> Iterator[dict]:
    """The rows of a pair, but for its names."""
    import r2reg
    from r2reg.evaluation.peers import PEERS
    from r2reg.evaluation.scoring import AFFINE, FREESURFER_STRUCTURES, WARP, evaluate

    images = files["moving"], files["fixed"]
    for method in wanted:
        own = folder / method
        own.mkdir()
        certified: Any = ""
        if method == "syn":
            PEERS["syn"](*map(Path, images), own, threads)
        elif method == "affine":
            r2reg.register(*images, transform="affine", threads=threads).save(own, report=False, overwrite=True)
        else:
            begun = {"init": str(folder / "affine" / AFFINE)}
            found = r2reg.register(*images, threads=threads, **options_of(method, model), **begun)
            found.save(own, report=False, overwrite=True)
            certified = found.metrics["deformation"]["certified"]
        transforms = [str(own / name) for name in (WARP, AFFINE) if (own / name).exists()]
        scores = evaluate(files, transforms, FREESURFER_STRUCTURES)
        row = {name: scores.get(name, "") for name in COLUMNS}
        yield row | {"method": method, "dice": scores["dice"]["mean"], "certified": certified}


def fill(options: argparse.Namespace) -> None:
    """Add what is missing in the table."""
    part, parts = map(int, options.part.split("/"))
    done = defaultdict(set)
    for row in read_rows(options.output):
        done[row["set"], row["id"]].add(row["method"])
    pairs = [(folder, row) for folder in options.sets for row in read_rows(folder / "pairs.csv")]
    if not pairs:
        raise SystemExit("no pairs: give folders with a pairs.csv, as painted_pairs.py makes them")
    for folder, row in pairs[part - 1 :: parts]:
        missing = [method for method in options.methods if method not in done[folder.name, row["id"]]]
        files = {name: str(folder / file) for name, file in row.items() if name != "id"}
        if not missing:
            continue
        wanted = dict.fromkeys(["affine", *missing])  # all begin with the affine, which may be in the table
        with tempfile.TemporaryDirectory() as work:
            for found in run(files, Path(work), options.model, options.threads, wanted):
                if found["method"] in missing:
                    append_row(options.output, COLUMNS, found | {"set": folder.name, "id": row["id"]})
                    print(folder.name, row["id"], found["method"], f"{found['dice']:.3f}", flush=True)


def summary(rows: Sequence[dict[str, str]]) -> str:
    """Mean Dice of each set, of one and of two contrasts; gains, in how many pairs, medians; then LNCC."""
    dice, lncc = grouped(rows, "dice"), grouped(rows, "lncc")
    table = []
    for name, whole in dice.items():
        cells = [name, str(len(whole)), *means(whole)]
        for better, worse in GAINS.values():
            gains = [s[better] - s[worse] for s in whole]
            ahead = f"{sum(g > 0 for g in gains)} of {len(whole)}"
            cells.append(f"{np.mean(gains):+.3f} ({ahead}, median {np.median(gains):+.3f})")
        table.append(cells)
    likeness = [[name, str(len(whole)), *means(whole)] for name, whole in lncc.items()]
    return "\n\n".join(
        [
            "Dice:\n\n" + markdown(["fixed, moving", "pairs", *METHODS, *GAINS], table),
            "LNCC:\n\n" + markdown(["fixed, moving", "pairs", *METHODS], likeness),
        ]
    )


def grouped(rows: Sequence[dict[str, str]], name: str) -> dict[str, list[dict[str, float]]]:
    """A score by method of each pair that has all, in each set, then of one and of two contrasts."""
    found: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        group = "**two contrasts**" if "-" in row["set"] else "**one contrast**"
        for key in (row["set"], group):
            found[key][f"{row['set']} {row['id']}"][row["method"]] = float(row[name])
    order = sorted(found, key=lambda key: (key.startswith("*"), "-" in key, key))
    whole = {key: [scores for scores in found[key].values() if len(scores) == len(METHODS)] for key in order}
    return {key: pairs for key, pairs in whole.items() if pairs}


def means(whole: Sequence[dict[str, float]]) -> list[str]:
    """Of each method."""
    return [f"{np.mean([scores[method] for scores in whole]):.3f}" for method in METHODS]


def main() -> None:
    """Fill a table, or print what tables hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path, nargs="+", help="folders with pairs.csv; tables with --summary")
    parser.add_argument("-o", "--output", type=Path, default=Path("every_contrast.csv"))
    parser.add_argument("--model", default="brain", help="of `alone`")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=METHODS)
    parser.add_argument("--part", default="1/1", metavar="K/N")
    parser.add_argument("--summary", action="store_true")
    people = parser.add_mutually_exclusive_group()
    people.add_argument("--with", dest="only", default="", metavar="PERSON", help="of the pairs of a --summary")
    people.add_argument("--without", default="", metavar="PERSON", help="of pairs that a --summary leaves out")
    options = parser.parse_args()
    if options.summary:
        rows = [row for table in options.sets for row in read_rows(table)]
        rows = [row for row in rows if options.without not in row["id"].split("_to_")]
        rows = [row for row in rows if not options.only or options.only in row["id"].split("_to_")]
        print(summary(rows))
        bent = [row for row in rows if row["method"] not in ("affine", "syn")]
        unfolded = sum(float(row["ndv_percent"]) == 0 == int(row["digital_folds"]) for row in bent)
        certified = sum(row["certified"] == "True" for row in bent)
        print(f"\nOf {len(bent)} maps {unfolded} have no fold, {certified} a certificate.")
        return
    if options.only or options.without:
        parser.error("--with and --without are of --summary")
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(options.threads)
    logging.disable(logging.WARNING)
    fill(options)


if __name__ == "__main__":
    main()
