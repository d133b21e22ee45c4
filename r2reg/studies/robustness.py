"""What a network still recognises: of noisy and attacked images, with units reset, with blocks gone or swapped.

Source: Gai & Zhang 2021, secs. 4.2, 7.1 and 7.2. All accuracies are shares of the images.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from r2reg.studies.straightness import Network, batches

NOISE = (0.1, 0.2, 0.3, 0.5)  # standard deviations, of images in [0, 1]
FGSM = (0.02, 0.05, 0.1, 0.2)  # the same for the sign of the gradient
RESET, LAYER = (0.1, 0.3, 0.5, 0.8), 3  # shares of the units of the state after that block (the paper's Fig. 7)


def robustness(network: Network, images: np.ndarray, labels: np.ndarray, order: np.ndarray) -> dict[str, float]:
    """All of this module by name.

    Args:
        order: see `order_of_units`.
    """
    clean, slope = ends(network, images), signs(network, images, labels)
    draw = np.random.default_rng(0).normal(size=images.shape).astype(np.float32)
    found: dict[str, float] = {}
    for name, levels, direction in (("noise", NOISE, draw), ("fgsm", FGSM, slope)):
        for level in levels:
            there = ends(network, images + np.float32(level) * direction)
            found[f"{name}_{level:g}"] = share_right(network.head(there), labels)
            found[f"{name}_{level:g}_variation"] = variation(clean, there)
    for share in RESET:
        found[f"reset_{share:g}"] = with_reset_units(network, images, labels, order, share)
    found["removed"] = mean_accuracy(network.without(), images, labels)
    found["swapped"] = mean_accuracy(network.swapped(), images, labels)
    return found


def accuracy(network: Network, images: np.ndarray, labels: np.ndarray) -> float:
    """Of the network as it is."""
    return share_right(network.head(ends(network, images)), labels)


def mean_accuracy(networks: Iterable[Network], images: np.ndarray, labels: np.ndarray) -> float:
    """Over networks."""
    return float(np.mean([accuracy(network, images, labels) for network in networks]))


def share_right(logits: Any, labels: np.ndarray) -> float:
    """How often the largest logit is the label's."""
    from keras import ops

    return float(np.mean(ops.convert_to_numpy(logits).argmax(axis=-1) == labels))


def ends(network: Network, images: np.ndarray) -> np.ndarray:
    """The last state x^(n) of images."""
    from keras import ops

    return np.concatenate(
        [ops.convert_to_numpy(network.resumed(network.entries[0](batch), 0)) for batch in batches(images)]
    )


def variation(clean: np.ndarray, noisy: np.ndarray) -> float:
    """Mean of |x - x_r| / |x| over last states (eq. 49); those of no length are left out, NaN where all are."""
    length = np.linalg.norm(clean.reshape(len(clean), -1), axis=-1)
    away = np.linalg.norm((clean - noisy).reshape(len(clean), -1), axis=-1)
    return float(np.mean(away[length > 0] / length[length > 0])) if length.any() else float("nan")


def signs(network: Network, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-1, 0 or 1: which way each pixel makes the loss larger."""
    from keras import losses, ops

    from r2reg.flow.backend import gradient

    found = []
    for x, y in zip(batches(images), batches(labels), strict=True):

        def loss(x: Any, y: np.ndarray = y) -> Any:
            return ops.sum(losses.sparse_categorical_crossentropy(y, network.logits(x), from_logits=True))

        found.append(np.sign(ops.convert_to_numpy(gradient(loss, x))))
    return np.concatenate(found)


def order_of_units(network: Network, images: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """(classes, D) the place of each unit of the state after block LAYER by the size of its mean over a class: 0 first.

    The paper says "the average of all the data points in the class"; without its sign, since states have either.
    """
    after = np.concatenate([_around(network, batch)[1].reshape(len(batch), -1) for batch in batches(images)])
    none = np.zeros(after.shape[1])
    means = [np.abs(after[labels == k].mean(axis=0)) if (labels == k).any() else none for k in range(classes)]
    return np.argsort(np.argsort(-np.stack(means), axis=1), axis=1)


def with_reset_units(
    network: Network, images: np.ndarray, labels: np.ndarray, order: np.ndarray, share: float
) -> float:
    """Accuracy if a share of the units after block LAYER, the most important for the class, stay as before it."""
    from keras import ops

    logits = []
    for x, y in zip(batches(images), batches(labels), strict=True):
        before, after = _around(network, x)
        chosen = (order[y] < share * order.shape[1]).reshape(after.shape)
        mixed = network.resumed(np.where(chosen, before, after), LAYER)
        logits.append(ops.convert_to_numpy(network.head(mixed)))
    return share_right(np.concatenate(logits), labels)


def _around(network: Network, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The states of the first stage before and after block LAYER."""
    from keras import ops

    state = network.entries[0](images)
    for block in network.stages[0][: LAYER - 1]:
        state = block(state)
    after = network.stages[0][LAYER - 1](state)
    return ops.convert_to_numpy(state), ops.convert_to_numpy(after)
