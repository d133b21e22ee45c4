"""Batches: each a pure function of (seed, step), made ahead of the training in background threads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from r2reg.config import Augment, TrainConfig
from r2reg.training.augmentation import Paint, augmented, draw_augmentation
from r2reg.training.dataset import Dataset
from r2reg.training.synthesis import class_shares, compact, draw, paint_classes
from r2reg.training.views import Batch, View, Whole

if TYPE_CHECKING:
    from r2reg.networks.branches import Branches

POINTS = 4096  # of an item, where the flow's inverse consistency is looked at
AHEAD = 2  # batches waiting per worker: hides the odd slow one, and bounds the memory
VALIDATION_STREAM = 2**32 - 1  # a step number that no training reaches: the random stream of validation pairs


class Batches:
    """Makes training and validation batches of a dataset.

    A batch holds moving and fixed (N, *S, 1) float32 in [0, 1]; moving_labels and fixed_labels (N, *S, C) uint8, the
    shares of the dataset's C trained classes, 255 a whole voxel, where labels are wanted, in training on a grid of
    `label_shape`; mask (N, *S, 1) float32, the
    fixed image's, where any image has one (ones for those without). Where the loss has flow_consistency_data or
    _domain: data_points or domain_points (N, P, d) float32 in voxels, of the fixed image's foreground or of the whole
    grid.

    Args:
        view: what is seen of a pair, all of it unless given.
        branches: trained branches, whose velocities a batch then holds as well.
    """

    def __init__(
        self, dataset: Dataset, config: TrainConfig, view: View | None = None, branches: Branches | None = None
    ) -> None:
        self.dataset = dataset
        self.config = config
        self.view = view or Whole(dataset.shape)
        self.branches = branches
        self.masked = any(item.mask is not None for item in dataset.items)

    def pairs(self, step: int) -> list[tuple[int, int]]:
        """The (moving, fixed) pairs of a training step, 0-based.

        Given pairs are passed in a new order every epoch; pairs of a cohort are drawn with replacement.
        """
        size, pairs = self.config.batch_size, self.dataset.training
        if not self.dataset.given:
            rng = np.random.default_rng([self.config.seed, step])
            return [pairs[i] for i in rng.integers(len(pairs), size=size)]
        epoch, within = divmod(step, self.dataset.epoch_steps(size))
        order = np.random.default_rng([self.config.seed, epoch]).permutation(len(pairs))
        # A last batch that is not full is filled from the epoch's beginning.
        return [pairs[order[i % len(pairs)]] for i in range(within * size, (within + 1) * size)]

    def training(self, step: int) -> Batch:
        """The batch of a training step, 0-based; the same whenever and wherever it is made."""
        rng = np.random.default_rng([self.config.seed, step, 1])
        shape = self.label_shape if self.config.uses_labels else None
        return self._stack([self._pair(*pair, rng, shape, self.config.augment) for pair in self.pairs(step)])

    @property
    def label_shape(self) -> tuple[int, ...]:
        """The grid on which the loss compares classes: half of the images' where the velocity is estimated there."""
        halves = self.config.model.velocity_size == "half" and not any(n % 2 for n in self.dataset.shape)
        return tuple(n // 2 for n in self.dataset.shape) if halves else self.dataset.shape

    def validation(self, number: int) -> Batch:
        """The batch of one validation pair, with labels where both images have them."""
        moving, fixed = self.dataset.validation[number]
        rng = np.random.default_rng([self.config.seed, VALIDATION_STREAM, number])
        items = self.dataset.items
        labelled = items[moving].labels is not None and items[fixed].labels is not None
        shape = self.dataset.shape if labelled else None
        # Two images of one map of shapes differ by their warps alone.
        augment = self.config.augment if self.config.synthesis == "shapes" else ()
        return self._stack([self._pair(moving, fixed, rng, shape, augment)])

    def _stack(self, pairs: list[Batch]) -> Batch:
        batch = {name: np.stack([pair[name] for pair in pairs]) for name in pairs[0]}
        return batch | self.branches(batch["moving"], batch["fixed"]) if self.branches else batch

    def _pair(
        self,
        moving: int,
        fixed: int,
        rng: np.random.Generator,
        label_shape: tuple[int, ...] | None,
        augment: tuple[Augment, ...],
    ) -> Batch:
        dataset, painted = self.dataset, self.config.synthesis != "none"
        arrays: Batch = {}
        for role, item in (("moving", dataset.items[moving]), ("fixed", dataset.items[fixed])):
            if painted or label_shape:
                arrays[f"{role}_labels"] = compact(np.asarray(item.load("labels")), dataset.label_ids)
            if not painted:
                arrays[role] = np.array(item.load("image"))
        if self.masked:
            mask = dataset.items[fixed].load("mask")
            arrays["mask"] = np.ones(dataset.shape, np.float32) if mask is None else np.asarray(mask, np.float32)
        paints = self._paints(rng) if painted else None
        change = draw_augmentation(rng, augment, dataset.spacing, one_image=moving == fixed)
        arrays = augmented(arrays, change, dataset.label_ids, dataset.shape, dataset.spacing, paints)
        pair: Batch = {name: arrays[name][..., None] for name in ("moving", "fixed", "mask") if name in arrays}
        if label_shape:
            for name in ("moving_labels", "fixed_labels"):
                pair[name] = class_shares(arrays[name], dataset.classes, label_shape)
        pair = self.view(pair, rng)
        if self.config.loss_weights["flow_consistency_data"] > 0:
            pair["data_points"] = _points_of_data(pair["fixed"][..., 0], rng)
        if self.config.loss_weights["flow_consistency_domain"] > 0:
            last = np.array(self.view.shape, np.float32) - 1
            pair["domain_points"] = rng.random((POINTS, len(last)), np.float32) * last
        return pair

    def _paints(self, rng: np.random.Generator) -> dict[str, Paint]:
        """By role, what paints an image of classes on the labels' grid."""
        config, dataset = self.config, self.dataset
        recipes = [draw(rng, dataset.label_ids, config.contrast) for _ in range(2)]
        if config.one_contrast or config.similarity in ("mse", "lncc"):  # which compare intensities
            recipes[1] = recipes[1].with_contrast_of(recipes[0])
        if config.skull == "mixed":
            recipes = [recipe.without(dataset.around_brain) if rng.random() < 0.5 else recipe for recipe in recipes]
        return {
            role: partial(paint_classes, ids=dataset.label_ids, recipe=recipe, shape=dataset.shape)
            for role, recipe in zip(("moving", "fixed"), recipes, strict=True)
        }


def _points_of_data(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(POINTS, d): voxels above the background, with replacement; any voxel where nothing is above it."""
    voxels = np.argwhere(image > image.min())
    if not len(voxels):
        voxels = np.argwhere(np.ones(image.shape, bool))
    return voxels[rng.integers(len(voxels), size=POINTS)].astype(np.float32)


class Prefetch:
    """Iterates over the training batches from `first` to `last`, made ahead by a few threads, in order.

    Use as a context manager: leaving it stops the threads. `waited` is the time in seconds that the consumer
    has spent waiting for data.
    """

    def __init__(self, batches: Batches, first: int, last: int, workers: int) -> None:
        self.batches = batches
        self.steps = iter(range(first, last))
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="r2reg-batches")
        self.ahead = AHEAD * workers
        self.waited = 0.0
        self._queue: deque[Future[Batch]] = deque()

    def __enter__(self) -> Prefetch:
        self._fill()
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)

    def take_waited(self) -> float:
        """`waited` so far; it begins again at 0."""
        waited, self.waited = self.waited, 0.0
        return waited

    def _fill(self) -> None:
        while len(self._queue) < self.ahead:
            step = next(self.steps, None)
            if step is None:
                return
            self._queue.append(self.pool.submit(self.batches.training, step))

    def __iter__(self) -> Iterator[Batch]:
        while self._queue:
            start = time.perf_counter()
            batch = self._queue.popleft().result()
            self.waited += time.perf_counter() - start
            self._fill()
            yield batch
