"""What is called good, suspicious and failed."""

import copy

import pytest

from r2reg.report.verdict import judge

STAGES = ("before", "affine", "after")
LITTLE = {"lncc": 0.1}
FINE = {
    "similarity": {stage: {"lncc": value} for stage, value in (("before", 0.2), ("affine", 0.3), ("after", 0.5))},
    "dice": {stage: {"mean": value} for stage, value in (("before", 0.4), ("affine", 0.6), ("after", 0.8))},
    "tre_mm": {stage: {"mean": value} for stage, value in (("before", 9.0), ("affine", 3.0), ("after", 1.0))},
    "deformation": {
        "folds": 0, "ndv_percent": 0.0, "digital_folds": 0, "jacobian_min": 0.4, "jacobian_max": 2.5, "sdlogj": 0.2,
        "inverse_residual_mm": {"mean": 0.01, "p99": 0.05, "max": 0.4},
    },
}  # fmt: skip


def changed(*path_and_value):
    *path, value = path_and_value
    metrics = copy.deepcopy(FINE)
    place = metrics
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return metrics


def test_good():
    found = judge(FINE)
    assert found.level == "good"
    assert any("0.200 before, 0.300 after the affine, 0.500 at the end" in reason for reason in found.reasons)
    assert "The map folds nowhere." in found.reasons


@pytest.mark.parametrize(
    ("level", "words", "change"),
    [
        ("failed", "made things worse: mean Dice", ("dice", "after", "mean", 0.3)),
        ("failed", "made things worse: mean distance", ("tre_mm", "after", "mean", 10.0)),
        ("failed", "made things worse: local correlation", ("similarity", "after", "lncc", 0.1)),
        ("look here", "lost what the affine had gained: mean Dice", ("dice", "after", "mean", 0.5)),
        ("look here", "lost what the affine had gained: mean distance", ("tre_mm", "after", "mean", 4.0)),
        ("look here", "folds between 7 voxels", ("deformation", "digital_folds", 7)),
        ("look here", "NDV 0.3 %", ("deformation", "ndv_percent", 0.3)),
        ("look here", "misses by more than 2 mm", ("deformation", "inverse_residual_mm", "p99", 2.0)),
        ("look here", "inverse is not known", ("deformation", "inverse_residual_mm", "p99", None)),
        ("look here", "tenfold", ("deformation", "jacobian_max", 11.0)),
        ("look here", "tenfold", ("deformation", "jacobian_min", 0.05)),
        ("look here", "rough", ("deformation", "sdlogj", 0.36)),
        (
            "look here",
            "still little alike",
            ("similarity", {"before": LITTLE, "affine": LITTLE, "after": {"lncc": 0.29}}),
        ),
    ],
)
def test_what_is_wrong_comes_first(level, words, change):
    found = judge(changed(*change))
    assert found.level == level
    assert words in found.reasons[0]


def test_hardly_changed():
    found = judge(changed("dice", {"before": {"mean": 0.7}, "affine": {"mean": 0.7}, "after": {"mean": 0.698}}))
    assert found.level == "good"
    assert any(reason.startswith("Hardly changed: mean Dice") for reason in found.reasons)
    blank = judge(changed("similarity", {stage: {"lncc": 0.02} for stage in ("before", "affine", "after")}))
    assert blank.level == "look here"
    assert not any("registered already" in reason for reason in blank.reasons)


def test_nothing_gained():
    metrics = changed("similarity", {stage: {"lncc": 0.9} for stage in ("before", "affine", "after")})
    assert judge(metrics).level == "look here"
    assert "registered already" in judge(metrics).reasons[0]


def test_numbers_that_are_not_there_are_passed_over():
    assert judge({}).level == "good"
    unknown = {"tre_mm": {stage: {"mean": None} for stage in ("before", "affine", "after")}}
    assert judge(unknown).reasons == ()


def test_a_pose_that_fits_better_turned_is_told_first():
    found = judge(FINE | {"pose": {"better_turn_degrees": 89.6}})
    assert found.level == "look here"
    assert "turned by about 90 degrees" in found.reasons[0]
    assert judge(FINE | {"pose": {"better_turn_degrees": None}}).level == "good"


def test_labels_that_hardly_overlap():
    found = judge(
        changed("dice", {stage: {"mean": value} for stage, value in zip(STAGES, (0.1, 0.2, 0.36), strict=True)})
    )
    assert found.level == "look here"
    assert "overlap little" in found.reasons[0]


@pytest.mark.parametrize(("dice", "level"), [(0.8, "good"), (0.601, "look here"), (0.55, "look here")])
def test_labels_and_points_outvote_a_lost_bit_of_likeness(dice, level):
    metrics = changed("similarity", {s: {"lncc": v} for s, v in zip(STAGES, (0.4, 0.816, 0.809), strict=True)})
    del metrics["tre_mm"]
    metrics["dice"]["after"]["mean"] = dice
    assert judge(metrics).level == level
