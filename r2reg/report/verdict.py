"""What the numbers of a registration say, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["good", "look here", "failed"]
LEVELS: tuple[Level, ...] = ("good", "look here", "failed")

# Scores by which stages are compared: name in metrics.json, its number, title, whether more is better, and what counts
# as a change. Of images only LNCC, which does not mind that two scans are of different contrast.
SCORES = (
    ("similarity", "lncc", "local correlation of the images (LNCC)", True, 0.005),
    ("dice", "mean", "mean Dice", True, 0.005),
    ("tre_mm", "mean", "mean distance of landmarks, mm", False, 0.05),
)
RESIDUAL_MM = 1.0  # of the inverse, 99th percentile: about a voxel of a usual scan
VOLUME_FACTOR = 10.0  # growth or loss beyond which anatomy is seldom alike
# Brains registered well end at an LNCC of .4 to .75 with SDlogJ from .07 to .3; one turned by 90 degrees beforehand,
# which the deformation then twisted into shape, ended at .23 and .37.
FAINT, ROUGH = 0.3, 0.35
LITTLE = 0.5  # mean Dice: that of brain structures after an affine alone is about .6


@dataclass(frozen=True)
class Verdict:
    """What was found, the worst first: a level and a sentence each."""

    findings: tuple[tuple[Level, str], ...]

    @property
    def level(self) -> Level:
        """The worst of what was found."""
        return self.findings[0][0] if self.findings else "good"

    @property
    def reasons(self) -> tuple[str, ...]:
        """Every finding as a sentence."""
        return tuple(text for _, text in self.findings)


def judge(metrics: dict[str, Any]) -> Verdict:
    """What metrics.json says of a registration that went through; numbers that are not there are passed over."""
    found = [*_pose(metrics.get("pose", {})), *_gains(metrics), *_regularity(metrics.get("deformation", {}))]
    return Verdict(tuple(sorted(found, key=lambda finding: -LEVELS.index(finding[0]))))


def _pose(pose: dict[str, Any]) -> Iterator[tuple[Level, str]]:
    turn = pose.get("better_turn_degrees")
    if turn is not None:
        yield (
            "look here",
            f"The images fit clearly better turned by about {turn:.0f} degrees than by the pose that was given: "
            "let --init affine search for it.",
        )


def _gains(metrics: dict[str, Any]) -> Iterator[tuple[Level, str]]:
    for kind, key, title, more, least in SCORES:
        stages = {stage: values[key] for stage, values in metrics.get(kind, {}).items()}
        if "after" not in stages or None in stages.values():
            continue
        before, affine, after = (stages[stage] * (1 if more else -1) for stage in ("before", "affine", "after"))
        numbers = (
            f"{stages['before']:.3f} before, {stages['affine']:.3f} after the affine, {stages['after']:.3f} at the end"
        )
        if after < before - least:
            yield "failed", f"It made things worse: {title} {numbers}. Look at the start (--init) and the pictures."
        elif after < affine - least:
            outvoted = kind == "similarity" and _labels_or_points_gain(metrics)
            yield (
                "good" if outvoted else "look here",
                f"The deformation lost what the affine had gained: {title} {numbers}.",
            )
        elif after < before + least:
            already = " Were the images registered already?" if kind == "similarity" and after >= FAINT else ""
            yield "look here" if kind == "similarity" else "good", f"Hardly changed: {title} {numbers}.{already}"
        else:
            yield "good", f"Better: {title} {numbers}."
        if kind == "dice" and after < LITTLE:
            yield "look here", f"Labels overlap little (mean Dice {after:.2f})."
        if kind == "similarity" and after < FAINT:
            yield "look here", f"The images are still little alike (LNCC {after:.2f}; good ones end above {FAINT:.1f})."


def _labels_or_points_gain(metrics: dict[str, Any]) -> bool:
    """Whether what no image steered is better for the deformation, and nothing of it worse."""
    gains = []
    for kind, key, _, more, least in SCORES[1:]:
        stages = {stage: values[key] for stage, values in metrics.get(kind, {}).items()}
        if "after" in stages and None not in stages.values():
            gains.append((stages["after"] - stages["affine"]) * (1 if more else -1) / least)
    return bool(gains) and min(gains) >= -1 and max(gains) >= 1


def _regularity(deformation: dict[str, Any]) -> Iterator[tuple[Level, str]]:
    if not deformation:
        return
    folds, ndv = deformation["digital_folds"], deformation["ndv_percent"]
    if folds or ndv:
        yield "look here", f"The map folds between {folds} voxels (NDV {ndv:.2g} %): it is not one-to-one there."
    else:
        yield "good", "The map folds nowhere."
    residual = deformation["inverse_residual_mm"]["p99"]
    if residual is None or residual > RESIDUAL_MM:
        told = (
            "is not known"
            if residual is None
            else f"misses by more than {residual:.2g} mm at a hundredth of the voxels"
        )
        yield "look here", f"The inverse {told}: do not carry points or atlases back with it."
    least, most = deformation["jacobian_min"], deformation["jacobian_max"]
    if 0 < least < 1 / VOLUME_FACTOR or most > VOLUME_FACTOR:
        yield "look here", f"Somewhere volume changes more than tenfold (from {least:.3g} to {most:.3g} times)."
    if deformation["sdlogj"] > ROUGH:
        yield (
            "look here",
            f"The map is rough (SDlogJ {deformation['sdlogj']:.2f}; good ones stay below {ROUGH:.2f}).",
        )


def model_told(model: Mapping[str, Any]) -> str:
    """What a network changed, of the `model` of metrics.json; "matched" is missing from those of older versions."""
    told = "LNCC {affine:.3f} before it, {network:.3f} after it, on its grid".format(**model["lncc"])
    if model.get("matched"):
        told += "; shown in both contrasts"
    return told if model["used"] else f"{told}; left out"
