"""From an aligned pair to the map between them: network, refinement, and the fields that are written."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from r2reg.config import AUTO, RegisterConfig
from r2reg.flow.certificate import Certificate
from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine, Displacement
from r2reg.registration.aligned import Aligned
from r2reg.registration.clock import Clock
from r2reg.registration.contrast import (
    SAME_CONTRAST,
    correlation_before,
    in_both_contrasts,
    in_contrasts,
    in_either_contrast,
    matching_grid,
    of_one_contrast,
)

if TYPE_CHECKING:
    from r2reg.flow.families import FamilyName
    from r2reg.registration.network import Estimator
    from r2reg.registration.refinement import Level, LevelImages, MapOnGrid, Term

Task = Callable[[], None]
log = logging.getLogger("r2reg")

# By which a network that we chose must raise LNCC: `brain` raises it 1.31 to 1.53 times between T1 scans (ten painted
# pairs; one real, 1.44), 1.33 to 1.75 times across contrasts, seen in both (14 painted pairs).
LEAST_GAIN = 1.1
# By which the map of both contrasts must raise LNCC, in both, to be kept for a pair that looks like one along the map
# without; for others it is kept unless it is so much worse. T2 pairs have 1.02 to 1.04 times it and up to .014 of Dice
# less; from a map on wrong tissue 1.13 and more. T1 with FLAIR and CT 1.01 and more (14 painted pairs), and .03 to .1
# of Dice more (22).
MATCHED_GAIN = 1.06
LIKE_GREYS = ("lncc", "mse")  # that refine pairs of two contrasts in either
GUIDE_FACTOR = 2  # labels steer at half size at the finest: a full-size channel for each label fills gigabytes


@dataclass(frozen=True)
class Deformation:
    """What was found, in the float32 in which it is written.

    Attributes:
        warp: on fixed's grid. inverse_warp: on fixed's grid.
        certificate: of the steps that the warp is composed of.
        model: {"name", "sha256", "lncc": {"affine", "network"}, "used", "matched"} of the network; LNCC on its grid,
            of images of two contrasts in both, matched along each map; and whether it was found in both.
        affine: in place of the one that it went on from, where that was changed.
        cpab: what the warp of a fitted CPAB follows from, see `parametric.fit`.
    """

    warp: Displacement
    inverse_warp: Displacement
    certificate: Certificate
    model: dict[str, Any] | None = None
    affine: Affine | None = None
    cpab: dict[str, Any] | None = None


def find_deformation(aligned: Aligned, network: Estimator | None, config: RegisterConfig, clock: Clock) -> Deformation:
    """The warp that `config` asks for: from the network, refined; the identity for an affine registration."""
    grid = aligned.pair.fixed.grid
    if config.transform == "affine":
        return _none(grid)
    full = grid.canonical()
    if config.transform != "flow":
        return _fitted(aligned, full, config.transform, config, clock)
    from r2reg.registration.refinement import levels_from, refine

    found, part, images = None, None, None
    if network is not None:
        with clock.stage("network"):
            images = aligned.images_on(network.grid)
            found, part = from_network(network, images, config.model == AUTO)
    begun = network.config if network and part and _helps(part) else None
    levels = levels_from(config.refine, full, begun)
    if levels:
        with clock.stage("refine"):
            pairs = [aligned]
            if config.similarity in LIKE_GREYS:
                if found is None:
                    images = aligned.images_on(matching_grid(full))
                    if either := in_either_contrast(aligned, images):
                        found = refine(terms(either, config), full, levels[:1], None, log.info)
                        levels = levels[1:]
                if found is not None and images is not None:
                    pairs = in_contrasts(aligned, images, found)
            images = None
            found = refine(terms(pairs, config), full, levels, found, log.info)
    if found is None:
        return replace(_none(grid), model=part)
    with clock.stage("transform"):
        return _on_fixed_grid(found, grid, part)


def _fitted(aligned: Aligned, full: Grid, family: FamilyName, config: RegisterConfig, clock: Clock) -> Deformation:
    """A map of few parameters, instead of a network and a refinement."""
    from r2reg.registration.parametric import fit

    with clock.stage("fit"):
        found, beyond, known = fit(terms([aligned], config), full, family, config.boxes, log.info)
    affine = Affine(aligned.affine.matrix @ beyond.matrix)
    grid = aligned.pair.fixed.grid
    with clock.stage("transform"):
        written = _none(grid) if found is None else _on_fixed_grid(found, grid, None)
    return replace(written, affine=affine, cpab=known)


def rehearsals(grid: Grid, config: RegisterConfig, network: Estimator | None = None) -> tuple[list[Task], list[Task]]:
    """Tasks that have the backend compile what a registration runs, in the order in which it is needed.

    As if the network's map were of use; where it is not, a level that this leaves out is compiled when it is run.

    Args:
        grid: fixed's.
    Returns:
        What must be done before it begins, and the rest: the network and its map, a step on noise per level, the
        fields. Nothing where nothing is compiled.
    """
    if config.transform != "flow":
        return [], []
    from r2reg.flow import backend
    from r2reg.registration.refinement import levels_from

    if not backend.compiles():
        return [], []
    first: list[Task] = [] if network is None else [network.rehearse, network.rehearse_map]
    full = grid.canonical()
    levels = levels_from(config.refine, full, network.config if network else None)
    if not levels:
        return first, []
    rest: list[Task] = [
        functools.partial(_rehearse_level, full, config, pair)
        for pair in zip(levels[:1] + levels, levels, strict=False)
    ]
    rest.append(functools.partial(_rehearse_fields, grid, levels[-1].factor))
    return (first, rest) if first else (rest[:1], rest[1:])


def _rehearse_level(full: Grid, config: RegisterConfig, levels: tuple[Level, Level]) -> None:
    from keras import ops

    from r2reg.losses.steering import steering
    from r2reg.registration.refinement import Level, LevelImages, Term, refine

    def noise(level: Grid) -> LevelImages:
        images = np.random.default_rng(0).random((2, 1, *level.shape, 1), dtype=np.float32)
        return LevelImages(level, *(ops.convert_to_tensor(image) for image in images))

    coarser, level = (Level(level.factor, steps) for level, steps in zip(levels, (0, 1), strict=True))
    refine([Term(steering(config.similarity, radius=config.radius), noise)], full, (coarser, level))


def _rehearse_fields(grid: Grid, factor: int) -> None:
    from r2reg.flow.diffeomorphism import identity
    from r2reg.registration.refinement import MapOnGrid, level_grid
    from r2reg.registration.unfolding import rehearse

    own = level_grid(grid.canonical(), factor)
    rehearse(MapOnGrid(identity(own.shape), own).on(grid).phi.displacement)


def terms(pairs: list[Aligned], config: RegisterConfig) -> list[Term]:
    """What drives the refinement: the images' similarity, and the labels' where they are to guide.

    Args:
        pairs: the images, once or in one contrast and another.
    """
    from r2reg.losses.steering import steering
    from r2reg.registration.refinement import Term

    found = [Term(steering(config.similarity, radius=config.radius), pair.images_on) for pair in pairs]
    if "labels" in config.guide:
        found.append(Term(steering("dice"), pairs[0].labels_on, GUIDE_FACTOR))
    return found


def from_network(network: Estimator, images: LevelImages, chosen: bool) -> tuple[MapOnGrid | None, dict[str, Any]]:
    """The network's map, and what is said of it, see `Deformation.model`.

    Args:
        images: on the network's grid.
        chosen: we chose the network; then there is no map where it hardly makes the pair more alike.
    """
    answers, shown = [network(images)], [images]
    one = of_one_contrast(images, answers[0])
    if not one or correlation_before(images) < SAME_CONTRAST:
        shown = in_both_contrasts(images)
        answers.append(network(*shown))
    before = _alike(shown)
    # Across contrasts LNCC also rises where tissue comes upon the wrong one: a painted T2-FLAIR pair went by it to
    # Dice .32, with .56 at hand. With greys matched along each answer, in both contrasts, it tells them apart.
    seen = [shown] if len(answers) == 1 else [in_both_contrasts(images, answer) for answer in answers]
    alike = [_alike(pairs, answer) for pairs, answer in zip(seen, answers, strict=True)]
    best = int(np.argmax([alike[0] * (MATCHED_GAIN if one else 1 / MATCHED_GAIN), *alike[1:]]))
    found, after, matched = answers[best], alike[best], best > 0
    part: dict[str, Any] = {"lncc": {"affine": before, "network": after}}
    used = _helps(part) or not chosen
    name = network.model.folder.resolve().name
    told = (name, after, before, "its map is used" if used else "going on without it")
    if matched:
        log.info("%s was shown both images in the fixed one's contrast and in the moving one's", name)
    if after < before:
        log.warning("%s makes the images less alike (LNCC %.3f, %.3f before): it may not know such images; %s", *told)
    elif not used:
        log.info("%s hardly makes the images more alike (LNCC %.3f, %.3f before): %s", *told)
    part |= {"name": name, "sha256": network.model.sha256, "used": used, "matched": matched}
    return found if used else None, part


def _alike(shown: list[LevelImages], found: MapOnGrid | None = None) -> float:
    """LNCC, the mean over the contrasts that a pair is shown in."""
    from r2reg.registration.network import likeness

    return float(np.mean([likeness(images, found) for images in shown]))


def _helps(part: dict[str, Any]) -> bool:
    """Whether a network's map makes the pair clearly more alike, see `Deformation.model`."""
    return bool(part["lncc"]["network"] >= LEAST_GAIN * part["lncc"]["affine"])


def _none(grid: Grid) -> Deformation:
    zero = np.zeros((*grid.shape, grid.ndim), dtype=np.float32)
    return Deformation(Displacement(grid, zero), Displacement(grid, zero), Certificate())


def _on_fixed_grid(found: MapOnGrid, grid: Grid, model: dict[str, Any] | None) -> Deformation:
    from keras import ops

    from r2reg.registration.unfolding import unfold_with_inverse

    phi = found.on(grid).phi
    displacement, inverse, certificate = unfold_with_inverse(phi.displacement, phi.inverse, phi.certificate)
    warp, inverse_warp = (
        Displacement.from_voxels(grid, ops.convert_to_numpy(field)[0]) for field in (displacement, inverse)
    )
    return Deformation(warp, inverse_warp, certificate, model)
