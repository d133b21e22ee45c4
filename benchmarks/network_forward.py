"""A network's forward pass against its bare convolutions, in turn in one process.

Bare: the same U-Net, then a plain convolution in place of each spectrally normalised one; no normalisation, no
residual, no integration, no warp.

    python benchmarks/network_forward.py --shape 160 192 224 --repeats 5
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as r2reg does

import keras
import numpy as np
from keras import layers

from r2reg.config import NetworkConfig
from r2reg.flow import backend
from r2reg.networks.build import build_network
from r2reg.networks.velocity import initial_velocities


def bare_convolutions(config: NetworkConfig, shape: tuple[int, ...]) -> keras.Model:
    """The layers that any implementation of this network must pay for."""
    convolution = layers.Conv2D if config.ndim == 2 else layers.Conv3D
    images = keras.Input((*shape, 2))
    x = initial_velocities(images, config)[1].value
    for _ in range(config.blocks):
        x = convolution(config.ndim, 3, padding="same", use_bias=False)(x)
        x = convolution(config.ndim, 1, padding="same", use_bias=False)(x)
    return keras.Model(images, x)


def seconds(model: keras.Model, inputs: Any) -> float:
    """Wall time of one forward pass, its result on the host."""
    start = time.perf_counter()
    model.predict_on_batch(inputs)
    return time.perf_counter() - start


def main() -> None:
    """Time each network and its bare convolutions alternately; print medians and ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs="+", default=[160, 192, 224])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    shape = tuple(options.shape)
    rng = np.random.default_rng(0)
    pair = [rng.uniform(size=(1, *shape, 1)).astype("float32") for _ in range(2)]
    rows = []
    for network in ("svf-r2net", "nsvf-r2net"):
        for integrator in ("residual", "flow"):
            spacing = (1.0,) * len(shape)
            config = NetworkConfig(network=network, integrator=integrator, ndim=len(shape), spacing=spacing)
            models = {"network": build_network(config, shape), "bare": bare_convolutions(config, shape)}
            inputs = {"network": pair, "bare": np.concatenate(pair, axis=-1)}
            times: dict[str, list[float]] = {name: [] for name in models}
            for model in models.values():
                model.compile(jit_compile=backend.jit_compile())
            for repeat in range(options.repeats + 1):
                for name, model in models.items():
                    elapsed = seconds(model, inputs[name])
                    if repeat:  # the first call builds the graph
                        times[name].append(elapsed)
            medians = {name: statistics.median(values) for name, values in times.items()}
            rows.append(
                {
                    "network": network,
                    "integrator": integrator,
                    **{f"{name}_seconds": round(value, 3) for name, value in medians.items()},
                    "ratio": round(medians["network"] / medians["bare"], 2),
                }
            )
    result = {"shape": shape, "backend": keras.backend.backend(), "cores": os.cpu_count(), "rows": rows}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
