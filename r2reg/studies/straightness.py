"""Classifiers made of blocks, with the identity (`resnet`) and without (`plain`) (Gai & Zhang 2021, table 1).

A block is v(x) = W2 relu(W1 relu(x)), without biases; `plain` takes v(x) for the next state, `resnet` x + v(x). The
paper names neither a normalisation, and there is none here, nor first weights, nor an optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from r2reg.errors import ConfigError

if TYPE_CHECKING:
    import keras

NETWORKS = ("plain", "resnet")
FIRST_WEIGHTS = {  # He's keep the size of a state behind a relu, without which `plain` learns ten times as slowly
    "plain": "he_uniform",
    "resnet": "glorot_uniform",
}
BATCH, EPOCHS, RATE = 100, 15, 1e-3  # of Adam
AT_ONCE = 200  # images carried through a network while nothing is trained


@dataclass(frozen=True)
class Layout:
    """The blocks of a network.

    Attributes:
        widths: of each stage (the paper's K of them), units or channels. blocks: of a stage.
        stride: of the convolution before the first stage; 0: dense layers. Later stages halve the image's sides.
    """

    widths: tuple[int, ...]
    blocks: int
    stride: int = 0


DENSE = Layout((1000,), 5)
CONVOLUTIONAL = {1: Layout((32,), 10, stride=2), 4: Layout((64, 128, 256, 512), 5, stride=1)}  # by K
CIFAR_SHAPE = (32, 32, 3)


def layout_for(shape: tuple[int, ...], stages: int = 1) -> Layout:
    """The paper's for images of a shape (H, W, C): CIFAR's with 1 or 4 stages, for all others MNIST's.

    Raises:
        ConfigError: another number of stages.
    """
    known = CONVOLUTIONAL if shape == CIFAR_SHAPE else {1: DENSE}
    if stages not in known:
        told = " or ".join(map(str, known))
        raise ConfigError(f"stages {stages}: networks of images of {shape} have {told}; CIFAR's (32, 32, 3) 1 or 4")
    return known[stages]


@dataclass(frozen=True)
class Network:
    """A network in parts, which share their weights with the whole.

    Attributes:
        entries: what leads into each stage: from the image, then from the stage before.
        stages: the blocks of each.
        whole: images (N, H, W, C) -> logits (N, classes), compiled.
    """

    entries: tuple[keras.Model, ...]
    stages: tuple[tuple[keras.Model, ...], ...]
    head: keras.Model
    whole: keras.Model

    def states(self, images: np.ndarray) -> list[np.ndarray]:
        """The images before the first block of each stage and after each: K arrays (blocks + 1, N, D)."""
        parts = [self._tracks(batch) for batch in batches(images)]
        return [np.concatenate(stage, axis=1) for stage in zip(*parts, strict=True)]

    def _tracks(self, x: np.ndarray) -> list[np.ndarray]:
        from keras import ops

        tracks = []
        for entry, blocks in zip(self.entries, self.stages, strict=True):
            states = [entry(x)]
            for block in blocks:
                states.append(block(states[-1]))
            x = states[-1]
            tracks.append(np.stack([ops.convert_to_numpy(state).reshape(len(x), -1) for state in states]))
        return tracks

    def logits(self, images: Any) -> Any:
        """(N, classes), through the parts one by one."""
        return self.head(self.resumed(self.entries[0](images), 0))

    def resumed(self, state: Any, block: int) -> Any:
        """The last state of all, of states of the first stage after so many of its blocks."""
        for step in self.stages[0][block:]:
            state = step(state)
        for entry, blocks in zip(self.entries[1:], self.stages[1:], strict=True):
            state = entry(state)
            for step in blocks:
                state = step(state)
        return state

    def without(self) -> Iterator[Network]:
        """One block left out, each in turn."""
        for k, blocks in enumerate(self.stages):
            for gone in range(len(blocks)):
                yield self._with(k, (*blocks[:gone], *blocks[gone + 1 :]))

    def swapped(self) -> Iterator[Network]:
        """Two neighbouring blocks in each other's place, each pair in turn."""
        for k, blocks in enumerate(self.stages):
            for at in range(len(blocks) - 1):
                yield self._with(k, (*blocks[:at], blocks[at + 1], blocks[at], *blocks[at + 2 :]))

    def _with(self, stage: int, blocks: tuple[keras.Model, ...]) -> Network:
        return replace(self, stages=(*self.stages[:stage], blocks, *self.stages[stage + 1 :]))


def batches(array: np.ndarray) -> Iterator[np.ndarray]:
    """A long array in pieces."""
    for start in range(0, len(array), AT_ONCE):
        yield array[start : start + AT_ONCE]


def make_network(
    layout: Layout, network: str, gamma: float, shape: tuple[int, ...], classes: int, seed: int = 0
) -> Network:
    """A network with fresh weights.

    Args:
        network: one of NETWORKS.
        gamma: weight of the squared weights of the blocks (eq. 14); with several stages also of what leads from one
            to the next (eq. 17), never of the first and the last layer.
        shape: of an image, (H, W, C).
        seed: of the weights, and of the order in which images come if it is trained next.
    """
    import keras

    keras.utils.set_random_seed(seed)
    weights: dict[str, Any] = {
        "use_bias": False,
        "kernel_initializer": FIRST_WEIGHTS[network],
        "kernel_regularizer": keras.regularizers.L2(gamma),
    }
    entries, stages = [], []
    for k, width in enumerate(layout.widths):
        entry = _first(layout, width, shape) if k == 0 else _narrower(network, width, shape, weights)
        entries.append(entry)
        shape = entry.output_shape[1:]
        stages.append(tuple(_block(layout, network, shape, weights) for _ in range(layout.blocks)))
    head = _model(shape, lambda x: _through(x, [keras.layers.Flatten(), keras.layers.Dense(classes)]))
    found = Network(tuple(entries), tuple(stages), head, head)
    whole = _model(entries[0].input_shape[1:], found.logits)
    whole.compile(
        optimizer=keras.optimizers.Adam(RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    return replace(found, whole=whole)


def _model(shape: tuple[int, ...], function: Callable[[Any], Any]) -> keras.Model:
    import keras

    x = keras.Input(shape)
    return keras.Model(x, function(x))


def _through(x: Any, layers: Sequence[keras.Layer]) -> Any:
    for layer in layers:
        x = layer(x)
    return x


def _first(layout: Layout, width: int, shape: tuple[int, ...]) -> keras.Model:
    """From the image to the first state."""
    from keras.layers import Conv2D, Dense, Flatten

    if layout.stride:
        return _model(shape, Conv2D(width, 3, strides=layout.stride, padding="same"))
    return _model(shape, lambda x: _through(x, [Flatten(), Dense(width)]))


def _block(layout: Layout, network: str, shape: tuple[int, ...], weights: dict[str, Any]) -> keras.Model:
    """x -> v(x), or x + v(x)."""
    from keras.layers import Conv2D, Dense, ReLU

    def linear() -> keras.Layer:
        return Conv2D(shape[-1], 3, padding="same", **weights) if layout.stride else Dense(shape[-1], **weights)

    def step(x: Any) -> Any:
        velocity = _through(x, [ReLU(), linear(), ReLU(), linear()])
        return velocity if network == "plain" else x + velocity

    return _model(shape, step)


def _narrower(network: str, width: int, shape: tuple[int, ...], weights: dict[str, Any]) -> keras.Model:
    """A block that halves the image's sides; for the identity it has a convolution of kernel size 1 (sec. 2.5)."""
    from keras.layers import Conv2D, ReLU

    def step(x: Any) -> Any:
        half = Conv2D(width, 3, strides=2, padding="same", **weights)
        velocity = _through(x, [ReLU(), half, ReLU(), Conv2D(width, 3, padding="same", **weights)])
        return velocity if network == "plain" else Conv2D(width, 1, strides=2, **weights)(x) + velocity

    return _model(shape, step)


def train_network(
    network: Network, images: np.ndarray, labels: np.ndarray, epochs: int, each: Callable[[], None] = lambda: None
) -> None:
    """Train in place; `each` is called before the first epoch and after every one."""
    import keras

    each()
    after = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: each())
    network.whole.fit(images, labels, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[after])
