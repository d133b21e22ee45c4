"""Labelled images for the studies: digits, Keras' archives, CIFAR's binary files, folders of classes."""

import numpy as np
import pytest
from PIL import Image

from r2reg.errors import ImageError
from r2reg.studies.images import CIFAR_FILES, read_labelled_images


def test_digits():
    images = read_labelled_images()
    assert (images.train.shape, images.test.shape) == ((1442, 8, 8, 1), (355, 8, 8, 1))
    assert images.train.dtype == np.float32
    assert (images.train.min(), images.train.max(), images.classes) == (0, 1, 10)
    of_class = np.bincount(np.concatenate([images.train_labels, images.test_labels]))
    assert (np.bincount(images.test_labels) == of_class // 5).all()


def test_no_digit_is_both_trained_and_tested_on():
    from sklearn.datasets import load_digits

    images, every = read_labelled_images(), load_digits().images
    known = {image.tobytes(): k for k, image in enumerate(every)}
    assert len(known) == len(every)  # all differ, so each is told by its pixels
    sides = [
        {known[(image[..., 0] * 16).astype(float).tobytes()] for image in part} for part in (images.train, images.test)
    ]
    assert [len(side) for side in sides] == [len(images.train), len(images.test)]
    assert sides[0] & sides[1] == set()


def archive(path, **changes):
    arrays = {
        "x_train": np.full((6, 5, 4), 255, np.uint8), "y_train": np.arange(6) % 3,
        "x_test": np.zeros((2, 5, 4), np.uint8), "y_test": np.array([[0], [1]]),
    }  # fmt: skip
    np.savez(path, **{name: array for name, array in (arrays | changes).items() if array is not None})
    return path


def test_an_archive_like_mnist(tmp_path):
    images = read_labelled_images(archive(tmp_path / "mnist.npz"))
    assert (images.name, images.train.shape, images.test.shape) == ("mnist", (6, 5, 4, 1), (2, 5, 4, 1))
    assert images.train.max() == 1
    assert images.test_labels.tolist() == [0, 1]
    assert images.classes == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "is no .npz file with arrays"),
        ({"y_train": np.arange(5)}, "N whole numbers as classes"),
        ({"y_train": np.arange(6) / 2}, "N whole numbers as classes"),
        ({"x_test": np.zeros((2, 4, 4), np.uint8)}, "those to test on"),
        ({"x_test": np.full((2, 5, 4), "a")}, "images .* of numbers"),
        ({"x_train": np.zeros((0, 5, 4)), "y_train": np.zeros(0, int)}, "images .* of numbers"),
        ({"x_train": np.where(np.arange(6)[:, None, None], np.ones((6, 5, 4)), np.nan)}, "not finite"),
        ({"x_train": -np.ones((6, 5, 4))}, "intensities below 0"),
        ({"y_train": np.arange(6) - 1}, "holds the class -1"),
    ],
)
def test_an_archive_of_something_else(tmp_path, changes, message):
    with pytest.raises(ImageError, match=message):
        read_labelled_images(archive(tmp_path / "wrong.npz", **changes))


def cifar(folder, name, images=3):
    """Image k of a file has the label k; its first channel is 51 k, and its first pixel 255."""
    training, testing, labels, _ = CIFAR_FILES[name]
    for file in (*training, testing):
        rows = np.zeros((images, labels + 3072), np.uint8)
        rows[:, labels - 1] = np.arange(images)
        rows[:, labels : labels + 1024] = 51 * np.arange(images)[:, None]
        rows[:, labels] = 255
        rows.tofile(folder / file)


@pytest.mark.parametrize(("name", "files"), [("cifar10", 5), ("cifar100", 1)])
def test_cifar(tmp_path, name, files):
    cifar(tmp_path, name)
    images = read_labelled_images(tmp_path)
    assert (images.name, images.train.shape, images.test.shape) == (name, (3 * files, 32, 32, 3), (3, 32, 32, 3))
    assert images.train_labels.tolist() == [0, 1, 2] * files
    np.testing.assert_allclose(images.test[2, 0, 1], [0.4, 0, 0], atol=1e-6)  # float32
    np.testing.assert_allclose(images.test[2, 0, 0], [1, 0, 0])


def test_cifar_cut_short_or_incomplete_or_of_other_classes(tmp_path):
    cifar(tmp_path, "cifar10")
    path = tmp_path / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ImageError, match=r"data_batch_3.bin: is no file of cifar10"):
        read_labelled_images(tmp_path)
    path.unlink()
    with pytest.raises(ImageError, match=r"data_batch_3.bin: no such file"):
        read_labelled_images(tmp_path)
    cifar(tmp_path, "cifar10", images=11)
    with pytest.raises(ImageError, match=r"data_batch_1.bin: .* of classes 0 to 9, but has 10; get it anew"):
        read_labelled_images(tmp_path)


def folder_of_classes(folder, images=5):
    for label, kind in enumerate(("cat", "dog")):
        (folder / kind).mkdir(parents=True)
        for k in range(images):
            Image.new("RGB", (6, 9), (0, 0, 255 * label)).save(folder / kind / f"{k}.png")


def test_a_folder_for_each_class(tmp_path):
    folder_of_classes(tmp_path)
    images = read_labelled_images(tmp_path, side=8)
    assert (images.train.shape, images.test.shape) == ((8, 8, 8, 3), (2, 8, 8, 3))
    assert images.test_labels.tolist() == [0, 1]
    assert (images.train[..., 2].mean(axis=(1, 2)) == images.train_labels).all()


def test_folders_that_are_split_already(tmp_path):
    folder_of_classes(tmp_path / "train", 3)
    folder_of_classes(tmp_path / "test", 1)
    images = read_labelled_images(tmp_path, side=8)
    assert (len(images.train), len(images.test)) == (6, 2)


def test_a_damaged_archive(tmp_path):
    path = tmp_path / "mnist.npz"
    images, labels = np.zeros((50, 28, 28), np.uint8), np.arange(50) % 10
    np.savez_compressed(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    whole = bytearray(path.read_bytes())
    begin = whole.index(b"x_train.npy") + 60
    whole[begin : begin + 20] = bytes(20)
    path.write_bytes(whole)
    with pytest.raises(ImageError, match=r"is no \.npz file with arrays"):
        read_labelled_images(path)


def test_a_folder_of_too_few_images(tmp_path):
    for kind in "ab":
        (tmp_path / kind).mkdir()
        for k in range(4):
            Image.new("L", (4, 4), k).save(tmp_path / kind / f"{k}.png")
    with pytest.raises(ImageError, match="has no class of 5 images"):
        read_labelled_images(tmp_path)


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(ImageError, match="no such file or folder"):
        read_labelled_images(tmp_path / "missing.npz")
    text = tmp_path / "notes.txt"
    text.write_text("no images", encoding="utf-8")
    with pytest.raises(ImageError, match=r"notes.txt: is no .npz file"):
        read_labelled_images(text)
    with pytest.raises(ImageError, match="two classes or more"):
        read_labelled_images(tmp_path)
    folder_of_classes(tmp_path / "pictures")
    (tmp_path / "pictures" / "dog" / "9.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"9.png: cannot be read as an image"):
        read_labelled_images(tmp_path / "pictures")
