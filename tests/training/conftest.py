"""A tiny cohort: nested ellipsoids that differ from person to person, with labels, on 16^3 voxels of 2 mm."""

import h5py
import nibabel
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from r2reg.config import NetworkConfig, TrainConfig

SIDE = 16
SMALL = NetworkConfig(network="svf-r2net", encoder=(4, 8), decoder=(8, 8, 8, 4, 3), up_filters=4, blocks=2)


def ellipsoids(seed, side=SIDE):
    """(image float32, labels int16): an outer ellipsoid (1) around an inner one (2)."""
    rng = np.random.default_rng(seed)
    index = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1)
    center = side / 2 - 0.5 + rng.uniform(-1, 1, 3)
    radius = np.sqrt((((index - center) / (rng.uniform(0.3, 0.4, 3) * side)) ** 2).sum(axis=-1))
    labels = (radius < 1).astype(np.int16) + (radius < 0.6)
    return gaussian_filter(labels.astype(np.float32) / 2, 0.7), labels.astype(np.int16)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """Path of a cohort table of four people with labels; the last is held out."""
    folder = tmp_path_factory.mktemp("cohort")
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    for seed in range(4):
        for name, array in zip(("image", "labels"), ellipsoids(seed), strict=True):
            nibabel.save(nibabel.Nifti1Image(array, affine), folder / f"{name}{seed}.nii.gz")
    rows = [f"image{s}.nii.gz,labels{s}.nii.gz" for s in range(4)]
    (folder / "cohort.csv").write_text("image,labels\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return folder / "cohort.csv"


@pytest.fixture(scope="session")
def weights():
    """Function: path of a Keras weights file -> name -> array."""

    def read(path):
        found = {}
        with h5py.File(path) as file:
            file.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
        return found

    return read


@pytest.fixture(scope="session")
def small_config():
    """TrainConfig of a network that trains a step in milliseconds."""

    def make(**settings):
        defaults = {"model": SMALL, "align": "none", "learning_rate": 1e-3, "workers": 1}
        return TrainConfig(**{**defaults, **settings})

    return make
