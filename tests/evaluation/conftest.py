"""Small pairs with labels and points, on oblique grids, as files."""

import nibabel
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

SHAPE = (20, 24, 18)


def oblique(spacing=(3.0, 2.5, 3.5), degrees=20):
    """An affine turned about S, with the first axis flipped."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1, 1, 1]) @ np.diag(spacing)
    affine[:3, 3] = (10, -20, 5)
    return affine


def person(seed):
    """(image, labels): two ellipsoids, one in the other, which differ from person to person."""
    rng = np.random.default_rng(seed)
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    center = (np.array(SHAPE) - 1) / 2 + rng.uniform(-2, 2, 3)
    radius = np.sqrt((((index - center) / (rng.uniform(0.26, 0.38, 3) * SHAPE)) ** 2).sum(axis=-1))
    off = np.sqrt((((index - center - (3, 0, 0)) / (0.12 * np.array(SHAPE))) ** 2).sum(axis=-1))
    labels = (radius < 1).astype(np.uint8) + (radius < 0.6) + 2 * (off < 1)
    image = gaussian_filter(labels / 4, 0.7) + 0.01 * rng.standard_normal(SHAPE) * (labels > 0)
    return image.astype(np.float32), labels.astype(np.uint8)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """Path of a table of three pairs; the first has three points too."""
    folder = tmp_path_factory.mktemp("pairs")
    for seed in range(4):
        for name, array in zip(("image", "labels"), person(seed), strict=True):
            nibabel.save(nibabel.Nifti1Image(array, oblique()), folder / f"{name}{seed}.nii.gz")
    (folder / "fixed.csv").write_text("x,y,z\n0,0,0\n10,0,0\n0,10,0\n", encoding="utf-8")
    (folder / "moving.csv").write_text("x,y,z\n3,0,4\n10,0,0\n0,10,12\n", encoding="utf-8")
    header = "id,moving,fixed,moving_labels,fixed_labels,moving_points,fixed_points"
    rows = [
        f"p{k},image{k}.nii.gz,image{k + 1}.nii.gz,labels{k}.nii.gz,labels{k + 1}.nii.gz,"
        + ("moving.csv,fixed.csv" if k == 0 else ",")
        for k in range(3)
    ]
    (folder / "pairs.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return folder / "pairs.csv"
