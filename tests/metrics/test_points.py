from __future__ import annotations

import numpy as np
import pytest

from r2reg.errors import TableError
from r2reg.metrics.points import tre_mm


def test_distances_by_hand():
    mapped = np.array([[0.0, 0, 0], [1, 2, 2], [0, 3, 4]])
    assert tre_mm(mapped, np.zeros((3, 3))) == pytest.approx({"mean": 8 / 3, "median": 3, "max": 5})


@pytest.mark.parametrize("counts", [(0, 0), (2, 3)])
def test_points_must_correspond(counts):
    with pytest.raises(TableError, match=f"Received: {counts[0]} and {counts[1]}"):
        tre_mm(np.zeros((counts[0], 3)), np.zeros((counts[1], 3)))
