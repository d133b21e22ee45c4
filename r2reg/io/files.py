"""Files: written whole or not at all, and named by their content."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from r2reg.errors import OutputError

CHUNK_BYTES = 1 << 20


def full_suffix(path: Path) -> str:
    """The ending that decides a file's format, lower case; `.nii.gz` counts as one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def check_output(path: Path | str, overwrite: bool) -> Path:
    """The path, checked before long work starts.

    Raises:
        OutputError: it exists and may not be replaced, is a folder, or its folder is missing or read-only.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file")
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists already; give --overwrite to replace it")
    _check_folder(path)
    return path


def _check_folder(path: Path) -> None:
    if not path.parent.is_dir():
        raise OutputError(f"{path}: folder {path.parent} does not exist; create it or name another")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: folder {path.parent} is read-only; choose another one")


@contextmanager
def atomic_path(final: Path | str) -> Iterator[Path]:
    """A temporary path beside `final`, with its ending; moved to `final` on success, removed on failure.

    Raises:
        OutputError: the folder is missing or read-only, or the disk is full.
    """
    final = Path(final)
    _check_folder(final)
    # Not tempfile.mkstemp: it makes files that only their owner can read, whatever the umask.
    temporary = final.parent / f".{uuid.uuid4().hex[:12]}.{final.name}"
    try:
        yield temporary
        os.replace(temporary, final)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{final}: cannot be written ({reason}); free space or choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def staging(folder: Path, ours: Iterable[str] = (), last: str = "") -> Iterator[Path]:
    """A temporary folder inside `folder`, made if need be; what is in it moves into `folder` on success only.

    Args:
        ours: files and folders of an earlier result, removed before the first is moved.
        last: the file that is moved at the end: the mark of a whole result.
    Raises:
        OutputError: the folder cannot be made or written, or the disk is full.
    """
    made = first_missing(folder)
    temporary = folder / f".{uuid.uuid4().hex[:12]}"
    kept = False
    try:
        temporary.mkdir(parents=True)
        yield temporary
        found = sorted(temporary.iterdir(), key=lambda path: path.name == last)
        for old in [folder / name for name in ours] if found else []:
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old)
            old.unlink(missing_ok=True)
        for path in found:
            path.replace(folder / path.name)
        kept = bool(found)
    except OutputError as error:
        raise OutputError(str(error).replace(str(temporary), str(folder))) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{folder}: cannot be written ({reason}); free space or choose another folder") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if made is not None and not kept:
            shutil.rmtree(made, ignore_errors=True)


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def content_sha256(path: Path | str) -> str:
    """SHA-256 of a file, or of a folder's files in the order of their names (a DICOM series)."""
    path = Path(path)
    if not path.is_dir():
        return sha256(path)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.iterdir() if p.is_file()):
        digest.update(f"{file.name} {sha256(file)}\n".encode())
    return digest.hexdigest()


def first_missing(folder: Path) -> Path | None:
    """The outermost folder that will have to be made for this one; None where all are there."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    return missing[-1] if missing else None
