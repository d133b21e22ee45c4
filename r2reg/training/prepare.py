"""Every image of a table, read once, aligned, brought to the training grid and kept on disk."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from r2reg.config import TrainConfig
from r2reg.errors import OutputError, TrainingError
from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine
from r2reg.io.files import atomic_path, sha256
from r2reg.io.images import Volume, read_image, read_labels, read_mask
from r2reg.preprocessing.affine.initial import initial_affine
from r2reg.preprocessing.intensity import normalise
from r2reg.training.grids import label_grid, to_grid
from r2reg.training.synthesis import draw, paint, strip_skull

log = logging.getLogger(__name__)
CACHE_VERSION = 2  # part of every cache key: raise it when the preparation changes
# Of the affine alignment and of the images painted for it: not the training's, so that its seeds share a
# cache.
ALIGN_SEED = 0


@dataclass(frozen=True)
class Source:
    """The files of one image before preparation; at least one of image and labels."""

    name: str
    image: Path | None = None
    labels: Path | None = None
    mask: Path | None = None

    @property
    def files(self) -> list[Path]:
        """Those that are given, in a fixed order."""
        return [f for f in (self.image, self.labels, self.mask) if f is not None]


@dataclass(frozen=True)
class Item:
    """One prepared image: files of arrays on the training grid.

    image: float32 in [0, 1]; None where images are painted. labels: integers, on the grid of `label_grid`. mask: bool.
    """

    name: str
    image: Path | None
    labels: Path | None
    mask: Path | None

    def files(self) -> dict[str, str | None]:
        """The names of the files in their folder."""
        paths = {"image": self.image, "labels": self.labels, "mask": self.mask}
        return {what: path.name if path else None for what, path in paths.items()}

    @classmethod
    def in_folder(cls, folder: Path, names: dict[str, str | None]) -> Item:
        """The item whose `files` gave these names.

        Raises:
            TrainingError: a file is gone.
        """
        paths = {what: folder / name if name else None for what, name in names.items()}
        gone = next((path for path in paths.values() if path and not path.is_file()), None)
        if gone:
            raise TrainingError(f"{gone}: the prepared image is gone; train again in the same folder with --resume")
        return cls(str(folder), paths["image"], paths["labels"], paths["mask"])

    def load(self, what: str) -> np.ndarray | None:
        """The array of `image`, `labels` or `mask`, mapped from disk; None where there is none."""
        path = getattr(self, what)
        return None if path is None else np.load(path, mmap_mode="r", allow_pickle=False)


@dataclass(frozen=True)
class Loaded:
    """One image as read: normalised image and mask on the image's own grid, labels on theirs.

    Where images are painted, `image` holds the labels of the brain alone, which is what is aligned.
    """

    image: Volume
    labels: Volume | None
    mask: Volume | None


def load(source: Source, config: TrainConfig) -> Loaded:
    """Read one source; where images are painted, `image` is a painting of the labels.

    Raises:
        ImageError: a file that cannot be read or holds what cannot be trained on.
    """
    labels = read_labels(source.labels) if source.labels else None
    mask = read_mask(source.mask) if source.mask else None
    if config.synthesis == "labels":
        if labels is None:
            raise TrainingError(f"{source.name}: has no label map to paint; fill the labels column")
        brain = replace(labels, array=strip_skull(labels.array))
        return Loaded(brain, brain if config.skull == "strip" else labels, mask)
    if source.image is None:
        raise TrainingError(f"{source.name}: has no image; fill the image column or use --synthesis labels")
    image = read_image(source.image)
    return Loaded(replace(image, array=normalise(image.array, config.clip, name=str(source.image))), labels, mask)


def foreground(loaded: Loaded, config: TrainConfig) -> np.ndarray:
    """(X, Y[, Z]) bool on the image's grid: painted classes, or voxels brighter than the mean."""
    if config.synthesis == "labels":
        return loaded.image.array > 0
    return loaded.image.array > loaded.image.array.mean()


def align(reference: Loaded, moving: Loaded, config: TrainConfig) -> Affine:
    """The affine from the reference's points to the moving image's, RAS mm; the identity with align none."""
    if config.align == "none":
        return Affine(np.eye(reference.image.grid.ndim + 1))
    fixed, other = reference.image, moving.image
    if config.synthesis == "labels":
        ids = np.union1d(np.unique(fixed.array), np.unique(other.array)).tolist()
        recipe = draw(np.random.default_rng(ALIGN_SEED), ids)
        fixed = replace(fixed, array=paint(fixed.array, recipe))
        other = replace(other, array=paint(other.array, recipe))
    return initial_affine(fixed, other, "affine", seed=ALIGN_SEED, threads=config.threads or None)


class Cache:
    """Prepared arrays in one folder, named by the SHA-256 of what they were made from."""

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        self.folder = folder
        self.settings = {
            "version": CACHE_VERSION,
            "align": config.align,
            "synthesis": config.synthesis,
            "clip": config.clip,
            "skull": config.skull == "strip",
        }
        self._hashes: dict[Path, str] = {}

    def content(self, path: Path) -> str:
        """SHA-256 of a file, or of the files of a folder (DICOM)."""
        if path not in self._hashes:
            files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
            parts = [sha256(f) for f in files]
            self._hashes[path] = parts[0] if len(parts) == 1 else _digest(parts)
        return self._hashes[path]

    def key(self, source: Source, reference: Source, grid: Grid) -> str:
        """Changes with the content of the source or its reference, the grid and the settings."""
        named = {n: self.content(p) for n in ("image", "labels", "mask") if (p := getattr(source, n))}
        return _digest(
            [
                self.settings,
                named,
                [self.content(f) for f in reference.files],
                grid.shape,
                grid.affine.round(6).tolist(),
            ]
        )[:32]

    def find(self, source: Source, key: str) -> Item | None:
        """The item, if it is complete."""
        index = self.folder / f"{key}.json"
        if not index.is_file():
            return None
        names = json.loads(index.read_text(encoding="utf-8"))
        paths = {what: self.folder / name if name else None for what, name in names.items()}
        complete = all(p is None or p.is_file() for p in paths.values())
        return Item(source.name, paths["image"], paths["labels"], paths["mask"]) if complete else None

    def store(self, source: Source, key: str, arrays: dict[str, np.ndarray | None]) -> Item:
        """Write the arrays, then the small file that says they are complete."""
        names = {what: None if a is None else f"{key}_{what}.npy" for what, a in arrays.items()}
        for what, array in arrays.items():
            if array is not None:
                with atomic_path(self.folder / f"{key}_{what}.npy") as path:
                    np.save(path, array, allow_pickle=False)
        with atomic_path(self.folder / f"{key}.json") as path:
            path.write_text(json.dumps(names), encoding="utf-8")
        found = self.find(source, key)
        if found is None:
            raise OutputError(f"{self.folder}: prepared images vanished while they were written; start again")
        return found


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def prepare(
    source: Source, reference: Source, reference_loaded: Loaded, grid: Grid, config: TrainConfig, cache: Cache
) -> Item:
    """Align one source to its reference and resample it to the grid, or find it in the cache.

    Raises:
        ImageError, RegistrationError, TrainingError: with the source's path.
    """
    key = cache.key(source, reference, grid)
    found = cache.find(source, key)
    if found is not None:
        return found
    log.info("preparing %s", source.name)
    same = source == reference
    loaded = reference_loaded if same else load(source, config)
    if loaded.image.grid.ndim != grid.ndim:
        raise TrainingError(f"{source.name}: is {loaded.image.grid.ndim}-D and the first image {grid.ndim}-D")
    affine = Affine(np.eye(grid.ndim + 1)) if same else align(reference_loaded, loaded, config)
    return cache.store(source, key, resample_all(loaded, grid, [affine], config))


def resample_all(
    loaded: Loaded, grid: Grid, transforms: Sequence[Affine], config: TrainConfig
) -> dict[str, np.ndarray | None]:
    """Image (None where it will be painted) and mask on the training grid, labels on that of `label_grid`."""
    painted = config.synthesis == "labels"
    image = None if painted else to_grid(loaded.image, grid, transforms).astype(np.float32)
    labels = (
        None
        if loaded.labels is None
        else to_grid(loaded.labels, label_grid(loaded.labels.grid, grid), transforms, "nearest")
    )
    mask = None if loaded.mask is None else to_grid(loaded.mask, grid, transforms, "nearest") > 0
    return {"image": image, "labels": labels, "mask": mask}
