"""Residual networks that unroll a spiral, and the flows that they stand for (Rousseau & Fablet 2018, sec. 4).

Networks of several seeds are trained at once: every array has an axis of seeds, along which nothing is mixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from r2reg.flow.schemes import SCHEMES, Rate
from r2reg.io.files import atomic_path

if TYPE_CHECKING:
    import keras

UNITS = 20
POINTS = 1500  # of a class
TURNS, NOISE = 1.0, 0.02  # of an arm; standard deviation of a point
REACH = 1.2  # the domain is [-REACH, REACH]^2
L2, BATCH, EPOCHS, RATE = 1e-4, 300, 1000, 1e-3
INVERSE_WEIGHT = 1.0
NETWORKS = ("own", "shared", "symmetric-data", "symmetric-domain")


@dataclass(frozen=True)
class Setting:
    """A network of the study: which of NETWORKS, the scheme of its steps, the basis functions of its velocity."""

    network: str
    scheme: str = "euler"
    basis: int = 10


def draw_spiral(seed: int, points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Two arms, each the other turned by half a turn: (2 points, 2) float32 in the unit disc, (2 points,) 0 or 1."""
    rng = np.random.default_rng(seed)
    way = np.sqrt(rng.uniform(0.02, 1, 2 * points))
    label = np.arange(2 * points) % 2
    angle = 2 * np.pi * TURNS * way + np.pi * label
    places = way[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return (places + rng.normal(0, NOISE, places.shape)).astype(np.float32), label.astype(np.float32)


@dataclass(frozen=True)
class Flow:
    """Trained velocities v(x) = tanh(x inner) outer of each unit, and the line that separates the classes after them.

    Attributes:
        inner: (U, S, 2, B); U units, or 1 that all share; S seeds; B basis functions. outer: (U, S, B, 2).
        read: (S, 2, 1). bias: (S, 1, 1).
    """

    inner: np.ndarray
    outer: np.ndarray
    read: np.ndarray
    bias: np.ndarray

    def rate(self, unit: int) -> Rate:
        """The velocity of a unit, of points (S, N, 2)."""
        inner, outer = self.inner[unit % len(self.inner)], self.outer[unit % len(self.outer)]
        return lambda x: np.tanh(x @ inner) @ outer

    def forward(self, x: np.ndarray, scheme: str, substeps: int = 1) -> list[np.ndarray]:
        """The points after each unit, and before: UNITS + 1 arrays (S, N, 2)."""
        states = [x]
        for unit in range(UNITS):
            for _ in range(substeps):
                x = SCHEMES[scheme](self.rate(unit), x, 1 / substeps)
            states.append(x)
        return states

    def jacobian(self, x: np.ndarray, scheme: str, substeps: int = 1) -> np.ndarray:
        """(S, N) determinants of the map at points (eq. 11), exact: tangents are carried along by the same steps."""
        state = np.concatenate([x[..., None, :], np.broadcast_to(np.eye(2), (*x.shape, 2))], axis=-2)
        for unit in range(UNITS):
            inner, outer = (weights[unit % len(weights)][:, None] for weights in (self.inner, self.outer))

            def rate(s: np.ndarray, inner: np.ndarray = inner, outer: np.ndarray = outer) -> np.ndarray:
                z = s @ inner
                a = np.tanh(z[..., :1, :])
                return np.concatenate([a, (1 - a**2) * z[..., 1:, :]], axis=-2) @ outer

            for _ in range(substeps):
                state = SCHEMES[scheme](rate, state, 1 / substeps)
        found: np.ndarray = np.linalg.det(state[..., 1:, :])
        return found

    def backward(self, x: np.ndarray, scheme: str) -> np.ndarray:
        """The flow run back: -v of the last unit first."""
        for unit in reversed(range(UNITS)):
            x = SCHEMES[scheme](self.rate(unit), x, -1)
        return x

    def probability(self, x: np.ndarray) -> np.ndarray:
        """Of class 1 at places after the flow, (S, N)."""
        found: np.ndarray = 1 / (1 + np.exp(-(x @ self.read + self.bias)[..., 0]))
        return found

    def save(self, path: Path) -> None:
        """As .npz."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, inner=self.inner, outer=self.outer, read=self.read, bias=self.bias)

    @classmethod
    def load(cls, path: Path) -> Flow:
        """What `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(**{name: file[name].astype(np.float64) for name in file.files})


def make_network(setting: Setting, seeds: int) -> keras.Model:
    """The networks of all seeds as one, compiled: points (N, S, 2) -> logits (N, S)."""
    import keras
    from keras import ops

    step, network = SCHEMES[setting.scheme], setting.network

    class Spiral(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            units = UNITS if network == "own" else 1
            decay = keras.regularizers.L2(L2)
            for name, shape in (
                ("inner", (units, seeds, 2, setting.basis)),
                ("outer", (units, seeds, setting.basis, 2)),
                ("read", (seeds, 2, 1)),
            ):
                limit = np.sqrt(6 / sum(shape[-2:]))  # Glorot's
                first = keras.initializers.RandomUniform(-limit, limit, seed=keras.random.SeedGenerator(len(shape)))
                setattr(self, name, self.add_weight(shape=shape, initializer=first, regularizer=decay, name=name))
            self.bias = self.add_weight(shape=(seeds, 1, 1), initializer="zeros", name="bias")
            self.draws = keras.random.SeedGenerator(0)

        def rates(self) -> list[Rate]:
            """The velocity of each unit, of points (S, 2, N): the points last, which is quicker."""
            inner, outer = (ops.swapaxes(weights, -1, -2) for weights in (self.inner, self.outer))

            def rate(k: int) -> Rate:
                return lambda x: ops.matmul(outer[k], ops.tanh(ops.matmul(inner[k], x)))

            return [rate(unit % self.inner.shape[0]) for unit in range(UNITS)]

        def moved(self, x: Any, h: float) -> Any:
            for rate in self.rates()[:: 1 if h > 0 else -1]:
                x = step(rate, x, h)
            return x

        def call(self, x: Any) -> Any:
            after = self.moved(ops.transpose(x, (1, 2, 0)), 1.0)
            return ops.transpose(ops.sum(after * self.read, axis=1) + self.bias[..., 0])

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):  # type: ignore[no-untyped-def]
            loss = ops.sum(ops.mean(ops.binary_crossentropy(y, y_pred, from_logits=True), axis=0))
            points = ops.transpose(x, (1, 2, 0))
            if network == "symmetric-domain":
                points = keras.random.uniform(ops.shape(points), -REACH, REACH, seed=self.draws)
            if network.startswith("symmetric"):
                returned = self.moved(self.moved(points, 1.0), -1.0)
                away = ops.mean(ops.sum(ops.square(returned - points), axis=1), axis=1)
                loss = loss + INVERSE_WEIGHT * ops.sum(away)
            return loss + sum(self.losses)

    model = Spiral()
    model.build((None, seeds, 2))
    at_once = 1 if keras.backend.backend() == "torch" else 10  # PyTorch has no more
    model.compile(optimizer=keras.optimizers.Adam(RATE), jit_compile=False, steps_per_execution=at_once)
    return model


def train_flow(setting: Setting, seeds: int, epochs: int) -> Flow:
    """Train the networks of seeds 0, 1, ... on spirals of their own."""
    import keras

    keras.utils.set_random_seed(0)
    drawn = [draw_spiral(seed) for seed in range(seeds)]
    x = np.stack([points for points, _ in drawn], axis=1)
    y = np.stack([label for _, label in drawn], axis=1)
    model = make_network(setting, seeds)
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)
    names = ("inner", "outer", "read", "bias")
    return Flow(**{name: np.asarray(keras.ops.convert_to_numpy(getattr(model, name)), float) for name in names})
