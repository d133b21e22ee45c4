"""A model on disk: a folder with config.json and model.weights.h5. Loading reads numbers, it executes nothing."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np

from r2reg.config import Branch, NetworkConfig
from r2reg.errors import ConfigError, ModelError
from r2reg.io.files import atomic_path, sha256
from r2reg.networks.build import build_network

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.weights.h5"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class SavedModel:
    """A model folder that has been read: the network's settings, and details such as its training."""

    folder: Path
    network: NetworkConfig
    details: dict[str, Any]
    branches: dict[Branch, SavedModel] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Of the weights file, hexadecimal; of a multi-scale network's three, the digest of their digests."""
        own = sha256(self.folder / WEIGHTS_FILE)
        if not self.branches:
            return own
        digests = [own, *(branch.sha256 for branch in self.branches.values())]
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def check(self) -> None:
        """Read the weights, which fit every shape.

        Raises:
            ModelError: as `build`.
        """
        self.build((self.network.stride,) * self.network.ndim)
        for branch in self.branches.values():
            branch.check()

    def build(self, shape: Sequence[int]) -> keras.Model:
        """The network for images of a shape, with the saved weights.

        Raises:
            ModelError: the weights file is corrupt, does not fit the settings or holds NaN.
        """
        model = build_network(self.network, shape)
        load_weights(model, self.folder)
        return model


def save_config(folder: Path, network: NetworkConfig, details: dict[str, Any]) -> None:
    """Write config.json: {"schema_version", "network": settings, ...details}."""
    content = {"schema_version": SCHEMA_VERSION, "network": network.to_dict(), **details}
    with atomic_path(Path(folder) / CONFIG_FILE) as path:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def save_weights(model: keras.Model, folder: Path) -> None:
    """Write model.weights.h5, Keras' own format."""
    with atomic_path(Path(folder) / WEIGHTS_FILE) as path:
        model.save_weights(path)


def save_model(folder: Path, model: keras.Model, network: NetworkConfig, details: dict[str, Any]) -> None:
    """Write a model folder that `load_model` reads."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    save_config(folder, network, details)
    save_weights(model, folder)


def load_model(folder: Path | str) -> SavedModel:
    """Read and check a model folder's settings; `build` reads the weights.

    Raises:
        ModelError: no such folder, a missing file, a config.json that is not one.
    """
    folder = Path(folder)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: holds no {name}; give a folder that `r2reg train` wrote")
    _check_weights_file(folder / WEIGHTS_FILE)
    try:
        content = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        version = content.pop("schema_version")
        network = content.pop("network")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(
            f"{folder / CONFIG_FILE}: is not a model's settings ({error}); train the model again"
        ) from None
    if version != SCHEMA_VERSION:
        raise ModelError(f"{folder / CONFIG_FILE}: has schema_version {version}, this r2reg reads {SCHEMA_VERSION}")
    try:
        config = NetworkConfig.from_dict(network)
    except (ConfigError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder / CONFIG_FILE}: {error}") from None
    return SavedModel(folder, config, content, load_branches(folder, config))


def load_branches(folder: Path, config: NetworkConfig) -> dict[Branch, SavedModel]:
    """The branches in a multi-scale network's folder; none of another network.

    Raises:
        ModelError: as `load_model`, or a branch that belongs to another network.
    """
    branches: dict[Branch, SavedModel] = {}
    for name in get_args(Branch) if config.two_phase else ():
        branches[name] = load_model(folder / name)
        if branches[name].network != config.branch(name):
            raise ModelError(f"{folder / name}: is not the {name} branch of {folder}; train the model again")
    return branches


def _check_weights_file(path: Path) -> None:
    import h5py

    try:
        h5py.File(path, "r").close()
    except OSError as error:
        raise ModelError(f"{path}: is corrupt ({error}); copy or train the model again") from None


def load_weights(model: keras.Model, folder: Path | str) -> None:
    """Read model.weights.h5 into a model.

    Raises:
        ModelError: the file is corrupt, does not fit the model or holds NaN.
    """
    path = Path(folder) / WEIGHTS_FILE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns of each layer that does not fit, then raises
            model.load_weights(path)
    except Exception as error:  # h5py and Keras raise OSError, KeyError, ValueError, ... for a broken file
        raise ModelError(
            f"{path}: is corrupt or does not fit config.json ({str(error).splitlines()[0][:160]}); "
            "copy or train the model again"
        ) from None
    if not all(np.isfinite(keras.ops.convert_to_numpy(v)).all() for v in model.weights):
        raise ModelError(f"{path}: holds NaN or infinite weights; train the model again")
