"""The spatial transformer's layer."""

import keras
import numpy as np
import pytest
from keras import ops

from r2reg.errors import ConfigError
from r2reg.flow.families import FamilyName
from r2reg.networks.transformer import SpatialTransformer

NAMES = FamilyName.__args__


@pytest.mark.backends
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(8, 10), (6, 7, 8)])
def test_theta_zero_leaves_the_image(name, shape):
    layer = SpatialTransformer(name, len(shape), boxes=2)
    image = np.random.default_rng(0).random((2, *shape, 3), dtype="float32")
    theta = ops.zeros((2, layer.family.parameters))
    displacement, moved = layer([theta, ops.convert_to_tensor(image)])
    assert displacement.shape == (2, *shape, len(shape))
    np.testing.assert_allclose(ops.convert_to_numpy(moved), image, atol=1e-4)


@pytest.mark.backends
def test_a_shift_of_a_voxel():
    image = np.random.default_rng(0).random((1, 8, 10, 1), dtype="float32")
    theta = np.array([[0, 0, 1 / 8, 0, 0, 2 / 10]], np.float32)
    displacement, moved = SpatialTransformer("affine-diff", 2)([ops.convert_to_tensor(theta), image])
    np.testing.assert_allclose(ops.convert_to_numpy(displacement)[0], np.broadcast_to([1, 2], (8, 10, 2)), atol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(moved)[0, :7, :8], image[0, 1:, 2:], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["affine-diff", "cpab"])
def test_a_network_learns_to_undo_a_map(name, tmp_path):
    """Localisation and layer train together, and the model is saved and loaded without code."""
    rng = np.random.default_rng(0)
    x = np.stack(np.meshgrid(*[np.linspace(0, 1, 16)] * 2, indexing="ij"), axis=-1)
    centres = rng.uniform(0.35, 0.65, (200, 1, 1, 2))
    images = np.exp(-30 * ((x - centres) ** 2).sum(-1))[..., None].astype("float32")
    target = np.broadcast_to(np.exp(-30 * ((x - 0.5) ** 2).sum(-1))[..., None], images.shape).astype("float32")
    entry = keras.Input((16, 16, 1))
    layer = SpatialTransformer(name, 2, boxes=2, name="transformer")
    hidden = keras.layers.Dense(32, activation="relu")(keras.layers.Flatten()(entry))
    theta = keras.layers.Dense(layer.family.parameters, kernel_initializer="zeros")(hidden)
    model = keras.Model(entry, layer([theta, entry])[1])
    model.compile(keras.optimizers.Adam(3e-3), "mse", jit_compile=False)
    before = model.evaluate(images, target, verbose=0)
    model.fit(images, target, epochs=15, batch_size=20, verbose=0)
    after = model.evaluate(images, target, verbose=0)
    assert after < 0.35 * before
    model.save_weights(tmp_path / "w.weights.h5")
    again = SpatialTransformer.from_config(layer.get_config())
    assert again.settings == layer.settings


def test_theta_of_another_length():
    with pytest.raises(ConfigError, match=r"theta needs 6 numbers an image\. Received: shape \(1, 5\)"):
        SpatialTransformer("affine", 2)([ops.zeros((1, 5)), ops.zeros((1, 8, 8, 1))])
