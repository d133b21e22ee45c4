"""A model that one backend saved gives the same displacement on another."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from r2reg.config import NetworkConfig
from r2reg.networks.branches import network_inputs
from r2reg.networks.build import build_network
from r2reg.networks.saving import load_model, save_model

SHAPE = (18, 16, 20)
SMALL = {"encoder": (4, 4), "decoder": (4, 4, 4, 4, 3), "up_filters": 2, "blocks": 2, "overlap": 4}
NETWORKS = {
    "svf": {"network": "svf-r2net"},
    "nsvf-flow": {"network": "nsvf-r2net", "velocity": "prob", "integrator": "flow", "scheme": "rk4"},
    "nsvf-squaring": {
        "network": "nsvf-r2net",
        "velocity": "nonprob-gauss",
        "spectral_norm": "kernel",
        "integrator": "scaling_squaring",
    },
    "vm-half": {"network": "vm-diff"},
    "ms-vm": {"network": "ms-vm-diff"},
    "ms-nsvf": {"network": "ms-nsvf-r2net"},
}


def write(folder: Path) -> None:
    """Save every network, its velocity far from 0, and its displacement of the test's pair."""
    for name, settings in NETWORKS.items():
        config = NetworkConfig(**settings, **SMALL)
        save(folder / name, config)
        for branch in ("chunk", "coarse") if config.two_phase else ():
            save(folder / name / branch, config.branch(branch))
    np.savez(folder / "displacements.npz", **{name: displacement(folder / name) for name in NETWORKS})


def save(folder: Path, config: NetworkConfig) -> None:
    network = build_network(config, SHAPE)
    rng = np.random.default_rng(len(folder.name))
    for layer in network.layers:
        if layer.name.startswith("flow"):
            layer.set_weights([rng.normal(0, 0.4, w.shape) for w in layer.get_weights()])
    save_model(folder, network, config, {})


def displacement(folder: Path) -> np.ndarray:
    saved = load_model(folder)
    network = saved.build(SHAPE)
    network.compile(jit_compile=False)
    pair = np.random.default_rng(0).random((2, 1, *SHAPE, 1), np.float32)
    return np.asarray(network.predict_on_batch(network_inputs(saved, *pair))["displacement"])


@pytest.mark.backends
def test_the_same_displacement(tmp_path):
    if keras.backend.backend() == "tensorflow":
        write(tmp_path)  # what the other backends are compared with; here, that it is a reference
    else:
        environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run([sys.executable, __file__, tmp_path], env=environment, check=True)
    with np.load(tmp_path / "displacements.npz") as reference:
        for name in NETWORKS:
            assert np.abs(reference[name]).max() > 0.1, name
            np.testing.assert_allclose(displacement(tmp_path / name), reference[name], rtol=0, atol=1e-4, err_msg=name)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
