"""Images, label maps and masks: any readable file -> `Volume(array, grid)`, and back into a file.

NIfTI goes through nibabel, every other format through SimpleITK. Every failure is one line: path, what is
wrong, way out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from r2reg.errors import GeometryError, ImageError, OutputError
from r2reg.geometry.grid import Grid
from r2reg.io import itk, nifti
from r2reg.io.files import atomic_path, full_suffix
from r2reg.io.placement import orthonormal, slice_grid
from r2reg.io.stderr import native_stderr_muted

NIFTI_SUFFIXES = (".nii", ".nii.gz")
VECTOR_INTENTS = (1005, 1006, 1007)  # symmetric matrix, displacement vector, vector
LABEL_DTYPES = (np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64)


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels and where they lie.

    Args:
        array: (X, Y) or (X, Y, Z), nibabel's axis order.
        grid: of the array's shape.
        path: the file or DICOM folder it came from.
        header: nibabel's header where the file was NIfTI; `write_image` keeps it.
    """

    array: np.ndarray
    grid: Grid
    path: Path | None = None
    header: Any = None

    def __post_init__(self) -> None:
        if self.array.shape != self.grid.shape:
            raise GeometryError(f"array {self.array.shape} and grid {self.grid.shape} differ in shape")

    def with_array(self, array: np.ndarray) -> Volume:
        """Other voxels at the same place."""
        return Volume(array, self.grid, self.path, self.header)


def read_image(
    path: Path | str, *, volume: int | None = None, ndim: int | None = None, allow_constant: bool = False
) -> Volume:
    """Intensities as float32.

    Args:
        volume: which one of a 4-D image.
        ndim: 3 keeps a single slice (X, Y, 1) three-dimensional; else it becomes 2-D, as ITK reads it in 2-D.
        allow_constant: accept an image without contrast (to resample it, not to register it).
    Raises:
        ImageError: missing or unreadable file, 4-D without `volume`, colours or vectors, an affine that is
            zero, NaN or sheared, NaN or infinite voxels, a constant image.
    """
    loaded = _load(Path(path), volume, ndim)
    return made_for("linear", loaded) if allow_constant else checked(loaded, "image")


def checked(loaded: Volume, kind: str) -> Volume:
    """A volume as it was stored, as an image (float32, not constant), labels (whole numbers) or a mask (bool).

    Raises:
        ImageError: see `read_image`, `read_labels`, `read_mask`.
    """
    path, array = loaded.path or Path(kind), loaded.array
    if kind == "mask":
        _check_finite(path, array)
        array = array > 0.5
        if not array.any():
            raise ImageError(f"{path}: the mask is empty (no voxel above 0.5); choose another or leave it out")
    elif kind == "labels":
        array = array if array.dtype.kind in "iu" else _to_integers(path, array)
        if not array.any():
            raise ImageError(f"{path}: the label map holds only 0; choose one with labels")
    else:
        array = _to_float32(path, array)
        if array.min() == array.max():
            raise ImageError(f"{path}: all voxels are {array.flat[0]:g}; choose an image with contrast")
    return loaded.with_array(array)


def read_stored(path: Path | str, *, volume: int | None = None, ndim: int | None = None) -> Volume:
    """Voxels in the file's own integer type, or as float32; any content that is finite.

    Raises:
        ImageError: as `read_image`, but for a constant image.
    """
    loaded = _load(Path(path), volume, ndim)
    if loaded.array.dtype.kind in "iu":
        return loaded
    return loaded.with_array(_to_float32(Path(path), loaded.array))


def read_reference(path: Path | str, *, ndim: int | None = None) -> Volume:
    """An image of which only grid and header count: any voxels, the first volume of a 4-D one.

    Raises:
        ImageError: a file or grid that cannot be used.
    """
    return _load(Path(path), 0, ndim)


def read_for(interpolation: str, path: Path | str, *, volume: int | None, ndim: int | None) -> Volume:
    """What an interpolation works on: label needs whole numbers, nearest keeps integers, others take float32.

    Raises:
        ImageError: as `read_image`, but for an image without contrast.
    """
    return made_for(interpolation, _load(Path(path), volume, ndim))


def made_for(interpolation: str, loaded: Volume) -> Volume:
    """`read_for` of a volume as it was stored."""
    path, array = loaded.path or Path("image"), loaded.array
    if interpolation in ("label", "nearest") and array.dtype.kind in "iu":
        return loaded
    return loaded.with_array(_to_integers(path, array) if interpolation == "label" else _to_float32(path, array))


def read_labels(
    path: Path | str, *, volume: int | None = None, ndim: int | None = None, allow_empty: bool = False
) -> Volume:
    """Labels in their own integer type; whole numbers stored as floats get the smallest type that holds them.

    Raises:
        ImageError: as `read_image`; values that are not whole numbers; no label but 0.
    """
    loaded = _load(Path(path), volume, ndim)
    return made_for("label", loaded) if allow_empty else checked(loaded, "labels")


def read_mask(path: Path | str, *, volume: int | None = None, ndim: int | None = None) -> Volume:
    """Mask as bool: True above one half.

    Raises:
        ImageError: as `read_image`; an empty mask.
    """
    return checked(_load(Path(path), volume, ndim), "mask")


def _to_float32(path: Path, array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # beyond float32: infinite, and reported as such
        array = array.astype(np.float32, copy=False)
    _check_finite(path, array)
    return array


def _check_finite(path: Path, array: np.ndarray) -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        # The sum can be finite only if every voxel is, and needs no array of flags.
        if np.isfinite(array.sum(dtype=np.float64)):
            return
    count = int((~np.isfinite(array)).sum())
    if count:
        raise ImageError(f"{path}: {count} voxels are NaN or infinite; replace them, e.g. by numpy.nan_to_num")


def _to_integers(path: Path, array: np.ndarray) -> np.ndarray:
    _check_finite(path, array)
    low, high = float(array.min()), float(array.max())
    bad = array[array != np.rint(array)]
    if bad.size:
        raise ImageError(
            f"{path}: label map with {bad.size} values that are not whole numbers, e.g. {bad[0]:g}; "
            "give the map that was not interpolated, or make it with --interpolation label"
        )
    for dtype in LABEL_DTYPES:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return array.astype(dtype)
    raise ImageError(f"{path}: labels from {low:g} to {high:g} do not fit 64 bits; renumber them")


def _load(path: Path, volume: int | None, ndim: int | None) -> Volume:
    if not path.exists():
        raise ImageError(f"{path}: no such file; check the path")
    if full_suffix(path) in NIFTI_SUFFIXES and path.is_file():
        return _load_nifti(path, volume, ndim)
    return _load_itk(path, volume, ndim)


def _load_nifti(path: Path, volume: int | None, ndim: int | None) -> Volume:
    image = nifti.load(path)
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 1:
        raise ImageError(f"{path}: has one dimension {shape}; r2reg registers 2-D and 3-D images")
    if len(shape) > 4 or (len(shape) == 4 and int(image.header["intent_code"]) in VECTOR_INTENTS):
        raise ImageError(f"{path}: is a vector or tensor image {image.shape}; give one value per voxel")
    array = nifti.data(path, image)  # first, for a colour image says more by its colours than by its grid
    chosen = _chosen_volume(path, shape, volume)
    array = array.reshape(shape) if chosen is None else array.reshape(shape)[..., chosen]
    d = _dimension(array.shape, ndim)
    grid = nifti.grid(path, image, d)
    return Volume(array.reshape(grid.shape), grid, path, image.header)


def _chosen_volume(path: Path, shape: tuple[int, ...], volume: int | None) -> int | None:
    """Index along the fourth axis, or None for an image without one."""
    count = shape[3] if len(shape) == 4 else 1
    if volume is None and count > 1:
        raise ImageError(
            f"{path}: has 4 dimensions {shape}; r2reg registers 3-D volumes. "
            "Take one volume out first (`r2reg apply --volume K` does)"
        )
    if volume is not None and not 0 <= volume < count:
        raise ImageError(f"{path}: has no volume {volume}; its volumes are 0 to {count - 1}")
    return volume if count > 1 else None


def _dimension(shape: tuple[int, ...], ndim: int | None) -> int:
    return 2 if len(shape) == 2 or (shape[2] == 1 and ndim != 3) else 3


def _load_itk(path: Path, volume: int | None, ndim: int | None) -> Volume:
    sitk = itk.simpleitk()
    try:
        with native_stderr_muted:
            image = _read_dicom(path) if path.is_dir() else sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise ImageError(
            f"{path}: cannot be read ({itk.reason(error)}); give NIfTI, .mha, .mhd, .nrrd or a DICOM folder"
        ) from error
    if "complex" in image.GetPixelIDTypeAsString():
        raise ImageError(f"{path}: holds complex numbers; save their magnitude")
    count = image.GetNumberOfComponentsPerPixel()
    if count > 1:
        raise ImageError(f"{path}: holds {count} values per voxel (RGB colours or vectors); convert it to one")
    chosen = _chosen_volume(path, image.GetSize(), volume)
    if image.GetDimension() == 4:
        image = image[:, :, :, chosen or 0]
    array = itk.from_sitk_image(image)
    grid = _itk_grid(path, image)
    if grid.ndim == 3 and _dimension(array.shape, ndim) == 2:
        grid = slice_grid(path, grid, stored_ndim=3)
    return Volume(array.reshape(grid.shape), grid, path)


def _itk_grid(path: Path, image: Any) -> Grid:
    try:
        return orthonormal(path, itk.grid_from_sitk(image))
    except GeometryError as error:
        raise ImageError(f"{path}: {error}") from error


def _read_dicom(folder: Path) -> Any:
    sitk = itk.simpleitk()
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not series:
        raise ImageError(f"{folder}: is a folder without DICOM images; give a file or a DICOM folder")
    if len(series) > 1:
        raise ImageError(
            f"{folder}: holds {len(series)} DICOM series ({', '.join(series)}); move one to a folder of its own"
        )
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0]))
    return reader.Execute()


def write_image(path: Path | str, array: np.ndarray, like: Volume) -> None:
    """Write voxels on the grid of `like`: NIfTI with its header, or with sform and qform of its grid.

    Args:
        array: (X, Y[, Z]) of like's grid. Floats are written as float32, integers in their type (int64 as
            int32 where the values fit), bool as uint8.
    Raises:
        OutputError: the file cannot be written, or its ending names no format.
    """
    path = Path(path)
    array = _to_writable(np.asarray(array))
    if array.shape != like.grid.shape:
        raise GeometryError(f"{path}: array {array.shape} does not lie on the grid {like.grid.shape}")
    with atomic_path(path) as temporary:
        if full_suffix(path) in NIFTI_SUFFIXES:
            nifti.save(temporary, nifti.new_image(array, like.grid, like.header))
        else:
            _write_itk(path, temporary, itk.to_sitk_image(array, like.grid))


def write_map(path: Path | str, array: np.ndarray, grid: Grid) -> None:
    """Write what was measured on a grid: (X, Y[, Z]), or with one axis more NIfTI of several volumes.

    Raises:
        OutputError: as `write_image`; several volumes in another format than NIfTI.
    """
    path = Path(path)
    if array.ndim == grid.ndim:
        return write_image(path, array, Volume(array, grid))
    if full_suffix(path) not in NIFTI_SUFFIXES:
        raise OutputError(f"{path}: several volumes are written as NIfTI; end the name in .nii.gz")
    volumes = array.reshape((*grid.shape, *(1,) * (3 - grid.ndim), array.shape[-1]))
    with atomic_path(path) as temporary:
        nifti.save(temporary, nifti.new_image(_to_writable(volumes), grid))
    return None


def _to_writable(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype.itemsize == 8 and array.size:
        small = np.iinfo(np.int32)
        return array.astype(np.int32) if small.min <= array.min() and array.max() <= small.max else array
    return array


def _write_itk(path: Path, temporary: Path, image: Any) -> None:
    if full_suffix(path) in (".mhd", ".hdr", ".img"):
        raise OutputError(f"{path}: an image in two files is not written; end the name in .mha or .nii.gz")
    sitk = itk.simpleitk()
    try:
        with native_stderr_muted:
            sitk.WriteImage(image, str(temporary), useCompression=True)
            sitk.ReadImage(str(temporary))  # ITK's writers do not notice a full disk
    except RuntimeError as error:
        raise OutputError(
            f"{path}: cannot be written ({itk.reason(error)}); end the name in .nii.gz, .mha or .nrrd, or free space"
        ) from error
