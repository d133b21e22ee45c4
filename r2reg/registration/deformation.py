"""From an aligned pair to the map between them: network, refinement, and the fields that are written."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from r2reg.config import AUTO, RegisterConfig
from r2reg.errors import ConfigError
from r2reg.flow.certificate import Certificate
from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine, Displacement
from r2reg.io.images import Volume
from r2reg.preprocessing.resolution import low_pass, low_pass_reach
from r2reg.registration.clock import Clock
from r2reg.registration.pair import Pair, label_ids
from r2reg.resampling import resample
from r2reg.threads import in_threads

if TYPE_CHECKING:
    from r2reg.flow.families import FamilyName
    from r2reg.registration.network import Estimator
    from r2reg.registration.refinement import Level, LevelImages, MapOnGrid, Term

Tensor = Any
log = logging.getLogger("r2reg")

VIEW_FACTOR = 4  # of fixed's spacing, where it is decided whether moving's view is cut
CUT_SHARE = 0.001  # of fixed's voxels brighter than its mean
# By which a network that we chose must raise LNCC: `brain` raises it 1.31 to 1.53 times between T1 scans (ten painted
# pairs; one real, 1.44), 1.2 to 1.5 times across contrasts where it is shown one of them (nine painted pairs).
LEAST_GAIN = 1.1
# Correlation of moving's greys with what they become in fixed's contrast, from which both count as of one without a
# trial: painted T1, T2 and FLAIR pairs, 0.91 to 0.99; CT-T1, 0.78 to 0.94; T1-T2 and T2-FLAIR, below 0.45.
SAME_CONTRAST = 0.95
# By which matching the contrast must raise LNCC, in fixed's contrast, for its map to stay: in nine painted pairs of one
# contrast 0.98 to 1.05 times, and then the map without it overlaps better; in 13 of two, 1.09 times and more.
MATCHED_GAIN = 1.07
LIKE_GREYS = ("lncc", "mse")  # that also refine moving in fixed's contrast, where that is another
# The same correlation, learnt along the network's map, from which moving's own greys alone drive the refinement.
# Painted pairs of one contrast: T1, FLAIR and CT 0.93 to 1, T2 0.45 to 0.86; of two: FLAIR-CT 0.97 to 0.99, T1-FLAIR
# and T1-CT 0.77 to 0.97, T1-T2 and T2-FLAIR below 0. At 0.97 two pairs gained .05 and .07 of Dice by both.
REFINED_ALONE = 0.98
# What of its LNCC along that map the pair must keep in fixed's contrast, if its greys rise together, for that to drive
# the refinement too: T2 pairs 0.90 to 0.99 (at 0.94 they lose .01 of Dice by it), T1-FLAIR and T1-CT 0.97 to 1.19.
LEAST_LIKE = 0.96
# Times its LNCC that the pair gains in fixed's contrast, from which moving's own greys no longer drive the refinement
# but the pair in moving's contrast instead: T1-T2 1.03 to 1.09, which lose .01 to .02 of Dice by it; T1-FLAIR, T1-CT,
# T2-FLAIR and T2-CT where they did not count as of one contrast, 1.11 to 1.41, which gain .01 to .07 (five pairs).
OWN_GREYS_MISLEAD = 1.1
# The same correlation, learnt along the affine, below which a pair without a network's map counts as of two contrasts:
# painted pairs as for SAME_CONTRAST; T1-T2 at most 0.45, those of one contrast and CT 0.78 and more.
TWO_CONTRASTS = 0.6
# Of a grid on which contrasts are matched without a network's: a brain at 2 mm has .9 million, and at 4 mm, where
# tissues mix, three painted T1-T2 pairs ended .01 to .18 of Dice lower.
MOST_MATCHED = 1 << 20
GUIDE_FACTOR = 2  # labels steer at half size at the finest: a full-size channel for each label fills gigabytes


@dataclass(frozen=True)
class Deformation:
    """What was found, in the float32 in which it is written.

    Attributes:
        warp: on fixed's grid. inverse_warp: on fixed's grid.
        certificate: of the steps that the warp is composed of.
        model: {"name", "sha256", "lncc": {"affine", "network"}, "used", "matched"} of the network; LNCC on its grid,
            between images of two contrasts with moving's greys matched along each map; and whether it was found so.
        affine: in place of the one that it went on from, where that was changed.
    """

    warp: Displacement
    inverse_warp: Displacement
    certificate: Certificate
    model: dict[str, Any] | None = None
    affine: Affine | None = None


@dataclass(frozen=True)
class Aligned:
    """A pair whose affine is known, and its intensities in [0, 1], each on its own grid."""

    pair: Pair
    moving: np.ndarray
    fixed: np.ndarray
    affine: Affine

    def images_on(self, grid: Grid) -> LevelImages:
        """Both images and the masks on a grid, low-passed where it is coarser, moving through the affine."""
        from r2reg.registration.refinement import LevelImages

        pair = self.pair
        sources = [(self.fixed, pair.fixed.grid, grid, []), (self.moving, pair.moving.grid, grid, [self.affine])]
        fixed, moving = in_threads(lambda source: _tensor(*source), sources)  # SciPy's filters take one thread each
        return LevelImages(
            grid,
            fixed,
            moving,
            pair.fixed_mask and _tensor(_weights(pair.fixed_mask), pair.fixed.grid, grid, []),
            pair.moving_mask and _tensor(_weights(pair.moving_mask), pair.moving.grid, grid, [self.affine]),
            self._view(grid) if self.cut else None,
        )

    @cached_property
    def cut(self) -> bool:
        """Whether fixed shows anatomy that lies outside moving's field of view."""
        from r2reg.registration.refinement import level_grid

        grid = level_grid(self.pair.fixed.grid, VIEW_FACTOR)
        fixed = _on_grid(self.fixed, self.pair.fixed.grid, grid, [])
        content = fixed > fixed.mean()
        return bool((content & (self._seen(grid) < 0.5)).sum() > CUT_SHARE * content.sum())

    def _seen(self, grid: Grid) -> np.ndarray:
        """1 where moving was scanned, on a grid that the affine carries into it; 0 outside."""
        moving = self.pair.moving.grid
        return resample(Volume(np.ones(moving.shape, np.float32), moving), grid, [self.affine], "linear", 0.0)

    def _view(self, grid: Grid) -> Tensor:
        from keras import ops

        return ops.convert_to_tensor(self._seen(grid)[None, ..., None])

    def labels_on(self, grid: Grid) -> LevelImages:
        """One channel per label that both maps hold, low-passed where the grid is coarser."""
        from r2reg.registration.refinement import LevelImages

        fixed, moving = guiding_labels(self.pair)
        common = common_labels(fixed, moving)
        return LevelImages(grid, _channels(fixed, common, grid, []), _channels(moving, common, grid, [self.affine]))


def guiding_labels(pair: Pair) -> tuple[Volume, Volume]:
    """Fixed's and moving's labels.

    Raises:
        ConfigError: one is missing.
    """
    if pair.fixed_labels is None or pair.moving_labels is None:
        raise ConfigError("--guide labels needs --moving-labels and --fixed-labels; give both, or leave it out")
    return pair.fixed_labels, pair.moving_labels


def common_labels(a: Volume, b: Volume) -> np.ndarray:
    """The ids, but for 0, that both maps hold."""
    return np.array(sorted(label_ids(a.array) & label_ids(b.array)))


def _channels(labels: Volume, ids: np.ndarray, grid: Grid, transforms: list[Affine]) -> Any:
    from keras import ops
    from scipy.ndimage import find_objects

    boxes = find_objects(np.searchsorted(ids, labels.array, side="right") * np.isin(labels.array, ids))
    margin = np.ceil(low_pass_reach(labels.grid, grid)).astype(int) + 1
    channels = []
    for label, box in zip(ids, boxes, strict=True):
        wide = tuple(slice(max(part.start - n, 0), part.stop + n) for part, n in zip(box, margin, strict=True))
        affine = labels.grid.affine.copy()
        affine[:-1, -1] = labels.grid.index_to_ras(np.array([part.start for part in wide], dtype=np.float64))
        array = (labels.array[wide] == label).astype(np.float32)
        channels.append(_tensor(array, Grid(array.shape, affine), grid, transforms))
    return ops.concatenate(channels, axis=-1)


def _weights(mask: Volume) -> np.ndarray:
    return mask.array.astype(np.float32)


def _tensor(array: np.ndarray, source: Grid, target: Grid, transforms: list[Affine]) -> Tensor:
    from keras import ops

    return ops.convert_to_tensor(_on_grid(array, source, target, transforms)[None, ..., None])


def _on_grid(array: np.ndarray, source: Grid, target: Grid, transforms: list[Affine]) -> np.ndarray:
    low = Volume(low_pass(array, source, target), source)
    return resample(low, target, transforms, "linear", 0.0).astype(np.float32, copy=False)


def find_deformation(aligned: Aligned, network: Estimator | None, config: RegisterConfig, clock: Clock) -> Deformation:
    """The warp that `config` asks for: from the network, refined; the identity for an affine registration."""
    grid = aligned.pair.fixed.grid
    if config.transform == "affine":
        return _none(grid)
    full = grid.canonical()
    if config.transform != "flow":
        return _fitted(aligned, full, config.transform, config, clock)
    from r2reg.registration.refinement import levels_for, refine

    found, part, pairs = None, None, [aligned]
    if network is not None:
        with clock.stage("network"):
            found, part = from_network(network, aligned, config.model == AUTO)
            if found is not None and config.similarity in LIKE_GREYS:
                pairs = in_contrasts(aligned, network.grid, found)
    levels = levels_for(config.refine)
    if found is not None and len(levels) > 1:
        levels = levels[1:]  # a network's map is finer already: 14 painted pairs overlapped as well without that level
    if levels:
        with clock.stage("refine"):
            if found is None and len(levels) > 1 and (either := _in_either_contrast(aligned, full, config)):
                found = refine(terms(either, config), full, levels[:1], None, log.info)
                pairs, levels = in_contrasts(aligned, _matching_grid(full), found), levels[1:]
            found = refine(terms(pairs, config), full, levels, found, log.info)
    if found is None:
        return replace(_none(grid), model=part)
    with clock.stage("transform"):
        return _on_fixed_grid(found, grid, part)


def _fitted(aligned: Aligned, full: Grid, family: FamilyName, config: RegisterConfig, clock: Clock) -> Deformation:
    """A map of few parameters, instead of a network and a refinement."""
    from r2reg.registration.parametric import fit

    with clock.stage("fit"):
        found, beyond = fit(terms([aligned], config), full, family, config.boxes, log.info)
    affine = Affine(aligned.affine.matrix @ beyond.matrix)
    grid = aligned.pair.fixed.grid
    with clock.stage("transform"):
        return replace(_none(grid) if found is None else _on_fixed_grid(found, grid, None), affine=affine)


def rehearsals(grid: Grid, config: RegisterConfig, network: Estimator | None = None) -> list[Callable[[], None]]:
    """Tasks that have the backend compile what a registration runs, in the order in which it is needed.

    Args:
        grid: fixed's.
    Returns:
        The network, a step on noise per level, then the fields; none where nothing is compiled.
    """
    if config.transform != "flow":
        return []
    from r2reg.flow import backend
    from r2reg.registration.refinement import levels_for

    if not backend.compiles():
        return []
    first = [] if network is None else [network.rehearse]
    full, levels = grid.canonical(), levels_for(config.refine)
    if not levels:
        return first
    steps = [
        functools.partial(_rehearse_level, full, config, pair)
        for pair in zip(levels[:1] + levels, levels, strict=False)
    ]
    return [*first, *steps, functools.partial(_rehearse_fields, grid, levels[-1].factor)]


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


def from_network(network: Estimator, aligned: Aligned, chosen: bool) -> tuple[MapOnGrid | None, dict[str, Any]]:
    """The network's map, and what is said of it, see `Deformation.model`.

    Args:
        chosen: we chose the network; then there is no map where it hardly makes the pair more alike.
    """
    from r2reg.registration.network import likeness

    images = aligned.images_on(network.grid)
    answers, shown = [network(images)], _in_one_contrast(images)
    if shown is images:
        seen = [images]
    else:
        answers.append(network(shown))
        again = _in_one_contrast(images, answers[1])
        answers.append(network(again))
        # Across contrasts LNCC also rises where tissue comes upon the wrong one: a painted T2-FLAIR pair went by it to
        # Dice .32, with .56 among the answers. With moving's greys matched along each answer it tells them apart.
        seen = [_in_one_contrast(images, answers[0]), again, _in_one_contrast(images, answers[2])]
    before = likeness(shown)
    alike = [likeness(pair, answer) for pair, answer in zip(seen, answers, strict=True)]
    best = int(np.argmax([alike[0] * MATCHED_GAIN, *alike[1:]]))
    found, after, matched = answers[best], alike[best], best > 0
    used = after >= LEAST_GAIN * before or not chosen
    name = network.model.folder.resolve().name
    told = (name, after, before, "its map is used" if used else "going on without it")
    if matched:
        log.info("%s was shown the moving image in the fixed one's contrast", name)
    if after < before:
        log.warning("%s makes the images less alike (LNCC %.3f, %.3f before): it may not know such images; %s", *told)
    elif not used:
        log.info("%s hardly makes the images more alike (LNCC %.3f, %.3f before): %s", *told)
    part = {"name": name, "sha256": network.model.sha256, "lncc": {"affine": before, "network": after}}
    return found if used else None, part | {"used": used, "matched": matched}


def in_contrasts(aligned: Aligned, grid: Grid, found: MapOnGrid) -> list[Aligned]:
    """The pair as the refinement is to see it, where a map aligns it, on a grid.

    Of one contrast it is left as it is. Of two, its own greys may pull tissue onto the wrong one, and in fixed's
    contrast moving may lose tissues that they tell apart. So there are two pairs: in fixed's contrast and as it is, or
    in moving's where it is little alike as it is.
    """
    from r2reg.registration.contrast import contrasts_correlation
    from r2reg.registration.network import likeness

    images = aligned.images_on(grid)
    shown = _in_one_contrast(images, found)
    same = contrasts_correlation(_array(images.moving), _array(shown.moving), _within(images.moving_mask))
    if same >= REFINED_ALONE:
        return [aligned]
    own, alike = likeness(images, found), likeness(shown, found)
    if same > 0 and alike < LEAST_LIKE * own:
        return [aligned]
    as_fixed, as_moving = _matched(aligned, images, found)
    if alike < OWN_GREYS_MISLEAD * own:
        log.info("the refinement sees both images in the fixed one's contrast, too")
        return [aligned, as_fixed]
    log.info("the refinement sees both images in the fixed one's contrast and in the moving one's")
    return [as_fixed, as_moving]


def _in_either_contrast(aligned: Aligned, full: Grid, config: RegisterConfig) -> list[Aligned]:
    """A pair of two contrasts in fixed's and in moving's, matched along the affine; nothing where it is of one.

    Where the affine leaves two tissues beside each other, the pair's own greys pull them together: without a network's
    map, Dice of three of twelve painted T1-T2 pairs fell from .5 to .1.
    """
    from r2reg.registration.contrast import contrasts_correlation

    if config.similarity not in LIKE_GREYS:
        return []
    images = aligned.images_on(_matching_grid(full))
    either = _matched(aligned, images)
    same = contrasts_correlation(aligned.moving, either[0].moving, _mask_array(aligned.pair.moving_mask))
    if same >= TWO_CONTRASTS:
        return []
    log.info("the refinement begins with both images in the fixed one's contrast and in the moving one's")
    return either


def _matching_grid(full: Grid) -> Grid:
    from r2reg.registration.refinement import level_grid

    factor = max(1, round((math.prod(full.shape) / MOST_MATCHED) ** (1 / full.ndim)))
    return level_grid(full, factor)


def _matched(aligned: Aligned, images: LevelImages, found: MapOnGrid | None = None) -> list[Aligned]:
    """The pair in fixed's contrast, and in moving's, matched as a map aligns the images; by default as they lie."""
    from r2reg.registration.contrast import match_contrast

    moving, fixed, inside = _greys(images, found)
    return [
        replace(aligned, moving=match_contrast(aligned.moving, moving, fixed, inside)),
        replace(aligned, fixed=match_contrast(aligned.fixed, fixed, moving, inside)),
    ]


def _mask_array(mask: Volume | None) -> np.ndarray | None:
    return None if mask is None else mask.array


def _in_one_contrast(images: LevelImages, found: MapOnGrid | None = None) -> LevelImages:
    """The pair with moving in fixed's contrast, matched as a map aligns them; by default as they lie, and then the pair
    itself where that shows that they are of one contrast."""
    from keras import ops

    from r2reg.registration.contrast import contrasts_correlation, match_contrast

    moving = _array(images.moving)
    matched = match_contrast(moving, *_greys(images, found))
    if found is None and contrasts_correlation(moving, matched, _within(images.moving_mask)) >= SAME_CONTRAST:
        return images
    return replace(images, moving=ops.convert_to_tensor(matched[None, ..., None]))


def _greys(images: LevelImages, found: MapOnGrid | None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Moving as a map aligns it, fixed, and where both masks let them be compared: what a contrast is learnt from."""
    from r2reg.flow.warp import warp

    moving, mask = images.moving, images.moving_mask
    if found is not None:
        displacement = found.on(images.grid).phi.displacement
        moving, mask = warp(moving, displacement), None if mask is None else warp(mask, displacement)
    return _array(moving), _array(images.fixed), _within(images.mask, mask)


def _array(tensor: Tensor) -> np.ndarray:
    from keras import ops

    found: np.ndarray = ops.convert_to_numpy(tensor)[0, ..., 0]
    return found


def _within(*masks: Tensor | None) -> np.ndarray | None:
    given = [_array(mask) > 0.5 for mask in masks if mask is not None]
    return np.logical_and.reduce(given) if given else None


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
