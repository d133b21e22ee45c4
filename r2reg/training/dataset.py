"""From a table to prepared images and the pairs to train and validate on."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from r2reg.config import EPOCH_STEPS, TrainConfig
from r2reg.errors import ConfigError, OutputError, TableError, TrainingError, listed
from r2reg.geometry.grid import Grid
from r2reg.io.tables import Pair, Subject, is_pairs, read_cohort, read_pairs
from r2reg.training.grids import training_grid
from r2reg.training.prepare import Cache, Item, Loaded, Source, foreground, load, prepare
from r2reg.training.shapes import MAPS, shape_items
from r2reg.training.synthesis import ids_around_brain, unknown_ids

log = logging.getLogger(__name__)
LEAST_VOXELS = 4  # mean size on the training grid of a label that is a class of the loss


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Prepared images and pairs of them, as (moving, fixed) places in `items`.

    given: the training pairs were given, and an epoch is one pass over them; otherwise they are all that a
    cohort allows, and an epoch is 100 random ones. label_ids: rising, without 0; trained_ids: those of them that are
    classes of the loss and of validation. held_out: the validation pairs hold images that are not trained on.
    """

    items: tuple[Item, ...]
    training: tuple[tuple[int, int], ...]
    validation: tuple[tuple[int, int], ...]
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    label_ids: tuple[int, ...]
    trained_ids: tuple[int, ...]
    given: bool
    held_out: bool

    @property
    def around_brain(self) -> tuple[int, ...]:
        """Those of label_ids that lie around a FreeSurfer map's brain: painted, but no structures to align."""
        return ids_around_brain(self.label_ids)

    @property
    def classes(self) -> np.ndarray:
        """(1 + number of label_ids,): 0, then of each id 1 + its place in trained_ids, or 0."""
        place = {label: k for k, label in enumerate(self.trained_ids, start=1)}
        return np.array([0, *(place.get(label, 0) for label in self.label_ids)])

    def validation_items(self) -> list[dict[str, dict[str, str | None]]]:
        """Of each validation pair the names of moving's and fixed's files in the cache; `reopened` reads it."""
        return [
            {"moving": self.items[moving].files(), "fixed": self.items[fixed].files()}
            for moving, fixed in self.validation
        ]

    def epoch_steps(self, batch_size: int) -> int:
        """Steps of one epoch."""
        return -(-len(self.training) // batch_size) if self.given else EPOCH_STEPS


def reopened(
    pairs: list[dict[str, dict[str, str | None]]],
    cache: Path,
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    label_ids: tuple[int, ...],
) -> Dataset:
    """The validation pairs of an earlier training, from its cache.

    Args:
        pairs: of `Dataset.validation_items`. shape, spacing: of the training grid.
    Raises:
        TrainingError: files that are gone.
    """
    items: list[Item] = []
    places = []
    for pair in pairs:
        fixed = len(items)
        items.append(Item.in_folder(cache, pair["fixed"]))
        if pair["moving"] != pair["fixed"]:  # of shapes both are one map
            items.append(Item.in_folder(cache, pair["moving"]))
        places.append((len(items) - 1, fixed))
    return Dataset(
        items=tuple(items),
        training=tuple(places),
        validation=tuple(places),
        shape=shape,
        spacing=spacing,
        label_ids=label_ids,
        trained_ids=label_ids,
        given=True,
        held_out=True,
    )


def read_table(table: Path, config: TrainConfig) -> list[Subject] | list[Pair]:
    """The rows of a cohort, or of given pairs, with the columns that the settings need.

    Raises:
        TableError: see `r2reg.io.tables`.
    """
    if not is_pairs(table):
        images = ["labels"] if config.synthesis == "labels" else ["image"]
        labels = ["labels"] if config.uses_labels else []
        return read_cohort(table, required=tuple(dict.fromkeys(images + labels)))
    rows = read_pairs(table)
    if not any(row.split == "train" for row in rows):
        raise TableError(f"{table}: no training row; set split to train in some")
    needs_labels = config.uses_labels or config.synthesis == "labels"
    for row in rows:
        if needs_labels and not (row.moving_labels and row.fixed_labels):
            raise TableError(f"{table}: line {row.line} needs moving_labels and fixed_labels for these settings")
    return rows


def make_dataset(
    rows: list[Subject] | list[Pair], config: TrainConfig, cache_folder: Path
) -> tuple[Dataset, TrainConfig]:
    """Prepare the images of a table.

    Returns:
        The dataset, and the configuration with the network's dimension set to the images'.
    Raises:
        TableError, ImageError, TrainingError, ConfigError: with the file that is wrong.
    """
    try:
        cache_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{cache_folder}: cannot be made ({error.strerror}); choose another folder") from None
    if config.synthesis == "shapes":
        return _of_shapes(config, cache_folder)
    cohort = [row for row in rows if isinstance(row, Subject) and row.split != "test"]
    if cohort:
        return _from_cohort(cohort, config, cache_folder)
    return _from_pairs([row for row in rows if isinstance(row, Pair) and row.split != "test"], config, cache_folder)


def _of_shapes(config: TrainConfig, folder: Path) -> tuple[Dataset, TrainConfig]:
    config = fit_dimension(config, len(config.shape or ()) or config.model.ndim)
    items = shape_items(config, Cache(folder, config))
    pairs = [(i, i) for i in range(len(items))]
    grid = Grid(config.shape or (), np.diag([*config.model.spacing, 1.0]))
    return _dataset(items, pairs[:MAPS], pairs[MAPS:], grid, config, given=False, held_out=True)


def _from_cohort(used: list[Subject], config: TrainConfig, folder: Path) -> tuple[Dataset, TrainConfig]:
    sources = [Source(_name(row), row.image, row.labels, row.mask) for row in used]
    reference = next(s for s, row in zip(sources, used, strict=True) if row.split == "train")
    loaded = load(reference, config)
    config = fit_dimension(config, loaded.image.grid.ndim)
    grid = _grid(loaded, config)
    cache = Cache(folder, config)
    items = [prepare(s, reference, loaded, grid, config, cache) for s in sources]
    train = [i for i, row in enumerate(used) if row.split == "train"]
    held_out = [i for i, row in enumerate(used) if row.split == "val"]
    groups = [row.group for row in used]
    training = _ordered_pairs(train, train, groups)
    if not training:
        raise TrainingError("no two training rows of the table share a group; a pair is drawn within one group")
    validation = _validation_pairs(train, held_out, groups)
    return _dataset(items, training, validation or training, grid, config, given=False, held_out=bool(validation))


def _from_pairs(used: list[Pair], config: TrainConfig, folder: Path) -> tuple[Dataset, TrainConfig]:
    sides = [_sides(row) for row in used]
    first = load(sides[0][1], config)
    config = fit_dimension(config, first.image.grid.ndim)
    cache = Cache(folder, config)
    shape = _grid(first, config).shape
    items = []
    for moving, fixed in sides:
        loaded = load(fixed, config)
        grid = _grid(loaded, dataclasses.replace(config, shape=shape))
        items += [prepare(s, fixed, loaded, grid, config, cache) for s in (moving, fixed)]
    pairs = [(2 * i, 2 * i + 1) for i in range(len(used))]
    training = [p for p, row in zip(pairs, used, strict=True) if row.split == "train"]
    validation = [p for p, row in zip(pairs, used, strict=True) if row.split == "val"]
    return _dataset(items, training, validation or training, grid, config, given=True, held_out=bool(validation))


def _name(row: Subject) -> str:
    return str(row.image or row.labels)


def _sides(row: Pair) -> tuple[Source, Source]:
    """Moving and fixed of a row."""
    return (
        Source(str(row.moving), row.moving, row.moving_labels, row.moving_mask),
        Source(str(row.fixed), row.fixed, row.fixed_labels, row.fixed_mask),
    )


def fit_dimension(config: TrainConfig, ndim: int) -> TrainConfig:
    """The configuration for images of `ndim` axes; an isotropic spacing carries over.

    Raises:
        ConfigError: spacings that differ by axis, for another number of axes.
    """
    model = config.model
    if model.ndim == ndim:
        return config
    if len(set(model.spacing)) > 1:
        raise ConfigError(f"spacing needs {ndim} numbers for these images. Received: spacing={model.spacing}")
    model = dataclasses.replace(model, ndim=ndim, spacing=(model.spacing[0],) * ndim)
    return dataclasses.replace(config, model=model)


def _grid(loaded: Loaded, config: TrainConfig) -> Grid:
    return training_grid(
        loaded.image.grid,
        foreground(loaded, config),
        config.model.spacing,
        config.shape,
        config.model.stride,
        # Whole-head label maps are mostly air and skull, which are not painted. Heads that are not aligned
        # may lie anywhere, so then everything is kept.
        crop=config.synthesis == "labels" and config.align == "affine",
    )


def _ordered_pairs(moving: Sequence[int], fixed: Sequence[int], groups: Sequence[str]) -> list[tuple[int, int]]:
    return [(m, f) for m in moving for f in fixed if m != f and groups[m] == groups[f]]


def _validation_pairs(train: Sequence[int], held_out: Sequence[int], groups: Sequence[str]) -> list[tuple[int, int]]:
    """All ordered pairs of held-out images; an image alone in its group is paired with the training
    images."""
    pairs = _ordered_pairs(held_out, held_out, groups)
    met = {i for pair in pairs for i in pair}
    for single in [i for i in held_out if i not in met]:
        pairs += _ordered_pairs([single], train, groups) + _ordered_pairs(train, [single], groups)
    return pairs


def _dataset(
    items: list[Item],
    training: list[tuple[int, int]],
    validation: list[tuple[int, int]],
    grid: Grid,
    config: TrainConfig,
    *,
    given: bool,
    held_out: bool,
) -> tuple[Dataset, TrainConfig]:
    if not held_out:
        log.warning("no validation image is held out: the training pairs are validated on")
    # Spread over the list, so that few pairs still show many images.
    chosen = np.linspace(0, len(validation) - 1, min(config.validation_pairs, len(validation))).round().astype(int)
    label_ids, trained_ids = _label_ids(items, grid)
    if config.synthesis == "labels":
        _warn_of_unknown(items, label_ids)
    dataset = Dataset(
        items=tuple(items),
        training=tuple(training),
        validation=tuple(validation[i] for i in chosen),
        shape=grid.shape,
        spacing=tuple(float(s) for s in grid.spacing.round(6)),
        label_ids=label_ids,
        trained_ids=trained_ids,
        given=given,
        held_out=held_out,
    )
    return dataset, config


def _warn_of_unknown(items: list[Item], ids: tuple[int, ...]) -> None:
    unknown = unknown_ids(ids)
    if not unknown:
        return
    maps = [(item.name, labels) for item in items if (labels := item.load("labels")) is not None]
    held = {name: found for name, labels in maps if (found := np.intersect1d(labels, unknown).tolist())}
    first, found = next(iter(held.items()))
    more = f" and {len(held) - 1} more map{'s' if len(held) > 2 else ''}" if len(held) > 1 else ""
    log.warning(
        "%s%s: labels %s have no grey of their own here; each becomes a class of its own, painted in random "
        "greys. Correct the map if they are no labels of FreeSurfer's",
        first, more, listed(found),
    )  # fmt: skip


def _label_ids(items: list[Item], grid: Grid) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """All ids that any prepared label map holds, without 0; and those that are large enough to be aligned."""
    maps = [labels for item in items if (labels := item.load("labels")) is not None]
    voxels: Counter[int] = Counter()
    for labels in maps:
        found, count = np.unique(labels, return_counts=True)
        voxels.update(dict(zip(found.tolist(), (count * np.prod(grid.shape) / labels.size).tolist(), strict=True)))
    ids = tuple(sorted(i for i in voxels if i > 0))
    small = [i for i in ids if voxels[i] < LEAST_VOXELS * len(maps)]
    if small and len(small) < len(ids):
        log.info("too small or too rare for the loss: labels %s", ", ".join(map(str, small)))
    else:
        small = []
    left_out = {*small, *ids_around_brain(ids)}
    return ids, tuple(i for i in ids if i not in left_out)
