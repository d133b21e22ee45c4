"""4-D NIfTI images, a volume at a time: what is in memory does not grow with their number."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from r2reg.errors import ImageError, OutputError
from r2reg.geometry.grid import Grid
from r2reg.io import nifti
from r2reg.io.files import CHUNK_BYTES, atomic_path, full_suffix
from r2reg.io.images import NIFTI_SUFFIXES, VECTOR_INTENTS, Volume

EXTENSIONS = 4  # bytes after the header, all zero: there are none


@dataclass(frozen=True, eq=False)
class Series:
    """Volumes on one grid.

    Attributes:
        grid: of each. header: nibabel's, of all. count: of volumes.
    """

    path: Path
    grid: Grid
    header: Any
    count: int

    def __iter__(self) -> Iterator[Volume]:
        """Each volume in the file's own type, or scaled where the header says so.

        Raises:
            ImageError: a truncated or corrupt file.
        """
        dtype, shape = self.header.get_data_dtype(), self.header.get_data_shape()[:3]
        slope, inter = self.header.get_slope_inter()
        size = int(np.prod(shape)) * dtype.itemsize
        try:
            with _unpacked(self.path) as stream:
                stream.read(int(self.header.get_data_offset()))
                for _ in range(self.count):
                    raw = stream.read(size)
                    if len(raw) < size:
                        raise EOFError("fewer voxels than the header says")
                    array = np.frombuffer(raw, dtype).reshape(shape, order="F").astype(dtype.newbyteorder("="))
                    if slope is not None and (slope, inter) != (1, 0):
                        array = array * np.float64(slope) + np.float64(inter)
                    yield Volume(array.reshape(self.grid.shape), self.grid, self.path, self.header)
                while stream.read(CHUNK_BYTES):  # gzip's checksum stands at the end
                    pass
        except (OSError, EOFError, zlib.error) as error:
            raise ImageError(f"{self.path}: cannot be read ({error}); the file is truncated, fetch it again") from None


def _unpacked(path: Path) -> Any:
    with path.open("rb") as file:
        packed = file.read(2) == nifti.GZIP_MAGIC
    return gzip.open(path) if packed else path.open("rb")


def open_series(path: Path | str) -> Series | None:
    """A 4-D image; None for any other, which `images` reads.

    Raises:
        ImageError: a grid that cannot be used.
    """
    import nibabel
    from nibabel import imageglobals

    path = Path(path)
    if full_suffix(path) not in NIFTI_SUFFIXES or not path.is_file():
        return None
    try:
        with _unpacked(path) as stream:
            head = stream.read(nibabel.Nifti2Header.sizeof_hdr)
        kind = nibabel.Nifti2Header if nibabel.Nifti2Header.may_contain_header(head) else nibabel.Nifti1Header
        with nifti.silent(imageglobals.logger):
            header = kind(head[: kind.sizeof_hdr])
        nifti.check_pixdim(head, header)
    except Exception:  # whatever is wrong with it, `images` tells
        return None
    shape = header.get_data_shape()
    plain = header.get_data_dtype().kind in "iuf" and int(header["intent_code"]) not in VECTOR_INTENTS
    if len(shape) != 4 or shape[3] < 2 or not plain:
        return None
    placed = SimpleNamespace(header=header, affine=header.get_best_affine(), shape=shape)
    return Series(path, nifti.grid(path, placed, 3), header, int(shape[3]))


def write_series(path: Path | str, volumes: Iterable[np.ndarray], like: Volume, series: Series) -> None:
    """Write volumes on the grid of `like` with the times of `series`.

    Args:
        volumes: as many as series has, (X, Y, Z), of one type.
    Raises:
        OutputError: the file cannot be written, or is no NIfTI. ImageError: volumes of several types.
    """
    path = Path(path)
    if full_suffix(path) not in NIFTI_SUFFIXES:
        raise OutputError(f"{path}: several volumes are written as NIfTI; end the name in .nii.gz")
    with atomic_path(path) as temporary, nifti.packing(temporary) as stream:
        for number, array in enumerate(volumes):
            if number == 0:
                header = _header(array, like, series)
                stream.write(header.binaryblock + bytes(EXTENSIONS))
            if not np.can_cast(array.dtype, header.get_data_dtype()):
                raise ImageError(f"{series.path}: its volumes need different types; save it in an integer type")
            stream.write(array.astype(header.get_data_dtype(), copy=False).tobytes(order="F"))


def _header(first: np.ndarray, like: Volume, series: Series) -> Any:
    header = nifti.new_image(first, like.grid, like.header).header.as_byteswapped("<")
    header.set_data_shape((*header.get_data_shape()[:3], series.count))
    header["pixdim"][4] = series.header["pixdim"][4]
    header["toffset"] = series.header["toffset"]
    header.set_xyzt_units(header.get_xyzt_units()[0], series.header.get_xyzt_units()[1])
    header["vox_offset"] = header.sizeof_hdr + EXTENSIONS
    header["magic"] = header.single_magic
    return header
