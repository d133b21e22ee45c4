"""Paired tests against formulae written out here, and the tables."""

import json
import math

import numpy as np
import pandas
import pytest
from scipy import stats

from r2reg.errors import ConfigError, TableError
from r2reg.evaluation.comparison import against, compare, holm, means, paired_tests, summarise, turned

A = [0.71, 0.74, 0.69, 0.77, 0.73, 0.70]
B = [0.70, 0.72, 0.70, 0.75, 0.71, 0.69]


def frame(**columns):
    """A table of results with everything that is needed."""
    count = len(next(iter(columns.values())))
    empty = dict.fromkeys(
        ["hd95_mm", "tre_mean_mm", "mse", "lncc", "folds", "ndv_percent", "digital_folds", "sdlogj", "seconds"],
        math.nan,
    )
    rest = {"inverse_residual_p99_mm": math.nan, "reason": "", "status": "done"}
    rest |= {"peak_memory_bytes": math.nan, "peak_memory_gigabytes": math.nan}
    return pandas.DataFrame({**{k: [v] * count for k, v in (empty | rest).items()}, **columns})


def two_methods():
    """Six pairs by two methods."""
    ids = [f"p{k}" for k in range(6)]
    return frame(id=ids * 2, method=["ours"] * 6 + ["theirs"] * 6, dice_mean=A + B)


def test_t_and_tost_by_hand():
    found = paired_tests(A, B, 0.02)
    gaps = np.array(A) - np.array(B)
    n, mean, error = 6, gaps.mean(), gaps.std(ddof=1) / math.sqrt(6)
    assert found["mean_difference"] == pytest.approx(mean)
    assert found["t_p"] == pytest.approx(2 * stats.t.sf(abs(mean / error), n - 1))
    assert found["ci95_high"] == pytest.approx(mean + stats.t.ppf(0.975, n - 1) * error)
    # Both one-sided tests have to reject: the larger p-value counts.
    lower, upper = stats.t.sf((mean + 0.02) / error, n - 1), stats.t.cdf((mean - 0.02) / error, n - 1)
    assert found["tost_p"] == pytest.approx(max(lower, upper))
    assert found["cohen_dz"] == pytest.approx(mean / gaps.std(ddof=1))


def test_signed_ranks_by_hand():
    # Differences 3, -1, 2: ranks 3, 1, 2; of the 8 signs the sum of positive ranks is at least 5 in 2.
    found = paired_tests([3.0, 0.0, 2.0], [0.0, 1.0, 0.0], None)
    assert found["rank_biserial"] == pytest.approx((3 + 2 - 1) / 6)
    assert found["wilcoxon_p"] == pytest.approx(2 * 2 / 8)
    assert found["tost_p"] is None


def test_equal_results_say_nothing_and_break_nothing():
    found = paired_tests(A, A, 0.01)
    assert (found["mean_difference"], found["t_p"], found["wilcoxon_p"], found["tost_p"]) == (0, None, None, None)
    shifted = paired_tests([a + 0.5 for a in A], A, 0.01)
    assert shifted["mean_difference"] == pytest.approx(0.5)


def test_holm_by_hand():
    family = [{"t_p": p, "wilcoxon_p": None, "tost_p": None} for p in (0.01, 0.04, 0.03)]
    corrected = [row["t_p_holm"] for row in holm(family)]
    assert corrected == pytest.approx([0.03, 0.06, 0.06])  # 3 * .01; 2 * .03; at least that
    assert [row["different"] for row in family] == [True, False, False]


def test_turning_a_comparison():
    (row,) = [r for r in compare(two_methods(), 0.02) if r["metric"] == "dice_mean"]
    other = turned(row)
    swapped = paired_tests(B, A, 0.02)
    for name in ("mean_difference", "ci95_low", "ci95_high", "cohen_dz", "rank_biserial", "t_p", "tost_p"):
        assert other[name] == pytest.approx(swapped[name])
    assert against([row], "theirs", "dice_mean") == [row]
    assert against([row], "ours", "dice_mean") == [other]


def test_only_common_pairs_are_compared_and_failures_are_counted():
    table = two_methods()
    table.loc[0, ["status", "reason"]] = ["failed", "out of memory"]
    (row,) = [r for r in compare(table, 0.01) if r["metric"] == "dice_mean"]
    assert row["n"] == 5
    assert row["mean_difference"] == pytest.approx(np.mean(A[1:]) - np.mean(B[1:]))
    assert means(table)["pairs"].tolist() == ["5 of 6", "6"]


def test_files(tmp_path):
    two_methods().to_csv(tmp_path / "results.csv", index=False)
    (tmp_path / "labels.csv").write_text("id,method,label,dice,hd95_mm\n", encoding="utf-8")
    (tmp_path / "environment.json").write_text("{}", encoding="utf-8")
    text, found = summarise(tmp_path, "theirs", 0.02)
    assert json.loads((tmp_path / "statistics.json").read_text(encoding="utf-8")) == found
    assert (tmp_path / "table1.md").read_text(encoding="utf-8") == text
    # Empty columns are left out.
    assert pandas.read_csv(tmp_path / "table1.csv").columns.tolist() == ["method", "pairs", "Dice"]
    assert r"0.723 $\pm$ 0.029" in (tmp_path / "table1.tex").read_text(encoding="utf-8")
    assert "| ours | " in " ".join(text.split())
    assert "+0.0117" in text
    with pytest.raises(ConfigError, match="is none of the methods, ours, theirs"):
        summarise(tmp_path, "nobody", 0.02)
    (tmp_path / "results.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(TableError, match="is not a table of"):
        summarise(tmp_path, "theirs", 0.02)
