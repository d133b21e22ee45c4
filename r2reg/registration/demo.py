"""The demo: phantom people on disk, a short training, a registration with a truth to judge it by."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from r2reg.config import NetworkConfig, RegisterConfig, TrainConfig
from r2reg.geometry.grid import Grid
from r2reg.io.files import atomic_path
from r2reg.io.images import Volume, write_image
from r2reg.io.points import AXES, Points, write_points
from r2reg.phantom import Deformation, labels_on, landmarks, painted, random_deformation
from r2reg.registration.run import register_files
from r2reg.registration.writing import check_folder
from r2reg.training.loop import train

log = logging.getLogger(__name__)
SPACING_MM = 2.0
EXTENT_MM = 176.0
PEOPLE = 8  # of the training cohort
NETWORK_SPACING_MM = 4.0
LANDMARKS = 200


def run_demo(folder: Path, steps: int, seed: int = 0, overwrite: bool = False) -> dict[str, Any]:
    """Make the data, train, register; everything is kept in the folder.

    Returns:
        The registration's metrics.
    Raises:
        OutputError: the folder holds a finished demo and overwrite is not set, or cannot be written.
    """
    check_folder(folder / "out", overwrite)
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    cohort = make_cohort(data, rng)
    pair = make_pair(data, rng)
    log.info("made %d phantom people and a pair with a known deformation in %s", PEOPLE, data)
    config = TrainConfig(
        model=NetworkConfig(
            network="nsvf-r2net",
            integrator="flow",
            spacing=(NETWORK_SPACING_MM,) * 3,
        ),
        similarity="mse",  # the phantoms' grey values agree, and it learns fastest
        weights={"diffusion": 0.002},
        learning_rate=2e-3,
        steps=steps,
        validate_every=max(steps // 4, 1),
        validation_pairs=2,
        seed=seed,
    )
    train(cohort, folder / "model", config, overwrite=overwrite)
    optional = {name: path for name, path in pair.items() if name not in ("moving", "fixed")}
    register = RegisterConfig(model=str(folder / "model"), refine="fast", seed=seed)
    return register_files(
        pair["moving"], pair["fixed"], folder / "out", register, optional=optional, overwrite=overwrite
    )


def make_cohort(folder: Path, rng: np.random.Generator) -> Path:
    """People to train on: images of differently deformed phantoms, and the CSV that lists them."""
    grid = oriented_grid("RAS")
    rows = ["image,subject"]
    for person in range(1, PEOPLE + 1):
        name = f"person{person:02d}.nii.gz"
        image = painted(labels_on(grid, random_deformation(rng)), rng)
        write_image(folder / name, image, Volume(image, grid))
        rows.append(f"{name},{person:02d}")
    with atomic_path(folder / "cohort.csv") as path:
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / "cohort.csv"


def make_pair(folder: Path, rng: np.random.Generator) -> dict[str, Path]:
    """A moving and a fixed phantom with labels and landmarks, their headers oriented differently.

    The fixed one is fixed(x) = moving(T(x)) with a known T, so the landmarks x and T(x) correspond exactly.
    """
    truth = random_deformation(rng)
    points = landmarks(rng, LANDMARKS)
    paths: dict[str, Path] = {}
    for name, orientation, deformation, ras in (
        ("moving", "RAS", None, truth(points)),
        ("fixed", "LIA", truth, points),
    ):
        paths |= _write_person(folder, name, oriented_grid(orientation), deformation, ras, rng)
    return paths


def _write_person(
    folder: Path,
    name: str,
    grid: Grid,
    deformation: Deformation | None,
    ras: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, Path]:
    labels = labels_on(grid, deformation)
    paths = {
        name: folder / f"{name}.nii.gz",
        f"{name}_labels": folder / f"{name}_labels.nii.gz",
        f"{name}_points": folder / f"{name}_points.csv",
    }
    write_image(paths[name], painted(labels, rng), Volume(labels, grid))
    write_image(paths[f"{name}_labels"], labels, Volume(labels, grid))
    write_points(paths[f"{name}_points"], Points(ras, AXES, tuple(("0",) * 3 for _ in ras)))
    return paths


def oriented_grid(codes: str) -> Grid:
    """A cube about the world's origin whose array axes point along three of R, L, A, P, S, I."""
    count = round(EXTENT_MM / SPACING_MM)
    affine = np.zeros((4, 4))
    for axis, code in enumerate(codes):
        world, sign = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}[code]
        affine[world, axis] = sign * SPACING_MM
        affine[world, 3] = -sign * SPACING_MM * (count - 1) / 2
    affine[3, 3] = 1
    return Grid((count,) * 3, affine)
