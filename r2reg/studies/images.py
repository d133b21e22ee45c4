"""Labelled images for the studies: scikit-learn's handwritten digits, or a data set as it is distributed."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from r2reg.errors import ImageError

TEST_SHARE = 0.2  # of each class, where the data have no test set of their own
CIFAR_SIDE = 32
CIFAR_FILES = {  # training files, test file, bytes of labels before an image (the last one counts), classes
    "cifar10": ([f"data_batch_{k}.bin" for k in range(1, 6)], "test_batch.bin", 1, 10),
    "cifar100": (["train.bin"], "test.bin", 2, 100),
}
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".tif", ".tiff")


@dataclass(frozen=True)
class LabelledImages:
    """Images (N, H, W, C) float32 in [0, 1] and their classes (N,) int32 from 0, to train on and to test on."""

    name: str
    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray

    def first(self, count: int) -> LabelledImages:
        """As few to train on and to test on."""
        arrays = (self.train, self.train_labels, self.test, self.test_labels)
        return LabelledImages(self.name, *(array[:count] for array in arrays))

    @cached_property
    def fingerprint(self) -> str:
        """The first digits of the SHA-256 of it all."""
        digest = hashlib.sha256()
        for array in (self.train, self.train_labels, self.test, self.test_labels):
            digest.update(array.tobytes())
        return digest.hexdigest()[:16]

    @property
    def classes(self) -> int:
        """How many there are."""
        return int(max(self.train_labels.max(), self.test_labels.max())) + 1


def read_labelled_images(data: Path | None = None, side: int = 64) -> LabelledImages:
    """The images of a study.

    Args:
        data: None: scikit-learn's digits, 1797 images of 8x8 written by 43 people. A .npz with arrays x_train, y_train,
            x_test, y_test, as Keras distributes MNIST and Fashion-MNIST. A folder: CIFAR's binary files, or a folder of
            images for each class (LFW, CelebA), which are made square of `side` pixels.
    Raises:
        ImageError: no such file, or it holds something else.
    """
    if data is None:
        return _digits()
    if not data.exists():
        raise ImageError(f"{data}: no such file or folder; check the path")
    if data.is_dir():
        for name, files in CIFAR_FILES.items():
            if (data / files[1]).is_file():
                return _cifar(data, name)
        return _folder(data, side)
    return _archive(data)


def _digits() -> LabelledImages:
    from sklearn.datasets import load_digits

    found = load_digits()
    return _split("digits", found.images[..., None].astype(np.float32) / 16, found.target)


def _split(name: str, images: np.ndarray, labels: np.ndarray) -> LabelledImages:
    """Every fifth image of each class becomes a test image.

    Raises:
        ImageError: no class has five.
    """
    every = round(1 / TEST_SHARE)
    order = np.empty(len(labels), int)
    for label in np.unique(labels):
        order[labels == label] = np.arange((labels == label).sum())
    tested, labels = order % every == every - 1, labels.astype(np.int32)
    if not tested.any():
        raise ImageError(f"{name}: has no class of {every} images; every {every}th is to be tested on")
    return LabelledImages(name, images[~tested], labels[~tested], images[tested], labels[tested])


def _archive(path: Path) -> LabelledImages:
    names = ("x_train", "y_train", "x_test", "y_test")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = [file[name] for name in names]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        raise ImageError(f"{path}: is no .npz file with arrays {', '.join(names)} of numbers") from None
    images, labels = arrays[::2], [array.reshape(-1) for array in arrays[1::2]]
    for pictures, classes in zip(images, labels, strict=True):
        if (
            pictures.ndim not in (3, 4)
            or not pictures.size
            or pictures.dtype.kind not in "buif"
            or len(pictures) != len(classes)
            or classes.dtype.kind not in "iu"
        ):
            raise ImageError(
                f"{path}: needs images (N, H, W[, C]) of numbers and N whole numbers as classes. Received: "
                f"{pictures.shape} {pictures.dtype} and {classes.shape} {classes.dtype}"
            )
        if not np.isfinite(pictures).all() or pictures.min() < 0:
            raise ImageError(f"{path}: holds intensities below 0 or that are not finite; give images of 0 and more")
        if classes.min() < 0:
            raise ImageError(f"{path}: holds the class {classes.min()}; number the classes from 0")
    if images[0].shape[1:] != images[1].shape[1:]:
        raise ImageError(
            f"{path}: images to train on are {images[0].shape[1:]}, those to test on {images[1].shape[1:]}"
        )
    return LabelledImages(
        path.stem, _unit(images[0]), labels[0].astype(np.int32), _unit(images[1]), labels[1].astype(np.int32)
    )


def _unit(images: np.ndarray) -> np.ndarray:
    """In [0, 1] with a last axis of channels."""
    found = images.astype(np.float32) / (255 if images.dtype == np.uint8 else max(float(images.max()), 1e-6))
    return found if found.ndim == 4 else found[..., None]


def _cifar(folder: Path, name: str) -> LabelledImages:
    training, testing, bytes_of_labels, classes = CIFAR_FILES[name]

    def read(file: str) -> tuple[np.ndarray, np.ndarray]:
        path = folder / file
        if not path.is_file():
            raise ImageError(f"{path}: no such file; {name} is distributed with {', '.join([*training, testing])}")
        values, each = np.fromfile(path, np.uint8), bytes_of_labels + 3 * CIFAR_SIDE**2
        if not values.size or values.size % each:
            raise ImageError(f"{path}: is no file of {name}, whose images take {each} bytes each; it has {values.size}")
        rows = values.reshape(-1, each)
        pixels = rows[:, bytes_of_labels:].reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE).transpose(0, 2, 3, 1)
        labels = rows[:, bytes_of_labels - 1].astype(np.int32)
        if labels.max() >= classes:
            raise ImageError(
                f"{path}: is no file of {name}, of classes 0 to {classes - 1}, but has {labels.max()}; get it anew"
            )
        return _unit(pixels), labels

    parts = [read(file) for file in training]
    images, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return LabelledImages(name, images, labels, *read(testing))


def _folder(folder: Path, side: int) -> LabelledImages:
    """A folder per class; below train/ and test/ where there are such."""
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        kinds = sorted(path.name for path in (folder / "train").iterdir() if path.is_dir())
        parts = [array for part in ("train", "test") for array in _classes(folder / part, kinds, side)]
        return LabelledImages(folder.name, *parts)
    kinds = sorted(path.name for path in folder.iterdir() if path.is_dir())
    return _split(folder.name, *_classes(folder, kinds, side))


def _classes(folder: Path, kinds: list[str], side: int) -> tuple[np.ndarray, np.ndarray]:
    pictures, labels = [], []
    for label, kind in enumerate(kinds):
        for picture in _pictures(folder / kind, side):
            pictures.append(picture)
            labels.append(label)
    if len(set(labels)) < 2:
        raise ImageError(f"{folder}: needs a folder with images for each of two classes or more")
    return np.stack(pictures), np.array(labels)


def _pictures(folder: Path, side: int) -> Iterator[np.ndarray]:
    from PIL import Image, UnidentifiedImageError

    for path in sorted(path for path in folder.glob("*") if path.suffix.lower() in ENDINGS):
        try:
            with Image.open(path) as image:
                yield np.asarray(image.convert("RGB").resize((side, side)), np.float32) / 255
        except (UnidentifiedImageError, OSError) as error:
            raise ImageError(f"{path}: cannot be read as an image ({error})") from None
