"""Is a table what it promises: every file readable, on its image's grid, and no person or image in two splits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r2reg.datasets.prepare import MANIFEST
from r2reg.errors import R2RegError, TableError
from r2reg.io.files import content_sha256, sha256
from r2reg.io.images import Volume, read_image, read_labels, read_reference
from r2reg.io.tables import PAIR_FILES, is_pairs, read_cohort, read_pairs
from r2reg.registration.pair import label_ids


@dataclass
class Finding:
    """What a check found: how much was looked at, and each problem in a line."""

    table: str
    kind: str
    rows: dict[str, int]
    files: int = 0
    labels: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Image:
    """An image of the table with what lies on its grid."""

    where: str
    split: str
    subject: str
    image: Path | None
    others: dict[str, Path]


def check_table(path: Path | str) -> Finding:
    """Check a cohort or a table of pairs, and the manifest beside it where there is one.

    Raises:
        TableError: a table that cannot be read at all.
    """
    path = Path(path)
    pairs = is_pairs(path)
    images = _of_pairs(path) if pairs else _of_cohort(path)
    splits = [image.split for image in images][:: 2 if pairs else 1]
    found = Finding(str(path), "pairs" if pairs else "cohort", {s: splits.count(s) for s in dict.fromkeys(splits)})
    ids: dict[int, int] = {}
    for image in images:
        _check_image(image, found, ids)
    found.labels = sorted(ids)
    labelled = sum("labels" in image.others for image in images)
    alone = sorted(label for label, count in ids.items() if count == 1)
    if alone and labelled > 2:
        found.problems.append(f"labels {', '.join(map(str, alone))}: held by one label map of {labelled} only")
    found.problems += _in_two_splits(images)
    if (path.parent / MANIFEST).exists():
        found.problems += _against_manifest(path.parent)
    return found


def _of_cohort(path: Path) -> list[_Image]:
    header = path.open(encoding="utf-8-sig").readline().split(",")
    required = ("image",) if "image" in [name.strip() for name in header] else ("labels",)
    rows = read_cohort(path, required=required)
    return [
        _Image(
            f"line {row.line}",
            row.split,
            row.subject,
            row.image,
            {kind: file for kind, file in (("labels", row.labels), ("mask", row.mask)) if file},
        )
        for row in rows
    ]


def _of_pairs(path: Path) -> list[_Image]:
    images = []
    for row in read_pairs(path):
        for side in ("moving", "fixed"):
            others = {
                name.removeprefix(f"{side}_"): getattr(row, name)
                for name in PAIR_FILES
                if name.startswith(f"{side}_") and not name.endswith("points") and getattr(row, name)
            }
            images.append(_Image(f"line {row.line}, {side}", row.split, "", getattr(row, side), others))
    return images


def _check_image(image: _Image, found: Finding, ids: dict[int, int]) -> None:
    """Read everything once, and compare the grids."""

    def attempt(kind: str, file: Path) -> Volume | None:
        readers: dict[str, Any] = {"image": read_image, "labels": read_labels, "mask": read_reference}
        try:
            found.files += 1
            volume: Volume = readers[kind](file)
        except R2RegError as error:
            found.problems.append(f"{image.where}: {error}")
            return None
        return volume

    volumes = {kind: attempt(kind, file) for kind, file in image.others.items()}
    main = attempt("image", image.image) if image.image else None
    for kind, volume in volumes.items():
        if volume is not None and main is not None and volume.grid != main.grid:
            found.problems.append(f"{image.where}: {kind} {image.others[kind]} lies on another grid than {image.image}")
        if kind == "labels" and volume is not None:
            for label in label_ids(volume.array):
                ids[label] = ids.get(label, 0) + 1


def _in_two_splits(images: Sequence[_Image]) -> list[str]:
    """The same person, or the same content, trained and judged on."""
    problems = []
    for what in ("person", "image"):
        seen: dict[str, _Image] = {}
        for image in images:
            file = image.image or image.others.get("labels")
            key = image.subject if what == "person" else content_sha256(file) if file else ""
            first = seen.setdefault(key, image)
            if key and first.split != image.split:
                name = image.subject if what == "person" else f"{file} (the same as at {first.where})"
                problems.append(
                    f"{image.where}: {what} {name} is in {image.split} and, at {first.where}, in {first.split}"
                )
    return problems


def _against_manifest(folder: Path) -> list[str]:
    """Files that are gone or are not what was written."""
    try:
        listed: dict[str, str] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise TableError(
            f"{folder / MANIFEST}: is not a manifest of `r2reg data prepare`; prepare the set again"
        ) from None
    problems = []
    for name, digest in listed.items():
        if not (folder / name).is_file():
            problems.append(f"{folder / name}: is in the manifest and gone")
        elif sha256(folder / name) != digest:
            problems.append(f"{folder / name}: is not what the manifest lists; its content has changed")
    return problems
