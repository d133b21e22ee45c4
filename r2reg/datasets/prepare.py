"""A data set as distributed -> NIfTI files, tables for training and benchmarks, and a manifest with checksums."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from r2reg import __version__
from r2reg.datasets.layouts import Scan, find_scans
from r2reg.errors import OutputError, TableError
from r2reg.geometry.grid import Grid
from r2reg.io.files import sha256, staging
from r2reg.io.images import Volume, read_image, read_labels, read_mask, write_image
from r2reg.io.tables import SPLITS, write_table
from r2reg.preprocessing.intensity import normalise
from r2reg.training.grids import to_grid, training_grid

log = logging.getLogger("r2reg")

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
FOLDERS = {"image": "images", "labels": "labels", "mask": "masks"}
PAIRS, COHORT, SPLIT_PAIRS = "pairs.csv", "cohort.csv", {"val": "pairs_val.csv", "test": "pairs_test.csv"}
OURS = (*FOLDERS.values(), PAIRS, COHORT, *SPLIT_PAIRS.values(), MANIFEST)  # what may lie in OUTPUT of an earlier run


def describe(name: str) -> dict[str, Any]:
    """What ships with r2reg of a set: source, licence, citation, label names, split and pairs."""
    text = (resources.files("r2reg.data_manifests") / f"{name}.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def prepare(
    name: str,
    root: Path | str,
    output: Path | str,
    *,
    seed: int = 0,
    overwrite: bool = False,
    say: Callable[[str], None] = log.info,
) -> Path:
    """Prepare a set as the R2Net paper does, and split it by people.

    OUTPUT gets images/, labels/ and masks/ (NIfTI, intensities in [0, 1]); pairs.csv of a set that comes in pairs, else
    cohort.csv, and with labels pairs_val.csv and pairs_test.csv; and manifest.json with the SHA-256 of every file.

    Args:
        name: acdc, empire10, oasis, ibsr18 or bids.
        root: the folder as its owners distribute it.
        seed: of the split and of the pairs, see `shuffled`.
    Returns:
        The table to train on.
    Raises:
        TableError, ImageError: what is not as it should be. OutputError: OUTPUT is not empty, or cannot be written.
        Whatever fails leaves OUTPUT as it was.
    """
    root, output = Path(root), Path(output)
    about = describe(name)
    scans = find_scans(name, root)
    if output.exists() and any(output.iterdir()) and not overwrite:
        raise OutputError(f"{output}: is not empty; give --overwrite or another folder")
    if root.resolve() == output.resolve() or output.resolve() in root.resolve().parents:
        raise OutputError(f"{output}: holds the data set itself; write into another folder")
    foreign = [] if (output / MANIFEST).exists() else [name for name in OURS if (output / name).exists()]
    if foreign:
        raise OutputError(f"{output}: holds {foreign[0]} and no {MANIFEST}, so it is not ours; choose another folder")
    splits = split_people([scan.subject for scan in scans], about["split"], f"{name}:{seed}")
    with staging(output, OURS, last=MANIFEST) as folder:
        files: dict[str, dict[str, str]] = {}
        for number, (subject, group) in enumerate(itertools.groupby(scans, lambda scan: scan.subject), start=1):
            for scan, volumes in PREPARATIONS[name](list(group)):
                files[scan.id] = _write(scan, volumes, folder)
            say(f"{number}/{len(splits)} {subject}: {splits[subject]}")
        table = _write_tables(scans, splits, files, folder, about["pairs"], f"{name}:{seed}")
        _write_manifest(name, seed, about, splits, folder)
    return output / table.name


def _write_manifest(name: str, seed: int, about: dict[str, Any], splits: dict[str, str], folder: Path) -> None:
    manifest = {
        **{"schema_version": SCHEMA_VERSION, "set": name, "seed": seed, "r2reg": __version__},
        **{key: about[key] for key in ("title", "source", "licence", "citation", "labels", "preparation")},
        "people": {split: sum(value == split for value in splits.values()) for split in SPLITS},
        "sha256": {
            path.relative_to(folder).as_posix(): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()
        },
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def shuffled(names: Iterable[str], salt: str) -> list[str]:
    """Names in the order of their SHA-256 with a salt: the same everywhere, and hardly moved by one that is missing."""
    return sorted(set(names), key=lambda name: hashlib.sha256(f"{salt}:{name}".encode()).hexdigest())


def split_people(people: Sequence[str], counts: Sequence[int], salt: str) -> dict[str, str]:
    """Person -> train, val or test.

    Args:
        counts: of people to train, validate and test on; with another number of people, in the same proportions, and
            at least one for each part that has any.
    """
    ordered = shuffled(people, salt)
    total = len(ordered)
    least = 1 if total >= len(SPLITS) else 0
    val, test = (max(round(total * count / sum(counts)), least) if count else 0 for count in counts[1:])
    kinds = ["test"] * test + ["val"] * val + ["train"] * (total - test - val)
    return dict(zip(ordered, kinds, strict=True))


Prepared = dict[str, Volume]


def _volumes(scan: Scan, grid: Grid, clip: tuple[float, float] | None = None) -> Prepared:
    """A scan's image in [0, 1], labels and mask on a grid."""
    image = read_image(scan.image)
    scaled = image.with_array(normalise(image.array, clip, name=str(scan.image)))
    found = {"image": Volume(to_grid(scaled, grid, []), grid)}
    if scan.labels:
        labels = read_labels(scan.labels)
        found["labels"] = Volume(to_grid(labels, grid, [], "nearest"), grid)
    if scan.mask:
        mask = read_mask(scan.mask)
        found["mask"] = Volume(to_grid(mask.with_array(mask.array.astype(np.uint8)), grid, [], "nearest"), grid)
    return found


def _heart(scans: list[Scan]) -> list[tuple[Scan, Prepared]]:
    """Both phases on 176 x 176 x 16 voxels of 1.25 x 1.25 x 10 mm about the middle of the first."""
    first = read_image(scans[0].image).grid
    grid = training_grid(first, np.ones(first.shape, bool), (1.25, 1.25, 10.0), (176, 176, 16), 1)
    return [(scan, _volumes(scan, grid)) for scan in scans]


def _lungs(scans: list[Scan]) -> list[tuple[Scan, Prepared]]:
    """The box around each scan's lungs on 192^3 voxels, which keep their true size in mm."""
    found = []
    for scan in scans:
        mask = read_mask(scan.mask or scan.image)
        grid = box_grid(mask.grid, mask.array, 192)
        found.append((scan, _volumes(scan, grid)))
    return found


def box_grid(grid: Grid, inside: np.ndarray, count: int) -> Grid:
    """count^d voxels over the box of a mask, along canonical axes."""
    canonical = grid.canonical()
    ends = [
        np.flatnonzero(inside.any(axis=tuple(a for a in range(grid.ndim) if a != axis))) for axis in range(grid.ndim)
    ]
    if not all(len(held) for held in ends):
        raise TableError("a lung mask is empty; copy the data set again")
    corners = np.array(np.meshgrid(*[(held[0] - 0.5, held[-1] + 0.5) for held in ends], indexing="ij"))
    index = canonical.ras_to_index(grid.index_to_ras(corners.reshape(grid.ndim, -1).T))
    low, high = index.min(axis=0), index.max(axis=0)
    step = (high - low) / count
    affine = canonical.affine.copy()
    affine[:-1, :-1] = canonical.affine[:-1, :-1] * step
    affine[:-1, -1] = canonical.index_to_ras(low + step / 2)
    return Grid((count,) * grid.ndim, affine)


def _as_it_is(scans: list[Scan]) -> list[tuple[Scan, Prepared]]:
    """On its own grid."""
    return [(scan, _volumes(scan, read_image(scan.image).grid)) for scan in scans]


def _brain(scans: list[Scan]) -> list[tuple[Scan, Prepared]]:
    """224^3 voxels of 1 mm about the brain."""
    found = []
    for scan in scans:
        image = read_image(scan.image)
        grid = training_grid(image.grid, image.array > image.array.min(), (1.0, 1.0, 1.0), (224, 224, 224), 1)
        found.append((scan, _volumes(scan, grid)))
    return found


PREPARATIONS: dict[str, Callable[[list[Scan]], list[tuple[Scan, Prepared]]]] = {
    "acdc": _heart,
    "empire10": _lungs,
    "oasis": _as_it_is,
    "ibsr18": _brain,
    "bids": _as_it_is,
}


def _write(scan: Scan, volumes: Prepared, folder: Path) -> dict[str, str]:
    """Write what was prepared; kind -> path relative to the table."""
    paths = {}
    for kind, volume in volumes.items():
        name = f"{FOLDERS[kind]}/{scan.id}.nii.gz"
        (folder / name).parent.mkdir(exist_ok=True)
        write_image(folder / name, volume.array, volume)
        paths[kind] = name
    return paths


def _write_tables(
    scans: Sequence[Scan],
    splits: dict[str, str],
    files: dict[str, dict[str, str]],
    folder: Path,
    counts: dict[str, int | None],
    salt: str,
) -> Path:
    """The table to train on; and of a set of single scans, pairs to validate and to test on, so many of each."""
    if any(scan.role for scan in scans):
        rows = []
        for subject, group in itertools.groupby(scans, lambda scan: scan.subject):
            sides = {scan.role: files[scan.id] for scan in group}
            rows.append(_pair_row(subject, sides["moving"], sides["fixed"]) | {"split": splits[subject]})
        return write_table(folder / PAIRS, rows)
    rows = [files[scan.id] | {"subject": scan.subject, "split": splits[scan.subject]} for scan in scans]
    table = write_table(folder / COHORT, rows)
    for split, name in SPLIT_PAIRS.items():
        people = [scan for scan in scans if splits[scan.subject] == split]
        pairs = ordered_pairs([scan.id for scan in people], counts.get(split), f"{salt}:{split}")
        if pairs:
            write_table(folder / name, [_pair_row(f"{m}_to_{f}", files[m], files[f]) for m, f in pairs])
    return table


def ordered_pairs(names: Sequence[str], count: int | None, salt: str) -> list[tuple[str, str]]:
    """All ordered pairs, or `count` of them chosen by `shuffled`."""
    pairs = list(itertools.permutations(sorted(names), 2))
    if count is None or count >= len(pairs):
        return pairs
    by_name = {"\n".join(pair): pair for pair in pairs}
    return [by_name[name] for name in shuffled(by_name, salt)[:count]]


def _pair_row(name: str, moving: dict[str, str], fixed: dict[str, str]) -> dict[str, str]:
    row = {"id": name, "moving": moving["image"], "fixed": fixed["image"]}
    for kind in ("labels", "mask"):
        row |= {
            f"{side}_{kind}": files[kind] for side, files in (("moving", moving), ("fixed", fixed)) if kind in files
        }
    return row
