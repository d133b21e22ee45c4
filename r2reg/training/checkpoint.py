"""The state of a training in one file, numbers and JSON only, from which it goes on as if never stopped."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from r2reg.config import TrainConfig
from r2reg.errors import TrainingError
from r2reg.io.files import atomic_path
from r2reg.training.augmentation import VERSION

if TYPE_CHECKING:
    import keras

CHECKPOINT = "last.ckpt"
SCHEMA_VERSION = 1
# Settings that may change between a run and its continuation: they say how long to go on, or how to compute the same.
FREE_ON_RESUME = frozenset(
    {"epochs", "steps", "validate_every", "workers", "device", "devices", "threads", "deterministic"}
)


@dataclass
class State:
    """Where a training stands: steps done, history rows, best validation loss, and sums since the last
    row."""

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_loss: float | None = None
    best_step: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    counted: int = 0

    def count(self, values: dict[str, float]) -> None:
        """Add one step's values."""
        self.step += 1
        self.counted += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def take_means(self) -> dict[str, float]:
        """The means since the last call."""
        means = {name: total / self.counted for name, total in self.sums.items()} if self.counted else {}
        self.sums, self.counted = {}, 0
        return means


def identity(config: TrainConfig, data: str) -> dict[str, Any]:
    """What must be equal for a continuation: the settings that move weights, and the data's fingerprint."""
    augmentation = {"version of the augmentation": VERSION} if config.augment else {}
    return _settings(config) | augmentation | {"data": data}


def _settings(config: TrainConfig) -> dict[str, Any]:
    settings = {k: v for k, v in config.to_flat().items() if k not in FREE_ON_RESUME}
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def _variables(trainer: keras.Model) -> list[Any]:
    return [*trainer.network.variables, *trainer.optimizer.variables]


def save_checkpoint(path: Path, trainer: keras.Model, state: State, identity: dict[str, Any]) -> None:
    """Write weights, the optimizer's state and the progress to one file (NumPy's zip format, no pickle)."""
    from keras import ops

    meta = json.dumps({"schema_version": SCHEMA_VERSION, "state": asdict(state), "identity": identity})
    arrays = {f"v{i:05d}": np.asarray(ops.convert_to_numpy(v)) for i, v in enumerate(_variables(trainer))}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, meta=np.frombuffer(meta.encode(), np.uint8), **arrays)  # type: ignore[arg-type]


def load_checkpoint(path: Path, trainer: keras.Model, identity: dict[str, Any]) -> State:
    """Put a saved state into the trainer.

    Raises:
        TrainingError: the file is corrupt, or was made with other settings or data (those are named).
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(file["meta"].tobytes())
            arrays = [file[name] for name in sorted(file.files) if name != "meta"]
        # A setting that is newer than the file was as it is by default.
        found, state = _settings(TrainConfig()) | meta["identity"], State(**meta["state"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise TrainingError(f"{path}: is not a whole checkpoint ({error}); start again with --overwrite") from None
    different = sorted(k for k in identity.keys() | found.keys() if identity.get(k) != found.get(k))
    if different:
        raise TrainingError(
            f"{path}: was trained with other {', '.join(different)}; give the same, or begin with --overwrite"
        )
    variables = _variables(trainer)
    if [a.shape for a in arrays] != [tuple(v.shape) for v in variables]:
        raise TrainingError(f"{path}: its weights do not fit this network; start again with --overwrite")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return state
