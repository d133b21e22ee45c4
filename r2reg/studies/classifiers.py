"""Classifiers with a spatial transformer behind their input, and the distortions that it should undo.

Source: Detlefsen et al. 2018, sec. 5.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from r2reg.studies.images import LabelledImages

if TYPE_CHECKING:
    import keras

LAYERS = ("none", "affine", "affine-diff", "homography", "tps", "cpab", "affine-cpab")
LOCALISATIONS = ("fcn", "cnn")
DISTORTIONS = ("none", "rts", "cpab")
BOXES = 3  # of the layers' tessellation, whose boundary is free: a digit at the border can be brought in
PARAMETERS = 100_000  # of every network, as nearly as the width of the classifier's dense layer allows
FEATURES, HIDDEN = (16, 32), 32  # filters of a classifier's convolutions; half as many in a localisation
BATCH, RATE = 100, 1e-3
TURN, GROWTH, SHIFT = np.pi / 3, 1.4, 0.15  # of rts: radians, factor, share of the canvas
NEARLY_SINGULAR = 0.05  # least Jacobian of a map: twenty pixels become one
SHOWN = 8  # images kept to be looked at
BEND, BENDING_BOXES = 0.12, 2  # of cpab: standard deviation of theta; a tessellation other than the layers'


@dataclass(frozen=True)
class Setting:
    """A network of the study and what it is trained on."""

    distortion: str
    layer: str
    localisation: str
    rate: float = RATE

    @property
    def name(self) -> str:
        """For files."""
        return f"{self.distortion}_{self.layer}_{self.localisation}_{self.rate:g}"


def on_canvas(images: np.ndarray) -> np.ndarray:
    """Small grey images, such as digits, enlarged to 16 pixels or more and with as much room around as half their size.

    Coloured images, and such without an empty border, stay as they are.
    """
    from scipy.ndimage import zoom

    side = images.shape[1]
    if images.shape[-1] > 1 or side > 28:
        return images
    factor = max(16 // side, 1)
    if factor > 1:
        images = np.clip(zoom(images, (1, factor, factor, 1), order=1, mode="grid-constant", grid_mode=True), 0, 1)
    room = images.shape[1] // 4
    return np.pad(images, ((0, 0), (room, room), (room, room), (0, 0)))


def distort(images: np.ndarray, distortion: str, copies: int, seed: int) -> np.ndarray:
    """(copies N, H, W, C): each image moved by maps drawn at random, the copies one after the other.

    rts turns, scales and shifts; cpab bends by a CPAB map and shifts. The last few, which would not fill a batch, are
    left out: a layer is compiled for each size of a batch.
    """
    from keras import ops

    from r2reg.flow.warp import warp

    rng = np.random.default_rng(seed)
    parts = []
    for start in range(0, copies * len(images) - BATCH + 1, BATCH):
        chosen = images[np.arange(start, start + BATCH) % len(images)]
        if distortion != "none":
            field = _random_field(distortion, len(chosen), images.shape[1:-1], rng)
            chosen = np.asarray(ops.convert_to_numpy(warp(ops.convert_to_tensor(chosen), field)))
        parts.append(chosen)
    return np.concatenate(parts)


def _random_field(distortion: str, count: int, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    """(count, *shape, 2) displacements in pixels."""
    from keras import ops

    from r2reg.flow.families import family_field, make_family

    shift = rng.uniform(-SHIFT, SHIFT, (count, 2))
    if distortion == "rts":
        angle, growth = rng.uniform(-TURN, TURN, count), GROWTH ** rng.uniform(-1, 1, count)
        cos, sin = growth * np.cos(angle), growth * np.sin(angle)
        theta = np.stack([cos - 1, -sin, shift[:, 0], sin, cos - 1, shift[:, 1]], axis=-1)
        return family_field(make_family("affine", 2), ops.convert_to_tensor(theta.astype(np.float32)), shape)
    family = make_family("cpab", 2, BENDING_BOXES, "free")
    theta = rng.normal(0, BEND, (count, family.parameters)).astype(np.float32)
    shifted = (shift * np.array(shape))[:, None, None].astype(np.float32)
    return family_field(family, ops.convert_to_tensor(theta), shape) + ops.convert_to_tensor(shifted)


def make_classifier(setting: Setting, shape: tuple[int, ...], classes: int) -> tuple[keras.Model, keras.Model | None]:
    """The network of a setting, compiled: images (N, *shape) -> logits (N, classes).

    A network without a transformer is a CNN, or with the localisation fcn fully connected. With a transformer the
    classifier is a CNN. Each has as many parameters: what localisation takes the dense layer of the classifier lacks.

    Returns:
        the network; from images to theta, displacements and moved images, None without a transformer.
    """
    import keras

    entry = keras.Input(shape)
    inner = None if setting.layer == "none" else keras.Model(entry, _transformed(entry, setting))
    moved, taken = (inner.outputs[-1], inner.count_params()) if inner else (entry, 0)
    plain = setting.layer == "none" and setting.localisation == "fcn"
    features = keras.layers.Flatten()(moved if plain else _features(moved, FEATURES, "class"))
    convolutions = 0 if plain else keras.Model(moved, features).count_params()
    width = max((PARAMETERS - taken - convolutions - classes) // (features.shape[-1] + 1 + classes), 8)
    hidden = keras.layers.Dense(width, activation="relu", name="hidden")(features)
    model = keras.Model(entry, keras.layers.Dense(classes, name="logits")(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(setting.rate), loss, metrics=["accuracy"], jit_compile=False)
    return model, inner


def _features(x: Any, filters: tuple[int, int], name: str) -> Any:
    """Two convolutions, each followed by pooling."""
    from keras import layers

    for k, count in enumerate(filters):
        x = layers.Conv2D(count, 3, padding="same", activation="relu", name=f"{name}{k}")(x)
        x = layers.MaxPooling2D(2)(x)
    return x


def _transformed(entry: Any, setting: Setting) -> list[Any]:
    """theta, displacement, moved image; of affine-cpab two localisations in series, one map, one interpolation."""
    from r2reg.networks.transformer import SpatialTransformer

    def layer(family: Any, name: str) -> Any:
        return SpatialTransformer(family, 2, BOXES, "free", name=name)

    if setting.layer != "affine-cpab":
        only = layer(setting.layer, "transformer")
        theta = _localised(entry, setting.localisation, only.family.parameters, "theta")
        return [theta, *only([theta, entry])]
    import keras

    rough, both = layer("affine-diff", "rough"), layer("affine-cpab", "transformer")
    linear = _localised(entry, setting.localisation, rough.family.parameters, "linear")
    aligned = rough([linear, entry])[1]
    rest = both.family.parameters - rough.family.parameters
    theta = keras.layers.Concatenate(name="theta")([linear, _localised(aligned, setting.localisation, rest, "bend")])
    return [theta, *both([theta, entry])]


def _localised(image: Any, kind: str, parameters: int, name: str) -> Any:
    """theta, whose last layer is zero before training: the identity."""
    from keras import layers

    small = (FEATURES[0] // 2, FEATURES[1] // 2)
    x = layers.Flatten()(image if kind == "fcn" else _features(image, small, f"{name}_features"))
    x = layers.Dense(HIDDEN, activation="relu", name=f"{name}_hidden")(x)
    return layers.Dense(parameters, kernel_initializer="zeros", name=name)(x)


@dataclass(frozen=True)
class Trained:
    """What a training gave: figures, and of the test images theta (N, P), the mean displacement (N, 2) in pixels and
    a few that were moved."""

    figures: dict[str, Any]
    theta: np.ndarray
    shift: np.ndarray
    moved: np.ndarray


def train_classifier(setting: Setting, images: LabelledImages, seed: int, epochs: int, copies: int) -> Trained:
    """Train a network on distorted images and test it on distorted images of others."""
    import keras

    from r2reg.flow.jacobian import jacobian_determinant

    keras.utils.set_random_seed(seed)
    train, test = (on_canvas(part) for part in (images.train, images.test))
    many = 1 if setting.distortion == "none" else copies
    x, x_test = (distort(part, setting.distortion, many, seed=k) for k, part in enumerate((train, test)))
    y = np.tile(images.train_labels, many)[: len(x)]
    y_test = np.tile(images.test_labels, many)[: len(x_test)]
    model, inner = make_classifier(setting, x.shape[1:], images.classes)
    began = time.perf_counter()
    # As many steps on undistorted images, of which there are fewer.
    model.fit(x, y, batch_size=BATCH, epochs=epochs * (copies // many), verbose=0)
    seconds = time.perf_counter() - began
    logits = model.predict(x_test, batch_size=BATCH, verbose=0)
    figures = {
        "accuracy": float((logits.argmax(axis=1) == y_test).mean()),
        "seconds": seconds,
        "parameters": model.count_params(),
        "near_singular": None,
    }
    if inner is None:
        none = np.zeros((len(x_test), 0), np.float32)
        return Trained(figures, none, none, x_test[:SHOWN])
    theta, field, moved = inner.predict(x_test, batch_size=BATCH, verbose=0)
    least = keras.ops.convert_to_numpy(jacobian_determinant(keras.ops.convert_to_tensor(field))).min(axis=(1, 2))
    figures["near_singular"] = float((~(least >= NEARLY_SINGULAR)).mean())
    return Trained(figures, theta, field.mean(axis=(1, 2)), moved[:SHOWN])
