"""Training a network from a table of images to a run folder."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from r2reg.config import Branch, NetworkConfig, TrainConfig
from r2reg.errors import ConfigError, ModelError, TrainingError
from r2reg.io.files import first_missing
from r2reg.io.tables import write_table
from r2reg.released import find_model
from r2reg.startup import start_backend, versions
from r2reg.training.batches import Batches, Prefetch
from r2reg.training.board import Board
from r2reg.training.card import write_card
from r2reg.training.checkpoint import CHECKPOINT, State, identity, load_checkpoint, save_checkpoint
from r2reg.training.dataset import Dataset, make_dataset, read_table
from r2reg.training.folder import BOARD, CACHE, CARD, HISTORY, WEIGHTS, clear_run, open_run, remove_if_empty
from r2reg.training.progress import Stop, show_progress
from r2reg.training.validation import validate
from r2reg.training.views import view_of

if TYPE_CHECKING:
    import keras

    from r2reg.flow.backend import DataParallel
    from r2reg.networks.branches import Branches
    from r2reg.networks.saving import SavedModel

log = logging.getLogger(__name__)

# Settings in which a network may differ from the one whose weights it begins with: they leave the layers as they are.
FREE_AT_START = frozenset(
    {"spacing", "integrator", "scheme", "substeps", "squarings", "chunks", "overlap", "symmetric", "rounds"}
)


@dataclass(frozen=True)
class TrainResult:
    """A finished training: its folder, steps done, and the best validation (its step and values)."""

    run: Path
    steps: int
    best_step: int
    best: dict[str, float]


def train(
    table: Path | str | None,
    run: Path | str,
    config: TrainConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    initial: Path | str | None = None,
) -> TrainResult:
    """Train on a cohort or on given pairs.

    The run folder gets config.json and model.weights.h5 (best on validation), last.ckpt, history.csv,
    tensorboard/, README.md, and cache/ with the prepared images. SIGINT and SIGTERM end the current step,
    save last.ckpt and raise. Of a multi-scale network the branches are trained first (phase 1), each like a network
    of its own in a folder of its name and for as many steps; once phase 2 has begun, they stay as they are.

    Args:
        table: a cohort or pairs CSV (see `r2reg.io.tables`); None where the images are of random shapes.
        resume: go on from last.ckpt, to the same weights as a run that was never stopped; without one, begin.
        overwrite: replace what an earlier run left; its prepared images are used again.
        initial: a model folder whose weights to begin with, of a network with the same layers.
    Raises:
        TableError, ImageError, ConfigError: input that cannot be used.
        ModelError: weights to begin with that cannot be read or do not fit.
        OutputError: the folder holds a run already, or cannot be written.
        TrainingError: a checkpoint that does not fit, or a loss that is not finite.
        KeyboardInterrupt: stopped by a signal, after saving.
    """
    run = Path(run)
    if (table is None) != (config.synthesis == "shapes"):
        raise ConfigError(
            "give a cohort, a CSV of images; or no cohort and --synthesis shapes, which needs none"
            if table is None
            else f"{table}: --synthesis shapes draws its own images; leave the cohort out"
        )
    rows = [] if table is None else read_table(Path(table), config)
    first = find_model(initial) if initial else None  # before images are prepared for it
    made = first_missing(run)
    branches: tuple[Branch, ...] = get_args(Branch) if config.model.two_phase else ()
    open_run(run, *branches, resume=resume, overwrite=overwrite)
    try:
        dataset, config = make_dataset(rows, config, run / CACHE)
        start_backend(config.device, config.threads, config.deterministic, config.seed, config.devices)
        parallel = shared_among(config)
        begin = initial_model(first, config.model) if first else None
    except BaseException:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        else:
            remove_if_empty(run / CACHE, run)
        raise
    if overwrite:
        clear_run(run, *branches)
    if not (run / CHECKPOINT).is_file():
        for branch in branches:
            log.info("phase 1, branch %s", branch)
            part = Run(run / branch, config, dataset, parallel, branch, initial=begin)
            part.go()
            if part.stopped:
                raise KeyboardInterrupt
    if branches:
        log.info("phase 2")
    return Run(run, config, dataset, parallel, initial=begin).go()


def initial_model(folder: Path, config: NetworkConfig) -> SavedModel:
    """The model whose weights a training begins with.

    Raises:
        ModelError: it cannot be read, or its layers are others.
    """
    from r2reg.networks.saving import load_model

    saved = load_model(folder)
    theirs, ours = saved.network.to_dict(), config.to_dict()
    different = [name for name in ours if name not in FREE_AT_START and theirs[name] != ours[name]]
    if different:
        told = ", ".join(f"{name} {theirs[name]} in place of {ours[name]}" for name in different)
        raise ModelError(f"{folder}: cannot begin with its weights, it has {told}; train with the same")
    saved.check()
    return saved


def shared_among(config: TrainConfig) -> DataParallel:
    """The devices that are to share each batch.

    Raises:
        ConfigError: there are fewer, or the backend cannot do with several what is asked for.
    """
    from r2reg.flow.backend import DataParallel

    parallel = DataParallel(config.devices)
    if parallel.mirrored and (config.accumulate > 1 or config.mixed_precision or config.clipnorm):
        raise ConfigError(
            "--accumulate, --mixed-precision and --clipnorm look at one device's gradient on TensorFlow; "
            "leave them out, train on one device, or set KERAS_BACKEND=jax"
        )
    return parallel


class Run:
    """One training in its folder: the network, its trainer, and where it stands.

    Args:
        parallel: the devices to train on.
        branch: train this part of the configuration's multi-scale network.
        initial: a model with whose weights to begin.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        dataset: Dataset,
        parallel: DataParallel,
        branch: Branch | None = None,
        initial: SavedModel | None = None,
    ) -> None:
        from r2reg.networks.build import build_network
        from r2reg.networks.saving import load_weights
        from r2reg.training.trainer import make_trainer, needs_inverse

        view = view_of(branch, dataset.shape, config.model)
        if branch:
            folder.mkdir(exist_ok=True)
            config = replace(config, model=config.model.branch(branch))
        self.folder, self.config, self.dataset = folder, config, dataset
        self.parallel = parallel
        with self.parallel.scope():
            self.network: keras.Model = build_network(
                config.model, view.shape, inverse=needs_inverse(config), mixed=config.mixed_precision
            )
        self.shape = view.shape
        self.identity = identity(config, fingerprint(dataset))
        if config.schedule != "constant":
            self.identity |= {"total steps": self.total}  # over which the learning rate falls
        branches = None
        if config.model.two_phase:
            branches = self.load_branches()
        self.initial = initial.branches[branch] if initial and branch else initial
        if self.initial:
            load_weights(self.network, self.initial.folder)
            self.identity |= {"initial weights": self.initial.sha256}
        with self.parallel.scope():
            self.trainer = make_trainer(self.network, config, self.total)
        self.batches = Batches(dataset, config, view, branches)
        self.state = State()
        self.stopped = False
        if (folder / CHECKPOINT).is_file():
            self.state = load_checkpoint(folder / CHECKPOINT, self.trainer, self.identity)
            log.info("going on from step %d", self.state.step)

    def load_branches(self) -> Branches:
        """The branches of phase 1, whose residual blocks phase 2 begins with."""
        from r2reg.networks.branches import Branches
        from r2reg.networks.r2net import copy_blocks
        from r2reg.networks.saving import SavedModel, load_branches

        config = self.config.model
        saved = SavedModel(self.folder, config, {}, load_branches(self.folder, config))
        self.identity |= {f"{name} branch": branch.sha256 for name, branch in saved.branches.items()}
        branches = Branches(saved, self.dataset.shape)
        copy_blocks(saved.branches["chunk"].build((config.stride,) * config.ndim), self.network)
        return branches

    @property
    def total(self) -> int:
        """Steps of the whole training, a multiple of those that make one update."""
        per_epoch = self.dataset.epoch_steps(self.config.batch_size)
        steps = self.config.steps or self.config.epochs * per_epoch
        return -(-steps // self.config.accumulate) * self.config.accumulate

    def go(self) -> TrainResult:
        """Train from where the run stands to its last step."""
        if self.state.step < self.total:
            self.train()
        best = next((row for row in self.state.history if row["step"] == self.state.best_step), {})
        return TrainResult(self.folder, self.state.step, self.state.best_step, best)

    def train(self) -> None:
        """The loop: step, validate every so often, stop and save where a signal asks for it."""
        first, total = self.state.step, self.total
        every = self.config.validate_every or self.dataset.epoch_steps(self.config.batch_size)
        prefetch = Prefetch(self.batches, first, total, self.config.workers)
        with (
            Stop() as stop,
            prefetch as data,
            Board(self.folder / BOARD, first) as board,
            show_progress(first, total) as bar,
        ):
            start = time.monotonic()
            log.info("the first step builds its graph and takes longer")
            for batch in data:
                loss = self.step(batch)
                bar.step(self.state.step, loss)
                if self.state.step % every == 0 or self.state.step == total:
                    self.state.seconds += time.monotonic() - start
                    self.validate(board, data.take_waited())
                    start = time.monotonic()
                if stop.requested and self.state.step < total:
                    self.state.seconds += time.monotonic() - start
                    if not (self.folder / WEIGHTS).is_file():
                        self.save_best({})  # stopped before the first validation: the run can still be used
                    self.save()
                    raise KeyboardInterrupt
        self.stopped = stop.requested  # when the last step was done already

    def step(self, batch: dict[str, Any]) -> float:
        """One optimisation step; returns its loss."""
        with self.parallel.scope():
            found = self.trainer.train_on_batch(self.parallel.shared_out(batch), return_dict=True)
        values = {name: float(value) for name, value in found.items()}
        if not math.isfinite(values["loss"]):
            raise TrainingError(
                f"{self.folder}: the loss became {values['loss']} at step {self.state.step + 1}; "
                "the last good state is kept, start again with a lower --learning-rate or with --clipnorm 1"
            )
        self.state.count(values)
        return values["loss"]

    def validate(self, board: Board, waited: float) -> None:
        """Validate, write a row of history, keep the weights if they are the best, save the state."""
        state = self.state
        means = state.take_means()
        began = time.monotonic()
        result = validate(self.trainer, self.batches, self.config)
        row: dict[str, float] = {
            "step": state.step,
            "epoch": state.step / self.dataset.epoch_steps(self.config.batch_size),
            **means,
            **{f"val_{name}": value for name, value in result.values.items()},
            "learning_rate": self.learning_rate(),
            "seconds": state.seconds,
            "wait_seconds": waited,
            "validation_seconds": time.monotonic() - began,
        }
        state.history.append(row)
        board.scalars(state.step, {name: value for name, value in row.items() if name not in ("step", "epoch")})
        board.picture(state.step, "fixed_moved_moving", result.picture)
        log.info(
            "step %d  loss %.5f  validation %s",
            state.step,
            means.get("loss", math.nan),
            summary(result.values),
        )
        loss = result.values["loss"]
        if math.isfinite(loss) and (state.best_loss is None or loss < state.best_loss):
            state.best_loss, state.best_step = loss, state.step
            self.save_best(result.values)
        self.save()

    def learning_rate(self) -> float:
        """The optimizer's, as it is now."""
        from keras import ops

        rate = self.trainer.optimizer.learning_rate  # of several devices on TensorFlow one copy each
        return float(ops.convert_to_numpy(ops.convert_to_tensor(rate)))

    def save(self) -> None:
        """Write last.ckpt and history.csv."""
        save_checkpoint(self.folder / CHECKPOINT, self.trainer, self.state, self.identity)
        if self.state.history:
            write_table(self.folder / HISTORY, self.state.history)

    def save_best(self, values: dict[str, float]) -> None:
        """Write the model as it is now: config.json, model.weights.h5 and the card."""
        from r2reg.io.files import sha256
        from r2reg.networks.saving import save_model

        settings = self.config.to_flat()
        network_keys = self.config.model.to_dict().keys()
        details = {
            "training": {k: v for k, v in settings.items() if k not in network_keys},
            "data": {
                "fingerprint": self.identity["data"],
                "images": len(self.dataset.items),
                "training_pairs": len(self.dataset.training),
                "validation_pairs": len(self.dataset.validation),
                "held_out": self.dataset.held_out,
                "validation": self.dataset.validation_items(),
                "shape": self.shape,
                "spacing": self.config.model.spacing,
                "labels": self.dataset.label_ids,
            },
            "best": {"step": self.state.step, **values},
            "versions": self.versions(),
        }
        if self.initial:
            # As it was read: the folder may hold another model by now.
            details["initial"] = {"model": self.initial.folder.name, "sha256": self.identity["initial weights"]}
        save_model(self.folder, self.network, self.config.model, details)
        digest = sha256(self.folder / WEIGHTS)
        best = {"step": self.state.step, **values}
        begun = self.initial.sha256 if self.initial else None
        write_card(self.folder / CARD, self.config, self.dataset, self.shape, best, digest, self.versions(), begun)

    @staticmethod
    def versions() -> dict[str, str]:
        """Of the packages, and the backend that trained."""
        import keras

        return versions() | {"backend": keras.backend.backend()}


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 of what is trained on: the prepared images' own keys and the pairs made of them."""
    names = [[p and p.name for p in (i.image, i.labels, i.mask)] for i in dataset.items]
    content = json.dumps([names, dataset.training, dataset.shape])
    return hashlib.sha256(content.encode()).hexdigest()


def summary(values: dict[str, float]) -> str:
    """The values in one line."""
    return "  ".join(f"{name} {value:.5g}" for name, value in values.items())
