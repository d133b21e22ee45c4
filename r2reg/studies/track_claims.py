"""What Gai & Zhang 2021 say of their networks' tracks, their figures, and whether ours say the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from r2reg.studies.outcome import FEWEST, Claim, told_apart
from r2reg.studies.straightness import NETWORKS

Rows = list[dict[str, Any]]
Paper = dict[tuple[str, float], dict[str, float]]

GAMMA = 5e-4  # of the paper's figures for MNIST
MODERATE = (5e-4, 1e-3, 1e-2)
NEAR = 0.1  # a score that falls short of the paper's by no more repeats it
STRAIGHT = 1.5  # our reading of "very small" for an LSS
LEARNT = 0.5  # of the best network's accuracy; below it a network has little to lose

MNIST_FILE = "mnist"  # stem of the file that Keras distributes
MNIST: Paper = {("resnet", GAMMA): {"lss": 1.12, "ots": 0.96}}
# By gamma: testing accuracy in %, OTS, LSR, LSS, each of plain and of ResNet. (Tables 4 and 5 give 0.1 and then "2e-2",
# which must be a larger one; it is left out.)
CIFAR = {
    ("cifar10", 1): {
        0.0: (53.5, 66.3, 9.0e-4, 0.681, 78.5, 3.71, 20.2, 3.79),
        1e-4: (54.9, 67.5, 2.3e-3, 0.329, 67.9, 3.30, 19.1, 3.60),
        5e-4: (57.0, 67.7, 2.1e-3, 0.753, 51.2, 3.57, 18.9, 3.68),
        1e-3: (57.0, 70.3, 1.0e-3, 0.826, 28.8, 3.81, 15.4, 3.90),
        1e-2: (88.9, 88.5, 9.0e-4, 0.0119, 1.27, 1.24, 6.71, 2.25),
        1e-1: (88.0, 86.1, 5.0e-4, 0.0272, 1.04, 1.22, 5.77, 2.66),
    },
    ("cifar100", 1): {
        0.0: (27.3, 42.4, 5.3e-3, 0.205, 48.6, 3.62, 20.1, 3.47),
        1e-4: (27.6, 41.8, 3.4e-3, 0.629, 43.9, 3.57, 21.9, 3.57),
        5e-4: (27.9, 43.2, 2.2e-3, 0.963, 30.8, 3.48, 17.0, 3.50),
        1e-3: (30.4, 44.1, 1.41e-2, 0.822, 15.4, 3.62, 13.5, 3.73),
        1e-2: (58.9, 59.7, 3e-4, 5.70e-3, 1.13, 1.52, 6.99, 2.01),
        1e-1: (50.1, 44.5, 5e-4, 4.6e-3, 1.02, 1.14, 6.20, 2.45),
    },
    ("cifar10", 4): {
        0.0: (89.3, 94.1, 5.5e-3, 1.0, 3.40, 1.30, 4.66, 1.40),
        5e-4: (92.6, 95.2, 1.75e-3, 1.0, 3.33, 1.17, 3.87, 1.21),
        1e-3: (94.0, 95.4, 0.0, 0.813, 2.55, 1.16, 3.62, 1.18),
        1e-2: (91.2, 95.0, 0.0188, 0.950, 1.88, 1.56, 3.63, 1.87),
    },
    ("cifar100", 4): {
        0.0: (57.4, 74.5, 0.148, 0.999, 3.74, 1.35, 4.60, 1.38),
        5e-4: (64.2, 76.4, 0.005, 1.0, 3.56, 1.20, 4.13, 1.28),
        1e-3: (69.6, 77.1, 0.223, 0.995, 3.08, 1.21, 3.98, 1.30),
        1e-2: (44.1, 78.1, 0.003, 0.859, 2.99, 1.66, 3.87, 1.82),
    },
}
LOSSES = {  # what is done to a network: the claim, and what the paper gives for it
    "noise_0.2": ("the ResNet is more robust to random noise", "accuracy falls more slowly (Fig. 8)"),
    "fgsm_0.05": ("the ResNet is more robust to FGSM", "accuracy falls more slowly (Fig. 8)"),
    "reset_0.5": (
        "no few units matter to the ResNet as they do to plain",
        "plain falls rapidly, the ResNet not (Fig. 7)",
    ),
    "removed": ("the ResNet loses less without one of its blocks", "a modest impact (sec. 4.2)"),
    "swapped": ("the ResNet loses less with two blocks swapped", "a modest impact (sec. 4.2)"),
}
LSS_OF_CIFAR = {1: {"plain": 6.1, "resnet": 2.2}, 4: {"plain": 4.0, "resnet": 1.2}}  # by K, in the text


def paper_of(data: str, stages: int) -> Paper:
    """The paper's figures by network and gamma: CIFAR's by name, else those of MNIST."""
    if (data, stages) not in CIFAR:
        return MNIST
    scores = ("test_accuracy", "ots", "lsr", "lss")
    found: Paper = {}
    for gamma, values in CIFAR[data, stages].items():
        for k, network in enumerate(NETWORKS):
            chosen = dict(zip(scores, values[k::2], strict=True))
            found[network, gamma] = chosen | {"test_accuracy": chosen["test_accuracy"] / 100}
    return found


def claims(rows: Rows) -> list[Claim]:
    """All of them."""
    return [*of_decay(rows), *of_networks(rows), *of_robustness(rows), *of_mnist(rows), *of_cifar(rows)]


def of_decay(rows: Rows) -> list[Claim]:
    """What gamma does to tracks and accuracy."""
    found = []
    for network in NETWORKS:
        paper = "LSS approaches 1 with a moderately large gamma; CIFAR-10, K = 1, gamma 0 and .01: "
        paper += {"plain": "20.2 and 6.71", "resnet": "3.79 and 2.25"}[network]
        sides = by_gamma(rows, "lss", network, (0.0,), MODERATE)
        found.append(compared(f"weight decay straightens the tracks ({network})", paper, "LSS without and with", sides))
    for network in NETWORKS:
        sides = by_gamma(rows, "test_accuracy", network, MODERATE, (0.0,))
        best = best_gamma(rows, network)
        claim = compared(
            f"a moderate gamma is better than none ({network})",
            "testing accuracy is best at gamma .01 (CIFAR, K = 1)",
            f"best at gamma {best:g}; with and without",
            sides,
        )
        found.append(claim)
    for network in NETWORKS:
        sides = by_gamma(rows, "test_accuracy", network, MODERATE, (1.0,))
        text = "testing accuracy at moderate gammas and at 1"
        found.append(compared(f"above .1 weight decay blocks the fit ({network})", "accuracy falls", text, sides))
    return found


def of_networks(rows: Rows) -> list[Claim]:
    """ResNet against plain, at the gammas at which both have learnt."""
    both = learnt(rows)
    return [
        compared(
            "the ResNet's tracks are straighter",
            "LSS about 6.1 and 2.2 (CIFAR, K = 1), 4 and 1.2 (K = 4)",
            "LSS of plain and of ResNet",
            by_network(both, "lss"),
        ),
        compared(
            "the ResNet's map is closer to optimal transport",
            "OTS near 1 for the ResNet, near 0 for plain (CIFAR, K = 4)",
            "OTS of ResNet and of plain",
            by_network(both, "ots", "resnet", "plain"),
        ),
        compared(
            "the ResNet generalises better",
            "testing accuracy 95.4 and 94.0 % (CIFAR-10, K = 4, gamma 1e-3)",
            "testing accuracy of ResNet and of plain",
            by_network(both, "test_accuracy", "resnet", "plain"),
        ),
        compared(
            "two tracks of the ResNet do not come too close",
            "bound (41), which holds for optimal transport; no figure",
            "share of pairs that violate it, plain and ResNet",
            by_network(both, "bound_violated"),
        ),
    ]


def of_robustness(rows: Rows) -> list[Claim]:
    """What plain loses more than the ResNet, where both have learnt."""
    both = [row | {f"lost_{name}": row["measured_accuracy"] - row[name] for name in LOSSES} for row in learnt(rows)]
    found = [
        compared(claim, paper, f"accuracy lost ({name}), plain and ResNet", by_network(both, f"lost_{name}"))
        for name, (claim, paper) in LOSSES.items()
    ]
    for what, name in (("random noise", "noise_0.2"), ("FGSM", "fgsm_0.05")):
        paper = "lower variation rate of the last state (Fig. 8, eq. 49)"
        text = f"variation rate ({name}), plain and ResNet"
        sides = by_network(both, f"{name}_variation")
        found.append(compared(f"{what} moves the ResNet's last state less", paper, text, sides))
    return found


def of_mnist(rows: Rows) -> list[Claim]:
    """The figures that the paper gives of it, judged where it is what was trained on, and often enough."""
    found = []
    judged = rows[0]["data"] == MNIST_FILE and trained_often(rows)
    for name, short in (("lss", 1), ("ots", -1)):
        theirs, ours = MNIST["resnet", GAMMA][name], median(rows, name, "resnet", GAMMA)
        text = f"median {ours:.3g} on {rows[0]['data']}" if ours is not None else "gamma not run"
        holds = bool(short * (ours - theirs) <= NEAR) if ours is not None and judged else None
        claim = f"the ResNet reaches MNIST's {name.upper()}, {theirs:g}, at gamma {GAMMA:g} (within {NEAR:g})"
        found.append(Claim(claim, f"{theirs:g}", text, holds))
    plain = median(rows, "lss", "plain", GAMMA)
    straight = bool(plain <= STRAIGHT) if plain is not None and judged else None
    text = f"median {plain:.3g} on {rows[0]['data']}" if plain is not None else "gamma not run"
    claim = f"on MNIST plain's tracks are straight, too, with a small gamma (LSS {STRAIGHT:g} at most at {GAMMA:g})"
    found.append(Claim(claim, "both reach a very small LSS (sec. 5.2); no figure", text, straight))
    return found


def of_cifar(rows: Rows) -> list[Claim]:
    """The LSS that the text gives, judged as `of_mnist`."""
    ran = rows[0]["data"], rows[0]["stages"]
    ours = {network: least_lss(learnt(rows), network) for network in NETWORKS}
    found = []
    for stages, theirs in LSS_OF_CIFAR.items():
        figures, text = (", ".join(f"{k} {value:.3g}" for k, value in values.items()) for values in (theirs, ours))
        near = all(abs(ours[network] - value) <= value / 10 for network, value in theirs.items())
        same = ran in CIFAR and ran[1] == stages
        claim = f"CIFAR, K = {stages}: LSS falls to about {figures} (within a tenth)"
        judged = same and trained_often(rows)
        found.append(Claim(claim, figures, text if same else f"run on {ran[0]}", near if judged else None))
    return found


def trained_often(rows: Rows) -> bool:
    """Whether there are as many seeds as a verdict takes."""
    return len({row["seed"] for row in rows}) >= FEWEST


def by_network(rows: Rows, name: str, first: str = "plain", second: str = "resnet") -> tuple[list[float], list[float]]:
    """A score of two networks, paired by gamma and seed."""
    values = {(row["network"], row["gamma"], row["seed"]): row[name] for row in rows}
    keys = [key[1:] for key in values if key[0] == first and (second, *key[1:]) in values]
    return [values[first, *key] for key in keys], [values[second, *key] for key in keys]


def by_gamma(
    rows: Rows, name: str, network: str, first: Sequence[float], second: Sequence[float]
) -> tuple[list[float], list[float]]:
    """A network's score at some gammas and at others, means for each seed that has both."""
    values = {(row["gamma"], row["seed"]): row[name] for row in rows if row["network"] == network}
    sides: tuple[list[float], list[float]] = ([], [])
    for seed in sorted({seed for _, seed in values}):
        found = [[values[gamma, seed] for gamma in gammas if (gamma, seed) in values] for gammas in (first, second)]
        if all(found):
            for side, of_seed in zip(sides, found, strict=True):
                side.append(float(np.mean(of_seed)))
    return sides


def compared(claim: str, paper: str, what: str, sides: tuple[list[float], list[float]]) -> Claim:
    """Whether the first of two sides is larger, see `told_apart`."""
    first, second = sides
    if not first:
        return Claim(claim, paper, f"{what}: no pair to compare", None)
    a, b = np.median(first), np.median(second)
    by = "Wilcoxon" if len(first) >= 5 else "no overlap asked for"
    text = f"{what}: medians {a:.3g}, {b:.3g} ({len(first)} pairs, {by})"
    return Claim(claim, paper, text, told_apart(first, second))


def learnt(rows: Rows) -> Rows:
    """Rows at gammas and seeds at which neither network failed to learn."""
    least = LEARNT * max(row["measured_accuracy"] for row in rows)
    failed = {(row["gamma"], row["seed"]) for row in rows if row["measured_accuracy"] < least}
    return [row for row in rows if (row["gamma"], row["seed"]) not in failed]


def median(rows: Rows, name: str, network: str, gamma: float) -> float | None:
    """Over seeds; None where there is no such row."""
    values = [row[name] for row in rows if (row["network"], row["gamma"]) == (network, gamma)]
    return float(np.median(values)) if values else None


def best_gamma(rows: Rows, network: str) -> float:
    """Where the median testing accuracy is largest."""
    found = {gamma: median(rows, "test_accuracy", network, gamma) or 0 for gamma in {row["gamma"] for row in rows}}
    return max(found, key=lambda gamma: found[gamma])


def least_lss(rows: Rows, network: str) -> float:
    """The least median LSS over gammas."""
    found = [median(rows, "lss", network, gamma) for gamma in {row["gamma"] for row in rows}]
    return min((value for value in found if value is not None), default=np.inf)
