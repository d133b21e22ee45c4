"""The tracks study: how straight images travel through networks of blocks, and what weight decay does to that.

Source: Gai & Zhang 2021.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from r2reg.metrics.tracks import (
    line_shape_ratio,
    line_shape_score,
    optimal_transport_score,
    track_bound,
    track_distance,
)
from r2reg.studies.images import LabelledImages, read_labelled_images
from r2reg.studies.outcome import open_folder, write_figure, write_outcome, write_text
from r2reg.studies.robustness import FGSM, NOISE, RESET, accuracy, order_of_units, robustness
from r2reg.studies.straightness import EPOCHS, NETWORKS, Layout, layout_for, make_network, train_network
from r2reg.studies.track_claims import GAMMA, claims, paper_of
from r2reg.studies.workers import in_processes

log = logging.getLogger(__name__)

GAMMAS = (0.0, 1e-5, 1e-4, 5e-4, 1e-3, 1e-2, 1e-1, 1.0)
SEEDS = 3
QUICK_GAMMAS, QUICK_SEEDS, QUICK_EPOCHS, QUICK_WIDTH, QUICK_IMAGES = (0.0, 5e-4), 1, 1, 8, 200
POINTS = 500  # test images whose tracks are measured
CLASS_POINTS = 2000  # training images that say which units matter to a class
PARTNERS, CHUNK = 4, 50  # pairs of tracks per point; points measured at once
ROUNDING = 1e-6  # of states in float32, of their length
DRAWN = 20  # tracks in a picture
KEYS = ("data", "network", "gamma", "seed")
SCORES = ("train_accuracy", "test_accuracy", "lsr", "lss", "ots")


def run(
    folder: Path,
    quick: bool = False,
    data: Path | None = None,
    stages: int = 1,
    gamma: Sequence[float] = GAMMAS,
    seeds: int = SEEDS,
    epochs: int = EPOCHS,
) -> list[dict[str, Any]]:
    """Fill a folder (see `outcome`); what it holds of an earlier run is not trained again.

    Args:
        quick: few gammas and images, one seed and epoch, whatever else is given.
        data: see `read_labelled_images`; CIFAR's 32x32x3 get convolutional networks.
        stages: of those, the paper's K: 1 or 4.
        gamma: weights of the decay, with each of which both networks are trained.
        seeds: trainings of each. epochs: of each; with fewer than SEEDS or EPOCHS no claim is judged.
    Returns:
        A row per network, gamma and seed.
    Raises:
        ImageError, OutputError: as `read_labelled_images`, `open_folder`.
        ConfigError: as `layout_for`.
    """
    images = read_labelled_images(data)
    layout = layout_for(images.train.shape[1:], stages)
    gammas = sorted(set(gamma))
    if quick:
        gammas, seeds, epochs = list(QUICK_GAMMAS), QUICK_SEEDS, QUICK_EPOCHS
        layout, images = replace(layout, widths=(QUICK_WIDTH,) * len(layout.widths)), images.first(QUICK_IMAGES)
    about: dict[str, str | int] = {
        "data": images.name,
        "images": images.fingerprint,
        "layout": str(layout),
        "epochs": epochs,
    }
    open_folder(folder, "tracks", quick, **about)
    (folder / "trainings").mkdir(exist_ok=True)
    shared = (folder, images, layout, epochs)
    asked = [(network, gamma, seed) for network in NETWORKS for gamma in gammas for seed in range(seeds)]
    found = [trained(*shared, *given) for given in asked] if quick else in_processes(trained, shared, asked)
    rows = [result["row"] for result in found]
    paper = paper_of(images.name, len(layout.widths))
    write_outcome(folder, rows, tables(rows, paper), claims(rows), tested=seeds >= SEEDS and epochs >= EPOCHS)
    draw_training(found, folder / "figures" / "training.png")
    draw_gammas(rows, folder / "figures" / "gamma.png")
    draw_tracks(found, folder / "figures" / "tracks.png")
    draw_robustness(rows, folder / "figures" / "robustness.png")
    return rows


def trained(
    folder: Path, images: LabelledImages, layout: Layout, epochs: int, network: str, gamma: float, seed: int
) -> dict[str, Any]:
    """What is known of a training: its row, LSS over the epochs, some tracks; from the folder, or trained now."""
    told = f"{gamma:g}" if float(f"{gamma:g}") == gamma else repr(gamma)
    path = folder / "trainings" / f"{network}_{told}_{seed}.json"
    if not path.is_file():
        log.info("training %s, gamma %g, seed %d", network, gamma, seed)
        row = {"data": images.name, "network": network, "gamma": gamma, "seed": seed}
        write_text(path, json.dumps(measured(images, layout, row, epochs)) + "\n")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def measured(images: LabelledImages, layout: Layout, row: dict[str, Any], epochs: int) -> dict[str, Any]:
    """Train a network and measure it: see `trained`."""
    import keras

    net = make_network(layout, row["network"], row["gamma"], images.train.shape[1:], images.classes, row["seed"])
    points, labels = images.test[:POINTS], images.test_labels[:POINTS]
    curve: list[float] = []
    train_network(
        net,
        images.train,
        images.train_labels,
        epochs,
        lambda: curve.append(mean_of(line_shape_score, net.states(points))),
    )
    few = slice(CLASS_POINTS)
    order = order_of_units(net, images.train[few], images.train_labels[few], images.classes)
    states = net.states(points)
    scores = {
        "train_accuracy": accuracy(net, images.train, images.train_labels),
        "test_accuracy": accuracy(net, images.test, images.test_labels),
        "lsr": mean_of(line_shape_ratio, states),
        "lss": curve[-1],
        "ots": float(np.mean([transport_score(stage) for stage in states])),
        "stages": len(layout.widths),
        "still": mean_of(still, states),
        "bound_violated": float(np.mean([bound_violated(stage, labels) for stage in states])),
        "measured_accuracy": accuracy(net, points, labels),
    }
    row = row | scores | robustness(net, points, labels, order)
    keras.utils.clear_session()
    return {"row": row, "curve": curve, "tracks": flat(states[0][:, :DRAWN]), "labels": labels[:DRAWN].tolist()}


def mean_of(score: Callable[[np.ndarray], np.ndarray], states: list[np.ndarray]) -> float:
    """Of a score of tracks over points and stages."""
    chunks = [stage[:, k : k + CHUNK] for stage in states for k in range(0, stage.shape[1], CHUNK)]
    return float(np.mean(np.concatenate([score(settled(chunk)) for chunk in chunks])))


def settled(states: np.ndarray) -> np.ndarray:
    """Tracks (n + 1, N, D) in float64 without the steps that are mere rounding: where v vanishes, no point moves."""
    states = states.astype(np.float64)
    steps, size = np.diff(states, axis=0), np.linalg.norm(states, axis=-1)
    moved = np.linalg.norm(steps, axis=-1) > ROUNDING * np.maximum(size[1:], size[:-1])
    way = (steps * moved[..., None]).cumsum(axis=0)
    return np.concatenate([states[:1], states[:1] + way])


def still(states: np.ndarray) -> np.ndarray:
    """(N,) the share of steps that do not move a point."""
    found: np.ndarray = (np.diff(states, axis=0) == 0).all(axis=-1).mean(axis=0)
    return found


def transport_score(states: np.ndarray) -> float:
    """OTS of tracks. Equal outputs are told apart by chance: with all in one point the assignment says nothing."""
    noise = np.random.default_rng(0).normal(size=states[-1].shape) * np.sqrt(np.mean(states[0] ** 2))
    return optimal_transport_score(states[0], states[-1] + ROUNDING * noise)


def bound_violated(states: np.ndarray, labels: np.ndarray) -> float:
    """In how many pairs of points of different classes the tracks come closer than eq. 41 allows."""
    rng = np.random.default_rng(0)
    first = np.tile(np.arange(len(labels)), PARTNERS)
    second = np.concatenate([rng.permutation(len(labels)) for _ in range(PARTNERS)])
    first, second = (side[labels[first] != labels[second]] for side in (first, second))
    too_close = []
    for k in range(0, len(first), CHUNK):
        a, b = (states[:, side[k : k + CHUNK]].astype(np.float64) for side in (first, second))
        least = track_bound(*np.linalg.norm((a - b)[[0, -1]], axis=-1))
        too_close.append(track_distance(a, b) < least * (1 - ROUNDING))
    return float(np.mean(np.concatenate(too_close)))


def flat(states: np.ndarray) -> list[Any]:
    """Tracks (n + 1, N, D) in the plane, by a random Gaussian matrix (the paper's Fig. 3)."""
    onto = np.random.default_rng(0).normal(size=(states.shape[-1], 2)) / np.sqrt(states.shape[-1])
    found: list[Any] = np.round(states @ onto, 4).tolist()
    return found


def tables(rows: list[dict[str, Any]], paper: dict[tuple[str, float], dict[str, float]]) -> dict[str, Any]:
    """Medians over seeds, the scores beside the paper's."""
    import pandas

    keys = ["data", "network", "gamma"]
    medians = pandas.DataFrame(rows).groupby(keys, sort=False).median().drop(columns="seed").reset_index()
    scores = medians[[*keys, *SCORES, "bound_violated", "still"]].copy()
    for name in ("test_accuracy", "lsr", "lss", "ots"):
        known = [paper.get(key, {}).get(name, "") for key in zip(medians.network, medians.gamma, strict=True)]
        if any(value != "" for value in known):
            scores.insert(scores.columns.get_loc(name) + 1, f"paper's {name}", known)
    of = "CIFAR" if rows[0]["data"].startswith("cifar") else "MNIST"
    names = [name for name in medians if name not in (*SCORES, "data", "stages", "bound_violated", "still")]
    robust = medians[[name for name in names if not name.endswith("_variation")]]
    return {
        f"Medians over {len({row['seed'] for row in rows})} seeds; the paper's are of {of}. "
        f"OTS and tracks of at most {POINTS} test images; still: the share of steps that are mere rounding.": scores,
        "Accuracy with noise of a standard deviation, with FGSM, with a share of the most important units reset, with "
        "one block removed and two swapped (means over blocks).": robust,
    }


def draw_training(found: list[dict[str, Any]], path: Path) -> None:
    """LSS over the epochs, medians over seeds (Fig. 2)."""
    figure, axes = pair_of_panels()
    for network, axis in zip(NETWORKS, axes, strict=True):
        for gamma, colour in colours(found):
            curves = [f["curve"] for f in found if (f["row"]["network"], f["row"]["gamma"]) == (network, gamma)]
            axis.plot(np.median(curves, axis=0), color=colour, label=f"{gamma:g}")
        axis.set(title=network, xlabel="epoch", ylabel="LSS")
    axes[-1].legend(title="gamma", fontsize=7)
    write_figure(figure, path)


def draw_gammas(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracies, LSS and OTS over gamma (Fig. 4); lines join medians over seeds."""
    import matplotlib.pyplot as plt

    names = ("train_accuracy", "test_accuracy", "lss", "ots")
    gammas = sorted({row["gamma"] for row in rows})
    figure, axes = plt.subplots(1, len(names), figsize=(3.2 * len(names), 3), layout="constrained")
    for name, axis in zip(names, axes, strict=True):
        for network in NETWORKS:
            values = [[r[name] for r in rows if (r["network"], r["gamma"]) == (network, g)] for g in gammas]
            axis.plot([np.median(v) for v in values], label=network)
            axis.scatter(*zip(*[(k, v) for k, group in enumerate(values) for v in group], strict=True), s=6)
        axis.set(title=name, xlabel="gamma")
        axis.set_xticks(range(len(gammas)), [f"{gamma:g}" for gamma in gammas], rotation=45)
    axes[0].legend()
    write_figure(figure, path)


def draw_tracks(found: list[dict[str, Any]], path: Path) -> None:
    """Some tracks in the plane, first seed (Fig. 3), a column per gamma; a dot where a track ends."""
    import matplotlib.pyplot as plt

    shown = [f for f in found if f["row"]["seed"] == 0]
    columns = len(shown) // len(NETWORKS)
    size = (2 * columns, 2.1 * len(NETWORKS))
    figure, axes = plt.subplots(len(NETWORKS), columns, figsize=size, layout="constrained", squeeze=False)
    for result, axis in zip(shown, axes.ravel(), strict=True):
        for track, label in zip(np.swapaxes(result["tracks"], 0, 1), result["labels"], strict=True):
            axis.plot(*track.T, color=f"C{label % 10}", linewidth=0.8)
            axis.plot(*track[-1], ".", color=f"C{label % 10}", markersize=4)
        axis.set(xticks=[], yticks=[])
        axis.set_title(f"{result['row']['network']}, {result['row']['gamma']:g}", fontsize=8)
    write_figure(figure, path)


def draw_robustness(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy over noise, attacks and reset units at the gamma nearest GAMMA (Figs. 7, 8), medians over seeds."""
    import matplotlib.pyplot as plt

    gamma = min((row["gamma"] for row in rows), key=lambda gamma: abs(gamma - GAMMA))

    kinds = {"noise": ("standard deviation", NOISE), "fgsm": ("epsilon", FGSM), "reset": ("share of units", RESET)}
    figure, axes = plt.subplots(1, len(kinds), figsize=(3.2 * len(kinds), 3), layout="constrained", sharey=True)
    for (kind, (label, levels)), axis in zip(kinds.items(), axes, strict=True):
        names = ["measured_accuracy", *(f"{kind}_{level:g}" for level in levels)]
        for network in NETWORKS:
            chosen = [row for row in rows if (row["network"], row["gamma"]) == (network, gamma)]
            axis.plot([0, *levels], [np.median([row[n] for row in chosen]) for n in names], "o-", label=network)
        axis.set(title=kind, xlabel=label)
    axes[0].set_ylabel(f"accuracy at gamma {gamma:g}")
    axes[0].legend()
    write_figure(figure, path)


def pair_of_panels() -> tuple[Any, Any]:
    """A figure with a panel per network."""
    import matplotlib.pyplot as plt

    return plt.subplots(1, len(NETWORKS), figsize=(8, 3.4), layout="constrained", sharey=True)


def colours(found: list[dict[str, Any]]) -> list[tuple[float, Any]]:
    """Each gamma with a colour, the darker the smaller."""
    import matplotlib.pyplot as plt

    gammas = sorted({result["row"]["gamma"] for result in found})
    return list(zip(gammas, plt.get_cmap("viridis")(np.linspace(0, 0.9, len(gammas))), strict=True))
