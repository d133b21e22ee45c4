"""The spiral study: train the networks, look at their maps, say which of the paper's claims hold."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from r2reg.io.tables import write_table
from r2reg.studies.outcome import Claim, larger, open_folder, write_figure, write_outcome
from r2reg.studies.spiral import EPOCHS, NETWORKS, REACH, UNITS, Flow, Setting, draw_spiral, train_flow
from r2reg.studies.workers import in_processes

log = logging.getLogger(__name__)

SETTINGS = (
    *(Setting(network) for network in NETWORKS),
    *(Setting(network, "rk4") for network in NETWORKS),
    *(Setting(network, "midpoint") for network in NETWORKS),
    Setting("own", basis=40),
    Setting("shared", basis=40),
)
SEEDS = 10
QUICK_SEEDS, QUICK_EPOCHS, QUICK_SETTINGS = 2, 1, (Setting("own", "rk4"), Setting("symmetric-domain"))
SIDE = 151  # points along an axis of the map of the Jacobian
SUBSTEPS = (1, 2, 4, 8, 16)  # per unit
TOLERANCE = 1e-8  # of the adaptive scheme, which stands for the converged flow
PAPER = {  # least and largest Jacobian, one run each
    "own": (-5.59, 6.34),
    "shared": (-1.41, 2.27),
    "symmetric-data": (0.55, 5.92),
    "symmetric-domain": (0.30, 1.44),
}


def run(folder: Path, quick: bool = False) -> list[dict[str, Any]]:
    """Fill a folder (see `outcome`); what it holds of an earlier run is not trained again.

    Returns:
        A row per network, setting and seed.
    Raises:
        OutputError: as `open_folder`.
    """
    seeds, epochs, settings = SEEDS, EPOCHS, SETTINGS
    if quick:
        seeds, epochs, settings = QUICK_SEEDS, QUICK_EPOCHS, QUICK_SETTINGS
    open_folder(folder, "spiral", quick, seeds=seeds, epochs=epochs)
    (folder / "weights").mkdir(exist_ok=True)
    log.info("%d of %d networks to train", sum(not weights(folder, s).is_file() for s in settings), len(settings))
    shared, asked = (folder, seeds, epochs), [(setting,) for setting in settings]
    found = [looked_at(*shared, *given) for given in asked] if quick else in_processes(looked_at, shared, asked)
    rows = [row for of_seeds, _ in found for row in of_seeds]
    steps = [row for _, of_steps in found for row in of_steps]
    flows = {setting: Flow.load(weights(folder, setting)) for setting in settings}
    write_table(folder / "steps.csv", steps)
    write_outcome(folder, rows, tables(rows, steps), claims(rows))
    draw_maps(flows, folder / "figures" / "jacobian.png")
    draw_boundaries(flows, folder / "figures" / "boundaries.png")
    draw_way(flows, folder / "figures" / "way.png")
    return rows


def weights(folder: Path, setting: Setting) -> Path:
    """Where the flow of a setting is kept."""
    return folder / "weights" / f"{setting.network}_{setting.scheme}_{setting.basis}.npz"


def looked_at(
    folder: Path, seeds: int, epochs: int, setting: Setting
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What `describe` and `against_converged` say of the flow of a setting, from the folder or trained now and kept."""
    path = weights(folder, setting)
    if not path.is_file():
        train_flow(setting, seeds, epochs).save(path)
    flow = Flow.load(path)
    return describe(setting, flow), against_converged(setting, flow)


def describe(setting: Setting, flow: Flow) -> list[dict[str, Any]]:
    """A row per seed."""
    points, labels = spirals(flow)
    domain = np.broadcast_to(grid(SIDE), (len(points), SIDE**2, 2))
    right = (flow.probability(flow.forward(points, setting.scheme)[-1]) > 0.5) == labels
    determinant = jacobian(flow, setting.scheme)
    away = {
        name: np.sqrt(
            (np.sum((flow.backward(flow.forward(x, setting.scheme)[-1], setting.scheme) - x) ** 2, axis=-1)).mean(1)
        )
        for name, x in (("data", points), ("domain", domain))
    }
    return [
        {
            "network": setting.network,
            "scheme": setting.scheme,
            "basis": setting.basis,
            "seed": seed,
            "accuracy": right[seed].mean(),
            "jacobian_min": determinant[seed].min(),
            "jacobian_max": determinant[seed].max(),
            "folded_share": (determinant[seed] <= 0).mean(),
            "inverse_error_data": away["data"][seed],
            "inverse_error_domain": away["domain"][seed],
        }
        for seed in range(len(points))
    ]


def spirals(flow: Flow) -> tuple[np.ndarray, np.ndarray]:
    """The points (S, N, 2) and classes (S, N) that its seeds were trained on."""
    drawn = [draw_spiral(seed) for seed in range(len(flow.read))]
    return np.stack([p for p, _ in drawn]).astype(float), np.stack([c for _, c in drawn])


def grid(side: int) -> np.ndarray:
    """(side^2, 2) points over the domain, the second coordinate fastest."""
    along = np.linspace(-REACH, REACH, side)
    return np.stack(np.meshgrid(along, along, indexing="ij"), axis=-1).reshape(-1, 2)


def jacobian(flow: Flow, scheme: str, substeps: int = 1, side: int = SIDE) -> np.ndarray:
    """(S, side, side) determinants of the whole map over the domain."""
    x = np.broadcast_to(grid(side), (len(flow.read), side**2, 2))
    return flow.jacobian(x, scheme, substeps).reshape(-1, side, side)


def against_converged(setting: Setting, flow: Flow) -> list[dict[str, Any]]:
    """How far the map is from the converged flow, and whether it folds, over the number of steps; a row per seed."""
    from scipy.integrate import solve_ivp

    x = np.broadcast_to(grid(21), (len(flow.read), 21**2, 2))
    end, evaluations = x, 0
    for unit in range(UNITS):
        rate = flow.rate(unit)

        def change(_: float, y: np.ndarray, rate: Any = rate) -> np.ndarray:
            return np.asarray(rate(y.reshape(x.shape))).ravel()

        solved = solve_ivp(change, (0, 1), end.ravel(), rtol=TOLERANCE, atol=TOLERANCE)
        end, evaluations = solved.y[:, -1].reshape(x.shape), evaluations + solved.nfev
    rows = []
    for substeps in SUBSTEPS:
        off = np.sqrt(np.sum((flow.forward(x, setting.scheme, substeps)[-1] - end) ** 2, axis=-1).mean(axis=1))
        least = jacobian(flow, setting.scheme, substeps, side=51).min(axis=(1, 2))
        rows += [
            {
                "network": setting.network,
                "scheme": setting.scheme,
                "basis": setting.basis,
                "seed": seed,
                "substeps": substeps,
                "distance_to_converged": off[seed],
                "jacobian_min": least[seed],
                "adaptive_evaluations": evaluations,
            }
            for seed in range(len(x))
        ]
    return rows


def tables(rows: list[dict[str, Any]], steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over seeds, beside the paper's single runs."""
    import pandas

    keys = ["network", "scheme", "basis"]
    medians = pandas.DataFrame(rows).groupby(keys, sort=False).median().drop(columns="seed").reset_index()
    papers = [
        PAPER.get(n, ("", "")) if (s, b) == ("euler", 10) else ("", "")
        for n, s, b in medians[keys].itertuples(index=False)
    ]
    for k, name in enumerate(("jacobian_min", "jacobian_max")):
        medians.insert(medians.columns.get_loc(name) + 1, f"paper's {name}", [paper[k] for paper in papers])
    of_steps = pandas.DataFrame(steps).groupby([*keys, "substeps"], sort=False).median().drop(columns="seed")
    return {
        f"Medians over {len({row['seed'] for row in rows})} seeds.": medians,
        "The same weights with more steps per unit: distance to the converged flow (root mean square), medians.": (
            of_steps.reset_index()
        ),
    }


def claims(rows: list[dict[str, Any]]) -> list[Claim]:
    """What the paper says of its four networks, and of better schemes."""

    def of(name: str, network: str, scheme: str = "euler", basis: int = 10) -> list[float]:
        wanted = (network, scheme, basis)
        return [row[name] for row in rows if (row["network"], row["scheme"], row["basis"]) == wanted]

    def medians(name: str, networks: Sequence[str], scheme: str = "euler") -> str:
        return ", ".join(f"{n} {np.median(found):.3g}" for n in networks if (found := of(name, n, scheme)))

    def more_regular(claim: str, first: str, second: str) -> Claim:
        paper = f"least Jacobian {PAPER[first][0]} against {PAPER[second][0]}"
        a, b = of("jacobian_min", first), of("jacobian_min", second)
        holds = larger(a, b) if len(a) == len(b) else None
        return Claim(claim, paper, f"medians {medians('jacobian_min', (first, second)) or 'none'}", holds)

    complete = all(of("accuracy", n) for n in NETWORKS) and len(rows) >= SEEDS
    spread = {n: np.median(of("jacobian_max", n)) - np.median(of("jacobian_min", n)) for n in NETWORKS if complete}
    unfolded = {n: np.mean(np.array(of("jacobian_min", n)) > 0) for n in NETWORKS if complete}
    rk4 = {n: np.mean(np.array(of("jacobian_min", n, "rk4")) > 0) for n in NETWORKS if complete}
    return [
        Claim(
            "all four classify more than 99 %",
            "above 99 % in all",
            f"median accuracy {medians('accuracy', NETWORKS)}",
            all(np.median(of("accuracy", n)) > 0.99 for n in NETWORKS) if complete else None,
        ),
        more_regular("shared weights make the map more regular", "shared", "own"),
        more_regular("inverse consistency on the data makes it more regular still", "symmetric-data", "shared"),
        more_regular("inverse consistency on the domain makes it more regular still", "symmetric-domain", "shared"),
        Claim(
            "the domain-driven map is the most regular",
            "Jacobians within 1.14, the narrowest",
            "median spread " + ", ".join(f"{n} {value:.3g}" for n, value in spread.items()),
            min(spread, key=lambda n: spread[n]) == "symmetric-domain" if complete else None,
        ),
        Claim(
            "with inverse consistency the map does not fold",
            "least Jacobian .55 and .30",
            "share of seeds without a fold " + ", ".join(f"{n} {value:.1f}" for n, value in unfolded.items()),
            bool(min(unfolded["symmetric-data"], unfolded["symmetric-domain"]) == 1) if complete else None,
        ),
        Claim(
            "higher-order schemes such as RK4 are of interest",
            "named for future work",
            "share of seeds without a fold with RK4 " + ", ".join(f"{n} {value:.1f}" for n, value in rk4.items()),
            bool(min(rk4.values()) == 1) if complete else None,
        ),
    ]


def draw_maps(flows: dict[Setting, Flow], path: Path) -> None:
    """The Jacobian over the domain, first seed (Fig. 4), on a logarithmic scale but for -1 to 1."""
    from matplotlib.colors import SymLogNorm

    figure, axes = panels(flows)
    for (setting, flow), axis in zip(flows.items(), axes, strict=True):
        values = jacobian(flow, setting.scheme)[0]
        scale = SymLogNorm(1, vmin=-1000, vmax=1000)
        shown = axis.imshow(values.T, origin="lower", cmap="RdBu", norm=scale, extent=[-REACH, REACH] * 2)
        axis.set_xlabel(f"J in [{values.min():.2f}, {values.max():.2f}]")
    figure.colorbar(shown, ax=axes.tolist(), label="Jacobian; below 0 the map folds", shrink=0.6)
    write_figure(figure, path)


def draw_boundaries(flows: dict[Setting, Flow], path: Path) -> None:
    """The probability of class 1 over the domain and the points, first seed (Fig. 2)."""
    figure, axes = panels(flows)
    domain = grid(SIDE)
    for (setting, flow), axis in zip(flows.items(), axes, strict=True):
        every = np.broadcast_to(domain, (len(flow.read), *domain.shape))
        probability = flow.probability(flow.forward(every, setting.scheme)[-1])[0].reshape(SIDE, SIDE)
        axis.imshow(probability.T, origin="lower", cmap="PuOr", vmin=0, vmax=1, extent=[-REACH, REACH] * 2)
        points, labels = (array[0] for array in spirals(flow))
        axis.scatter(*points.T, c=labels, s=0.5, cmap="PuOr", vmin=-0.3, vmax=1.3)
    write_figure(figure, path)


def draw_way(flows: dict[Setting, Flow], path: Path) -> None:
    """Where the points are after 0, 5, ... 20 units, first seed (Fig. 3)."""
    import matplotlib.pyplot as plt

    shown = range(0, UNITS + 1, 5)
    size = (1.8 * len(shown), 1.8 * len(flows))
    figure, axes = plt.subplots(len(flows), len(shown), figsize=size, layout="constrained", squeeze=False)
    for line, (setting, flow) in zip(axes, flows.items(), strict=True):
        points, labels = spirals(flow)
        states = flow.forward(points, setting.scheme)
        for axis, unit in zip(line, shown, strict=True):
            axis.scatter(*states[unit][0].T, c=labels[0], s=0.3, cmap="PuOr", vmin=-0.3, vmax=1.3)
            axis.set(xticks=[], yticks=[], title=f"after {unit}" if line is axes[0] else "")
        line[0].set_ylabel(title(setting))
    write_figure(figure, path)


def panels(flows: dict[Setting, Flow]) -> tuple[Any, np.ndarray]:
    """A figure with a square for each setting, four in a row."""
    import matplotlib.pyplot as plt

    rows = -(-len(flows) // 4)
    columns = min(len(flows), 4)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(2.6 * columns, 2.8 * rows),
        layout="constrained",
        squeeze=False,
        sharex=True,
        sharey=True,
    )
    for axis in axes.ravel()[len(flows) :]:
        axis.remove()
    chosen = axes.ravel()[: len(flows)]
    for axis, setting in zip(chosen, flows, strict=True):
        axis.set_title(title(setting), fontsize=9)
    return figure, chosen


def title(setting: Setting) -> str:
    """A setting in two words or three."""
    wide = "" if setting.basis == 10 else f", {setting.basis} wide"
    return f"{setting.network}, {setting.scheme}{wide}"
