"""The transformer study: classifiers with seven layers behind their input, and which of the paper's claims hold.

Source: Detlefsen, Freifeld & Hauberg 2018, sec. 5.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from r2reg.errors import ImageError
from r2reg.io.files import atomic_path
from r2reg.studies.classifiers import (
    BATCH,
    BOXES,
    DISTORTIONS,
    LAYERS,
    NEARLY_SINGULAR,
    RATE,
    SHOWN,
    Setting,
    train_classifier,
)
from r2reg.studies.images import LabelledImages, read_labelled_images
from r2reg.studies.outcome import Claim, open_folder, told_apart, write_figure, write_outcome, write_text
from r2reg.studies.workers import in_processes

log = logging.getLogger(__name__)
SEEDS, EPOCHS, COPIES = 3, 6, 4
QUICK = (Setting("rts", "affine", "cnn"), Setting("rts", "tps", "fcn"))  # CPAB takes long to compile
QUICK_IMAGES = 100
RATES, SENSITIVE = (1e-4, 1e-2), ("affine", "affine-diff", "tps", "cpab")
IN_BOTH = ("none", "affine", "cpab")  # layers of the paper's Table 2 with both kinds of localisation
MARGIN = 0.01  # of accuracy
SETTINGS = (
    *(Setting(distortion, layer, "cnn") for distortion in DISTORTIONS for layer in LAYERS),
    *(Setting(distortion, layer, "fcn") for distortion in ("rts", "cpab") for layer in IN_BOTH),
    *(Setting("rts", layer, "cnn", rate) for rate in RATES for layer in SENSITIVE),
)
DISTORTED = {  # Table 2: MNIST, means of five runs
    ("rts", "none", "fcn"): 0.945, ("rts", "none", "cnn"): 0.974, ("rts", "affine", "fcn"): 0.986,
    ("rts", "affine", "cnn"): 0.992, ("rts", "cpab", "fcn"): 0.980, ("rts", "cpab", "cnn"): 0.982,
    ("rts", "affine-cpab", "cnn"): 0.996,
    ("cpab", "none", "fcn"): 0.918, ("cpab", "none", "cnn"): 0.952, ("cpab", "affine", "fcn"): 0.964,
    ("cpab", "affine", "cnn"): 0.974, ("cpab", "cpab", "fcn"): 0.980, ("cpab", "cpab", "cnn"): 0.989,
    ("cpab", "affine-cpab", "cnn"): 0.993,
}  # fmt: skip
# Table 3, by LAYERS: data sets as they are. Its LFW (pairs to verify) and CelebA (40 attributes) are other tasks.
PLAIN = {
    "mnist": (0.991, 0.993, 0.994, 0.993, 0.996, 0.994, 0.996),
    "fashion_mnist": (0.922, 0.919, 0.920, 0.919, 0.918, 0.917, 0.913),
    "cifar10": (0.870, 0.891, 0.892, 0.891, 0.893, 0.895, 0.889),
    "cifar100": (0.642, 0.653, 0.654, 0.653, 0.656, 0.659, 0.652),
}


def run(
    folder: Path, quick: bool = False, data: Path | None = None, seeds: int = SEEDS, epochs: int = EPOCHS
) -> list[dict[str, Any]]:
    """Fill a folder (see `outcome`); what it holds of an earlier run is not trained again.

    Args:
        quick: few settings and images, one seed and epoch, whatever else is given.
        data: see `read_labelled_images`.
        seeds: trainings of each setting. epochs: of each; with fewer than SEEDS or EPOCHS no claim is judged.
    Returns:
        A row per network, setting and seed.
    Raises:
        ImageError, OutputError: no such images; as `open_folder`.
    """
    images, settings, copies = read_labelled_images(data), SETTINGS, COPIES
    if quick:
        settings, seeds, epochs, copies = QUICK, 1, 1, 1
        images = images.first(QUICK_IMAGES)
    shared = (folder, images, epochs, copies)
    asked = [(setting, seed) for seed in range(seeds) for setting in settings]
    if min(len(images.train), len(images.test)) < BATCH:
        have = f"{len(images.train)} and {len(images.test)}"
        raise ImageError(f"{data}: needs {BATCH} images to train on and {BATCH} to test on; it has {have}")
    about: dict[str, str | int] = {
        "data": images.name,
        "images": images.fingerprint,
        "epochs": epochs,
        "copies": copies,
    }
    open_folder(folder, "transformers", quick, **about)
    rows = [trained(*shared, *given) for given in asked] if quick else in_processes(trained, shared, asked)
    write_outcome(folder, rows, tables(rows), claims(rows, folder), tested=seeds >= SEEDS and epochs >= EPOCHS)
    draw_accuracies(rows, folder / "figures" / "accuracy.png")
    draw_moved(settings, folder)
    draw_components(settings, folder)
    return rows


def trained(
    folder: Path, images: LabelledImages, epochs: int, copies: int, setting: Setting, seed: int
) -> dict[str, Any]:
    """The row of a network, from the folder or trained now; beside it theta and some moved images."""
    path = folder / "runs" / f"{setting.name}_{seed}.json"
    if path.is_file():
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return known
    log.info("training %s, seed %d", setting.name, seed)
    found = train_classifier(setting, images, seed, epochs, copies)
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path.with_suffix(".npz")) as temporary, temporary.open("wb") as file:
        np.savez(file, theta=found.theta, shift=found.shift, moved=found.moved)
    row = {
        "data": images.name, "distortion": setting.distortion, "layer": setting.layer,
        "localisation": setting.localisation, "seed": seed, **found.figures, "learning_rate": setting.rate,
    }  # fmt: skip
    write_text(path, json.dumps(row, indent=2) + "\n")
    return row


def outputs(folder: Path, setting: Setting, seed: int = 0) -> dict[str, np.ndarray]:
    """theta (N, P) and mean displacement (N, 2) of the test images, and a few of them moved."""
    with np.load(folder / "runs" / f"{setting.name}_{seed}.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def tables(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Accuracies with confidence intervals beside the paper's, and over the learning rate."""
    import pandas

    frame = pandas.DataFrame(rows).astype({"near_singular": float})
    usual, name = frame[frame.learning_rate == RATE], frame.data.iloc[0]
    theirs, known = paper_of(name)
    keys = ["distortion", "layer", "localisation"]
    lines = []
    for key, group in usual.groupby(keys, sort=False):
        line = dict(zip(keys, key, strict=True)) | {"accuracy": group.accuracy.mean()}
        line |= {"95 % interval": "{:.3f} to {:.3f}".format(*interval(group.accuracy))}
        line |= {"paper": known.get(key, ""), "parameters": group.parameters.iloc[0]}
        line |= {"nearly singular maps": group.near_singular.mean(), "seconds": group.seconds.mean()}
        lines.append(line)
    title = f"Accuracy on test images of {name}, means over {frame.seed.nunique()} seeds; the paper's are of {theirs}."
    found = {title: pandas.DataFrame(lines)}
    tried = frame[(frame.distortion == "rts") & (frame.localisation == "cnn") & frame.layer.isin(SENSITIVE)]
    if tried.learning_rate.nunique() > 1:
        over = tried.pivot_table(index="layer", columns="learning_rate", values=["accuracy", "near_singular"])
        over.columns = [f"{name.replace('_', ' ')}, {rate:g}" for name, rate in over.columns]
        found["Distortion rts over the learning rate (the paper's Fig. 3)."] = over.reset_index()
    return found


def paper_of(data: str) -> tuple[str, dict[tuple[str, str, str], float]]:
    """The data set of the paper's figures beside ours, and those by distortion, layer and localisation.

    Those of the data's own name, such as cifar10; of all others MNIST's.
    """
    name = data.lower().replace("-", "_")
    name = name if name in PLAIN else "mnist"
    plain = {("none", layer, "cnn"): value for layer, value in zip(LAYERS, PLAIN[name], strict=True)}
    return name, plain | DISTORTED if name == "mnist" else plain


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's 95 % confidence interval of a mean accuracy, within [0, 1]; all of that for a single value."""
    from scipy.stats import t

    array = np.asarray(values, float)
    if len(array) < 2:
        return 0.0, 1.0
    half = t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array))
    return max(float(array.mean() - half), 0.0), min(float(array.mean() + half), 1.0)


def claims(rows: list[dict[str, Any]], folder: Path) -> list[Claim]:
    """What the paper says of its layers, with its figures of MNIST."""
    theirs, _ = paper_of(rows[0]["data"])

    def of(name: str, distortion: str, layer: str, kinds: Sequence[str] = ("cnn",), rate: float = RATE) -> list[float]:
        return [
            row[name]
            for row in rows
            if (row["distortion"], row["layer"], row["learning_rate"]) == (distortion, layer, rate)
            and row["localisation"] in kinds
        ]

    def accuracy(distortion: str, layers: Sequence[str], kinds: Sequence[str] = ("cnn",)) -> str:
        means = [(layer, of("accuracy", distortion, layer, kinds)) for layer in layers]
        return ", ".join(f"{layer} {np.mean(found):.3f}" for layer, found in means if found) or "none"

    def better(claim: str, paper: str, distortion: str, first: str, second: str, kinds: Sequence[str]) -> Claim:
        a, b = (of("accuracy", distortion, layer, kinds) for layer in (first, second))
        return Claim(claim, paper, f"mean accuracy {accuracy(distortion, (first, second), kinds)}", told_apart(a, b))

    both, moving = ("fcn", "cnn"), LAYERS[1:]
    return [
        better("rts: an affine layer helps", ".986/.992 against .945/.974", "rts", "affine", "none", both),
        better("rts: a CPAB layer helps", ".980/.982 against .945/.974", "rts", "cpab", "none", both),
        better("cpab: an affine layer helps", ".964/.974 against .918/.952", "cpab", "affine", "none", both),
        better("cpab: a CPAB layer helps", ".980/.989 against .918/.952", "cpab", "cpab", "none", both),
        better("rts: affine is ahead of CPAB", ".986/.992 against .980/.982", "rts", "affine", "cpab", both),
        better("cpab: CPAB is ahead of affine", ".980/.989 against .964/.974", "cpab", "cpab", "affine", both),
        _best("rts", ".996, the best of its seven", of, accuracy),
        _best("cpab", ".993, the best of its seven", of, accuracy),
        _localisation(of),
        Claim(
            "on digits that are not distorted the layers help a little",
            "MNIST .993 to .996 against .991",
            f"mean accuracy {accuracy('none', LAYERS)}",
            told_apart([v for layer in moving for v in of("accuracy", "none", layer)], of("accuracy", "none", "none"))
            if theirs == "mnist"
            else None,
        ),
        _singular(of),
        _sensitive(of),
        _translation(rows, folder),
    ]


def _best(distortion: str, paper: str, of: Any, accuracy: Any) -> Claim:
    values = {layer: found for layer in LAYERS if (found := of("accuracy", distortion, layer))}
    holds = None
    if len(values) == len(LAYERS):
        ours = values.pop("affine-cpab")
        rival = max(values.values(), key=np.mean)
        holds = told_apart(ours, rival)
    told = f"mean accuracy {accuracy(distortion, LAYERS)}"
    return Claim(f"{distortion}: affine and CPAB together are best", paper, told, holds)


def _localisation(of: Any) -> Claim:
    cells = [(distortion, layer) for distortion in ("rts", "cpab") for layer in ("affine", "cpab")]
    cnn, fcn = ([v for cell in cells for v in of("accuracy", *cell, (kind,))] for kind in ("cnn", "fcn"))
    ours = f"mean accuracy {np.mean(cnn):.3f} and {np.mean(fcn):.3f}" if cnn and fcn else "none"
    return Claim(
        "a localisation with convolutions is better than a fully connected one",
        ".992, .974, .982, .989 against .986, .964, .980, .980",
        ours,
        told_apart(cnn, fcn) if len(cnn) == len(fcn) else None,
    )


def _singular(of: Any) -> Claim:
    shares = {
        layer: [v for rate in (RATE, *RATES) for v in of("near_singular", "rts", layer, rate=rate)]
        for layer in SENSITIVE
    }
    told = ", ".join(f"{layer} {np.mean(found):.4f}" for layer, found in shares.items() if found) or "none"
    complete = all(shares.values())
    return Claim(
        "an affine layer's maps may become singular, those of affine-diff and CPAB do not",
        "Fig. 3, left: some are",
        f"share of maps with a Jacobian below {NEARLY_SINGULAR} over all learning rates: {told}",
        bool(max(shares["affine"]) > 0 and max(shares["affine-diff"] + shares["cpab"]) == 0) if complete else None,
    )


def _sensitive(of: Any) -> Claim:
    spread = {}
    for layer in SENSITIVE:
        means = [np.mean(found) for rate in (RATE, *RATES) if (found := of("accuracy", "rts", layer, rate=rate))]
        if len(means) == 1 + len(RATES):
            spread[layer] = max(means) - min(means)
    told = ", ".join(f"{layer} {value:.3f}" for layer, value in spread.items()) or "none"
    complete = len(spread) == len(SENSITIVE)
    rates = ", ".join(f"{rate:g}" for rate in sorted((RATE, *RATES)))
    return Claim(
        "affine and TPS mind the learning rate more than CPAB",
        "Fig. 3, right",
        f"spread of mean accuracy over {rates}, larger by {MARGIN:g} or more: {told}",
        bool(min(spread["affine"], spread["tps"]) > spread["cpab"] + MARGIN) if complete else None,
    )


def _translation(rows: list[dict[str, Any]], folder: Path) -> Claim:
    wanted = {"distortion": "rts", "layer": "cpab", "localisation": "cnn"}
    present = any(wanted.items() <= row.items() for row in rows)
    share = translation_in_components(outputs(folder, Setting("rts", "cpab", "cnn"))) if present else None
    return Claim(
        "the first two principal components of theta capture the maps' translation",
        "Fig. 6C, faces (LFW)",
        f"they explain {share:.2f} of the maps' mean shift (R^2), rts digits" if share is not None else "none",
        bool(share > 0.5) if share is not None else None,
    )


def translation_in_components(found: dict[str, np.ndarray]) -> float:
    """How much (R^2) of the maps' mean displacement the first two principal components of theta explain."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LinearRegression

    components = PCA(2).fit_transform(found["theta"])
    return float(LinearRegression().fit(components, found["shift"]).score(components, found["shift"]))


def draw_accuracies(rows: list[dict[str, Any]], path: Path) -> None:
    """Every run a point, for each distortion and layer."""
    import matplotlib.pyplot as plt

    shown = [d for d in DISTORTIONS if any(row["distortion"] == d for row in rows)]
    figure, axes = plt.subplots(
        1, len(shown), figsize=(4 * len(shown), 3.4), layout="constrained", squeeze=False, sharex=True
    )
    for axis, distortion in zip(axes[0], shown, strict=True):
        for kind, mark in (("cnn", "o"), ("fcn", "x")):
            found = [
                (LAYERS.index(row["layer"]), row["accuracy"])
                for row in rows
                if (row["distortion"], row["localisation"], row["learning_rate"]) == (distortion, kind, RATE)
            ]
            if found:
                axis.plot(*zip(*found, strict=True), mark, label=f"{kind} localisation", alpha=0.7)
        axis.set_xticks(range(len(LAYERS)), LAYERS, rotation=40, ha="right")
        axis.set(title=f"distortion: {distortion}", ylabel="accuracy")
        axis.legend(fontsize=8)
    write_figure(figure, path)


def draw_moved(settings: Sequence[Setting], folder: Path) -> None:
    """Test images as the classifier sees them, behind each layer, first seed (Fig. 5)."""
    import matplotlib.pyplot as plt

    usual = [s for s in settings if s.rate == RATE and s.distortion != "none"]
    columns = SHOWN
    size = (1.0 * columns + 1.5, 1.0 * len(usual))
    figure, axes = plt.subplots(len(usual), columns, figsize=size, layout="constrained", squeeze=False)
    for line, setting in zip(axes, usual, strict=True):
        for axis, image in zip(line, outputs(folder, setting)["moved"], strict=False):
            axis.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(f"{setting.distortion}\n{setting.layer}\n{setting.localisation}", fontsize=6)
    write_figure(figure, folder / "figures" / "moved.png")


def draw_components(settings: Sequence[Setting], folder: Path) -> None:
    """A grid under mean theta and along its first two principal components (Fig. 6C), of the CPAB layers."""
    import matplotlib.pyplot as plt
    from sklearn.decomposition import PCA

    bent = [s for s in settings if s.layer == "cpab" and s.rate == RATE]
    if not bent:
        return
    steps = (-2, -1, 0, 1, 2)
    size = (1.5 * len(steps), 1.6 * 2 * len(bent))
    figure, axes = plt.subplots(2 * len(bent), len(steps), figsize=size, layout="constrained", squeeze=False)
    for k, setting in enumerate(bent):
        theta = outputs(folder, setting)["theta"]
        found = PCA(2).fit(theta)
        for part in (0, 1):
            direction = found.components_[part] * np.sqrt(found.explained_variance_[part])
            for axis, step in zip(axes[2 * k + part], steps, strict=True):
                _draw_grid(axis, found.mean_ + step * direction)
                if k + part == 0:
                    axis.set_title(f"{step:+d} sd", fontsize=8)
            label = f"{setting.distortion}, {setting.localisation}\ncomponent {part + 1}"
            axes[2 * k + part, 0].set_ylabel(f"{label} ({found.explained_variance_ratio_[part]:.0%})", fontsize=7)
    write_figure(figure, folder / "figures" / "components.png")


def _draw_grid(axis: Any, theta: np.ndarray, lines: int = 9) -> None:
    """Where a map of theta takes the lines of a grid."""
    from keras import ops

    from r2reg.flow.families import make_family

    along = np.linspace(0.05, 0.95, lines)
    fine = np.linspace(0.05, 0.95, 60)
    family = make_family("cpab", 2, BOXES, "free")
    across = np.stack(np.meshgrid(along, fine, indexing="ij"), axis=-1)
    points = np.concatenate([across, across[..., ::-1]]).reshape(1, -1, 2).astype(np.float32)
    there = family.map(ops.convert_to_tensor(theta[None].astype(np.float32)), ops.convert_to_tensor(points))
    for line in ops.convert_to_numpy(there).reshape(-1, len(fine), 2):
        axis.plot(*line.T[::-1], color="0.3", linewidth=0.6)
    axis.set(xticks=[], yticks=[], aspect="equal", xlim=(-0.3, 1.3), ylim=(1.3, -0.3))
